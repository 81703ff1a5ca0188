"""What each key of an edge has waiting, in flight and done, seen by the sender.

Bounded: of the keys that have nothing under way, the last thousand are remembered.
"""

from __future__ import annotations

from collections import OrderedDict
from heapq import nlargest
from typing import Any

from dflow.stats import KeyStats

__all__ = ["KeyCounts"]

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


def _text(label: Any) -> str:
    if isinstance(label, (str, bytes)):
        label = label[:MAX_LABEL]
    return repr(label)[:MAX_LABEL]
