"""How many messages a channel needs in flight: some milliseconds of its receiver's work.

What is in flight can no longer be dropped, merged, or given to another replica. A window that is
always full would send everything to a slow receiver at once; a window of one would make a fast one
wait for each report. So the sender measures how long the receiver takes for a message, while it
has any, and allows as many as it takes for in a while, at least one. A short while (`TARGET_NS`)
where what waits may be dropped or merged; where replicas share what waits, one after which
a report and what it brings cost one message in a hundred (`SHARED_NS`).

Doubling the allowance whenever the receiver runs dry was tried and is not enough: with few
messages in flight a receiver reports every few, never runs dry, and spends its time on reports.
"""

from __future__ import annotations

__all__ = ["SHARED_NS", "TARGET_NS", "Allowance"]

TARGET_NS = 4_000_000
"""Several turns of a receiver, and many times what a report takes."""

SHARED_NS = 20_000_000
"""A hundred times what it takes to ask for a message and get it."""

GROWTH = 4
"""Times as many as before, at most: one short report proves little."""


class Allowance:
    """The allowance of one channel, from ``least`` to ``most``; ``size`` is what it is now."""

    __slots__ = ("_least", "_most", "_since_ns", "_taken", "_target_ns", "size")

    def __init__(self, most: int, least: int = 1, target_ns: int = TARGET_NS) -> None:
        self._most = most
        self._least = min(least, most)
        self._target_ns = target_ns
        self._since_ns = 0
        self._taken = 0
        self.size = self._least

    def sending(self, in_flight: int, now: int) -> None:
        """Note that something leaves; the receiver has nothing else to do if none is in flight."""
        if in_flight == 0:
            self._since_ns = now

    def look(self, taken: int, in_flight: int, now: int) -> None:
        """Adapt to what was reported: ``taken`` in total, and how many are left in flight."""
        count = taken - self._taken
        if count == 0:
            return
        elapsed = max(1, now - self._since_ns)
        self._taken = taken
        self._since_ns = now
        wanted = min(count * self._target_ns // elapsed, GROWTH * self.size, self._most)
        if wanted >= self.size:
            self.size = wanted
        elif in_flight > 0:  # who has nothing left may have been faster than it looks
            self.size = max(self._least, wanted, self.size // 2)
