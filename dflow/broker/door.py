"""Who is let in: the answer to a Hello.

Anybody who reaches the coordinator can knock. The token is looked at first, for a guest as for
a participant; then whether the run still takes anybody, and whose place it would be.
"""

from __future__ import annotations

from dataclasses import replace

from dflow.broker.complaints import Complaints
from dflow.broker.events import Instruction, Say, Send
from dflow.broker.lifecycle import Phase, Role
from dflow.broker.observers import OBSERVER, Observers
from dflow.broker.participants import Participant, Participants
from dflow.report import RunReport
from dflow.wire import control as c

__all__ = ["Door"]

_ENDING = frozenset({Phase.ABORTING, Phase.LEAVING})


class Door:
    """The door of one run. ``assign``: what everybody is told who takes part, but for its place."""

    def __init__(
        self,
        roll: Participants,
        observers: Observers,
        complaints: Complaints,
        assign: c.Assign,
        *,
        managed: bool,
    ) -> None:
        self._roll = roll
        self._observers = observers
        self._complaints = complaints
        self._assign = assign
        self._managed = managed

    def hello(
        self,
        key: bytes,
        hello: c.Hello,
        known: Participant | None,
        phase: Phase,
        report: RunReport | None,
        now: float,
    ) -> list[Instruction]:
        """Return what to say to ``key``, who is ``known`` if it has said Hello before."""
        if known is not None:
            text = f"{known.worker}: expected one Hello, got another"
            return self._complaints.about(key, "unexpected", text)
        if hello.role == OBSERVER:
            if stranger := self._roll.why_not_trusted(hello):
                return self._refuse(key, hello, stranger)
            return self._observers.admit(key, report)
        if phase in _ENDING and self._roll.admit_late(key, hello):
            return [] if report is None else [Send(key, c.Finished(report.to_dict()))]
        if phase is not Phase.WAITING:
            return self._refuse(key, hello, f"the run is {phase.value}; nobody can join any more")
        found = self._roll.admit(key, hello, now)
        if isinstance(found, str):
            return self._refuse(key, hello, found)
        at = f" on {hello.host}" if not self._managed and found.role is Role.WORKER else ""
        node, replica = found.worker.node, found.worker.replica
        return [
            Say("INFO" if at else "DEBUG", f"{found.worker} joined: pid {hello.pid}{at}"),
            Send(key, replace(self._assign, node=node, replica=replica)),
        ]

    def _refuse(self, key: bytes, hello: c.Hello, reason: str) -> list[Instruction]:
        text = f"refused a {hello.role[:20]} (pid {hello.pid}): {reason}"
        return [Send(key, c.Refused(reason)), *self._complaints.about(key, "refused", text)]
