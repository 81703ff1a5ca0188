"""The sending half of an edge whose messages wait one by one: policies, ids, order, limits.

A plain edge (`dflow.flow.out_edge`) appends payloads and looks at nothing; here each message is
looked at, so each costs a little more. An unkeyed edge has one queue for all its channels, and so
has an edge with a limit for each key; a keyed edge has a queue for each channel, and so has one
that gives every replica a copy.

Every method but those that only read is called under the lock of the data plane.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple
from zlib import crc32

from dflow.errors import EdgeFull
from dflow.flow.batch import MAX_BATCH, MAX_BATCH_BYTES, Cut
from dflow.flow.credit import SendWindow
from dflow.flow.ids import Ids
from dflow.flow.keys import KeyCounts
from dflow.flow.news import Completions
from dflow.flow.out_edge import key_bytes
from dflow.flow.queue import EdgeCode, Fate, Queue
from dflow.flow.sharing import share_out
from dflow.flow.waiting import Item, LimitedLine, Line
from dflow.graph.plan import EdgePlan
from dflow.message import Cancelled, Priority
from dflow.stats import Fates, QueueStats
from dflow.wire.notes import NO_NOTES, Notes

__all__ = ["EdgeCode", "Place", "QueueEdge"]

Tag = tuple[int, int]


class Place(NamedTuple):
    """Where a message goes: into ``queues``, as one of ``key``; ``label`` is the key itself."""

    queues: tuple[Queue, ...]
    key: bytes | None = None
    label: Any = None


class QueueEdge:
    """One edge at one sender replica, whose messages wait one by one for credit.

    ``channels`` are the channel numbers, ``windows`` their credit, in replica order. ``prompt``:
    each message is to leave at once. What a failed merge raised is given to ``on_merge_error``.

    Invariant: ``offered == waiting + sent + fates.total``.
    """

    __slots__ = (
        "_by_offer", "_copies", "_encode", "_fates", "_flights", "_ids", "_keys", "_news", "_next",
        "_place", "_places", "_queues", "_run_ahead", "channels", "closed", "ended", "id", "index",
        "key", "offered", "on_merge_error", "plan", "prompt", "windows",
    )  # fmt: skip

    def __init__(self, plan: EdgePlan, channels: Sequence[int], code: EdgeCode) -> None:
        self.plan = plan
        self.index = plan.index
        self.id = plan.id
        self.channels = tuple(channels)
        self.key = code.key
        self._encode = code.encode
        self.windows = tuple(SendWindow(plan.window, plan.max_bytes) for _ in channels)
        self.ended = False
        self.closed = False  # the receiver takes no more (it ended before this sender)
        self.offered = 0
        self.prompt = plan.priority is Priority.CONTROL or plan.policy == "latest"
        self.on_merge_error: Callable[[BaseException, str], None] = lambda error, where: None
        self._place = {number: at for at, number in enumerate(self.channels)}
        self._flights: tuple[dict[int, Item], ...] = tuple({} for _ in channels)
        self._fates = dict.fromkeys(Fates.__slots__, 0)
        self._ids = Ids()
        self._keys = KeyCounts()
        self._news = Completions(len(self.channels))
        self._next = 0  # number of the next message, in the order of the edge
        self._run_ahead = (plan.capacity if plan.limit else plan.window) * len(self.channels)
        self._by_offer = plan.numbered_by_offer
        self._queues, self._places = self._make_queues(code)
        self._copies = len(self.channels) if plan.broadcast else 1
        self._update()

    def _make_queues(self, code: EdgeCode) -> tuple[tuple[Queue, ...], tuple[Place, ...]]:
        plan, windows = self.plan, self.windows
        every = range(len(self.channels))

        def queue(line: Line, at: Sequence[int]) -> Queue:
            mine = [windows[i] for i in at]
            return Queue(plan, line, at, mine, code, self._lose, self._merge_failed)

        if plan.limit:
            queues: tuple[Queue, ...] = (queue(LimitedLine(plan.limit), every),)
        elif plan.broadcast or code.key is not None:
            queues = tuple(queue(Line(), (i,)) for i in every)
        else:
            queues = (queue(Line(), every),)
        if plan.broadcast:
            return queues, (Place(queues),)
        return queues, tuple(Place((one,)) for one in queues)

    # --- emitting --------------------------------------------------------------------------------

    def place(self, value: Any) -> Place:
        """Return where ``value`` goes; raises what its key function does, and `OptionError`."""
        if self.key is None:
            return self._places[0]
        label = self.key(value)
        key = key_bytes(label, self._encode)
        queues = self._places[crc32(key) % len(self._places)].queues
        return Place(queues, key, label)

    def held(self, place: Place) -> bool:
        """Whether a sender that waits for credit should wait with a message for ``place``."""
        return self.plan.policy == "block" and any(queue.full for queue in place.queues)

    def crowded(self, place: Place, size_bytes: int = 0) -> bool:
        """Whether the policy would lose or refuse something for a message there now."""
        return self.plan.policy != "block" and any(q.over(size_bytes) for q in place.queues)

    def refusal(self, place: Place, size_bytes: int = 0) -> EdgeFull | None:
        """Return the error for a message that is not let in, counted as rejected; else None."""
        if self.plan.policy != "reject":
            return None
        for queue in place.queues:
            if queue.over(size_bytes):
                self.offered += 1
                self._fates["rejected"] += 1
                if place.key is not None:
                    self._keys.rejected(place.key, place.label)
                return EdgeFull(self.id, self.plan.capacity, queue.depth)
        return None

    def offer(
        self, payload: bytes, place: Place, now: int, *, id: str | None = None,
        tag: Tag | None = None,
    ) -> bool:  # fmt: skip
        """Let an encoded message wait, or do as the policy says; never raises, never blocks.

        ``tag``: which result of which input it is, of an ordered node. Returns whether the wire
        should be looked at now.
        """
        wanted = self.prompt
        if tag is not None:
            self._news.result(tag[0])
        for queue in place.queues:
            item = Item(payload, now, place.key, id, tag)
            self.offered += 1
            if place.key is not None:
                self._keys.offered(place.key, place.label)
            self._ids.add(item)
            if self._by_offer:
                item.number = self._next
                self._next += 1
            if queue.admit(item, now):
                item.queue = queue
            wanted = wanted or len(queue.line) >= queue.mark
        return wanted

    def complete(self, number: int) -> None:
        """Tell the receivers, when everything of it was sent, that input ``number`` is complete."""
        self._news.complete(number)

    def _lose(self, item: Item, fate: Fate) -> None:
        self._fates[fate] += 1
        self._ids.forget(item)
        if item.key is not None:
            self._keys.lost(item.key)

    def _merge_failed(self, error: Exception) -> None:
        self._fates["errors"] += 1
        self.on_merge_error(error, f"coalesce of {self.id}")

    # --- sending ---------------------------------------------------------------------------------

    def flush(self, now: int) -> list[Cut]:
        """Return everything that has credit; ``now`` is the monotonic clock.

        The caller must send what it gets, in order.
        """
        cuts: list[Cut] = []
        for queue in self._queues:
            if queue.line:
                queue.note_peak()
            queue.expire(now)
            if queue.line:
                queue.adapt(now)
                dealt = self._deal_by_key(queue) if self.plan.limit else self._deal(queue, now)
                cuts += [self._cut(at, items, now) for at, items in dealt]
            if self._news:
                self._tell(queue, cuts)
        self._update()
        return cuts

    def _deal(self, queue: Queue, now: int) -> Iterator[tuple[int, list[Item]]]:
        """Take out what goes next, and say by which channel."""
        line = queue.line
        shares = share_out(min(len(line), self._ahead(queue)), queue.rooms(), queue.first)
        queue.first = (queue.first + 1) % len(shares)
        for at, share in zip(queue.channels, shares, strict=True):
            if share > 0:
                queue.sending(at, now)
            while share > 0 and (items := self._batch(queue, at, min(share, MAX_BATCH))):
                share -= len(items)
                yield at, items

    def _batch(self, queue: Queue, at: int, most: int) -> list[Item]:
        """Take the next messages for a channel: one batch, all with tags or all without."""
        window, line = self.windows[at], queue.line
        limit = min(MAX_BATCH_BYTES, window.room_bytes)
        items: list[Item] = []
        size = 0
        while len(items) < most and (item := line.next) is not None:
            length = len(item.payload)
            if items:
                if size + length > limit or (item.tag is None) != (items[0].tag is None):
                    break
            elif length > window.room_bytes and not window.idle:
                break
            line.send(item)
            items.append(item)
            size += length
        self._fly(at, items, size)
        return items

    def _deal_by_key(self, queue: Queue) -> Iterator[tuple[int, list[Item]]]:
        """Give each message that may go to the channel with most hands free, in order."""
        windows, line = self.windows, queue.line
        count = len(windows)
        batch: list[Item] = []
        batch_bytes = 0
        left = self._ahead(queue)
        while left > 0 and (item := line.next) is not None:
            left -= 1
            size = len(item.payload)
            free = [
                (-w.room, (at - queue.first) % count, at)
                for at, w in enumerate(windows)
                if w.room > 0 and (size <= w.room_bytes or w.idle)
            ]
            if not free:
                break
            at = min(free)[2]
            queue.first = (at + 1) % count
            other = batch and (batch[0].tag is None) != (item.tag is None)
            if batch and (batch[0].channel != at or other or batch_bytes + size > MAX_BATCH_BYTES):
                yield batch[0].channel, batch
                batch, batch_bytes = [], 0
            line.send(item)
            self._fly(at, [item], size)
            batch.append(item)
            batch_bytes += size
        if batch:
            yield batch[0].channel, batch

    def _fly(self, at: int, items: Sequence[Item], size_bytes: int) -> None:
        """Count messages as sent by a channel, and number them."""
        window, flights = self.windows[at], self._flights[at]
        sequence = window.sent
        numbering = self.plan.numbered and not self._by_offer
        for item in items:
            item.channel, item.sequence = at, sequence
            item.queue = None
            flights[sequence] = item
            sequence += 1
            if numbering:
                item.number = self._next
                self._next += 1
            if item.key is not None:
                self._keys.sent(item.key)
        window.spend(len(items), size_bytes)

    def _cut(self, at: int, items: list[Item], now: int) -> Cut:
        payloads = [item.payload for item in items]
        notes = self._notes(items, now)
        for item in items:
            item.payload = b""  # what is remembered until it is done is not its contents
        return Cut(self.channels[at], items[0].sequence, payloads, notes)

    def _notes(self, items: list[Item], now: int) -> Notes:
        plan = self.plan
        tags = [item.tag for item in items if item.tag is not None]
        if not (tags or plan.numbered or plan.ttl_s is not None):
            return NO_NOTES
        ages = [max(0, now - item.emitted_ns) for item in items] if plan.ttl_s is not None else ()
        return Notes(
            numbers=[item.number for item in items] if plan.numbered else (),
            tags=[number for number, _ in tags] or (),
            places=[place for _, place in tags] or (),
            ages_ns=ages,
            withdrawn=[at for at, item in enumerate(items) if item.void] or (),
        )

    def _tell(self, queue: Queue, cuts: list[Cut]) -> None:
        """Add to ``cuts`` which inputs are complete, as far as everything of them is in flight."""
        before = queue.line.first_tag
        for at in queue.channels:
            told = self._news.tell(at, before)
            if told:
                self._append(cuts, at, [n for n, _ in told], [count for _, count in told])

    def _append(self, cuts: list[Cut], at: int, completed: list[int], counts: list[int]) -> None:
        number = self.channels[at]
        for position in range(len(cuts) - 1, -1, -1):
            cut = cuts[position]
            if cut.channel == number:
                notes = replace(cut.notes, completed=completed, counts=counts)
                cuts[position] = cut._replace(notes=notes)
                return
        notes = Notes(completed=completed, counts=counts)
        cuts.append(Cut(number, self.windows[at].sent, (), notes))

    def _ahead(self, queue: Queue) -> int:
        """Return how many messages may leave before the oldest undone one is done."""
        if not self.plan.numbered:
            return len(queue.line)
        oldest = self._oldest_undone()
        first = queue.line.next
        if oldest is None or first is None:
            return self._run_ahead
        number = first.number if self._by_offer else self._next
        return max(0, oldest + self._run_ahead - number)

    def _oldest_undone(self) -> int | None:
        """Return the smallest number that is in flight, or waits with a number."""
        numbers = [
            item.number
            for flights, window in zip(self._flights, self.windows, strict=True)
            if (item := flights.get(window.done)) is not None
        ]
        if self._by_offer:
            waiting = [queue.line.oldest for queue in self._queues]
            numbers += [item.number for item in waiting if item is not None]
        return min(numbers, default=None)

    def _update(self) -> None:
        for queue in self._queues:
            queue.update()

    # --- what the receivers report ---------------------------------------------------------------

    def on_credit(
        self, channel: int, taken: int, taken_bytes: int, done: int, beyond: Sequence[int] = ()
    ) -> None:
        """Take in a report; raises `ProtocolError` and changes nothing if it is impossible.

        ``beyond`` are messages done while an earlier one is not.
        """
        at = self._place[channel]
        window = self.windows[at]
        before = window.done
        queue = self._queues[at if len(self._queues) > 1 else 0]
        queue.note_peak()  # it is about to be less deep
        if window.report(taken, taken_bytes, done):
            queue.update()
        flights = self._flights[at]
        for sequence in (*range(before, window.done), *beyond):
            item = flights.pop(sequence, None)
            if item is not None:
                self._done(item)

    def _done(self, item: Item) -> None:
        self._ids.forget(item)
        if item.key is not None:
            self._keys.done(item.key)
        if self.plan.limit:
            self._queues[0].line.done(item.key)

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

        Those are (channel number, sequence), as long as they are not reported done.
        """
        sent: list[tuple[int, int]] = []
        outcome = Cancelled.DONE if self._ids.over(id) else Cancelled.UNKNOWN
        for item in self._ids.of(id):
            if item.queue is not None:
                outcome = Cancelled.CANCELLED
                if self._by_offer or item.tag is not None:  # its number, or place, must arrive
                    item.void = True
                else:
                    item.queue.drop(item, "cancelled")
            else:
                sent.append((self.channels[item.channel], item.sequence))
        return outcome, sent

    # --- counters --------------------------------------------------------------------------------

    @property
    def news(self) -> bool:
        """Whether the receivers are to be told something beside messages."""
        return bool(self._news)

    @property
    def full(self) -> bool:
        """Whether the sender should wait: only with policy block, when credit has run out.

        With a key, when it has run out for a message at hand: others may be for a free replica.
        """
        if self.plan.policy != "block":
            return False
        if self.key is not None and not self.plan.limit:
            return any(queue.stuck for queue in self._queues)
        for queue in self._queues:  # noqa: SIM110  # once a turn: a generator costs more
            if queue.full:
                return True
        return False

    @property
    def waiting(self) -> int:
        """Messages emitted but still without credit or not yet flushed."""
        return sum([len(queue.line) for queue in self._queues])

    @property
    def emitted(self) -> int:
        """Messages emitted that this edge was to carry, however many copies it made of each."""
        return (self.offered - self._fates["rejected"]) // self._copies

    @property
    def peak(self) -> int:
        """The most messages that ever waited at once, here or at a receiver."""
        return sum([queue.peak for queue in self._queues])

    @property
    def fates(self) -> Fates:
        """What became of messages that never went onto the wire."""
        return Fates(**self._fates)

    def queue_stats(self, now: int) -> QueueStats:
        """Return the age of what has waited longest, and the busiest keys; from any thread."""
        oldest = now
        with suppress(IndexError, RuntimeError):  # another thread is changing the line
            for queue in self._queues:
                item = queue.line.oldest
                oldest = oldest if item is None else min(oldest, item.emitted_ns)
        return QueueStats((now - oldest) / 1e9, self._keys.busiest())
