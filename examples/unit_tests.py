"""Test a graph in milliseconds: the real handlers and edges, in one process and virtual time.

    pytest examples/unit_tests.py
    python examples/unit_tests.py

The graph reads meters and warns when the average of a meter's last readings is too high. Its tests
need no process, no port and no waiting: `simulate` runs the whole graph in virtual time, in which
the slow model below takes 40 ms for a reading, and the test a moment. The seed decides what happens
in which order, so a failing test fails again.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator

import pytest

from dflow import Graph, Input, Node, Output, Priority, WorkerDied, sink, source
from dflow.testing import Faults, Kill, simulate, spend

MODEL_S = 0.040


@source
def readings(count: int) -> Iterator[dict[str, float]]:
    for n in range(count):
        yield {"meter": n % 5, "value": 100.0 if n % 50 >= 45 else 20.0}


class Smooth(Node):
    """Emits the average of a meter's last three readings when it is above the limit."""

    readings = Input(dict)
    limits = Input(float, priority=Priority.CONTROL)
    warnings = Output(dict)

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.last: defaultdict[float, deque[float]] = defaultdict(lambda: deque(maxlen=3))

    @readings.handler
    def look(self, reading: dict[str, float]) -> dict[str, float] | None:
        spend(MODEL_S)  # stands for a slow model, in virtual time only
        last = self.last[reading["meter"]]
        last.append(reading["value"])
        average = sum(last) / len(last)
        return {"meter": reading["meter"], "average": average} if average > self.limit else None

    @limits.handler
    def change(self, limit: float) -> None:
        self.limit = limit


@sink
def page(warning: dict[str, float]) -> None:
    """Wake somebody up."""


def meters(count: int, replicas: int = 1) -> Graph:
    graph = Graph("meters")
    smooth = Smooth(40.0).options(replicas=replicas)
    graph.connect(readings(count), smooth.readings, key="meter", capacity=16)
    graph.connect(smooth.warnings, page())
    return graph


def test_only_high_averages_are_told() -> None:
    simulation = simulate(meters(100), seed=1)
    warnings = simulation.results("page")
    assert len(warnings) == 20
    assert min(warning["average"] for warning in warnings) > 40


def test_a_new_limit_holds_at_once() -> None:
    quiet = simulate(meters(100), seed=1, send={"smooth.limits": [1000.0]})
    assert len(quiet.results("page")) == 0


def test_four_replicas_are_twice_as_fast_though_five_meters_do_not_divide_evenly() -> None:
    alone_s, shared_s = (simulate(meters(200, replicas=n), seed=1).now_s for n in (1, 4))
    assert alone_s > 200 * MODEL_S
    assert shared_s < alone_s / 2


@pytest.mark.parametrize("seed", range(5))
def test_lost_reports_and_a_busy_machine_lose_no_warning(seed: int) -> None:
    faults = Faults(drop_reports=0.1, duplicate_reports=0.1, stall_workers=2)
    assert len(simulate(meters(100), seed=seed, faults=faults).results("page")) == 20


def test_a_dead_worker_is_told_and_accounted_for() -> None:
    faults = Faults(exactly=[Kill("smooth[0]", at_s=1.0)])
    with pytest.raises(WorkerDied):
        simulate(meters(100), seed=1, faults=faults)
    assert simulate(meters(100), seed=1, faults=faults, raise_errors=False).report.balances


if __name__ == "__main__":
    result = simulate(meters(1000), seed=1)
    print(result.report)
    print(f"{result.now_s:.1f} s of virtual time, seed {result.seed}; the last events:")
    for event in result.trace.events[-5:]:
        print(event)
