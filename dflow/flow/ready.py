"""Which channel's inbox a worker serves next: bands first, round robin within a band.

A channel stands in the queue at most once and goes to the back of its band after its turn,
so channels of one band share the worker fairly whatever their rates. A node that waits for
credit takes data from no channel, but CONTROL is always served (DESIGN §5.5).
"""

from __future__ import annotations

from collections import deque

from dflow.flow.in_edge import InChannel
from dflow.message import Priority

__all__ = ["ReadyQueue"]


class ReadyQueue:
    """Channels with something in their inbox."""

    __slots__ = ("_bands",)

    def __init__(self) -> None:
        self._bands: tuple[deque[InChannel], ...] = tuple(deque() for _ in Priority)

    def push(self, channel: InChannel) -> None:
        """Enqueue ``channel`` unless it stands in the queue or its inbox is empty."""
        if not channel.queued and channel.inbox:
            channel.queued = True
            self._bands[channel.priority].append(channel)

    def pop(self, *, only_control: bool = False) -> InChannel | None:
        """Return the channel whose turn it is, or None; push it back after its turn."""
        for band in self._bands[:1] if only_control else self._bands:
            if band:
                channel = band.popleft()
                channel.queued = False
                return channel
        return None

    def waiting(self, *, only_control: bool = False) -> bool:
        """Whether `pop` would return a channel."""
        if only_control:
            return bool(self._bands[0])
        for band in self._bands:  # noqa: SIM110  # once a turn: a generator costs more
            if band:
                return True
        return False
