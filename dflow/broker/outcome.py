"""Why a run ended otherwise than by finishing, in words a user can act on.

The first cause is decided when it happens; its text is completed when the books are closed,
because only then is it known what was under way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dflow.broker import books
from dflow.graph.plan import Plan, WorkerId
from dflow.report import RunReport

if TYPE_CHECKING:
    from dflow.broker.participants import Participants

__all__ = ["USER_CODE", "Cause", "blame", "close_books", "exit_code", "exit_text", "some"]

USER_CODE = frozenset({"on_start", "on_tick", "on_end", "on_stop", "handler", "source", "node"})
"""`Failed.where` when it was the user's own code that raised."""

_EXIT_CODES = {"finished": 0, "drained": 0, "drain_timeout": 4, "aborted": 4, "failed": 1}
_START_FAILED = 3
_MOST_NAMED = 20


@dataclass(frozen=True, slots=True)
class Cause:
    """What ended the run; ``outcome`` and ``kind`` are as in `RunReport`.

    ``worker`` died, or ``busy`` were not done when a deadline passed; ``why`` tells who waited
    for whom then, in indented lines.
    """

    outcome: str
    kind: str
    text: str
    worker: WorkerId | None = None
    busy: tuple[str, ...] = ()
    why: str = ""


def exit_text(code: int | None, signal: str | None) -> str:
    """Return "exit code 3" or "killed by SIGKILL"."""
    return f"exit code {code}" if signal is None else f"killed by {signal}"


def close_books(
    plan: Plan,
    run_id: str,
    roll: Participants,
    cause: Cause | None,
    started_s: float,
    lasted_s: float,
    *,
    drained: bool,
    complete: bool,
) -> RunReport:
    """Return the report of a run that began at ``started_s`` (Unix) and took ``lasted_s``.

    ``cause``: what ended it otherwise than by finishing. ``drained``: it was asked to end;
    ``complete``: everything was handled.
    """
    counted = roll.stats()
    report = RunReport(
        plan.name,
        run_id,
        "drained" if drained else "finished",
        started_s,
        started_s + lasted_s,
        lasted_s,
        nodes=books.node_reports(plan, counted),
        edges=books.edge_reports(plan, counted, roll.lost(), complete=complete),
    )
    if cause is None:
        return report
    flying = books.in_flight(plan, counted, cause.worker) if cause.worker is not None else {}
    return blame(report, cause, flying)


def blame(report: RunReport, cause: Cause, flying: Mapping[str, int]) -> RunReport:
    """Return ``report`` with its outcome and error set to ``cause``.

    ``flying``: by edge, what was under way to and from ``cause.worker`` when it died.
    """
    parts = [cause.text]
    if cause.worker is not None:
        parts.append(f"in flight by edge: {_counts(flying)}" if flying else "nothing in flight")
    if cause.outcome == "drain_timeout":
        left = {edge.id: edge.abandoned for edge in report.edges if edge.abandoned}
        parts.append(f"abandoned by edge: {_counts(left)}" if left else "nothing abandoned")
    if cause.busy:
        parts.append(f"still busy: {some(cause.busy)}")
    text = "; ".join(parts)
    if cause.why:
        text += f"\nwho waited for whom:\n{cause.why}"
    return replace(report, outcome=cause.outcome, error=text, error_kind=cause.kind)


def _counts(by_edge: Mapping[str, int]) -> str:
    return some([f"{edge} {count:,}" for edge, count in by_edge.items()])


def some(names: Sequence[str], most: int = _MOST_NAMED) -> str:
    """Return ``names`` in one line; beyond ``most`` of them, how many more there are."""
    shown = ", ".join(names[:most])
    more = len(names) - most
    return f"{shown} and {more} more" if more > 0 else shown


def exit_code(report: RunReport, signal: int | None = None) -> int:
    """Return the process exit code for a run.

    0 finished or drained, 1 failed, 3 never started, 4 cut short with messages abandoned, and
    128 + ``signal`` when that signal asked for an end that was then reached in order or at
    once (130 for Ctrl-C, 143 for SIGTERM).
    """
    if signal is not None and report.outcome in ("drained", "aborted"):
        return 128 + signal
    if report.error_kind == "start_failed":
        return _START_FAILED
    return _EXIT_CODES[report.outcome]
