"""Nodes the stress tests share, and the way they run a graph and judge it."""

from __future__ import annotations

import resource
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dflow import Context, Graph, Input, Node, Output, RunReport, source

__all__ = [
    "Checker",
    "Verdict",
    "assert_edges_bounded",
    "assert_memory_alike",
    "note_peak",
    "numbered",
    "peak_mb",
    "run_checked",
]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a `Checker` saw: messages by origin, and how many were not the next of theirs."""

    counts: dict[str, int]
    misplaced: int


@source
def numbered(origin: str, count: int, ctx: Context) -> Iterator[tuple[str, int]]:
    """Yield ``(origin, 0) … (origin, count - 1)``."""
    for number in range(count):
        yield origin, number
    note_peak(ctx)


class Checker(Node):
    """Counts messages ``(origin, number, …)`` and checks that each is the next of its origin."""

    messages = Input(Any)
    verdict = Output(Verdict, required=True)

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.misplaced = 0

    @messages.handler
    def check(self, message: tuple[Any, ...]) -> None:
        """Compare with what is due."""
        origin, number = message[0], message[1]
        due = self.counts.get(origin, 0)
        self.misplaced += number != due
        self.counts[origin] = due + 1

    def on_end(self, ctx: Context) -> None:
        """Emit the verdict."""
        note_peak(ctx)
        self.verdict.emit(Verdict(self.counts, self.misplaced))


def note_peak(ctx: Context) -> None:
    """Keep the worker's largest resident size as a metric of its node, in megabytes."""
    ctx.metrics.gauge("peak_mb", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6)


def peak_mb(report: RunReport, node: str) -> float:
    """Return what `note_peak` noted in ``node``."""
    return report.node(node).metrics["peak_mb"]


def run_checked(graph: Graph, checker: Node) -> tuple[RunReport, Any]:
    """Run ``graph`` and return its report and the one result of ``checker``.

    Fails unless the run finished, its books balance, and no handler raised.
    """
    with graph.start(results=[checker], log_level="WARNING") as run:
        results = list(run.results(checker))
        report = run.wait()
    assert report.outcome == "finished", report
    assert report.balances, report.imbalances
    assert [node.errors for node in report.nodes] == [0] * len(report.nodes), report
    assert len(results) == 1, results
    return report, results[0]


def assert_edges_bounded(
    graph: Graph, report: RunReport, emitted_at_once: Mapping[str, int] | None = None
) -> None:
    """Fail unless no edge ever held more than its window and one message.

    ``emitted_at_once`` says by edge how many messages one call of a handler emits there, if it
    emits rather than returns or yields: emit never blocks, so they are allowed on top. For
    graphs without replicas.
    """
    for link in graph.connections:
        beyond = (emitted_at_once or {}).get(str(link), 1)
        edge = report.edge(str(link))
        assert 0 < edge.peak <= link.options.capacity + beyond, report


def assert_memory_alike(report: RunReport, node: str, other: str, within_mb: float) -> None:
    """Fail if ``node`` ever needed more memory than ``other`` by ``within_mb`` megabytes."""
    assert peak_mb(report, node) - peak_mb(report, other) < within_mb, report
