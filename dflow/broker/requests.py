"""What is asked of a run that does not end it: how it stands, where a port is, one node to pause.

What ends the run (drain, abort) is the business of `CoordinatorState`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from dflow.broker import orders
from dflow.broker.cancelling import Cancelling
from dflow.broker.events import Instruction, Send
from dflow.broker.lifecycle import Phase, Step
from dflow.broker.participants import Participant, Participants
from dflow.broker.timers import STARTUP
from dflow.errors import ProtocolError, did_you_mean
from dflow.graph.plan import Plan, WorkerId
from dflow.report import RunStatus
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
        self._paused: set[str] = set()
        channels = {
            ch.number: replace(ch, sender=plan.host(ch.sender), receiver=plan.host(ch.receiver))
            for ch in (*plan.channels, *plan.external_channels)
        }
        self._cancelling = Cancelling(channels, self._reach)

    @property
    def paused(self) -> frozenset[str]:
        """Names of the nodes that were told to take no data."""
        return frozenset(self._paused)

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
                return self.resume_all()
            case c.PauseRequest(request, node, paused):
                return self._answer(key, request, node, phase, partial(self._pause, node, paused))
            case c.DrainNodeRequest(request, node):
                return self._answer(key, request, node, phase, partial(self._drain, node))
            case c.CancelRequest():
                workers = [w.worker for w in self._roll.workers]
                return self._cancelling.ask(key, message, p.worker, workers, now)
        raise ProtocolError(f"{p.worker}: may not send {type(message).__name__}")

    def answered(self, p: Participant, message: c.Found | c.Outcome) -> list[Instruction]:
        """Return what follows from an answer of ``p``; ProtocolError for what is none."""
        return self._cancelling.answered(p.worker, message)

    def next_timer(self) -> float | None:
        """Return when somebody has been waited for long enough, or None."""
        return self._cancelling.next_timer()

    def check(self, now: float) -> list[Instruction]:
        """Return what to say to those who wait for somebody who does not answer."""
        return self._cancelling.check(now) if len(self._cancelling) else []

    def _reach(self, worker: WorkerId) -> bytes | None:
        p = self._roll.get(worker)
        return p.key if p is not None and p.step in (Step.RUNNING, Step.DRAINED) else None

    def resume_all(self) -> list[Instruction]:
        """Let every paused node go on."""
        paused, self._paused = self._paused, set()
        return [todo for node in sorted(paused) for todo in self._tell(node, c.Pause(node, 0))]

    def _answer(
        self,
        key: bytes,
        request: int,
        node: str,
        phase: Phase,
        act: Callable[[], list[Instruction]],
    ) -> list[Instruction]:
        """Do what was asked of ``node``, unless it is too late for that."""
        error = self._why_not(node, phase)
        return [*([] if error else act()), Send(key, c.Answer(request, error))]

    def _why_not(self, node: str, phase: Phase) -> str:
        names = [n.name for n in self._plan.nodes if n.kind != "external"]
        if node not in names:
            return f"no node {node!r}{did_you_mean(node, names)} (the nodes are {', '.join(names)})"
        if phase is not Phase.RUNNING:
            return f"{node}: expected a run that goes on; it is {phase.value}"
        if not any(p.step is Step.RUNNING for p in self._roll.of(node)):
            return f"{node}: the node has ended"
        return ""

    def _pause(self, node: str, paused: int) -> list[Instruction]:
        if paused:
            self._paused.add(node)
        else:
            self._paused.discard(node)
        return self._tell(node, c.Pause(node, 1 if paused else 0))

    def _drain(self, node: str) -> list[Instruction]:
        """End what feeds ``node``; nobody on the way may stay paused, or it would never end."""
        todo: list[Instruction] = []
        for name in sorted(self._plan.upstream(node) & self._paused):
            todo += self._pause(name, 0)
        for origin in self._plan.origins(node):
            todo += self._tell(origin, c.DrainNode(origin))
        return todo

    def _tell(self, node: str, message: c.Control) -> list[Instruction]:
        return [
            Send(p.key, message)
            for p in self._roll.of(node)
            if p.step is Step.RUNNING and p.key is not None
        ]
