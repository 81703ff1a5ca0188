"""Messages that wait one by one at their sender: a plain line, and one with a limit for each key.

Both know their oldest and newest message, and which goes next; they differ only in that. With a
limit, a message whose key has enough in flight lets those behind it pass: a stuck key holds up
nobody else, and each key stays first in, first out.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from heapq import heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dflow.flow.queue import Queue

__all__ = ["Item", "LimitedLine", "Line"]

Tag = tuple[int, int]


class Item:
    """One message at its sender, from emit until the receiver has reported it done.

    ``queue`` is where it waits. ``channel`` is its position among the edge's channels once it was
    sent, as message number ``sequence`` there. ``number``: its place in the order of the edge,
    or -1; ``arrival``: in a line with a limit. ``void``: nobody is to see it, but it has a number.
    """

    __slots__ = (
        "arrival", "channel", "emitted_ns", "id", "key", "number", "payload", "queue", "sequence",
        "tag", "void",
    )  # fmt: skip

    def __init__(
        self,
        payload: bytes,
        emitted_ns: int,
        key: bytes | None = None,
        id: str | None = None,
        tag: Tag | None = None,
    ) -> None:
        self.payload = payload
        self.emitted_ns = emitted_ns
        self.key = key
        self.id = id
        self.tag = tag
        self.number = -1
        self.arrival = -1
        self.void = False
        self.queue: Queue | None = None
        self.channel = -1
        self.sequence = -1


class Line:
    """First in, first out. ``size_bytes``: payloads that wait here, together."""

    __slots__ = ("_items", "size_bytes")

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def oldest(self) -> Item | None:
        """What has waited longest."""
        return self._items[0] if self._items else None

    def newest(self, key: bytes | None) -> Item | None:
        """Return what came last, of the same key if there is one."""
        for item in reversed(self._items):
            if item.key == key:
                return item
        return None

    @property
    def next(self) -> Item | None:
        """What goes next; None if nothing may."""
        return self._items[0] if self._items else None

    @property
    def first_tag(self) -> int | None:
        """The smallest input number of which a result waits here (they are ascending)."""
        return next((item.tag[0] for item in self._items if item.tag is not None), None)

    def push(self, item: Item) -> None:
        """Let ``item`` wait behind the others."""
        self._items.append(item)
        self.size_bytes += len(item.payload)

    def replace(self, item: Item, payload: bytes) -> None:
        """Give a waiting item another payload; it keeps its place."""
        self.size_bytes += len(payload) - len(item.payload)
        item.payload = payload

    def remove(self, item: Item) -> None:
        """Take out a waiting item, from wherever it stands."""
        if self._items[0] is item:
            self._items.popleft()
        else:
            self._items.remove(item)
        self.size_bytes -= len(item.payload)

    def send(self, item: Item) -> None:
        """Take out the item that goes next, counted as in flight."""
        self.remove(item)

    def done(self, key: bytes | None) -> None:
        """A message with ``key`` is no longer in flight."""


class _Key:
    """What one key has waiting, and how many of its messages are in flight."""

    __slots__ = ("in_flight", "waiting")

    def __init__(self) -> None:
        self.waiting: OrderedDict[int, Item] = OrderedDict()
        self.in_flight = 0


class LimitedLine(Line):
    """First in, first out for each key, and no more than ``limit`` of a key in flight.

    Invariant: every key that may send its next message has an entry in ``_eligible``; entries
    that are out of date are skipped when they come up.
    """

    __slots__ = ("_arrivals", "_eligible", "_keys", "_limit", "_order")

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit
        self._keys: dict[bytes | None, _Key] = {}
        self._order: OrderedDict[int, Item] = OrderedDict()
        self._eligible: list[tuple[int, bytes | None]] = []  # a heap: (arrival of its first, key)
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._order)

    @property
    def oldest(self) -> Item | None:
        """What has waited longest."""
        return next(iter(self._order.values()), None)

    def newest(self, key: bytes | None) -> Item | None:
        """Return what came last, of the same key if there is one."""
        known = self._keys.get(key)
        return next(reversed(known.waiting.values()), None) if known is not None else None

    @property
    def next(self) -> Item | None:
        """The oldest of those whose key has fewer than ``limit`` in flight."""
        while self._eligible:
            arrival, key = self._eligible[0]
            known = self._keys.get(key)
            if known is not None and known.in_flight < self._limit and arrival in known.waiting:
                return known.waiting[arrival]
            heappop(self._eligible)
        return None

    @property
    def first_tag(self) -> int | None:
        """The smallest input number of which a result waits here (they are ascending)."""
        return next((item.tag[0] for item in self._order.values() if item.tag is not None), None)

    def push(self, item: Item) -> None:
        """Let ``item`` wait behind the others."""
        item.arrival = self._arrivals
        self._arrivals += 1
        known = self._keys.setdefault(item.key, _Key())
        known.waiting[item.arrival] = item
        self._order[item.arrival] = item
        self.size_bytes += len(item.payload)
        if len(known.waiting) == 1:
            self._offer(item.key, known)

    def remove(self, item: Item) -> None:
        """Take out a waiting item, from wherever it stands."""
        known = self._keys[item.key]
        first = next(iter(known.waiting)) == item.arrival
        del known.waiting[item.arrival]
        del self._order[item.arrival]
        self.size_bytes -= len(item.payload)
        if first:
            self._offer(item.key, known)
        self._forget(item.key, known)

    def send(self, item: Item) -> None:
        """Take out the item that goes next, counted as in flight."""
        known = self._keys[item.key]
        known.in_flight += 1
        self.remove(item)

    def done(self, key: bytes | None) -> None:
        """A message with ``key`` is no longer in flight."""
        known = self._keys[key]
        known.in_flight -= 1
        self._offer(key, known)
        self._forget(key, known)

    def _offer(self, key: bytes | None, known: _Key) -> None:
        """Enter the key's first message, if there is one that may go."""
        if known.waiting and known.in_flight < self._limit:
            heappush(self._eligible, (next(iter(known.waiting)), key))

    def _forget(self, key: bytes | None, known: _Key) -> None:
        if not known.waiting and not known.in_flight:
            del self._keys[key]
