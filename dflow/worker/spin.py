"""A worker that has nothing to do may keep looking for a while before it sleeps. Pure.

A thread that sleeps in poll(2) is woken by another one, which costs it 10 to 50 us on each hop; one
that keeps looking costs a core instead. The time counts from when there was last something
to do, so a worker that gets a message more often than every ``spin_s`` never sleeps.

Rejected: spinning in ZeroMQ's thread, too (it sleeps in epoll, and cannot be told not to).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

__all__ = ["Spin"]

Found = TypeVar("Found")


class Spin:
    """How long to keep looking. ``looks`` counts them."""

    __slots__ = ("_idle_since_ns", "_spin_ns", "looks")

    def __init__(self, spin_s: float) -> None:
        self._spin_ns = int(spin_s * 1e9)
        self._idle_since_ns: int | None = None
        self.looks = 0

    def busy(self) -> None:
        """There is something to do: whatever follows begins to count again."""
        self._idle_since_ns = None

    def until_ns(self, timeout_s: float | None, now_ns: int) -> int:
        """Return until when to keep looking, at most for ``timeout_s``; ``now_ns``: no longer."""
        if self._idle_since_ns is None:
            self._idle_since_ns = now_ns
        until = self._idle_since_ns + self._spin_ns
        if timeout_s is not None:
            until = min(until, now_ns + int(timeout_s * 1e9))
        return max(until, now_ns)

    def wait(
        self,
        look: Callable[[float | None], list[Found]],
        timeout_s: float | None,
        clock: Callable[[], int],
        breathe: Callable[[], object],
    ) -> list[Found]:
        """Return what ``look`` finds; keep looking first, then let it sleep for what is left.

        ``look`` takes its own timeout, as `Poller.wait` does; 0 is a look. ``clock`` is the
        monotonic one in ns. ``breathe`` lets others compute, between two looks.
        """
        began = now = clock()
        until = self.until_ns(timeout_s, now)
        while now < until:
            self.looks += 1
            found = look(0)
            if found:
                self.busy()
                return found
            breathe()
            now = clock()
        left_s = None if timeout_s is None else timeout_s - (now - began) / 1e9
        if left_s is not None and left_s <= 0:
            return []
        found = look(left_s)
        if found:
            self.busy()
        return found
