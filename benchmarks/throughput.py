"""Small messages, source → map → sink in three processes: dflow against the reference.

    python -m benchmarks.throughput [--count N] [--rounds N] [--capacity N]

The graph is the plainest there is: three nodes, default options. The clock runs at the sink
from the first message to the last, so starting up is not in it. ``cpu_us`` is what all
processes of a round burnt for a message, starting up included.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import reference, workload
from benchmarks.registry import Benchmark, Figure
from benchmarks.rounds import Comparison, compare, measure_parser, own_cpu_s, print_table
from dflow import Graph, Input, Node, edge, node, source

__all__ = ["BENCHMARK", "Throughput", "measure", "one_round", "rows", "run_dflow"]

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


def one_round(run: Callable[[int, str], None], count: int) -> Throughput:
    """Run one side once and verify what the sink got."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "result.json")
        before_s = own_cpu_s()
        run(count, str(result))
        cpu_s = own_cpu_s() - before_s
        got = json.loads(result.read_text(encoding="utf-8"))
    if got["count"] != count or got["id_sum"] != count * (count - 1) // 2:
        raise RuntimeError(f"expected {count} messages, each once, got {got}")
    return Throughput(count / got["seconds"], cpu_s / count * 1e6)


def measure(rounds: int, count: int, capacity: int | None = None) -> Comparison[Throughput]:
    """Run both sides in turn, ``rounds`` times."""
    return compare(
        rounds,
        lambda: one_round(reference.run_throughput, count),
        lambda: one_round(lambda n, result: run_dflow(n, result, capacity), count),
    )


def rows(measured: Comparison[Throughput]) -> list[list[str]]:
    """Return the table's rows."""
    rate = measured.ratio(lambda one: one.rate)
    cpu = measured.ratio(lambda one: one.cpu_us)
    return [
        ["throughput, msg/s", f"{rate.reference:,.0f}", f"{rate.dflow:,.0f}", f"{rate.ratio:.2f}"],
        ["CPU, us a message", f"{cpu.reference:.2f}", f"{cpu.dflow:.2f}", f"{cpu.ratio:.2f}"],
    ]


BENCHMARK: Benchmark[Throughput] = Benchmark(
    name="throughput",
    measure=lambda effort: measure(effort.rounds, 2_000_000 // effort.share),
    figures=(Figure("rate", "msg/s", "higher", lambda one: one.rate, bar=0.75),),
)


def main() -> None:
    """Measure and print."""
    parser = measure_parser(__doc__)
    parser.add_argument("--count", type=int, default=1_000_000, help="messages a round")
    parser.add_argument("--capacity", type=int, help="of dflow's edges (default: dflow's own)")
    asked = parser.parse_args()
    measured = measure(asked.rounds, asked.count, asked.capacity)
    print_table(rows(measured))
    print(measured.disturbance() or f"the machine was quiet; {measured.repeated} rounds repeated")


if __name__ == "__main__":
    main()
