"""What the coordinator knows of a run when somebody wants a failure bundle: plain data.

Made at the moment when everybody has answered, so the counters of all belong together. It names
nobody's token and holds no payload; the participants' own words are as they came, not looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from dflow.broker.outcome import Cause
from dflow.broker.participants import Participant, Participants
from dflow.graph.plan import Plan, WorkerId
from dflow.report import RunReport, RunStatus
from dflow.stats import WorkerStats

__all__ = ["Case", "cause_row", "counters", "seats"]


@dataclass(frozen=True, slots=True)
class Case:
    """One run at one moment. Times are Unix seconds by the coordinator's clock.

    ``cause``: what ended it, as plain data; empty if nothing did. ``story``: rows of
    `dflow.story.Story`, whose seconds are ``clock_s`` behind Unix time. ``seats``: a row for every
    participant, ``words`` what those that answered said, by name; ``silent``: id and pid of those
    that did not. ``turns``: who may compute, who waits.
    """

    plan: Plan
    run_id: str
    epoch: int
    phase: str
    at_s: float
    began_s: float
    clock_s: float
    options: Mapping[str, Any]
    status: RunStatus
    counters: Mapping[str, Any]
    seats: tuple[Mapping[str, Any], ...]
    turns: Mapping[str, Any]
    story: list[list[object]]
    words: Mapping[str, str] = field(default_factory=dict)
    silent: tuple[tuple[WorkerId, int], ...] = ()
    cause: Mapping[str, Any] = field(default_factory=dict)
    report: RunReport | None = None


def seats(
    roll: Participants, now: float, answered: Mapping[str, str]
) -> tuple[dict[str, Any], ...]:
    """Return who takes part, and what is known of each, in the order of the plan."""
    return tuple(_seat(p, now, answered) for p in roll)


def _seat(p: Participant, now: float, answered: Mapping[str, str]) -> dict[str, Any]:
    return {
        "name": str(p.worker),
        "role": p.role.value,
        "fused_with": list(p.fused_with),
        "pid": p.pid,
        "host": p.host,
        "step": p.step.value,
        "joined": p.key is not None,
        "answered": str(p.worker) in answered,
        "unreachable": p.unreachable,
        "exit": p.ended_how,
        "killed_by_run": p.killed,
        "silent_s": round(max(0.0, now - p.last_seen_s), 3) if p.key is not None else None,
    }


def counters(counted: Mapping[WorkerId, WorkerStats]) -> dict[str, Any]:
    """Return everybody's raw counters, by name."""
    return {str(worker): asdict(stats) for worker, stats in counted.items()}


def cause_row(cause: Cause | None) -> dict[str, Any]:
    """Return what ended the run as plain data; empty if nothing did."""
    if cause is None:
        return {}
    row = asdict(cause)
    return row | {"worker": str(cause.worker) if cause.worker is not None else None}
