"""What is asked of a run that does not move it: where a port is, how it stands.

`Requests` answers the launching process; what ends the run (drain, abort) is the business of
`CoordinatorState`.
"""

from __future__ import annotations

from collections.abc import Callable

from dflow.broker import orders
from dflow.broker.events import Instruction, Send
from dflow.broker.lifecycle import Phase
from dflow.broker.participants import Participant, Participants
from dflow.broker.timers import STARTUP
from dflow.errors import ProtocolError
from dflow.graph.plan import Plan
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

    def asked(
        self, p: Participant, key: bytes, message: c.Control, phase: Phase
    ) -> list[Instruction]:
        """Return what to do about a request of ``p``; ProtocolError for what is none."""
        match message:
            case c.StatusRequest(request):
                return [Send(key, c.StatusReply(request, self._status().to_dict()))]
            case c.Locate(request, node, port):
                rows = orders.locate(self._plan, self._roll, node, port)
                return [Send(key, c.Located(request, rows if phase in LIVE else []))]
            case c.Heartbeat():
                return []
        raise ProtocolError(f"{p.worker}: may not send {type(message).__name__}")
