"""What is asked of a run that does not end it: how it stands, where a port is, one node to pause.

What ends the run (drain, abort) is the business of `CoordinatorState`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from dflow.broker import books, lifelog, orders
from dflow.broker.cancelling import Cancelling
from dflow.broker.doings import what_all_do
from dflow.broker.events import Instruction, Send
from dflow.broker.lifecycle import Phase
from dflow.broker.participants import Participant, Participants
from dflow.broker.pausing import Pausing
from dflow.broker.timers import STARTUP
from dflow.errors import ProtocolError, did_you_mean
from dflow.graph.plan import Plan, WorkerId
from dflow.report import RunStatus
from dflow.stats import WorkerStats
from dflow.wire import control as c

__all__ = ["LIVE", "Requests"]

LIVE = STARTUP | {Phase.RUNNING, Phase.DRAINING}
"""Phases in which nodes may still be sent messages."""


class Requests:
    """Answers to one run's questions; ``status`` returns the run as it is known now."""

    def __init__(self, plan: Plan, roll: Participants, status: Callable[[], RunStatus]) -> None:
        self._plan = plan
        self._roll = roll
        self._status = status
        self.pausing = Pausing(roll)
        channels = {
            ch.number: replace(ch, sender=plan.host(ch.sender), receiver=plan.host(ch.receiver))
            for ch in (*plan.channels, *plan.external_channels)
        }
        self._cancelling = Cancelling(channels, roll.reach)

    def asked(
        self, p: Participant, key: bytes, message: c.Control, phase: Phase, now: float
    ) -> list[Instruction]:
        """Return what to do about a request of ``p``; ProtocolError for what is none."""
        match message:
            case c.StatusRequest(request):
                return [Send(key, c.StatusReply(request, self._status().to_dict()))]
            case c.Locate(request, node, port):
                rows = orders.locate(self._plan, self._roll, node, port)
                return [Send(key, c.Located(request, rows if phase in LIVE else []))]
            case c.PauseRequest(_, "", 0):
                return self.pausing.resume_all()
            case c.PauseRequest(request, node) | c.DrainNodeRequest(request, node):
                if error := self._why_not(node, phase):
                    return [Send(key, c.Answer(request, error))]
                return self._obey(key, message, now)
            case c.CancelRequest():
                workers = [w.worker for w in self._roll.workers]
                return self._cancelling.ask(key, message, p.worker, workers, now)
        raise ProtocolError(f"{p.worker}: may not send {type(message).__name__}")

    def standing(
        self,
        run_id: str,
        phase: Phase,
        uptime_s: float,
        now: float,
        counted: Mapping[WorkerId, WorkerStats] | None = None,
        steps: Mapping[WorkerId, str] | None = None,
    ) -> RunStatus:
        """Return the run as it is known now, or was when ``counted`` and ``steps`` were taken."""
        counted = self._roll.stats() if counted is None else counted
        steps = {p.worker: p.step.value for p in self._roll} if steps is None else steps
        doing, launcher = what_all_do(self._plan, self._roll, counted, steps, now)
        paused = self.pausing.paused if phase is Phase.RUNNING else ()
        return RunStatus(
            self._plan.name,
            run_id,
            phase.value,
            uptime_s,
            books.node_statuses(self._plan, counted, doing, paused),
            books.edge_statuses(self._plan, counted),
            launcher,
        )

    def answered(self, p: Participant, message: c.Control) -> list[Instruction]:
        """Return what follows from an answer of ``p``; ProtocolError for what is none."""
        match message:
            case c.Held(number):
                return self.pausing.heard(p.worker, number)
            case c.Found() | c.Outcome():
                return self._cancelling.answered(p.worker, message)
        raise ProtocolError(f"{p.worker}: a worker may not send {type(message).__name__}")

    def next_timer(self) -> float | None:
        """Return when somebody has been waited for long enough, or None."""
        dues = (self._cancelling.next_timer(), self.pausing.next_timer())
        return min((due for due in dues if due is not None), default=None)

    def check(self, now: float) -> list[Instruction]:
        """Return what to say to those who wait for somebody who does not answer."""
        if not self._cancelling and not self.pausing:
            return []
        return self._cancelling.check(now) + self.pausing.check(now)

    def _why_not(self, node: str, phase: Phase) -> str:
        known = self._plan.by_name.get(node)
        if known is None or known.kind == "external":
            names = [n.name for n in self._plan.nodes if n.kind != "external"]
            return f"no node {node!r}{did_you_mean(node, names)} (the nodes are {', '.join(names)})"
        if phase is not Phase.RUNNING:
            return f"{node}: expected a run that goes on; it is {phase.value}"
        if not self._roll.running(node):
            return f"{node}: the node has ended"
        return ""

    def _obey(self, key: bytes, message: c.Control, now: float) -> list[Instruction]:
        match message:
            case c.PauseRequest(request, node, 0):
                said = [lifelog.paused(node, on=False)] if node in self.pausing.paused else []
                return [*said, *self.pausing.resume(node), Send(key, c.Answer(request, ""))]
            case c.PauseRequest(request, node):
                said = [] if node in self.pausing.paused else [lifelog.paused(node, on=True)]
                return [*said, *self.pausing.pause(node, key, request, now)]
            case c.DrainNodeRequest(request, node):
                return [*self._drain(node), Send(key, c.Answer(request, ""))]
        return []

    def _drain(self, node: str) -> list[Instruction]:
        """End what feeds ``node``; nobody on the way may stay paused, or it would never end."""
        todo: list[Instruction] = []
        for name in sorted(self._plan.upstream(node) & self.pausing.paused):
            todo += self.pausing.resume(name)
        for origin in self._plan.origins(node):
            for reached in self._roll.running(origin).values():
                todo.append(Send(reached, c.DrainNode(origin)))
        return todo
