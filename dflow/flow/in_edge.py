"""The receiving half of a channel: sequence check, bounded inbox, and what to grant.

Batches stay encoded until they are handed out, so an inbox costs what arrived on the wire
and no more. A batch is handed out in one piece and consumed message by message.

Most channels hand out whatever comes first. A *picky* one looks at each message: it may have to
wait for its turn (`dflow.flow.order`), or not be wanted any more: too old, cancelled, or lost
because it could not be decoded. Such a message is passed over when its turn comes.

A *fresh* channel (policy latest) holds at most one message, and not an old one: `refresh` asks the
sender for what is newer, which takes its place.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from dflow.errors import ProtocolError
from dflow.flow.credit import ReceiveWindow
from dflow.flow.order import Merge
from dflow.message import Headers, Priority
from dflow.wire.buffers import LARGE_BYTES
from dflow.wire.frames import END, Frame, array_header_size, pack_closed, pack_credit
from dflow.wire.notes import NO_NOTES, Notes, parse_notes

__all__ = ["LOST", "STALE_NS", "Batch", "InChannel", "Unwanted"]

STALE_NS = 4_000_000
"""Older than this, a message of a fresh channel may be out of date."""

LOST = object()
"""Stands among the values of a batch for a message that could not be decoded."""


class Unwanted(Enum):
    """Why a message is passed over."""

    EXPIRED = "expired"
    CANCELLED = "cancelled"
    LOST = "lost"
    SUPERSEDED = "superseded"


@dataclass(slots=True)
class Batch:
    """One batch of an inbox; ``values`` and ``position`` are used by the dispatcher.

    ``buffers`` are what lies beside its only message: views, or the error there was instead of one.
    """

    body: Any
    count: int
    size_bytes: int
    headers: Headers
    notes: Notes = NO_NOTES
    values: list[Any] | None = None
    position: int = 0
    buffers: Sequence[Any] = ()


class InChannel:
    """One channel at its receiver. Invariant: done <= taken <= received.

    ``expired``, ``withdrawn`` and ``superseded`` count messages passed over (too old, cancelled,
    replaced by a newer one); ``malformed`` what could not be decoded. ``cancelled`` are the
    sequences not to be handed out. ``shares``: its sender is on this host.
    """

    __slots__ = (
        "_last_number", "_numbered", "_place", "_ttl_ns",
        "cancelled", "edge_id", "end_at", "epoch", "expired", "external", "fresh", "inbox",
        "malformed", "merge", "number", "peer", "picky", "port", "priority", "shares", "siblings",
        "superseded", "window", "withdrawn",
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
        numbered: bool = False,
        ttl_s: float | None = None,
        reports: str = "half",
        fresh: bool = False,
    ) -> None:
        self.number = number
        self.edge_id = edge_id
        self.port = port
        self.priority = priority
        self.epoch = epoch
        self.external = external
        self.window = ReceiveWindow(capacity, max_bytes, reports)
        self.inbox: deque[Batch] = deque()
        self.end_at: int | None = None
        self.shares = False
        self.peer: Any = None  # how the transport reaches the sender; None until its HELLO
        self.malformed = 0
        self.expired = 0
        self.withdrawn = 0
        self.superseded = 0
        self.fresh = fresh
        self.cancelled: set[int] = set()
        self.merge: Merge | None = None
        self.siblings: tuple[InChannel, ...] = (self,)  # those of its merge, by their place in it
        self.picky = ttl_s is not None
        self._place = 0
        self._numbered = numbered
        self._last_number = -1
        self._ttl_ns = None if ttl_s is None else int(ttl_s * 1e9)

    def join(self, merge: Merge, siblings: tuple[InChannel, ...]) -> None:
        """Hand out messages in the order of ``merge``, in which ``siblings`` have their places."""
        self.merge = merge
        self.siblings = siblings
        self._place = siblings.index(self)
        self.picky = True

    def accept(self, frame: Frame, buffers: Sequence[memoryview] = ()) -> Batch | None:
        """Queue a batch, and return it if it has messages; ``buffers`` came with it.

        Raises `ProtocolError` and changes nothing if it is out of order.
        """
        self._check_open(frame)
        count = frame.count
        notes = parse_notes(frame.notes, count) if len(frame.notes) else NO_NOTES
        if notes is not NO_NOTES or self._numbered or not count:
            self._check_notes(frame, notes)
        batch = None
        if buffers:
            self._check_buffers(frame, notes, buffers)
        if count:
            size = len(frame.body) - array_header_size(count)
            if buffers or notes.buffers:
                size += notes.buffer_bytes + sum(map(len, buffers))
            self.window.receive(frame.sequence, count, size)
            headers = Headers(self.edge_id, frame.sequence, frame.sent_ns)
            batch = Batch(frame.body, count, size, headers, notes, buffers=buffers)
            self.inbox.append(batch)
            if self.fresh:
                self._supersede()
        if notes.numbers:
            self._last_number = notes.numbers[-1]
        for at in notes.withdrawn:
            self.cancel(frame.sequence + at)
        if self.merge is not None:
            self.merge.accept(self._place, count, notes)
        return batch

    def hand_over(self, values: Sequence[Any], sent_ns: int, notes: Notes = NO_NOTES) -> None:
        """Queue values of a sender in this process; it knows the window, so they fit."""
        count, first = len(values), self.window.received
        self.window.receive(first, count, 0)
        headers = Headers(self.edge_id, first, sent_ns)
        self.inbox.append(Batch(None, count, 0, headers, notes, list(values)))
        if self.fresh:
            self._supersede()
        if self.merge is not None:
            self.merge.accept(self._place, count, notes)

    def _check_buffers(self, frame: Frame, notes: Notes, buffers: Sequence[memoryview]) -> None:
        """Raise `ProtocolError` unless these can be the buffers of the one message there is."""
        if frame.count != 1 or notes.buffers or min(map(len, buffers)) < LARGE_BYTES:
            raise ProtocolError(
                f"edge {self.edge_id}: expected buffers of at least {LARGE_BYTES} bytes beside one "
                f"message, and no places, got {len(buffers)} beside {frame.count}"
            )

    def _check_notes(self, frame: Frame, notes: Notes) -> None:
        """Raise `ProtocolError` unless the edge has such notes, and they can be true."""
        if not frame.count and (not notes.completed or frame.sequence != self.window.received):
            raise ProtocolError(f"edge {self.edge_id}: got a batch without messages")
        if bool(notes.numbers) != (self._numbered and frame.count > 0):
            said = "numbers" if self._numbered else "no numbers"
            raise ProtocolError(f"edge {self.edge_id}: expected {said} of the messages")
        last = self._last_number
        for number in notes.numbers:
            if number <= last:
                raise ProtocolError(
                    f"edge {self.edge_id}: expected a number beyond {last}, got {number}"
                )
            last = number
        if notes.buffers and not self.shares:
            raise ProtocolError(f"edge {self.edge_id}: expected no places on another host")
        if notes.withdrawn and not self._numbered and self.merge is None:
            raise ProtocolError(f"edge {self.edge_id}: expected no withdrawn messages")
        if notes.ages_ns and self._ttl_ns is None:
            raise ProtocolError(f"edge {self.edge_id}: expected no ages, it has no ttl_s")
        if self.merge is not None:
            self.merge.check(self._place, notes)
        elif notes.tags or notes.completed:
            raise ProtocolError(f"edge {self.edge_id}: expected no tags, its sender is not ordered")

    def accept_end(self, frame: Frame) -> bool:
        """Note that the sender is done; False if it has said so before.

        Raises `ProtocolError` if messages are missing.
        """
        if self.has_ended(frame):
            return False
        self._check_open(frame)
        if frame.sequence != self.window.received:
            raise ProtocolError(
                f"edge {self.edge_id}: END expected after {self.window.received} messages, "
                f"got {frame.sequence}"
            )
        self.end_at = frame.sequence
        if self.merge is not None:
            self.merge.end(self._place)
        return True

    def has_ended(self, frame: Frame) -> bool:
        """Whether ``frame`` is the END that has arrived before."""
        if frame.kind != END or self.end_at is None:
            return False
        return (frame.sequence, frame.epoch) == (self.end_at, self.epoch)

    def confirm(self, frame: Frame) -> None:
        """Raise `ProtocolError` unless all that the sender says it has sent has arrived."""
        self._check_open(frame)
        if frame.sequence != self.window.received:
            raise ProtocolError(
                f"edge {self.edge_id}: expected the {frame.sequence} messages that were sent, got "
                f"{self.window.received}; its connection was lost"
            )

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
        if count:  # what was lent is due once this is done; a turn may have begun nothing
            self.window.lent = 0
        if batch.position >= batch.count:
            self.window.taken_bytes += batch.size_bytes
            self.inbox.popleft()
        if self.merge is not None:
            self.merge.took(self._place, count)

    # --- fresh channels -------------------------------------------------------------------------

    def stale(self, wall_ns: int) -> bool:
        """Whether the message at hand is so old that there may be a newer one."""
        if not self.fresh or not self.inbox or self.window.lent or self.end_at is not None:
            return False
        return wall_ns - self.inbox[0].headers.sent_ns > STALE_NS

    def refresh(self) -> None:
        """Ask for one more message, with the next report; it takes the place of the one here."""
        self.window.lent = 1

    def _supersede(self) -> None:
        """Pass over what a newer message has replaced."""
        self.window.lent = 0
        while len(self.inbox) > 1:
            self.pass_over(Unwanted.SUPERSEDED, self.inbox[0].count - self.inbox[0].position)

    # --- which messages --------------------------------------------------------------------------

    @property
    def deliverable(self) -> bool:
        """Whether the first message may be handed out now."""
        if self.merge is None:
            return bool(self.inbox)
        return bool(self.inbox) and self.merge.available(self._place, 1) > 0

    def pick(self, most: int, wall_ns: int) -> tuple[Unwanted | None, int]:
        """Return why, and how many of the first messages are to be passed over.

        (None, n): the first n, ``most`` at most, may be handed out. Never reaches beyond the first
        batch, nor what is `deliverable`; ``wall_ns`` is the time now.
        """
        batch = self.inbox[0]
        begin = batch.position
        why = self._unwanted(batch, begin, wall_ns)
        left = batch.count - begin
        limit = min(most, left) if why is None else left
        if self.merge is not None:
            limit = self.merge.available(self._place, limit)
        for at in range(begin + 1, begin + limit):
            if self._unwanted(batch, at, wall_ns) is not why:
                return why, at - begin
        return why, limit

    def _unwanted(self, batch: Batch, at: int, wall_ns: int) -> Unwanted | None:
        if self.cancelled and batch.headers.sequence + at in self.cancelled:
            return Unwanted.CANCELLED
        if self._ttl_ns is not None:
            ages = batch.notes.ages_ns
            age_ns = max(0, wall_ns - batch.headers.sent_ns) + (ages[at] if ages else 0)
            if age_ns > self._ttl_ns:
                return Unwanted.EXPIRED
        if batch.values is not None and batch.values[at] is LOST:
            return Unwanted.LOST
        return None

    def pass_over(self, why: Unwanted, count: int) -> None:
        """Count ``count`` messages of the first batch as taken and done, though nobody saw them."""
        if why is Unwanted.EXPIRED:
            self.expired += count
        elif why is Unwanted.CANCELLED:
            self.withdrawn += count
            self.cancelled.difference_update(range(self.window.taken, self.window.taken + count))
        elif why is Unwanted.SUPERSEDED:
            self.superseded += count
        first = self.window.taken
        self.take(count)
        for sequence in range(first, first + count):  # earlier ones may still be handled
            self.finish_one(sequence)

    def cancel(self, sequence: int) -> None:
        """Do not hand out message ``sequence``, which is not taken yet."""
        self.cancelled.add(sequence)
        self.picky = True

    def numbers(self, count: int) -> Sequence[int | None]:
        """Return the number of each of the first ``count`` messages; None if outside the order."""
        if self.merge is not None:
            return self.merge.numbers(self._place, count)
        batch = self.inbox[0]
        found = batch.notes.numbers[batch.position : batch.position + count]
        return found or (None,) * count

    # --- what was done ---------------------------------------------------------------------------

    def finish(self, count: int) -> None:
        """Count the next ``count`` messages taken as done: their effects are safe."""
        self.window.advance(count)

    def finish_one(self, sequence: int) -> None:
        """Count message ``sequence`` as done, though earlier ones may still be handled."""
        self.window.finish(sequence)

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
