"""The queue between emit and the wire: encoded messages of one lane, cut into batches.

A lane serves the channels among which a message may be shared out freely: all replicas of
an unkeyed edge, or the one replica a key belongs to. Two threads meet here without a lock
on the hot path: the main thread only appends to ``pending``; cutting happens under the
worker's IO lock, by whichever thread flushes. `list.append`, slicing and ``del`` of a slice
are atomic, so a message appended while a cut is made stays for the next one. The innermost loops
append a chunk (`Lane.begin`) and have it counted afterwards (`Lane.settle`), both under the lock: a
cut meanwhile takes what is there.

``mark`` and ``byte_mark`` are where emit stops appending blindly and asks for attention: a
full batch, or no more credit. They are hints: overshooting by a few messages is harmless,
because credit is only ever spent by `cut`.

Where replicas share a lane, what waits here goes to whoever is free next. So a replica is sent no
more than it works off in some milliseconds (`dflow.flow.allowance`), however much credit it has.

A lane also knows since when its oldest message is under way, at a cost for each batch and none for
each message: every batch remembers when its first message came, as far as cuts tell. A cut that
leaves messages behind notes how far they go and when that was, so an age may fall short by what
passed until the next cut, and what was pushed since the last one has none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from dflow.flow.allowance import Allowance
from dflow.flow.credit import SendWindow
from dflow.flow.sharing import share_out
from dflow.wire.notes import NO_NOTES, Notes

__all__ = ["MAX_BATCH", "MAX_BATCH_BYTES", "Cut", "Lane"]

MAX_BATCH = 512
"""Messages a batch, and twice as many where the window has room for sixteen batches.

