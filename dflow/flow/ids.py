"""Which messages of an edge have an id, until they are done; and the ids that were, a while."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from dflow.flow.waiting import Item

__all__ = ["Ids"]

MAX_REMEMBERED = 10_000
"""Ids of messages that are done, so that one who asks can be told so."""


class Ids:
    """Messages by id; a message that goes to several replicas is there several times."""

    __slots__ = ("_items", "_over")

    def __init__(self) -> None:
        self._items: dict[str, list[Item]] = {}
        self._over: OrderedDict[str, None] = OrderedDict()

    def add(self, item: Item) -> None:
        """Remember a message, if it has an id."""
        if item.id is not None:
            self._items.setdefault(item.id, []).append(item)

    def forget(self, item: Item) -> None:
        """A message is done, or will never be sent."""
        if item.id is None:
            return
        items = self._items.get(item.id)
        if items is not None and item in items:
            items.remove(item)
            if not items:
                del self._items[item.id]
        self._over[item.id] = None
        self._over.move_to_end(item.id)
        if len(self._over) > MAX_REMEMBERED:
            self._over.popitem(last=False)

    def of(self, id: str) -> Sequence[Item]:
        """Return the messages with this id that are not done."""
        return tuple(self._items.get(id, ()))

    def over(self, id: str) -> bool:
        """Whether a message with this id was done, or lost, not too long ago."""
        return id in self._over
