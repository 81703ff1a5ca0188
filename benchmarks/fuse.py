"""A chain of four light nodes, each in a process of its own, against all four fused in one.

    python -m benchmarks.fuse [--count N] [--rounds N]

Both sides are dflow with the same functions on the same messages (small dicts); only
`Graph.fuse` differs. The clock runs at the sink from the first message to the last. What
arrived is checked. ``cpu_us`` is what all processes of a round burnt for a message: the side
with four processes may use as many cores, so the rate alone would flatter it.
"""

from __future__ import annotations

from benchmarks.registry import Benchmark
from benchmarks.rounds import MAX_REPEATS, Comparison, measure_parser, print_table
from benchmarks.throughput import Tally, Throughput, compare_runs, enrich, figures, readings
from dflow import Graph

__all__ = ["BENCHMARK", "measure", "rows", "run_chain"]

HEAD = ("what", "four processes", "fused", "ratio")


def run_chain(count: int, result: str, *, fused: bool) -> None:
    """Run the chain once; the sink writes to the file ``result``."""
    nodes = [readings(count), enrich(), enrich(), Tally(result)]
    graph = Graph("fuse", nodes[0] >> nodes[1] >> nodes[2] >> nodes[3])
    if fused:
        graph.fuse(*nodes)
    report = graph.run(log_level="WARNING")
    if report.outcome != "finished" or not report.balances:
        raise RuntimeError(f"expected a finished run whose books balance, got\n{report}")


def measure(rounds: int, count: int, repeats: int = MAX_REPEATS) -> Comparison[Throughput]:
    """Run both sides in turn, ``rounds`` times."""
    return compare_runs(
        rounds,
        count,
        lambda n, result: run_chain(n, result, fused=False),
        lambda n, result: run_chain(n, result, fused=True),
        repeats,
        times=4,
    )


def rows(measured: Comparison[Throughput]) -> list[list[str]]:
    """Return the table's rows."""
    rate = measured.ratio(lambda one: one.rate)
    cpu = measured.ratio(lambda one: one.cpu_us)
    return [
        [
            "chain of four, msg/s",
            f"{rate.reference:,.0f}",
            f"{rate.dflow:,.0f}",
            f"{rate.ratio:.2f}",
        ],
        ["CPU, us a message", f"{cpu.reference:.2f}", f"{cpu.dflow:.2f}", f"{cpu.ratio:.2f}"],
    ]


BENCHMARK: Benchmark[Throughput] = Benchmark(
    name="fuse",
    measure=lambda effort: measure(effort.rounds, 1_000_000 // effort.share, effort.repeats),
    figures=figures(bar=3.0),
)


def main() -> None:
    """Measure and print."""
    parser = measure_parser(__doc__)
    parser.add_argument("--count", type=int, default=1_000_000, help="messages a round")
    asked = parser.parse_args()
    measured = measure(asked.rounds, asked.count)
    print_table(rows(measured), HEAD)
    print(measured.disturbance() or f"the machine was quiet; {measured.repeated} rounds repeated")


if __name__ == "__main__":
    main()
