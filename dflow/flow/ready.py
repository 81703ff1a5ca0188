"""Which channel's inbox a worker serves next: weighted bands, round robin within a band.

A channel stands in the queue at most once and goes to the back of its band after its turn,
so channels of one band share the worker fairly whatever their rates (`dflow.flow.bands`). A node
that waits for credit takes data from no channel, but CONTROL is always served (DESIGN §5.5).
"""

from __future__ import annotations

from collections.abc import Callable

from dflow.flow.bands import BandQueue
from dflow.flow.in_edge import InChannel

__all__ = ["ReadyQueue"]

_ALL, _CONTROL = None, 1  # how many bands, from the highest

Allowed = Callable[[InChannel], bool]


class ReadyQueue:
    """Channels with something that may be handled.

    ``allowed`` restricts `pop` and `waiting` to the channels it is true for (those of a fused
    node that has credit); the others keep their places.
    """

    __slots__ = ("_queue",)

    def __init__(self) -> None:
        self._queue: BandQueue[InChannel] = BandQueue()

    def push(self, channel: InChannel) -> None:
        """Enqueue ``channel`` unless it stands in the queue or nothing of it may be handled."""
        if channel.deliverable:
            self._queue.push(channel, channel.priority)

    def pop(
        self, *, only_control: bool = False, allowed: Allowed | None = None
    ) -> InChannel | None:
        """Return the channel whose turn it is, or None; push it back after its turn."""
        return self._queue.pop(allowed, only=_CONTROL if only_control else _ALL)

    def remove(self, channel: InChannel) -> None:
        """Take ``channel`` out, if it stands in the queue."""
        self._queue.remove(channel)

    def waiting(self, *, only_control: bool = False, allowed: Allowed | None = None) -> bool:
        """Whether `pop` would return a channel."""
        return self._queue.waiting(allowed, only=_CONTROL if only_control else _ALL)
