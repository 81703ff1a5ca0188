"""What a state machine went through lately: a short memory that costs next to nothing.

A machine that is found in an odd state can be understood only by how it got there, and by then
it is too late to turn on a log. So each machine keeps the last few things it was told and did,
in short words: names, numbers and phases, never a payload, an error's text or a token.

What repeats is one line with a count: a worker that says the same a thousand times must not push
out why. What comes at a steady rate (counters, heartbeats) is not told at all.

Rejected: logging at DEBUG (it is off when it is needed, and costs when it is on); keeping the
events themselves (they hold payloads' errors and tokens, and memory nobody bounded).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["MOST", "Line", "Story"]

MOST = 256
"""Lines that are remembered."""

_LONGEST = 200


@dataclass(frozen=True, slots=True)
class Line:
    """``what`` happened ``times`` times, from ``at_s`` to ``until_s`` on the machine's clock."""

    at_s: float
    what: str
    times: int = 1
    until_s: float = 0.0

    def __str__(self) -> str:
        return self.what if self.times == 1 else f"{self.what} ({self.times} times)"


class Story:
    """The last `MOST` lines; ``told``: how many there were in all."""

    __slots__ = ("_at_s", "_lines", "_times", "_until_s", "_what", "told")

    def __init__(self, most: int = MOST) -> None:
        self._lines: deque[Line] = deque(maxlen=most - 1)  # and the one that may go on
        self._what = ""
        self._at_s = self._until_s = 0.0
        self._times = 0
        self.told = 0

    def note(self, now_s: float, what: str) -> None:
        """Remember ``what``; one that is the same as the last is counted."""
        self.told += 1
        if what == self._what:
            self._times, self._until_s = self._times + 1, now_s
            return
        if self._times:
            self._lines.append(self._last())
        self._what, self._times = what[:_LONGEST], 1
        self._at_s = self._until_s = now_s

    def _last(self) -> Line:
        return Line(self._at_s, self._what, self._times, self._until_s)

    def lines(self) -> Sequence[Line]:
        """Return what is remembered, the oldest first; from any thread."""
        kept = self._lines.copy()  # one step of the interpreter: others may be noting
        return (*kept, self._last()) if self._times else tuple(kept)

    def rows(self) -> list[list[object]]:
        """Return the lines as plain data: [seconds, words, times, seconds of the last]."""
        return [[line.at_s, line.what, line.times, line.until_s] for line in self.lines()]
