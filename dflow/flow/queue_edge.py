"""The sending half of an edge whose messages wait one by one: policies, ids, order, limits.

A plain edge (`dflow.flow.out_edge`) appends payloads and looks at nothing; here each message is
looked at, so each costs a little more. An unkeyed edge has one queue for all its channels, and so
has an edge with a limit for each key; a keyed edge has a queue for each channel, and so has one
that gives every replica a copy.

Every method but the ones that only read is called under the lock of the data plane.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from zlib import crc32

from dflow.errors import EdgeFull
from dflow.flow.batch import MAX_BATCH, MAX_BATCH_BYTES, Cut
from dflow.flow.credit import SendWindow
from dflow.flow.out_edge import key_bytes
from dflow.flow.sharing import share_out
from dflow.flow.waiting import Item, LimitedLine, Line
from dflow.graph.plan import EdgePlan
from dflow.message import Cancelled, Priority
from dflow.stats import Fates, QueueStats
from dflow.wire.notes import NO_NOTES, Notes

__all__ = ["EdgeCode", "Place", "QueueEdge"]

Tag = tuple[int, int]


@dataclass(frozen=True, slots=True)
class EdgeCode:
    """What an edge needs of user code and codec: ``key`` and ``merge`` may be None.

    ``pack`` makes a payload of a value, where that is not `encode` (which keys are made with).
    """

    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]
    key: Callable[[Any], Any] | None = None
    merge: Callable[[Any, Any], Any] | None = None
    pack: Callable[[Any], Any] | None = None


class Place(NamedTuple):
    """Where a message goes: into ``queues``, as one of ``key``; ``label`` is the key itself."""

    queues: tuple[_Queue, ...]
    key: bytes | None = None
    label: Any = None


class _Queue:
    """What waits for some of an edge's channels (their positions), and the credit for it."""

    __slots__ = ("channels", "first", "line", "mark", "peak", "windows")

    def __init__(self, line: Line, channels: Sequence[int], windows: Sequence[SendWindow]) -> None:
        self.line = line
        self.channels = tuple(channels)
        self.windows = tuple(windows)
        self.first = 0  # whose turn it is among channels with equal credit
        self.mark = 1  # messages at which emit has the wire looked at
        self.peak = 0

    @property
    def in_flight(self) -> int:
        """Messages sent and not taken."""
        return sum([w.sent - w.taken for w in self.windows])

    @property
    def ahead(self) -> int:
        """The same without the one a receiver has at hand."""
        return sum([max(0, w.sent - w.taken - 1) for w in self.windows])


