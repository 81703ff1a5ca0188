"""Nodes the stress tests share, and the way they run a graph and judge it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from dflow import Graph, Input, Node, Output, Run, RunReport, source
from stress.histogram import Histogram
from stress.ledger import Ledger, Verdict
from stress.memory import Memory

__all__ = [
    "BASE_MB",
    "Checked",
    "Checker",
    "Timed",
    "assert_edges_bounded",
    "numbered",
    "numbered_now",
    "paced",
    "run_checked",
]

BASE_MB = 40.0
"""What a process of a run may need, were it alone: Python, dflow, numpy, and windows of small
messages. (It shares most of that with the others as long as they live.)"""

SHORT_SLEEP_S = 0.001


@source
def numbered(origin: str, count: int) -> Iterator[tuple[str, int]]:
    """Yield ``(origin, 0) … (origin, count - 1)``."""
    for number in range(count):
        yield origin, number


@source
def numbered_now(origin: str, count: int) -> Iterator[tuple[str, int, int]]:
    """Yield ``(origin, number, now)`` as fast as messages are wanted."""
    for number in range(count):
        yield origin, number, time.monotonic_ns()


@source
def paced(origin: str, count: int, per_s: float) -> Iterator[tuple[str, int, int]]:
    """Yield ``(origin, number, when it was due)``, ``per_s`` a second, however late it is.

    An age counts from when a message was due: had it counted from when it was yielded, a
    source that was held up would make all look well (coordinated omission). Due times are by
    the monotonic clock, which all processes of a host share.
    """
    began_ns, between_ns = time.monotonic_ns(), 1e9 / per_s
    for number in range(count):
        due_ns = began_ns + int(number * between_ns)
        while time.monotonic_ns() < due_ns:
            time.sleep(SHORT_SLEEP_S)
        yield origin, number, due_ns


class Checker(Node):
    """Enters messages ``(origin, number, …)`` in a ledger; its verdict is its one result."""

    messages = Input(Any)
    verdict = Output(Verdict, required=True)

    def __init__(self) -> None:
        self.ledger = Ledger()

    @messages.handler
    def check(self, message: tuple[Any, ...]) -> None:
        """Enter it."""
        self.ledger.add(message[0], message[1])

    def on_end(self) -> None:
        """Emit the verdict."""
        self.verdict.emit(self.ledger.verdict())


class Timed(Node):
    """Enters ``(origin, number, when it was due, way)`` in a ledger, and its age in a histogram.

    Its one result is the verdict and the histogram of ages as a dict.
    """

    messages = Input(tuple)
    judged = Output(tuple[Verdict, dict[str, Any]], required=True)

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.ages = Histogram()

    @messages.handler
    def check(self, message: tuple[str, int, int, Any]) -> None:
        """Enter it and its age."""
        origin, number, due_ns, way = message
        self.ages.add(time.monotonic_ns() - due_ns)
        self.ledger.add(origin, number, way)

    def on_end(self) -> None:
        """Emit both."""
        self.judged.emit((self.ledger.verdict(), self.ages.to_dict()))


class Checked(NamedTuple):
    """What `run_checked` has found; ``peaks_mb`` by process."""

    report: RunReport
    result: Any
    peaks_mb: dict[str, int]


def run_checked(
    graph: Graph,
    checker: Node,
    bounds_mb: Mapping[str, float] | None = None,
    *,
    during: Callable[[Run], None] | None = None,
    **options: Any,
) -> Checked:
    """Run ``graph`` and return its report and the one result of ``checker``.

    ``during`` is called once it runs, and is to stop it. Fails unless the run came to its end,
    its books balance, no handler raised, and no process needed more memory than `BASE_MB`, or
    what ``bounds_mb`` says of its node.
    """
    with (
        graph.start(results=[checker], log_level="WARNING", **options) as run,
        Memory(run) as memory,
    ):
        if during is not None:
            during(run)
        results = list(run.results(checker))
        report = run.wait()
    assert report.outcome == ("finished" if during is None else "drained"), report
    assert report.balances, report.imbalances
    assert [node.errors for node in report.nodes] == [0] * len(report.nodes), report
    assert len(results) == 1, results
    memory.assert_within(BASE_MB, bounds_mb or {})
    peaks_mb = {name: round(mb) for name, mb in memory.peaks_mb().items()}
    return Checked(report, results[0], peaks_mb)


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
