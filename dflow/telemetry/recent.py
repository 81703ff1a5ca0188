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
_MOST_CHARACTERS = 64 * 1024 * 1024
_FEWEST_CHARACTERS = 64 * 1024
"""What one process may have of them, however many there are."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """One record; ``time_s`` is Unix time by the clock of the process that logged it."""

    time_s: float
    level: str
    place: str
    text: str


class _Ring:
    """What one process logged; ``count``: all there ever was."""

    __slots__ = ("characters", "count", "records")

    def __init__(self) -> None:
        self.records: deque[Remembered] = deque()
        self.characters = 0
        self.count = 0

    def add(self, record: Remembered, most: int, most_characters: int) -> None:
        """Remember ``record``, and of the older ones as many as fit."""
        self.records.append(record)
        self.characters += len(record.text)
        self.count += 1
        while len(self.records) > most or self.characters > most_characters:
            self.characters -= len(self.records.popleft().text)


class Recent:
    """The rings of one coordinator."""

    def __init__(self) -> None:
        self._of: dict[str, _Ring] = {}

    def clear(self) -> None:
        """Forget everything: another run begins."""
        self._of.clear()

    def note(self, record: Log, who: str) -> None:
        """Remember what ``who`` logged."""
        ring = self._of.get(who)
        if ring is None:
            ring = self._of[who] = _Ring()
        text = record.message
        if len(text) > _LONGEST:
            text = f"{text[:_LONGEST]}… ({len(text)} characters)"
        processes = len(self._of)
        ring.add(
            Remembered(record.time_s, record.level, f"{record.name}:{record.line}", text),
            min(MOST, max(_LEAST, _MOST_IN_ALL // processes)),
            max(_FEWEST_CHARACTERS, _MOST_CHARACTERS // processes),
        )

    def records(self, who: str) -> list[Remembered]:
        """Return what ``who`` logged last, in the order in which it came."""
        ring = self._of.get(who)
        return [] if ring is None else list(ring.records)

    def lost(self, who: str) -> int:
        """Return how many earlier records of ``who`` are not remembered."""
        ring = self._of.get(who)
        return 0 if ring is None else ring.count - len(ring.records)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._of))


RECENT = Recent()
"""Of the coordinator in this process."""