class QueueEdge:
    """One edge at one sender replica, whose messages wait one by one for credit.

    ``channels`` are the channel numbers, ``windows`` their credit, in replica order. What a
    failed merge raised is handed to ``on_merge_error``.

    Invariant: ``offered == waiting + sent + fates.total``.
    """

    __slots__ = (
        "_by_id",
        "_cancelled",
        "_coalesced",
        "_code",
        "_dropped",
        "_errors",
        "_expired",
        "_flights",
        "_place",
        "_places",
        "_queues",
        "_rejected",
        "channels",
        "closed",
        "ended",
        "id",
        "index",
        "key",
        "news",
        "offered",
        "on_merge_error",
        "plan",
        "windows",
    )  # fmt: skip

    def __init__(self, plan: EdgePlan, channels: Sequence[int], code: EdgeCode) -> None:
        self.plan = plan
        self.index = plan.index
        self.id = plan.id
        self.channels = tuple(channels)
        self.key = code.key
        self.windows = tuple(SendWindow(plan.window, plan.max_bytes) for _ in channels)
        self.ended = False
        self.closed = False  # the receiver takes no more (it ended before this sender)
        self.news = False  # whether the receivers are to be told something beside messages
        self.offered = 0
        self.on_merge_error: Callable[[BaseException], None] = lambda error: None
        self._code = code
        self._place = {number: at for at, number in enumerate(self.channels)}
        self._flights: tuple[dict[int, Item], ...] = tuple({} for _ in channels)
        self._dropped = self._coalesced = self._expired = 0
        self._cancelled = self._rejected = self._errors = 0
        every = range(len(self.channels))
        if plan.limit:
            self._queues = [_Queue(LimitedLine(plan.limit), every, self.windows)]
        elif plan.broadcast or code.key is not None:
            self._queues = [_Queue(Line(), (at,), (self.windows[at],)) for at in every]
        else:
            self._queues = [_Queue(Line(), every, self.windows)]
        self._places = tuple(Place((queue,)) for queue in self._queues)
        if plan.broadcast:
            self._places = (Place(tuple(self._queues)),)
        self._update()

    # --- emitting --------------------------------------------------------------------------------

    def place(self, value: Any) -> Place:
        """Return where ``value`` goes; raises what its key function does, and `OptionError`."""
        if self.key is None:
            return self._places[0]
        label = self.key(value)
        key = key_bytes(label, self._code.encode)
        queues = self._places[crc32(key) % len(self._places)].queues
        return Place(queues, key, label)

    def crowded(self, place: Place, size_bytes: int = 0) -> bool:
        """Whether the policy would lose or refuse something for a message there now."""
        return self.plan.policy != "block" and any(
            self._over(queue, size_bytes) for queue in place.queues
        )

    def refusal(self, place: Place, size_bytes: int = 0) -> EdgeFull | None:
        """Return the error for a message that is not let in, counted as rejected; else None."""
        if self.plan.policy != "reject":
            return None
        for queue in place.queues:
            if self._over(queue, size_bytes):
                self.offered += 1
                self._rejected += 1
                return EdgeFull(self.id, self.plan.capacity, self._depth(queue))
        return None

    def offer(
        self, payload: bytes, place: Place, now: int, *, id: str | None = None,
        tag: Tag | None = None,
    ) -> bool:  # fmt: skip
        """Let an encoded message wait, or do as the policy says; never raises, never blocks.

        ``tag``: which result of which input it is, of an ordered node. Returns whether the wire
        should be looked at now.
        """
        wanted = False
        for queue in place.queues:
            self.offered += 1
            self._admit(queue, Item(payload, now, place.key, id, tag))
            queue.peak = max(queue.peak, self._depth(queue))
            wanted = wanted or len(queue.line) >= queue.mark
        return wanted or self.prompt

    @property
    def prompt(self) -> bool:
        """Whether each message is to leave at once."""
        return self.plan.priority is Priority.CONTROL or self.plan.policy == "latest"

    def _admit(self, queue: _Queue, item: Item) -> None:
        policy = self.plan.policy
        line = queue.line
        if policy == "block" or not self._over(queue, len(item.payload)):
            line.push(item)
        elif policy == "drop":
            self._dropped += 1
        elif policy != "coalesce" or not self._merge(queue, item):
            line.push(item)
            while len(line) > 1 and self._beyond(queue):
                self._lose(queue, line.oldest)
                self._dropped += 1

    def _beyond(self, queue: _Queue) -> bool:
        """Whether more waits than may."""
        plan = self.plan
        if plan.policy == "latest":
            return len(queue.line) > 1
        return self._depth(queue) > plan.capacity or queue.line.size_bytes > plan.max_bytes

    def _over(self, queue: _Queue, size_bytes: int) -> bool:
        """Whether one more message of that size would be too many."""
        plan = self.plan
        if plan.policy == "latest":
            return len(queue.line) > 0
        too_large = queue.line.size_bytes + size_bytes > plan.max_bytes and len(queue.line) > 0
        return too_large or self._depth(queue) >= plan.capacity

    def _depth(self, queue: _Queue) -> int:
        """Messages that wait here or at a receiver, in the sense of ``capacity``."""
        plan = self.plan
        if plan.reports == "ready":  # those in flight are in somebody's hands
            return len(queue.line)
        if plan.policy in ("drop_oldest", "coalesce"):
            return len(queue.line) + queue.ahead
        return len(queue.line) + queue.in_flight

    def _merge(self, queue: _Queue, item: Item) -> bool:
        """Merge ``item`` into the newest that waits; False if there is none, or it failed."""
        last = queue.line.newest(item.key)
        code = self._code
        if last is None or code.merge is None:
            return False
        try:
            merged = code.merge(code.decode(last.payload), code.decode(item.payload))
            payload = (code.pack or code.encode)(merged)
        except Exception as error:  # noqa: BLE001  # user code may raise anything
            self._errors += 1
            self.on_merge_error(error)
            return False
        queue.line.replace(last, payload)
        last.emitted_ns = item.emitted_ns
        self._coalesced += 1
        return True

    def _lose(self, queue: _Queue, item: Item | None) -> None:
        if item is not None:
            queue.line.remove(item)

    # --- sending ---------------------------------------------------------------------------------

    def flush(self, now: int) -> list[Cut]:
        """Return everything that has credit; ``now`` is the monotonic clock.

        The caller must send what it gets, in order.
        """
        cuts: list[Cut] = []
        for queue in self._queues:
            self._expire(queue, now)
            if queue.line:
                cuts += self._cut(queue, now)
        self._update()
        return cuts

    def _expire(self, queue: _Queue, now: int) -> None:
        """Drop what has waited for longer than it may."""
        ttl_s = self.plan.ttl_s
        if ttl_s is None:
            return
        before = now - int(ttl_s * 1e9)
        while (item := queue.line.oldest) is not None and item.emitted_ns < before:
            self._lose(queue, item)
            self._expired += 1

    def _cut(self, queue: _Queue, now: int) -> Iterator[Cut]:
        rooms = [w.room if w.room_bytes > 0 else 0 for w in queue.windows]
        shares = share_out(len(queue.line), rooms, queue.first)
        queue.first = (queue.first + 1) % len(shares)
        for at, share in zip(queue.channels, shares, strict=True):
            while share > 0 and (items := self._batch(queue, at, share)):
                share -= len(items)
                yield self._made(at, items, now)

    def _batch(self, queue: _Queue, at: int, most: int) -> list[Item]:
        """Take the next messages for a channel out of a queue, and number them."""
        window, line, flights = self.windows[at], queue.line, self._flights[at]
        items: list[Item] = []
        size = 0
        limit = min(MAX_BATCH_BYTES, window.room_bytes)
        while len(items) < min(most, MAX_BATCH) and (item := line.next) is not None:
            length = len(item.payload)
            if size + length > limit and (
                items or not (length <= window.room_bytes or window.idle)
            ):
                break
            line.send(item)
            item.channel, item.sequence = at, window.sent + len(items)
            flights[item.sequence] = item
            items.append(item)
            size += length
        window.spend(len(items), size)
        return items

    def _made(self, at: int, items: list[Item], now: int) -> Cut:
        notes = NO_NOTES
        if self.plan.ttl_s is not None:
            notes = Notes(ages_ns=[max(0, now - item.emitted_ns) for item in items])
        payloads = [item.payload for item in items]
        for item in items:
            item.payload = b""
        return Cut(self.channels[at], items[0].sequence, payloads, notes)

    def on_credit(
        self, channel: int, taken: int, taken_bytes: int, done: int, beyond: Sequence[int] = ()
    ) -> None:
        """Take in a report; raises `ProtocolError` and changes nothing if it is impossible.

        ``beyond`` are messages done while an earlier one is not.
        """
        at = self._place[channel]
        window = self.windows[at]
        before = window.done
        window.report(taken, taken_bytes, done)
        flights = self._flights[at]
        for sequence in (*range(before, window.done), *beyond):
            item = flights.pop(sequence, None)
            if item is not None and self.plan.limit:
                self._queues[0].line.done(item.key)

    def _update(self) -> None:
        """Say when emit should have the wire looked at next."""
        for queue in self._queues:
            waiting = len(queue.line)
            room = sum([max(w.room, 0) for w in queue.windows])
            queue.mark = waiting + (min(MAX_BATCH, room) if room > waiting else MAX_BATCH)

    def complete(self, number: int) -> None:
        """Say that input ``number`` brings no more results."""

    # --- ending ----------------------------------------------------------------------------------

    def end(self) -> list[tuple[int, int]]:
        """Return what END says, (channel number, messages sent), once everything was flushed.

        Once: later calls return nothing.
        """
        if self.ended or self.waiting or self.news:
            return []
        self.ended = True
        return [(n, window.sent) for n, window in zip(self.channels, self.windows, strict=True)]

    @property
    def settled(self) -> bool:
        """Whether the receivers have reported everything that was sent as done."""
        return not self.waiting and all(w.done == w.sent for w in self.windows)

    # --- cancelling ------------------------------------------------------------------------------

    def withdraw(self, id: str) -> tuple[Cancelled, list[tuple[int, int]]]:
        """Take out what waits with this id; say where its other copies were sent.

        Those are (channel number, sequence), until they are done.
        """
        return Cancelled.UNKNOWN, []

    # --- counters --------------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """Whether the sender should wait: only with policy block, when credit has run out."""
        if self.plan.policy != "block":
            return False
        for queue in self._queues:
            waiting, waiting_bytes = len(queue.line), queue.line.size_bytes
            if self.plan.limit:
                if waiting >= self.plan.capacity or waiting_bytes >= self.plan.max_bytes:
                    return True
                continue
            room = sum([max(w.room, 0) for w in queue.windows])
            room_bytes = sum([max(w.room_bytes, 0) for w in queue.windows])
            if room <= waiting or room_bytes <= waiting_bytes:
                return True
        return False

    @property
    def waiting(self) -> int:
        """Messages emitted but still without credit or not yet flushed."""
        return sum([len(queue.line) for queue in self._queues])

    @property
    def emitted(self) -> int:
        """Messages emitted that this edge was to carry, however many copies it made of each."""
        copies = len(self.channels) if self.plan.broadcast else 1
        return (self.offered - self._rejected) // copies

    @property
    def peak(self) -> int:
        """The most messages that were waiting or in flight at once."""
        return sum([queue.peak for queue in self._queues])

    @property
    def fates(self) -> Fates:
        """What became of messages that never went onto the wire."""
        return Fates(
            self._dropped, self._coalesced, self._expired, self._cancelled, self._rejected,
            self._errors,
        )  # fmt: skip

    def queue_stats(self, now: int) -> QueueStats:
        """Return the age of what has waited longest, and the busiest keys; from any thread."""
        return QueueStats()