Decoding is best with 100 to 500 messages, and a little slower with 1,000 (cache). What a worker
does once a batch costs as much as 50 messages; but a small window should hold several batches.
"""

MAX_BATCH_BYTES = 64 * 1024
"""Payload bytes a batch, unless a single message is larger."""


class Cut(NamedTuple):
    """A batch ready to be sent on ``channel``; its first message has number ``first`` there.

    ``payloads`` may be empty if there are ``notes``. A named tuple, as it is made once a batch.
    """

    channel: int
    first: int
    payloads: Sequence[Any]
    notes: Notes = NO_NOTES


def _no_flights() -> deque[tuple[int, int]]:
    """Return a place for (messages sent with this batch, since when its first is under way)."""
    return deque()


class Lane:
    """Messages waiting for the credit of one or several channels.

    ``full`` says when its node should wait: when the next message might find no credit, or, in a
    window of four batches or more, the next batch (a batch cut short costs as much as a whole one,
    and the credit of half a window comes back at once: RFC 1122, 4.2.3.4); if the lane is
    ``patient``, when a message is at hand that found none.

    Invariants: ``offered == flushed + waiting``; a message is cut exactly once, in order.
    """

    patient = False

    __slots__ = (
        "_began",
        "_behind",
        "_first",
        "_flights",
        "_settled",
        "_typical_bytes",
        "allowances",
        "batch",
        "byte_mark",
        "flushed",
        "flushed_bytes",
        "full",
        "head",
        "mark",
        "peak",
        "pending",
        "queued_bytes",
        "windows",
    )  # fmt: skip

    def __init__(self, windows: Sequence[SendWindow], allowances: Sequence[Allowance] = ()) -> None:
        self.windows = tuple(windows)
        self.allowances = tuple(allowances)
        roomy = len(self.windows) == 1 and self.windows[0].capacity >= 16 * MAX_BATCH
        self.batch = 2 * MAX_BATCH if roomy else MAX_BATCH
        self.pending: list[bytes] = []
        self.head = 0
        self.queued_bytes = 0
        self.flushed = 0
        self.flushed_bytes = 0
        self.peak = 0
        self.full = False
        self._first = 0
        self._began: tuple[int, int, int, int] | None = None
        self._settled = -1  # how many were pending when `settle` had counted them all
        self._typical_bytes = MAX_BATCH_BYTES  # unknown: so that the first chunk is one message
        self._behind: deque[tuple[int, int]] = deque()  # (offered, when a cut left them behind)
        self._flights = tuple(_no_flights() for _ in self.windows)
        self.mark = 0
        self.byte_mark = 0
        self.update()

    def push(self, payload: bytes, key: bytes = b"") -> bool:
        """Queue one encoded message; return whether the lane wants attention.

        A lane of a keyed edge remembers ``key``.
        """
        self.pending.append(payload)
        self.queued_bytes += len(payload)
        return len(self.pending) >= self.mark or self.queued_bytes >= self.byte_mark

    def begin(self, most: int) -> int:
        """Return how many messages to append to ``pending`` without a look at it: 1 to ``most``.

        A chunk: `settle` counts what it weighed. Attention is wanted at its end if at all, so it
        ends where messages of the usual size would want it.
        """
        if self._began is not None:  # user code was interrupted: nobody settled the last one
            self.settle()
        self._began = len(self.pending), self.flushed, self.queued_bytes, self.offered
        self._settled = -1
        by_bytes = (self.byte_mark - self.queued_bytes) // self._typical_bytes + 1
        return max(1, min(most, self.mark - len(self.pending), by_bytes, self.batch))

    def settle(self) -> int:
        """Count what was appended since `begin`, and return how many messages that was."""
        if self._began is None:
            return 0
        (at, flushed, queued_bytes, offered), self._began = self._began, None
        cut = self.flushed != flushed  # meanwhile, by somebody who did not know what all weighs
        new = self.pending[self.head if cut else at :]
        size = sum(map(len, new))
        self.queued_bytes = (self.flushed_bytes if cut else queued_bytes) + size
        if new:
            self._typical_bytes = size // len(new) + 1
        if cut:
            self.update()
        self._settled = len(self.pending)
        return self.offered - offered

    @property
    def wants_attention(self) -> bool:
        """Whether a batch is full, or credit has run out."""
        return len(self.pending) >= self.mark or self.queued_bytes >= self.byte_mark

    @property
    def heavy(self) -> bool:
        """Whether the last chunk was of messages too large for a batch."""
        return self._typical_bytes > MAX_BATCH_BYTES + 1

    @property
    def waiting(self) -> int:
        """Messages not yet cut."""
        return len(self.pending) - self.head

    @property
    def offered(self) -> int:
        """Messages ever pushed."""
        return self.flushed + self.waiting

    def cut(self, now: int = 0) -> list[tuple[int, list[bytes], int]]:
        """Return ``(window index, payloads, number of the first)`` of all that has credit.

        ``now`` is the monotonic clock.

        The caller must send what it gets, in order. Messages are numbered by channel, from 0.
        """
        waiting = self.waiting
        if not waiting:
            return []
        if waiting == 1 and len(self.windows) == 1:
            lone = self._cut_lone(now)
            if lone is not None:
                return [lone]
        batches: list[tuple[int, list[bytes], int]] = []
        self.peak = max(self.peak, waiting + sum([w.sent - w.taken for w in self.windows]))
        behind = self._behind
        since = behind[0][1] if behind else now
        if len(self.windows) == 1:
            self._cut_for(0, waiting, batches, since)
        else:
            # who has no bytes left takes no share, or it would hold up the others
            rooms = [w.room if w.room_bytes > 0 else 0 for w in self.windows]
            if self.allowances:
                rooms = self._allowed(rooms, now)
            shares = share_out(waiting, rooms, self._first)
            self._first = (self._first + 1) % len(shares)
            for index, share in enumerate(shares):
                if share:
                    self._cut_for(index, share, batches, since)
        if behind or self.head < len(self.pending):
            self._leave_behind(now)
        self.update()
        return batches

    def _cut_lone(self, now: int) -> tuple[int, list[bytes], int] | None:
        """Do as `cut` does with the only message there is, or return None if it takes more care.

        That is every message of a paced stream, so it does without lists and loops.
        """
        window = self.windows[0]
        payload = self.pending[self.head]
        size = len(payload)
        room, room_bytes = window.room - 1, window.room_bytes - size
        if room <= 0 or room_bytes <= 0 or self._behind:
            return None
        first = window.sent
        window.spend(1, size)
        self.peak = max(self.peak, first + 1 - window.taken)
        flights, done = self._flights[0], window.done
        while flights and flights[0][0] <= done:
            flights.popleft()
        flights.append((first + 1, now))
        self._drop(1, size)
        if self.pending:  # more has come meanwhile
            self.update()
        else:
            self.full = False
            self.mark = min(self.batch, room)
            self.byte_mark = self.flushed_bytes + min(MAX_BATCH_BYTES, room_bytes)
        return 0, [payload], first

    def _allowed(self, rooms: list[int], now: int) -> list[int]:
        """Return how much of ``rooms`` each channel may use, so that none has work for long."""
        found = []
        for window, allowance, room in zip(self.windows, self.allowances, rooms, strict=True):
            in_flight = window.sent - window.taken
            allowance.look(window.taken, in_flight, now)
            found.append(min(room, allowance.size - in_flight))
            if not in_flight:
                allowance.sending(0, now)
        return found

    def _cut_for(
        self, index: int, share: int, batches: list[tuple[int, list[bytes], int]], since: int
    ) -> None:
        window = self.windows[index]
        flights = self._flights[index]
        done = window.done
        while flights and flights[0][0] <= done:
            flights.popleft()
        share = min(share, window.room)
        while share > 0:
            # `push` appends before it counts, and may be in between
            whole = share == self.waiting and self._settled == len(self.pending)
            batch = self.pending[self.head : self.head + min(share, self.batch)]
            if whole and len(batch) == share:
                size = self.queued_bytes - self.flushed_bytes
            else:
                size = sum(map(len, batch))
            limit = min(MAX_BATCH_BYTES, window.room_bytes)
            if size > limit:
                batch, size = _fitting(batch, limit, window)
                if not batch:
                    return
            batches.append((index, batch, window.sent))
            self._drop(len(batch), size)
            window.spend(len(batch), size)
            flights.append((window.sent, since))
            share -= len(batch)

    def _leave_behind(self, now: int) -> None:
        behind = self._behind
        while behind and behind[0][0] <= self.flushed:
            behind.popleft()
        offered = self.offered
        if offered > (behind[-1][0] if behind else self.flushed):
            behind.append((offered, now))

    def oldest(self) -> int | None:
        """Return since when the oldest message not done is under way, or None; from any thread."""
        times = [time for _, time in list(self._behind)[:1]]
        for window, flights in zip(self.windows, self._flights, strict=True):
            done = window.done
            times += [time for end, time in list(flights) if end > done][:1]
        return min(times, default=None)

    def _drop(self, count: int, size: int) -> None:
        self._settled = -1
        self.head += count
        self.flushed += count
        self.flushed_bytes += size
        # amortised: long backlogs are not moved each time; but what is large is let go of at once
        if 2 * self.head >= len(self.pending) or size > MAX_BATCH_BYTES:
            head, self.head = self.head, 0
            del self.pending[:head]

    def update(self) -> None:
        """Recompute ``full`` and the marks from the credit there is now."""
        waiting = self.waiting
        room = room_bytes = 0
        for window in self.windows:
            room += max(window.room, 0)
            room_bytes += max(window.room_bytes, 0)
        waiting_bytes = self.queued_bytes - self.flushed_bytes
        if self.patient:
            self.full = room < waiting or room_bytes < waiting_bytes
        else:
            # of several channels each has its own room: there it may take long to become a batch
            whole = len(self.windows) == 1 and self.windows[0].capacity >= 4 * self.batch
            least = self.batch if whole else 1
            self.full = room < waiting + least or room_bytes <= waiting_bytes
        if self.full:  # nothing to gain before credit returns: ask again after a full batch
            self.mark = len(self.pending) + self.batch
            self.byte_mark = self.queued_bytes + MAX_BATCH_BYTES
        else:
            ask = waiting + self.batch if self.allowances else max(waiting + 1, self.batch)
            self.mark = self.head + min(ask, room)
            self.byte_mark = self.flushed_bytes + min(
                max(waiting_bytes + 1, MAX_BATCH_BYTES), room_bytes
            )


def _fitting(batch: list[bytes], limit: int, window: SendWindow) -> tuple[list[bytes], int]:
    """Return the longest prefix within ``limit`` bytes, or one message that may pass alone."""
    size = count = 0
    for payload in batch:
        if size + len(payload) > limit:
            break
        size += len(payload)
        count += 1
    if count == 0:
        first = len(batch[0])
        if first <= window.room_bytes or window.idle:
            return batch[:1], first
        return [], 0
    return batch[:count], size
