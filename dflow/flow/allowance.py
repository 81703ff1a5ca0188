"""How many messages a channel needs in flight: as few as keep its receiver busy.

What is in flight can no longer be dropped, merged, or given to another replica. A window that is
always full would send everything to a slow receiver at once; a window of one would make a fast one
wait for each report. So the allowance starts at one, doubles when the receiver ran dry while
messages waited for it, and halves when it stays more than half unused. (The idea is that of
TCP Vegas: measure the queue at the far end, and keep it short.)
"""

from __future__ import annotations

__all__ = ["Allowance"]

WATCHED = 8
"""Reports over which an allowance must stay half unused to be halved."""


class Allowance:
    """The allowance of one channel, ``most`` at most; ``size`` is what it is now."""

    __slots__ = ("_lowest", "_most", "_reports", "size")

    def __init__(self, most: int) -> None:
        self._most = most
        self.size = 1
        self._lowest = most
        self._reports = 0

    def reported(self, in_flight: int, waiting: bool) -> None:
        """Adapt to a report: so many were left in flight, and whether more were waiting."""
        if in_flight == 0 and waiting:
            self.size = min(self._most, 2 * self.size)
            self._watch()
            return
        self._lowest = min(self._lowest, in_flight)
        self._reports += 1
        if self._reports == WATCHED:
            if 2 * self._lowest > self.size:
                self.size = max(1, self.size // 2)
            self._watch()

    def _watch(self) -> None:
        self._reports = 0
        self._lowest = self._most
