"""Who looks on: peers that may ask how the run stands, and count for nothing else.

An observer joins with the run's token and comes and goes as it likes; nobody waits for it. It
often leaves without a word, so only the latest are remembered: one that was forgotten says Hello
again.
"""

from __future__ import annotations

from collections.abc import Callable

from dflow.broker.events import Instruction, Send
from dflow.errors import ProtocolError
from dflow.report import RunReport, RunStatus
from dflow.wire import control as c

__all__ = ["MOST", "OBSERVER", "Observers"]

OBSERVER = "observer"
"""The role of an observer in its Hello."""

MOST = 64
"""Observers that are remembered."""


class Observers:
    """Every observer, by routing id; ``status`` returns the run as it is known now."""

    def __init__(self, status: Callable[[], RunStatus]) -> None:
        self._status = status
        self._keys: dict[bytes, None] = {}  # the one heard of last comes last

    def __contains__(self, key: bytes) -> bool:
        return key in self._keys

    def admit(self, key: bytes, report: RunReport | None) -> list[Instruction]:
        """Let a peer look on; it is told at once if the run is over."""
        self._keys.pop(key, None)
        self._keys[key] = None
        while len(self._keys) > MOST:
            del self._keys[next(iter(self._keys))]
        return [] if report is None else [Send(key, c.Finished(report.to_dict()))]

    def said(self, key: bytes, message: c.Control) -> list[Instruction]:
        """Return the answer to an observer; ProtocolError for what it may not say."""
        self._keys[key] = self._keys.pop(key)
        match message:
            case c.StatusRequest(request):
                return [Send(key, c.StatusReply(request, self._status().to_dict()))]
            case c.Heartbeat():
                return []
        raise ProtocolError(f"an observer may not send {type(message).__name__}")

    def finished(self, report: RunReport) -> list[Instruction]:
        """Tell every observer how the run ended."""
        word = c.Finished(report.to_dict())
        return [Send(key, word) for key in self._keys]

    def forget(self, key: bytes) -> None:
        """A peer is gone."""
        self._keys.pop(key, None)
