"""When a node's ``on_tick`` is due.

Pure: the time comes in as ``now_s`` (monotonic seconds). A tick that could not be called in
time is never made up for, so there are no bursts; it is counted as skipped.
"""

from __future__ import annotations

__all__ = ["Ticks"]


class Ticks:
    """The cadence of one node. ``called`` and ``skipped`` count.

    ``owes``: what the last tick emitted still waits for credit, so the next one must wait, or
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

    def until_s(self, now_s: float) -> float | None:
        """Return the seconds until the next tick is due, or None if none ever is."""
        return None if self._next_s is None else max(0.0, self._next_s - now_s)

    def due(self, now_s: float) -> bool:
        """Return whether a tick is due; if so the one after it is set, always in the future."""
        if self._next_s is None or self._every_s is None or now_s < self._next_s:
            return False
        missed = int((now_s - self._next_s) / self._every_s)
        self._next_s += self._every_s * (missed + 1)
        self.skipped += missed
        return True
