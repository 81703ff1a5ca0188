"""Small messages, source → map → sink in three processes: dflow against the reference.

    python -m benchmarks.throughput [--count N] [--rounds N] [--capacity N]

The graph is the plainest there is: three nodes whose edges have the window the reference has
(8,192 messages; ``--capacity 0``, and ``throughput-default``: dflow's own default). The clock
runs at the sink from the first message to the last, so starting up is not in it. ``cpu_us`` is
what all processes of a round burnt for a message; what starting up burns is measured with runs of
one message and taken off. Of the two it is the steady one: other programs on the machine take
cores away, and with them half the rate, but hardly change what a message costs.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import reference, workload
from benchmarks.registry import Benchmark, Figure
from benchmarks.rounds import (
    MAX_REPEATS,
    Comparison,
    compare,
    measure_parser,
    own_cpu_s,
    print_table,
)
from dflow import Graph, Input, Node, edge, node, source

__all__ = [
    "BENCHMARKS",
    "Tally",
    "Throughput",
    "compare_runs",
    "figures",
    "measure",
    "one_round",
    "readings",
    "rows",
    "run_dflow",
    "start_cpu_s",
]

Run = Callable[[int, str], None]
"""Runs one side: how many messages, and the file the sink writes its result to."""

readings = source(workload.readings)
enrich = node(workload.enrich)


class Tally(workload.ThroughputTally, Node):
    """The sink: exactly the reference's."""

    messages = Input(dict[str, Any])
    add = messages.handler(workload.ThroughputTally.add)
    on_end = workload.ThroughputTally.finish


@dataclass(frozen=True, slots=True)
class Throughput:
    """One round. ``rate`` in messages a second, ``cpu_us`` in microseconds a message."""

    rate: float
    cpu_us: float


def run_dflow(
    count: int, result: str, capacity: int | None = None, slots: int | None = None
) -> None:
    """Run the graph once; the sink writes to the file ``result``."""
    link = edge() if capacity is None else edge(capacity=capacity)
    chain = readings(count) >> link >> enrich() >> link >> Tally(result)
    report = Graph("throughput", chain).run(log_level="WARNING", slots=slots)
    if report.outcome != "finished" or not report.balances:
        raise RuntimeError(f"expected a finished run whose books balance, got\n{report}")


def one_round(run: Run, count: int, start_s: float = 0.0) -> Throughput:
    """Run one side once and verify what the sink got; ``start_s``: CPU seconds to take off."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "result.json")
        before_s = own_cpu_s()
        run(count, str(result))
        cpu_s = own_cpu_s() - before_s - start_s
        got = json.loads(result.read_text(encoding="utf-8"))
    if got["count"] != count or got["id_sum"] != count * (count - 1) // 2:
        raise RuntimeError(f"expected {count} messages, each once, got {got}")
    return Throughput(count / max(got["seconds"], 1e-9), cpu_s / count * 1e6)


def start_cpu_s(run: Run, count: int = 1) -> float:
    """Return the CPU seconds of starting up and shutting down, from runs of ``count`` messages."""
    return median(one_round(run, count).cpu_us for _ in range(3)) * count / 1e6


def compare_runs(
    rounds: int,
    count: int,
    reference: Run,
    dflow: Run,
    repeats: int = MAX_REPEATS,
    times: int = 1,
) -> Comparison[Throughput]:
    """Run both sides in turn, ``rounds`` times, after measuring what starting them costs.

    ``times``: how many times as many messages ``dflow`` gets, so that a side that is so much
    faster runs as long.
    """
    starts_s = start_cpu_s(reference), start_cpu_s(dflow)
    return compare(
        rounds,
        lambda: one_round(reference, count, starts_s[0]),
        lambda: one_round(dflow, count * times, starts_s[1]),
        repeats,
    )


def measure(
    rounds: int, count: int, capacity: int | None = reference.WINDOW, repeats: int = MAX_REPEATS
) -> Comparison[Throughput]:
    """Run the reference and dflow in turn, ``rounds`` times; ``capacity`` None: dflow's default."""
    return compare_runs(
        rounds,
        count,
        reference.run_throughput,
        lambda n, result: run_dflow(n, result, capacity),
        repeats,
    )


def rows(measured: Comparison[Throughput]) -> list[list[str]]:
    """Return the table's rows."""
    rate = measured.ratio(lambda one: one.rate)
    cpu = measured.ratio(lambda one: one.cpu_us)
    return [
        ["throughput, msg/s", f"{rate.reference:,.0f}", f"{rate.dflow:,.0f}", f"{rate.ratio:.2f}"],
        ["CPU, us a message", f"{cpu.reference:.2f}", f"{cpu.dflow:.2f}", f"{cpu.ratio:.2f}"],
    ]


def figures(bar: float | None = None) -> tuple[Figure[Throughput], ...]:
    """Return the figures of small messages; ``bar``: of the rate."""
    return (
        Figure("rate", "msg/s", "higher", lambda one: one.rate, bar=bar, busy_tolerance=0.35),
        Figure("cpu", "us/msg", "lower", lambda one: one.cpu_us),
    )


BENCHMARKS: tuple[Benchmark[Throughput], ...] = (
    Benchmark(
        name="throughput",
        measure=lambda effort: measure(
            effort.rounds, 2_000_000 // effort.share, repeats=effort.repeats
        ),
        figures=figures(bar=0.75),
    ),
    Benchmark(
        name="throughput-default",
        measure=lambda effort: measure(
            effort.rounds, 2_000_000 // effort.share, None, effort.repeats
        ),
        figures=figures(),
        short=False,
    ),
)


def main() -> None:
    """Measure and print."""
    parser = measure_parser(__doc__)
    parser.add_argument("--count", type=int, default=1_000_000, help="messages a round")
    parser.add_argument(
        "--capacity",
        type=int,
        default=reference.WINDOW,
        help="of dflow's edges (default: the reference's window; 0: dflow's own default)",
    )
    asked = parser.parse_args()
    measured = measure(asked.rounds, asked.count, asked.capacity or None)
    print_table(rows(measured))
    print(measured.disturbance() or f"the machine was quiet; {measured.repeated} rounds repeated")


if __name__ == "__main__":
    main()
