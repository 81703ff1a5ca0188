"""A queue of whoever is ready, by band: the higher more often, the lower never forgotten.

One class for three choices: which channel a worker serves next, which of its fused nodes, and
which worker may compute next. The rules:

* A band has `WEIGHTS` credits a cycle; a service costs one. The highest ready band that has
  credits is served; when no ready band has any left, all get theirs again. So a message on a
  band that is rarely used is next, and a band that never runs dry leaves the others their share.
* Credits are set, not added: a band that was idle owes nothing and has saved nothing beyond one
  cycle.
* Within a band it goes in turn. An item stands in the queue at most once; pushed again, it keeps
  its place; served and pushed again, it stands last. So two that are always ready differ by one
  service at most.
* A service may be restricted to some bands or items (a node without credit takes CONTROL only).
  Who could not be served keeps place and credits, and a service that only one band could have had
  while others had to wait is free. Restrictions that come and go could still favour the same
  band each time; so a band passed over for a whole cycle, in services it
  could have had, goes first.

Rejected: virtual time (weighted fair queueing), where a lone message of a high band has to wait
for its share; strict order (a busy band starves those below).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from dflow.message import Priority

__all__ = ["WEIGHTS", "BandQueue"]

WEIGHTS: tuple[int, ...] = (8, 4, 2, 1)
"""Services a cycle of CONTROL, HIGH, NORMAL and LOW."""

Item = TypeVar("Item")


class BandQueue(Generic[Item]):
    """Items (hashable, equal only to themselves) waiting to be served, by band (from 0, highest).

    ``weights``: services a cycle for each band, at least 1.
    """

    __slots__ = ("_bands", "_credits", "_members", "_passed", "_patience", "weights")

    def __init__(self, weights: Sequence[int] = WEIGHTS) -> None:
        self.weights = tuple(weights)
        self._bands: tuple[deque[Item], ...] = tuple(deque() for _ in self.weights)
        self._credits = list(self.weights)
        self._members: set[Item] = set()
        self._passed = [0] * len(self.weights)  # services a waiting band could have had
        self._patience = sum(self.weights) - 1

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, item: object) -> bool:
        return item in self._members

    def push(self, item: Item, band: int = Priority.NORMAL) -> None:
        """Put ``item`` at the end of its band; one that waits already keeps its place."""
        if item not in self._members:
            self._members.add(item)
            self._bands[band].append(item)

    def remove(self, item: Item) -> None:
        """Take ``item`` out, if it waits."""
        if item in self._members:
            self._members.remove(item)
            for band, items in enumerate(self._bands):
                if item in items:
                    items.remove(item)
                    if not items:
                        self._passed[band] = 0

    def waiting(
        self, allowed: Callable[[Item], bool] | None = None, *, only: int | None = None
    ) -> bool:
        """Whether `pop` with the same restrictions would return an item."""
        for band in self._bands[:only]:
            if band and (allowed is None or any(map(allowed, band))):
                return True
        return False

    def pop(
        self, allowed: Callable[[Item], bool] | None = None, *, only: int | None = None
    ) -> Item | None:
        """Return whose turn it is and take it out, or None; push it again to be served again.

        ``only``: consider the highest so many bands. ``allowed``: consider these items.
        """
        if allowed is None and len(self._members) == 1:
            return self._pop_lone(only)
        if allowed is None:
            able = [band for band, items in enumerate(self._bands[:only]) if items]
        else:
            able = [
                band for band, items in enumerate(self._bands[:only]) if any(map(allowed, items))
            ]
        if not able:
            return None
        band = able[0]
        if len(able) > 1 or len(self._bands[band]) == len(self._members):
            band = self._choose(able)
        self._passed[band] = 0
        items = self._bands[band]
        if allowed is None:
            item = items.popleft()
        else:
            item = next(filter(allowed, items))
            items.remove(item)
        self._members.remove(item)
        return item

    def _pop_lone(self, only: int | None) -> Item | None:
        """Do as `pop` does with the only item there is; all a paced stream ever has."""
        waiting = [band for band, items in enumerate(self._bands[:only]) if items]
        if not waiting:
            return None
        band, credits = waiting[0], self._credits
        overdue = self._passed[band] >= self._patience
        if not credits[band] and not overdue:
            credits[:] = self.weights
        if credits[band]:
            credits[band] -= 1
            if not credits[band]:
                credits[:] = self.weights
        self._passed[band] = 0
        self._members.clear()
        return self._bands[band].popleft()

    def _choose(self, able: list[int]) -> int:
        """Return which of several bands is served, and account for it."""
        credits, passed = self._credits, self._passed
        chosen, overdue = -1, self._patience
        for band in able:
            passed[band] += 1
            if passed[band] > overdue:
                chosen, overdue = band, passed[band]
            elif chosen < 0 and credits[band]:
                chosen = band
        if chosen < 0:
            self._refill(able)
            chosen = able[0]
        if credits[chosen]:
            credits[chosen] -= 1
            if not credits[chosen]:
                self._end_cycle(able)
        return chosen

    def _end_cycle(self, able: list[int]) -> None:
        """Refill if nobody who waits has credits: who comes later must not find them in debt."""
        for band, items in enumerate(self._bands):
            if items and self._credits[band]:
                return
        self._refill(able)

    def _refill(self, able: list[int]) -> None:
        """Begin a cycle; a band that waits but may not be served keeps what it has."""
        for band, items in enumerate(self._bands):
            if not items or band in able:
                self._credits[band] = self.weights[band]
