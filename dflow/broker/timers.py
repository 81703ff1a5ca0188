"""When the coordinator has waited long enough: pings, silence, and the deadline of each phase.

Time only goes forward here, and a gap in it is the coordinator's own (it was stopped by a
signal or a debugger, or the whole machine was): nobody else was silent meanwhile, nor had the
time to do what it was told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from dflow.broker import orders
from dflow.broker.lifecycle import Phase, Step
from dflow.broker.outcome import Cause
from dflow.broker.participants import Participant, Participants
from dflow.options import RunOptions
from dflow.report import RunStatus
from dflow.why import explain

__all__ = ["GRACE_S", "PING_S", "SILENCE_S", "STARTUP", "UNREACHABLE_S", "Timers", "late", "silent"]

GRACE_S = 5.0
"""How long an aborted or leaving worker may take before it is killed, and then to be reaped."""

PING_S = 0.5
"""Between two signs of life of the coordinator; longer in large runs (`dflow.broker.pace`)."""

SILENCE_S = 10.0
"""After which a worker that joined by hand is taken for dead."""

UNREACHABLE_S = 1.0
"""The same when its connection is gone, too: the time a network may take to come back."""

STARTUP = frozenset({Phase.WAITING, Phase.BINDING, Phase.LINKING, Phase.STARTING})
"""Phases that share the deadline of the start."""


class Timers:
    """What is due when, in seconds on the clock of ``now``; ``deadline`` is the phase's.

    ``ping_s``: between two signs of life.
    """

    __slots__ = ("deadline", "now", "ping_at", "ping_s")

    def __init__(self, now: float, deadline: float | None, ping_s: float = PING_S) -> None:
        self.now = now
        self.ping_s = ping_s
        self.ping_at = now + ping_s
        self.deadline = deadline

    def notice(self, now: float) -> bool:
        """Take in the time; return whether the coordinator itself was asleep.

        If it was, so may have been the others: to the deadline that counts as one ping, so that
        it comes however often this happens.
        """
        passed_s = now - self.now
        slept = passed_s > UNREACHABLE_S
        if slept and self.deadline is not None:
            self.deadline += passed_s - self.ping_s
        self.now = max(self.now, now)
        return slept

    def next(self) -> float:
        """Return when something is due."""
        return self.ping_at if self.deadline is None else min(self.ping_at, self.deadline)

    def ping_due(self) -> bool:
        """Return whether a sign of life is due; if so the next one is in ``ping_s``."""
        due = self.now >= self.ping_at
        if due:
            self.ping_at = self.now + self.ping_s
        return due

    @property
    def overdue(self) -> bool:
        """Whether the deadline of the phase has passed."""
        return self.deadline is not None and self.now >= self.deadline

    def within(self, seconds: float) -> None:
        """Give the phase ``seconds`` from now."""
        self.deadline = self.now + seconds

    def lengthen(self, seconds: float) -> None:
        """Give a phase that has a deadline at least ``seconds`` from now."""
        if self.deadline is not None:
            self.deadline = max(self.deadline, self.now + seconds)

    def shorten(self, seconds: float) -> None:
        """Give the phase at most ``seconds`` from now."""
        latest = self.now + seconds
        self.deadline = min(self.deadline or latest, latest)


def silent(roll: Participants, now: float) -> Iterator[tuple[Participant, str]]:
    """Yield the workers to be taken for dead, each with what is known of its silence."""
    for p in roll.workers:
        limit_s = UNREACHABLE_S if p.unreachable else SILENCE_S
        silent_s = now - p.last_seen_s
        if p.key is not None and not p.ended and silent_s >= limit_s:
            yield p, f"not heard of for {silent_s:.0f} s (pid {p.pid} on {p.host})"


def late(
    phase: Phase,
    roll: Participants,
    options: RunOptions,
    drain_s: float,
    status: Callable[[], RunStatus],
) -> Cause | None:
    """Return what ends the run when the deadline of ``phase`` passes; None while it ends anyway.

    ``drain_s``: what the drain was given. ``status`` returns the run as it is known now.
    """
    cause = _late(phase, roll, options, drain_s)
    return cause and replace(cause, why=explain(status(), patience_s=0.0).text)


def _late(phase: Phase, roll: Participants, options: RunOptions, drain_s: float) -> Cause | None:
    if phase in STARTUP:
        busy = tuple(str(p.worker) for p in roll if p.step in orders.BEHIND[phase])
        text = f"expected all nodes ready within {options.start_timeout_s:g} s"
        text += f", but the run is still {phase.value}"
        return Cause("failed", "start_failed", text, busy=busy)
    if phase is Phase.DRAINING:
        busy = tuple(str(p.worker) for p in roll if p.must_drain and not p.drained)
        # 0: the launching process waited all that time for what it had sent to be handled
        text = f"the drain deadline of {drain_s or options.drain_timeout_s:g} s has passed"
        return Cause("drain_timeout", "drain_timeout", text, busy=busy)
    if phase is Phase.STOPPING:
        busy = tuple(str(p.worker) for p in roll if p.step is Step.STOPPING)
        text = "everything is drained, but on_stop has not returned by the drain deadline"
        return Cause("drain_timeout", "drain_timeout", text, busy=busy)
    return None
