"""Small messages over one hop, source → sink in two processes: dflow against the reference.

    python -m benchmarks.hop [--count N] [--rounds N]

What `benchmarks.throughput` measures, without the map: both processes have a core of their own
where there are two, so the slower of the two ends decides.
"""

from __future__ import annotations

from benchmarks import reference, throughput
from benchmarks.registry import Benchmark
from benchmarks.rounds import MAX_REPEATS, Comparison, measure_parser, print_table
from benchmarks.throughput import Tally, readings
from dflow import Graph, edge

__all__ = ["BENCHMARK", "measure", "run_dflow"]


def run_dflow(count: int, result: str) -> None:
    """Run the graph once; the sink writes to the file ``result``."""
    link = edge(capacity=reference.WINDOW)
    report = Graph("hop", readings(count) >> link >> Tally(result)).run(log_level="WARNING")
    if report.outcome != "finished" or not report.balances:
        raise RuntimeError(f"expected a finished run whose books balance, got\n{report}")


def measure(
    rounds: int, count: int, repeats: int = MAX_REPEATS
) -> Comparison[throughput.Throughput]:
    """Run both sides in turn, ``rounds`` times."""
    return throughput.compare_runs(rounds, count, reference.run_one_hop, run_dflow, repeats)


BENCHMARK: Benchmark[throughput.Throughput] = Benchmark(
    name="hop",
    measure=lambda effort: measure(effort.rounds, 2_000_000 // effort.share, effort.repeats),
    figures=throughput.figures(bar=0.85),
)


def main() -> None:
    """Measure and print."""
    parser = measure_parser(__doc__)
    parser.add_argument("--count", type=int, default=1_000_000, help="messages a round")
    asked = parser.parse_args()
    measured = measure(asked.rounds, asked.count)
    print_table(throughput.rows(measured))
    print(measured.disturbance() or f"the machine was quiet; {measured.repeated} rounds repeated")


if __name__ == "__main__":
    main()
