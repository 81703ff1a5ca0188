"""When a node's ``on_tick`` is due.

Pure: the time comes in as ``now_s`` (monotonic seconds). Ticks have a grid, so that being late
once does not make all later ones late, and a busy node has as many as an idle one. What a stall
made impossible is never made up for, so there are no bursts: it is counted as skipped, and the
next tick is at least half a period away.

Invariant: every point of the grid that has passed was called or skipped.
"""

from __future__ import annotations

__all__ = ["Ticks"]


class Ticks:
    """The cadence of one node. ``called`` and ``skipped`` count.

    ``owes``: what the last tick emitted still waits for credit, so the next one is skipped, or
    ticks would take all the credit there ever is.
    """

    __slots__ = ("_every_s", "_next_s", "called", "owes", "skipped")

    def __init__(self, every_s: float | None) -> None:
        self._every_s = every_s
        self._next_s: float | None = None
        self.called = 0
        self.skipped = 0
        self.owes = False

    def begin(self, now_s: float) -> None:
        """Begin to tick, if the node ticks at all."""
        if self._every_s is not None:
            self._next_s = now_s + self._every_s

    @property
    def ticking(self) -> bool:
        """Whether any tick will ever be due."""
        return self._next_s is not None

    def until_s(self, now_s: float) -> float | None:
        """Return the seconds until the next tick is due, or None if none ever is."""
        return None if self._next_s is None else max(0.0, self._next_s - now_s)

    def due(self, now_s: float) -> bool:
        """Return whether to call ``on_tick`` now, and count it as called, or as skipped.

        The next one is always in the future.
        """
        if self._next_s is None or self._every_s is None or now_s < self._next_s:
            return False
        points = int((now_s - self._next_s) / self._every_s) + 1
        following = self._next_s + self._every_s * points
        stalled = points > 1
        if following <= now_s or (stalled and following - now_s < self._every_s / 2):
            points += 1
            following += self._every_s
        self._next_s = following
        self.called += not self.owes
        self.skipped += points - (not self.owes)
        return not self.owes
