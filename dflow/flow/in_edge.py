"""The receiving half of a channel: sequence check, bounded inbox, and what to grant.

Batches stay encoded until they are handed out, so an inbox costs what arrived on the wire
and no more. A batch is handed out in one piece and consumed message by message.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from dflow.errors import ProtocolError
from dflow.flow.credit import ReceiveWindow
from dflow.message import Headers, Priority
from dflow.wire.frames import Frame, array_header_size, pack_closed, pack_credit

__all__ = ["Batch", "InChannel"]


@dataclass(slots=True)
class Batch:
    """One batch of an inbox; ``values`` and ``position`` are used by the dispatcher."""

    body: Any
    count: int
    size_bytes: int
    headers: Headers
    values: list[Any] | None = None
    position: int = 0


class InChannel:
    """One channel at its receiver. Invariant: done <= taken <= received."""

    __slots__ = (
        "edge_id", "end_at", "epoch", "external", "inbox", "malformed", "number", "peer",
        "port", "priority", "queued", "window",
    )  # fmt: skip

    def __init__(
        self,
        number: int,
        edge_id: str,
        port: str,
        priority: Priority,
        capacity: int,
        max_bytes: int,
        epoch: int,
        *,
        external: bool = False,
    ) -> None:
        self.number = number
        self.edge_id = edge_id
        self.port = port
        self.priority = priority
        self.epoch = epoch
        self.external = external
        self.window = ReceiveWindow(capacity, max_bytes)
        self.inbox: deque[Batch] = deque()
        self.end_at: int | None = None
        self.peer: Any = None  # how the transport reaches the sender; None until its HELLO
        self.queued = False  # whether it stands in the dispatcher's ready-queue
        self.malformed = 0

    def accept(self, frame: Frame) -> None:
        """Queue a batch; raises `ProtocolError` and changes nothing if it is out of order."""
        self._check_open(frame)
        size = len(frame.body) - array_header_size(frame.count)
        self.window.receive(frame.sequence, frame.count, size)
        headers = Headers(self.edge_id, frame.sequence, frame.sent_ns)
        self.inbox.append(Batch(frame.body, frame.count, size, headers))

    def accept_end(self, frame: Frame) -> None:
        """Note that the sender is done; raises `ProtocolError` if messages are missing."""
        self._check_open(frame)
        if frame.sequence != self.window.received:
            raise ProtocolError(
                f"edge {self.edge_id}: END expected after {self.window.received} messages, "
                f"got {frame.sequence}"
            )
        self.end_at = frame.sequence

    def _check_open(self, frame: Frame) -> None:
        if self.end_at is not None:
            raise ProtocolError(f"edge {self.edge_id}: got a frame after END")
        if frame.epoch != self.epoch:
            raise ProtocolError(
                f"edge {self.edge_id}: expected epoch {self.epoch}, got {frame.epoch}"
            )

    def take(self, count: int) -> None:
        """Count ``count`` messages of the first batch as taken."""
        batch = self.inbox[0]
        batch.position += count
        self.window.taken += count
        if batch.position >= batch.count:
            self.window.taken_bytes += batch.size_bytes
            self.inbox.popleft()

    def discard(self, count: int) -> None:
        """Count ``count`` messages of the first batch as taken and done; its values lack them."""
        self.inbox[0].count -= count
        self.window.taken += count
        self.finish(count)
        self.take(0)

    def finish(self, count: int) -> None:
        """Count the next ``count`` messages taken as done: their effects are safe."""
        self.window.done += count

    @property
    def exhausted(self) -> bool:
        """Whether END arrived and everything before it was handled."""
        return self.end_at is not None and not self.inbox

    @property
    def depth(self) -> int:
        """Messages waiting in the inbox."""
        return self.window.received - self.window.taken

    def credit_frame(self) -> bytes:
        """Return the report that is due; resets what is owed."""
        return pack_credit(self.number, self.epoch, *self.window.report())

    def closed_frame(self) -> bytes:
        """Return the frame that tells the sender that no more is taken."""
        return pack_closed(self.number, self.epoch, *self.window.report())
