"""Which name each part of a composition gets.

Names given come first; the others take the next free of ``parse``, ``parse_2``, ... in the order
in which they were added. So adding a part may give another one a new name, but hardly ever does:
`Names` tells when, and otherwise names the new part alone. Naming everybody after each `connect`
made building a graph quadratic.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from dflow.graph.node import Node

__all__ = ["Names"]


class Names:
    """The names of one composition's own parts, in the order they are asked for.

    ``given``: names that somebody gave; nobody else gets one of them.
    """

    __slots__ = ("_counts", "_given", "_renamings", "_taken")

    def __init__(self, given: Iterable[str] = ()) -> None:
        self._given = set(given)
        self._taken = set(self._given)
        self._counts: Counter[str] = Counter()
        self._renamings = Node._renamings

    def next(self, base: str) -> str:
        """Return the next of ``base``, ``base_2``, ... that is not taken, and take it."""
        while True:
            self._counts[base] += 1
            count = self._counts[base]
            name = base if count == 1 else f"{base}_{count}"
            if name not in self._taken:
                self._taken.add(name)
                return name

    def add(self, node: Node) -> bool:
        """Name a node that was added last; False, with nothing done, if others may change names.

        They do if somebody has it who was not given it, or if any node was given another name
        since.
        """
        if self._renamings != Node._renamings:
            return False
        name = node.node_options.name
        if name is None:
            name = self.next(node._default_name())
        elif name in self._taken and name not in self._given:
            return False
        else:
            self._given.add(name)
            self._taken.add(name)
        node.__dict__["_name"] = name
        return True
