"""`dflow.testing.simulate` as its users see it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from dflow import Graph, Input, Node, Output, Priority, edge, node, sink, source
from dflow.errors import DflowError, GraphError, HookFailed, OptionError, WorkerDied
from dflow.report import RunReport
from dflow.testing import (
    Cut,
    Drop,
    Faults,
    Kill,
    SimulationFailed,
    Stall,
    simulate,
    spend,
)  # fmt: skip
from dflow.testing.network import ControlLink
from dflow.worker.plane import DataPlane


@source
def numbers(n: int) -> Iterator[int]:
    yield from range(n)


@node
def square(x: int) -> int:
    return x * x


@node
def slow(x: int) -> int:
    spend(0.003)
    return x


@sink
def show(x: int) -> None:
    pass


def squares(n: int = 20, **options: Any) -> Graph:
    return Graph("squares", numbers(n) >> square().options(**options) >> show())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"graph": squares}, "graph=...): expected a Graph"),
        ({"faults": [Kill("square[0]", 0.1)]}, "faults=...): expected Faults"),
        ({"send": [1]}, "send=...): expected a mapping"),
        ({"send": {"square": 5}}, "send=...): expected a mapping from inputs to lists"),
        ({"limit_s": -1}, "limit_s=...): expected seconds above 0, got -1"),
        ({"limit_s": float("nan")}, "limit_s=...): expected seconds"),
        ({"limit_s": "a"}, "limit_s=...): expected seconds"),
    ],
)
def test_wrong_arguments_are_named(wrong: dict[str, Any], said: str) -> None:
    arguments: dict[str, Any] = {"graph": squares()} | wrong
    with pytest.raises(OptionError) as raised:
        simulate(arguments.pop("graph"), **arguments)
    assert said in str(raised.value)


@pytest.mark.parametrize("wrong", [{"kill_workers": -1}, {"cut_links": 0.5}, {"exactly": ["x"]}])
def test_wrong_faults_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(wrong))):
        Faults(**wrong)


def test_a_graph_runs_to_its_end_and_tells_what_each_node_emitted() -> None:
    simulation = simulate(squares(5), seed=1)
    assert simulation.results("numbers") == [0, 1, 2, 3, 4]
    assert simulation.results("square") == simulation.results("show") == [0, 1, 4, 9, 16]
    assert simulation.report.outcome == "finished"


def test_the_same_seed_gives_the_same_trace_and_another_one_another() -> None:
    one, again, other = (simulate(squares(replicas=2), seed=seed) for seed in (1, 1, 2))
    assert str(one.trace) == str(again.trace) != str(other.trace)


def test_a_lost_last_report_does_not_stop_the_run() -> None:
    graph = Graph("g", numbers(3) >> edge(capacity=1) >> square() >> show())
    lost = Faults(exactly=[Drop("numbers[0].out->square[0].in", 1)])
    simulation = simulate(graph, seed=1, faults=lost)
    assert simulation.results("show") == [0, 1, 4]
    assert 1 < simulation.now_s < 3  # it was asked for after a second


def test_a_cut_connection_ends_the_run_by_name() -> None:
    graph = Graph("g", numbers(50) >> edge(capacity=4) >> slow() >> show())
    cut = Faults(exactly=[Cut("numbers.out->slow.in", at_s=0.02)])
    with pytest.raises(HookFailed, match=r"edge numbers\.out->slow\.in") as caught:
        simulate(graph, seed=1, faults=cut)
    report = caught.value.report
    assert isinstance(report, RunReport)
    assert report.balances


def test_a_connection_cut_after_the_sender_is_done_is_noticed() -> None:
    """It has said that it is drained, and hears only then that its END was refused."""
    graph = Graph("g", numbers(50) >> slow().options(replicas=3) >> show())
    with pytest.raises(HookFailed, match="refused"):
        simulate(graph, seed=1, faults=Faults(cut_links=1, within_s=(0.003, 0.02)), limit_s=60)


@node
async def late(x: int) -> int:
    await asyncio.sleep(0.001 * (3 - x % 4))
    return x


@node
def sleepy(x: int) -> int:
    time.sleep(1)
    return x


@node
def picky(x: int) -> int:
    if x % 3 == 2:
        raise ValueError(x)
    return x


class Adding(Node):
    """Adds what it was told last."""

    numbers = Input(int)
    settings = Input(int, priority=Priority.CONTROL)
    sums = Output(int)

    def __init__(self) -> None:
        self.added = 0

    @numbers.handler
    def add(self, x: int) -> int:
        spend(0.001)
        return x + self.added

    @settings.handler
    def change(self, added: int) -> None:
        self.added = added


def test_messages_come_from_outside_while_the_graph_runs() -> None:
    graph = Graph("g")
    adding = Adding()
    graph.connect(numbers(100), adding.numbers)
    graph.connect(adding.sums, show())
    simulation = simulate(graph, seed=1, send={adding.settings: [1000]})
    values = simulation.results("show")
    changed = next(i for i, value in enumerate(values) if value >= 1000)
    assert values == [*range(changed), *range(1000 + changed, 1100)]


def test_what_only_the_outside_feeds_ends_when_everything_is_sent() -> None:
    graph = Graph("g")
    squares = square()
    graph.connect(squares, show())
    graph.accept(squares, capacity=2)
    simulation = simulate(graph, seed=1, send={"square": range(10)})
    assert simulation.results("show") == [x * x for x in range(10)]
    assert simulation.report.balances


def test_what_is_sent_too_late_is_told() -> None:
    simulation = simulate(squares(0), seed=1, send={"square": [1]})
    [(place, value, error)] = simulation.refused
    assert (place, value) == ("square.in", 1)
    assert "has ended" in str(error)


def test_the_order_of_an_ordered_node_is_kept_though_replicas_and_coroutines_overtake() -> None:
    graph = Graph("g", numbers(30) >> late().options(replicas=2, ordered=True) >> show())
    simulation = simulate(graph, seed=1)
    assert simulation.results("late") == simulation.results("show") == list(range(30))


def test_sleeping_takes_virtual_time_only() -> None:
    graph = Graph("g", numbers(100) >> sleepy() >> show())
    began = time.monotonic()
    simulation = simulate(graph, seed=1)
    assert simulation.now_s > 100
    assert time.monotonic() - began < 50


def test_a_handlers_error_is_counted_and_logged() -> None:
    simulation = simulate(Graph("g", numbers(6) >> picky() >> show()), seed=1)
    assert simulation.results("show") == [0, 1, 3, 4]
    assert [node.errors for node in simulation.report.nodes] == [0, 2, 0]
    assert any(
        worker == "picky[0]" and level == "ERROR" and "ValueError" in text
        for worker, level, text in simulation.logs
    )


def test_a_failed_run_raises_what_a_real_one_does_with_the_simulation() -> None:
    graph = Graph("g", numbers(6) >> picky().options(on_error="stop") >> show())
    with pytest.raises(HookFailed, match="ValueError: 2") as caught:
        simulate(graph, seed=5)
    assert caught.value.simulation.seed == 5  # type: ignore[attr-defined]  # added by simulate
    assert "simulate(graph, seed=5)" in "".join(caught.value.__notes__)
    quiet = simulate(graph, seed=5, raise_errors=False)
    assert quiet.outcome == "failed"


def test_a_killed_worker_ends_the_run_with_books_that_balance() -> None:
    faults = Faults(exactly=[Kill("square[1]", at_s=0.006)])
    with pytest.raises(WorkerDied, match=r"square\[1\]: worker died: killed by SIGKILL"):
        simulate(squares(5000, replicas=2), seed=1, faults=faults)
    report = simulate(squares(5000, replicas=2), seed=1, faults=faults, raise_errors=False).report
    assert report.balances


def test_a_worker_without_a_processor_only_delays_the_run() -> None:
    graph = Graph("g", numbers(50) >> edge(capacity=4) >> slow() >> show())
    faults = Faults(exactly=[Stall("slow[0]", at_s=0.01, for_s=2.0)])
    simulation = simulate(graph, seed=1, faults=faults)
    assert simulation.results("show") == list(range(50))
    assert simulation.now_s > 2


@pytest.mark.parametrize(
    "faults",
    [
        Faults(drop_reports=0.2, duplicate_reports=0.2, stall_workers=2),
        Faults(delay_s=(0, 0.004), drop_reports=0.2, duplicate_reports=0.2),
        Faults(kill_workers=1),
        Faults(cut_links=1, duplicate_reports=0.3),
    ],
    ids=["reports and stalls", "delays", "a death", "a cut"],
)
def test_what_came_true_can_be_given_back(faults: Faults) -> None:
    graph = Graph("g", numbers(50) >> edge(capacity=4) >> slow() >> show())
    first = simulate(graph, seed=3, faults=faults, raise_errors=False)
    assert first.drawn
    again = simulate(graph, seed=3, faults=first.exact_faults, raise_errors=False)
    assert str(again.trace) == str(first.trace)


def test_what_a_killed_worker_had_to_say_may_be_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    lost: list[str] = []
    monkeypatch.setattr(ControlLink, "lose", lambda link: lost.append(link.process.name))
    graph = Graph("g", numbers(50) >> edge(capacity=4) >> slow() >> show())
    kill = Faults(exactly=[Kill("slow[0]", at_s=0.006)])
    for seed in range(8):
        assert simulate(graph, seed=seed, faults=kill, raise_errors=False).report.balances
    assert 0 < len(lost) < 8
    assert set(lost) == {"slow[0]"}


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        ({"drop_reports": 2}, "share of 0 to 1"),
        ({"delay_s": (2, 1)}, "least, most"),
        ({"delay_s": 5}, "least, most"),
        ({"within_s": (0, float("nan"))}, "least, most"),
        ({"drop_reports": "1"}, "share of 0 to 1"),
        ({"kill_workers": -1}, "how often, 0 or more"),
        ({"cut_links": 0.5}, "how often, 0 or more"),
        ({"exactly": [1]}, "expected Kill, Stall"),
        ({"exactly": 1}, "a list of faults"),
        ({"exactly": [Kill("show[0]", -1)]}, "expected seconds, 0 or more as at_s, got -1"),
        ({"exactly": [Drop("numbers.out->square.in", 0)]}, "1 or more as number, got 0"),
        ({"exactly": [Kill("nobody[0]", 1)]}, r"expected one of the workers numbers\[0\]"),
        ({"exactly": [Cut("a.out->b.in", 1)]}, r"expected one of the channels numbers\[0\]"),
    ],
)
def test_a_fault_that_cannot_be_is_refused(faults: dict[str, Any], message: str) -> None:
    with pytest.raises((OptionError, GraphError), match=message):
        simulate(squares(), faults=Faults(**faults))


@pytest.mark.parametrize("given", [{"seed": "a"}, {"seed": 1.5}])
def test_what_no_simulation_can_have_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=f"simulate\\({next(iter(given))}="):
        simulate(squares(), **given)


def test_a_participant_that_crashes_is_dflows_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def flush(plane: DataPlane) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(DataPlane, "flush", flush)
    with pytest.raises(SimulationFailed, match="got RuntimeError: a bug") as caught:
        simulate(squares(), seed=9)
    assert "simulate(graph, seed=9)" in str(caught.value)


def test_who_cannot_end_is_found_within_the_limit() -> None:
    @source
    def endless() -> Iterator[int]:
        while True:
            spend(1)
            yield 1

    with pytest.raises(SimulationFailed, match="expected the run to be over within 20 s"):
        simulate(Graph("g", endless() >> show()), seed=1, limit_s=20)


def test_time_is_not_virtual_outside_of_a_simulation() -> None:
    began = time.monotonic()
    spend(0.002)
    time.sleep(0.002)
    assert time.monotonic() - began >= 0.004


def test_results_are_kept_unless_they_are_not_wanted() -> None:
    simulation = simulate(squares(5), seed=1, keep=False)
    assert [node.handled for node in simulation.report.nodes] == [0, 5, 5]
    with pytest.raises(DflowError, match="keep=True"):
        simulation.results("show")


def test_a_simulation_may_be_made_in_any_thread_and_in_several() -> None:
    found: list[list[int]] = []
    threads = [
        threading.Thread(target=lambda: found.append(simulate(squares(9)).results("show")))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[x * x for x in range(9)]] * 3


def test_it_needs_greenlet_only_when_something_is_simulated() -> None:
    code = """
import sys
import dflow.testing
assert not {"greenlet", "zmq"} & set(sys.modules)
sys.modules["greenlet"] = None
dflow.testing.spend(0)
try:
    dflow.testing.simulate(None)
except ImportError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'dflow[testing]'" in run.stdout
