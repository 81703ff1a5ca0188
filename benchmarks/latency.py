"""One message a millisecond over two hops: dflow against bare PUSH/PULL sockets.

    python -m benchmarks.latency [--count N] [--rounds N] [--spin] [--spin-s S]

Every message carries the monotonic clock of the moment it was made; its age is taken in the
sink's handler. Both sides wait for the same absolute schedule in the same generator, asleep
or, with ``--spin``, burning a core (which leaves the other two processes one of two cores). With
``--spin-s`` dflow's relay and sink have that option: they keep looking for messages instead of
sleeping.
The first `WARM_UP` messages are left out: connections are being made and processes started.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import reference, workload
from benchmarks.registry import Benchmark, Figure
from benchmarks.rounds import MAX_REPEATS, Comparison, compare, measure_parser, print_table
from dflow import Graph, Input, Node, node, source

__all__ = ["BENCHMARK", "Ages", "measure", "rows"]

WARM_UP = 1000
INTERVAL_S = 0.001

stamped = source(workload.stamped)
relay = node(workload.relay)


class Ages(workload.LatencyTally, Node):
    """The sink: exactly the reference's."""

    messages = Input(dict[str, Any])
    add = messages.handler(workload.LatencyTally.add)
    on_end = workload.LatencyTally.finish


@dataclass(frozen=True, slots=True)
class Latency:
    """One round: percentiles of the age at the sink, in microseconds."""

    p50_us: float
    p99_us: float
    p999_us: float
    max_us: float


def run_dflow(
    count: int, interval_s: float, spin: bool, result: str, *, spin_s: float = 0.0
) -> None:
    """Run the graph once; the sink writes to the file ``result``."""
    middle, sink = relay().options(spin_s=spin_s), Ages(result).options(spin_s=spin_s)
    chain = stamped(count, interval_s, spin) >> middle >> sink
    report = Graph("latency", chain).run(log_level="WARNING")
    if report.outcome != "finished" or not report.balances:
        raise RuntimeError(f"expected a finished run whose books balance, got\n{report}")


def one_round(run: Callable[[int, float, bool, str], None], count: int, spin: bool) -> Latency:
    """Run one side once and verify what the sink got."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "result.json")
        run(count + WARM_UP, INTERVAL_S, spin, str(result))
        got = json.loads(result.read_text(encoding="utf-8"))
    if len(got["ages_ns"]) != count + WARM_UP or not got["in_order"]:
        raise RuntimeError(f"expected {count + WARM_UP} messages in order, got {got}")
    ages_us = sorted(age / 1000 for age in got["ages_ns"][WARM_UP:])
    p50, p99, p999 = (ages_us[int(count * part)] for part in (0.5, 0.99, 0.999))
    return Latency(p50, p99, p999, ages_us[-1])


def measure(
    rounds: int,
    count: int,
    spin: bool = False,
    repeats: int = MAX_REPEATS,
    spin_s: float = 0.0,
) -> Comparison[Latency]:
    """Run both sides in turn, ``rounds`` times."""
    return compare(
        rounds,
        lambda: one_round(reference.run_latency, count, spin),
        lambda: one_round(partial(run_dflow, spin_s=spin_s), count, spin),
        repeats,
    )


def rows(measured: Comparison[Latency]) -> list[list[str]]:
    """Return the table's rows."""
    found = []
    for name in ("p50", "p99", "p999"):
        one = measured.ratio(lambda latency, name=name: getattr(latency, f"{name}_us"))  # type: ignore[misc]  # mypy cannot infer a lambda with a default
        figures = [f"{one.reference:.0f}", f"{one.dflow:.0f}", f"{one.ratio:.2f}"]
        found.append([f"latency {name}, two hops, us", *figures])
    return found


BENCHMARK: Benchmark[Latency] = Benchmark(
    name="latency",
    measure=lambda effort: measure(effort.rounds, 4000 // effort.share, repeats=effort.repeats),
    figures=(
        Figure("p50", "us", "lower", lambda one: one.p50_us, bar=1.5, busy_tolerance=0.5),
        Figure(
            "p99",
            "us",
            "lower",
            lambda one: one.p99_us,
            bar=2.0,
            tolerance=0.30,
            busy_tolerance=1.0,
            why="forty messages decide it, and each of them met another program",
            short=False,
        ),
    ),
)


def main() -> None:
    """Measure and print."""
    parser = measure_parser(__doc__)
    parser.add_argument("--count", type=int, default=4000, help="messages a round")
    parser.add_argument("--spin", action="store_true", help="wait by spinning, not by sleeping")
    parser.add_argument("--spin-s", type=float, default=0.0, help="spin_s of relay and sink")
    asked = parser.parse_args()
    measured = measure(asked.rounds, asked.count, asked.spin, spin_s=asked.spin_s)
    print_table(rows(measured))
    print(measured.disturbance() or f"the machine was quiet; {measured.repeated} rounds repeated")


if __name__ == "__main__":
    main()
