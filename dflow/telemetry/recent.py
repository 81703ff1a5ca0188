"""The last log records of every process of a run, kept by the coordinator, where all come by.

Kept there and not by each process: a worker that was killed can tell nothing, and what it had
logged was sent long before. The memory is bounded by the number of lines, which are shared out
when there are many workers, and by the length of each.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from dflow.wire.control import Log

__all__ = ["MOST", "RECENT", "Recent", "Remembered"]

MOST = 1000
"""Records of one process."""

_MOST_IN_ALL = 100_000
_LEAST = 50
_LONGEST = 4000


@dataclass(frozen=True, slots=True)
class Remembered:
    """One record; ``time_s`` is Unix time by the clock of the process that logged it."""

    time_s: float
    level: str
    place: str
    text: str


class Recent:
    """``lost``: by process, how many records were logged and are not remembered any more."""

    def __init__(self) -> None:
        self._of: dict[str, deque[Remembered]] = {}
        self._count: dict[str, int] = {}

    def clear(self) -> None:
        """Forget everything: another run begins."""
        self._of.clear()
        self._count.clear()

    def note(self, record: Log, who: str) -> None:
        """Remember what ``who`` logged."""
        kept = self._of.get(who)
        if kept is None:
            kept = self._of[who] = deque(maxlen=MOST)
        self._count[who] = self._count.get(who, 0) + 1
        text = record.message
        if len(text) > _LONGEST:
            text = f"{text[:_LONGEST]}… ({len(text)} characters)"
        place = f"{record.name}:{record.line}"
        kept.append(Remembered(record.time_s, record.level, place, text))
        share = max(_LEAST, _MOST_IN_ALL // len(self._of))
        while len(kept) > share:
            kept.popleft()

    def records(self, who: str) -> list[Remembered]:
        """Return what ``who`` logged last, in the order in which it came."""
        return list(self._of.get(who, ()))

    def lost(self, who: str) -> int:
        """Return how many earlier records of ``who`` are not remembered."""
        return self._count.get(who, 0) - len(self._of.get(who, ()))

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._of))


RECENT = Recent()
"""Of the coordinator in this process."""
