"""An output without sockets: a real lane, a gate, and credit that a test gives out."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from dflow.flow.batch import Lane
from dflow.flow.credit import SendWindow
from dflow.wire.codec import Codec
from dflow.worker.context import Direct, Emit
from dflow.worker.plane import Gate

__all__ = ["PLENTY", "Wireless"]

PLENTY = 1 << 40


class Wireless:
    """One lane with ``credit`` messages of room; ``sent`` is what went out, decoded."""

    def __init__(self, credit: int = PLENTY) -> None:
        self.codec = Codec()
        self.gate = Gate()
        self.window = SendWindow(credit, PLENTY)
        self.lane = Lane([self.window])
        self.direct = Direct(self.lane, self.codec, self.attend, nullcontext())
        self.sent: list[Any] = []

    def emit(self, value: Any) -> None:
        """Emit by a call, as a handler does."""
        if self.lane.push(self.codec.encode(value)):
            self.attend()

    def attend(self) -> None:
        """Send what has credit; shut the gate when none is left."""
        for _, payloads, _ in self.lane.cut():
            self.sent += map(self.codec.decode, payloads)
        self.gate.update(full=self.lane.full)

    def grant(self, credit: int) -> None:
        """Let the receiver take everything, and make ``credit`` what may be sent now."""
        self.window.report(self.window.sent, self.window.sent_bytes, self.window.sent)
        self.window.capacity = credit
        self.lane.update()
        self.gate.update(full=self.lane.full)

    def ways(self, directly: bool) -> tuple[Emit, Direct | None]:
        """Return ``emit`` and ``direct`` for a dispatcher or a source."""
        return self.emit, self.direct if directly else None
