"""What each key of an edge has waiting, in flight and done, seen by the sender.

`KeyCounts` counts each message as it moves, `DoneByKey` many at once when they are done; what is
under way it is told when somebody asks. Both are bounded: of the keys that have nothing under way,
the last thousand are remembered, by `DoneByKey` maybe some more.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from heapq import nlargest
from typing import Any, Protocol

from dflow.stats import KeyStats

__all__ = ["DoneByKey", "KeyCounts", "UnderWay"]

MAX_IDLE = 1000
MAX_SHOWN = 50
MAX_LABEL = 80


class _Count:
    __slots__ = ("done", "in_flight", "label", "rejected", "waiting")

    def __init__(self, label: str) -> None:
        self.label = label
        self.waiting = 0
        self.in_flight = 0
        self.done = 0
        self.rejected = 0

    @property
    def under_way(self) -> int:
        """Messages of the key that wait or are in flight."""
        return self.waiting + self.in_flight


class KeyCounts:
    """Counts by key. A key is its encoded bytes; ``label`` is the key itself, for people."""

    __slots__ = ("_busy", "_idle")

    def __init__(self) -> None:
        self._busy: dict[bytes, _Count] = {}
        self._idle: OrderedDict[bytes, _Count] = OrderedDict()

    def offered(self, key: bytes, label: Any) -> None:
        """A message with ``key`` waits."""
        self._of(key, label).waiting += 1

    def rejected(self, key: bytes, label: Any) -> None:
        """A message with ``key`` was refused."""
        self._of(key, label).rejected += 1
        self._settle(key)

    def sent(self, key: bytes) -> None:
        """A message that waited is in flight."""
        count = self._busy[key]
        count.waiting -= 1
        count.in_flight += 1

    def lost(self, key: bytes) -> None:
        """A message that waited will not be sent."""
        self._busy[key].waiting -= 1
        self._settle(key)

    def done(self, key: bytes) -> None:
        """A message that was in flight is done."""
        count = self._busy[key]
        count.in_flight -= 1
        count.done += 1
        self._settle(key)

    def busiest(self) -> tuple[KeyStats, ...]:
        """Return the keys with most under way, at most fifty; from any thread."""
        known = [*list(self._busy.values()), *list(self._idle.values())]
        found = nlargest(MAX_SHOWN, known, key=lambda count: (count.under_way, count.done))
        return tuple(
            KeyStats(c.label, max(0, c.waiting), max(0, c.in_flight), c.done, c.rejected)
            for c in found
        )

    def _of(self, key: bytes, label: Any) -> _Count:
        count = self._busy.get(key)
        if count is None:
            count = self._idle.pop(key, None) or _Count(_text(label))
            self._busy[key] = count
        return count

    def _settle(self, key: bytes) -> None:
        if self._busy[key].under_way == 0:
            self._idle[key] = self._busy.pop(key)
            if len(self._idle) > MAX_IDLE:
                self._idle.popitem(last=False)


class UnderWay(Protocol):
    """Messages with keys that are not done."""

    @property
    def undone(self) -> int:
        """How many there are."""

    def under_way(self) -> tuple[list[bytes], list[bytes]]:
        """Return the keys of those that wait, and of those in flight."""


class DoneByKey:
    """How many messages of each key are done.

    Two generations, as the order in which a thousand keys were last done would cost each message as
    much as all the rest: when the young one has a thousand keys (and one for
    each message under way) it becomes the old one, and what
    only the one before knew is forgotten, unless it has something under way.
    """

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: tuple[Counter[bytes], Counter[bytes]] = (Counter(), Counter())

    def add(self, keys: Iterable[bytes], lines: Sequence[UnderWay]) -> None:
        """Count a message of each of ``keys`` as done; ``lines`` have what is under way."""
        young, old = self._counts
        young.update(keys)
        if len(young) >= MAX_IDLE:
            self._age(young, old, lines)

    def _age(self, young: Counter[bytes], old: Counter[bytes], lines: Sequence[UnderWay]) -> None:
        if len(young) < MAX_IDLE + sum([line.undone for line in lines]):
            return  # so that a look at all that is under way costs each message little
        kept = old.keys() & young.keys()
        gone = old.keys() - kept
        for line in lines:
            for keys in line.under_way():
                kept |= gone.intersection(keys)
        merged = young.copy()
        for key in kept:
            merged[key] += old[key]
        self._counts = (Counter(), merged)  # at once: another thread may be reading

    def busiest(
        self, lines: Sequence[UnderWay], decode: Callable[[bytes], Any]
    ) -> tuple[KeyStats, ...]:
        """Return the keys with most under way, at most fifty; from any thread."""
        waiting: Counter[bytes] = Counter()
        in_flight: Counter[bytes] = Counter()
        for line in lines:
            waits, flies = line.under_way()
            waiting.update(waits)
            in_flight.update(flies)
        young, old = map(dict, self._counts)  # copies, as the other thread goes on counting
        rows = [
            (waiting[key] + in_flight[key], young.get(key, 0) + old.get(key, 0), key)
            for key in {**young, **old, **waiting, **in_flight}
        ]
        return tuple(
            KeyStats(_read(key, decode), waiting[key], in_flight[key], done)
            for _, done, key in nlargest(MAX_SHOWN, rows)
        )


def _read(key: bytes, decode: Callable[[bytes], Any]) -> str:
    try:
        return _text(decode(key))
    except Exception:  # noqa: BLE001  # a class that cannot be read, or shown, must not end a run
        return _text(key)


def _text(label: Any) -> str:
    if isinstance(label, (str, bytes)):
        label = label[:MAX_LABEL]
    return repr(label)[:MAX_LABEL]
