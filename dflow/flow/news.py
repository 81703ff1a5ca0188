"""Which inputs of an ordered node are complete, until every receiver of an edge was told.

A channel is told of an input after everything of it was sent there, so that a receiver that has
heard it and sees no more of it can go on to the next (`dflow.flow.order`).
"""

from __future__ import annotations

from collections import Counter, deque

__all__ = ["Completions"]

MAX_TOLD = 65_536
"""Completions in one frame: its notes stay far below their limit."""


class Completions:
    """For each channel of an edge, by position: inputs complete there and not yet told of."""

    __slots__ = ("_owed", "_results")

    def __init__(self, channels: int) -> None:
        self._owed: tuple[deque[tuple[int, int]], ...] = tuple(deque() for _ in range(channels))
        self._results: Counter[int] = Counter()

    def result(self, number: int) -> None:
        """Input ``number`` brought a result."""
        self._results[number] += 1

    def complete(self, number: int) -> None:
        """Input ``number`` brings no more."""
        results = self._results.pop(number, 0)
        for owed in self._owed:
            owed.append((number, results))

    def __bool__(self) -> bool:
        """Whether some channel is to be told something."""
        return any(self._owed)

    def tell(self, channel: int, before: int | None) -> list[tuple[int, int]]:
        """Return (number, results) of what a channel may be told now, and consider it told.

        ``before``: the first input of which a result may still be sent there.
        """
        owed = self._owed[channel]
        told: list[tuple[int, int]] = []
        while owed and (before is None or owed[0][0] < before) and len(told) < MAX_TOLD:
            told.append(owed.popleft())
        return told
