"""An edge without sockets: its sending half, its receiving half, and frames in a list."""

from __future__ import annotations

from typing import Any

from dflow.clock import wall_ns
from dflow.flow.in_edge import InChannel
from dflow.flow.out_edge import OutEdge
from dflow.message import Priority
from dflow.wire.codec import Codec
from dflow.wire.frames import pack_batch, parse, parse_credit

__all__ = ["BATCH", "MESSAGES", "Edge"]

BATCH = 512
MESSAGES: list[dict[str, Any]] = [
    {"id": number, "sensor": "boiler-17", "value": number * 0.5} for number in range(BATCH)
]
CAPACITY = 4 * BATCH


class Edge:
    """One channel whose wire is a function call."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.out = OutEdge(0, "a.out->b.in", (0,), CAPACITY, 1 << 26)
        self.into = InChannel(0, "a.out->b.in", "in", Priority.NORMAL, CAPACITY, 1 << 26, 1)

    def send(self) -> list[bytes]:
        """Return the frames that have credit."""
        return [
            pack_batch(number, 1, first, payloads, wall_ns())
            for number, first, payloads, _ in self.out.flush(0)
        ]

    def arrive(self, frames: list[bytes]) -> None:
        """Put frames into the inbox."""
        for frame in frames:
            self.into.accept(parse(frame))

    def report(self) -> None:
        """Bring the receiver's credit back to the sender."""
        self.out.on_credit(0, *parse_credit(parse(self.into.credit_frame())))
