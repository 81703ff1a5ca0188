"""Chains of light nodes, each node in a process of its own, against all of them fused in one.

    python -m benchmarks.fuse [--count N] [--rounds N]

Two chains: four nodes, of which two make a new dict of each message, and ten, of which eight only
pass it on, so that nearly all of what is measured is dflow. Both sides are dflow with the same
functions on the same messages (small dicts); only `Graph.fuse` differs. The clock runs at the sink
from the first message to the last. What arrived is checked. ``cpu_us`` is what all processes of a
round burnt for a message: the side with many processes may use as many cores, so the rate alone
would flatter it.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from benchmarks import workload
from benchmarks.registry import Benchmark
from benchmarks.rounds import MAX_REPEATS, Comparison, measure_parser, print_table
from benchmarks.throughput import Tally, Throughput, compare_runs, enrich, figures, readings
from dflow import Graph, Node, node

__all__ = ["BENCHMARKS", "CHAINS", "measure", "rows", "run_chain"]

HEAD = ("what", "processes", "fused", "ratio")

RELAYS = 8

relay = node(workload.relay)


def _four() -> list[Node]:
    return [enrich(), enrich()]


def _relays() -> list[Node]:
    return [relay() for _ in range(RELAYS)]


CHAINS: dict[str, Callable[[], list[Node]]] = {"fuse": _four, "fuse-relays": _relays}
"""What stands between source and sink, by the name of the benchmark."""


def run_chain(count: int, result: str, *, fused: bool, chain: str = "fuse") -> None:
    """Run the chain once; the sink writes to the file ``result``."""
    nodes = [readings(count), *CHAINS[chain](), Tally(result)]
    graph = Graph("fuse")
    for sender, receiver in pairwise(nodes):
        graph.connect(sender, receiver)
    if fused:
        graph.fuse(*nodes)
    report = graph.run(log_level="WARNING")
    if report.outcome != "finished" or not report.balances:
        raise RuntimeError(f"expected a finished run whose books balance, got\n{report}")


def measure(
    rounds: int, count: int, repeats: int = MAX_REPEATS, chain: str = "fuse"
) -> Comparison[Throughput]:
    """Run both sides of a chain in turn, ``rounds`` times."""
    return compare_runs(
        rounds,
        count,
        lambda n, result: run_chain(n, result, fused=False, chain=chain),
        lambda n, result: run_chain(n, result, fused=True, chain=chain),
        repeats,
        times=4,
    )


def rows(measured: Comparison[Throughput], what: str) -> list[list[str]]:
    """Return the table's rows."""
    rate = measured.ratio(lambda one: one.rate)
    cpu = measured.ratio(lambda one: one.cpu_us)
    return [
        [f"{what}, msg/s", f"{rate.reference:,.0f}", f"{rate.dflow:,.0f}", f"{rate.ratio:.2f}"],
        [f"{what}, CPU us a message", f"{cpu.reference:.2f}", f"{cpu.dflow:.2f}",
         f"{cpu.ratio:.2f}"],
    ]  # fmt: skip


BENCHMARKS: tuple[Benchmark[Throughput], ...] = (
    Benchmark(
        name="fuse",
        measure=lambda effort: measure(effort.rounds, 1_000_000 // effort.share, effort.repeats),
        figures=figures(bar=3.0),
    ),
    Benchmark(
        name="fuse-relays",
        measure=lambda effort: measure(
            effort.rounds, 400_000 // effort.share, effort.repeats, "fuse-relays"
        ),
        figures=figures(bar=3.0),
        short=False,
    ),
)


def main() -> None:
    """Measure and print."""
    parser = measure_parser(__doc__)
    parser.add_argument("--count", type=int, default=1_000_000, help="messages a round")
    asked = parser.parse_args()
    table: list[list[str]] = []
    for name in CHAINS:
        count = asked.count if name == "fuse" else asked.count * 2 // 5
        measured = measure(asked.rounds, count, chain=name)
        table += rows(measured, "four nodes" if name == "fuse" else f"{RELAYS + 2} nodes")
        print(f"{name}: {measured.disturbance() or 'the machine was quiet'}")
    print_table(table, HEAD)


if __name__ == "__main__":
    main()
