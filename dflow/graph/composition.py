"""What `Graph` and `Subgraph` share: a list of nodes, subgraphs and connections.

Order is the only state: names, edge numbers and the plan follow from the order in which
parts were added, so they are equal in every process that builds the same graph.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dflow.errors import GraphError, OptionError
from dflow.graph.chain import Chainable, Connection, chain_of
from dflow.graph.naming import Names
from dflow.graph.node import Node
from dflow.graph.ports import BoundPort
from dflow.message import Priority
from dflow.options import DEFAULT_CAPACITY, DEFAULT_MAX_BYTES, EdgeOptions
from dflow.policy import Policy

if TYPE_CHECKING:
    from typing import Self

    from dflow.graph.subgraph import Subgraph

__all__ = ["NAME", "Composition", "Named"]

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class Named:
    """A node or subgraph under its full name; ``twin``: that name was given twice."""

    name: str
    part: Node | Subgraph
    twin: bool = False


class Composition:
    """Nodes, subgraphs and connections in the order they were added."""

    def __init__(self, name: str) -> None:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise GraphError(
                f"{type(self).__name__}: expected a name of letters, digits, - and _,"
                f" not beginning with a digit or -, got {name!r}"
            )
        self.name = name
        self._home: Subgraph | None = None
        self._items: list[Node | Subgraph | Connection] = []
        self._ids: set[int] | None = set()
        self._names: Names | None = Names()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_ids": None, "_names": None}  # elsewhere they would be wrong

    def add(self, *parts: Any) -> Self:
        """Add nodes, ports, chains written with ``>>``, subgraphs, or lists of them."""
        for part in parts:
            for item in chain_of(part).parts():
                if isinstance(item, Connection):
                    self._connect(item)
                else:
                    self._adopt(item)
        self._changed()
        return self

    def connect(
        self,
        out: Chainable,
        into: Chainable,
        *,
        policy: Policy | str = "block",
        capacity: int = DEFAULT_CAPACITY,
        max_bytes: int | str = DEFAULT_MAX_BYTES,
        key: str | Callable[[Any], Any] | None = None,
        priority: Priority | None = None,
        ttl_s: float | None = None,
        cancellable: bool = False,
    ) -> Self:
        """Connect an output to an input; a node's or subgraph's only port needs no name.

        ``capacity`` (messages) and ``max_bytes`` (bytes, or text like ``"64MB"``) bound each
        channel of the edge. ``key`` (a field name or a callable) sends all messages of one
        key to the same replica. ``priority`` is the band. ``policy`` (`dflow.policy`) says what
        happens at capacity; what has waited longer than ``ttl_s`` seconds is dropped. On a
        ``cancellable`` edge messages may be emitted with an id (`Run.cancel`). Raises
        `PortError` for a wrong port, `OptionError` for a wrong option.
        """
        sender, receiver = _endpoint(out).as_output(), _endpoint(into).as_input()
        try:
            options = EdgeOptions(
                policy=policy,
                capacity=capacity,
                max_bytes=max_bytes,  # type: ignore[arg-type]  # EdgeOptions parses text
                key=key,
                priority=priority,
                ttl_s=ttl_s,
                cancellable=cancellable,
            )
        except OptionError as error:
            raise OptionError(f"edge {sender}->{receiver}: {error}") from None
        self._connect(Connection(sender, receiver, options))
        self._changed()
        return self

    def _connect(self, connection: Connection) -> None:
        if connection in self:
            return  # one chain continued twice: x = a >> b; graph.add(x >> c, x >> d)
        self._adopt(connection.sender)
        self._adopt(connection.receiver)
        self._append(connection)

    def __contains__(self, item: object) -> bool:
        if self._ids is None:
            self._ids = set(map(id, self._items))
        return id(item) in self._ids

    def _append(self, item: Node | Subgraph | Connection) -> None:
        self._items.append(item)
        if self._ids is not None:
            self._ids.add(id(item))

    def _adopt(self, item: Chainable) -> None:
        """Take in a node or subgraph, or the outermost subgraph it is already part of."""
        from dflow.graph.subgraph import Subgraph

        part = item.node if isinstance(item, BoundPort) else item
        if not isinstance(part, (Node, Subgraph)):
            raise GraphError(f"{self.name}: expected a node or a subgraph, got {part!r}")
        while part._home is not None and part._home is not self:
            part = part._home
        if part in self:
            return
        self._claim(part)
        self._append(part)

    def _claim(self, part: Node | Subgraph) -> None:
        """Note on a part that it belongs here; a graph's parts are free to be reused."""

    def _changed(self) -> None:
        """Called after parts were added."""

    def _children(self) -> Iterator[Node | Subgraph]:
        for item in self._items:
            if not isinstance(item, Connection):
                yield item

    def _connections(self) -> Iterator[Connection]:
        """Yield every connection, with those of a subgraph where it was added."""
        for item in self._items:
            if isinstance(item, Connection):
                yield item
            elif not isinstance(item, Node):
                yield from item._connections()

    def _name_all(self, prefix: str = "") -> Iterator[Named]:
        """Name every node and subgraph (`dflow.graph.naming`), and yield them in order."""
        seen: set[str] = set()
        self._names = names = Names(n for part in self._children() if (n := _given_name(part)))
        for part in self._children():
            name = _given_name(part)
            twin = name is not None and name in seen
            if name is None and isinstance(part, Node):
                name = names.next(part._default_name())
            full = f"{prefix}{name}"
            seen.add(str(name))
            yield Named(full, part, twin)
            if isinstance(part, Node):
                part.__dict__["_name"] = full
            else:
                yield from part._name_all(f"{full}/")


def _given_name(part: Node | Subgraph) -> str | None:
    return part.node_options.name if isinstance(part, Node) else part.name


def _endpoint(part: Any) -> Chainable:
    try:
        chain = chain_of(part)
    except GraphError as error:
        raise GraphError(f"connect: {error}") from None
    if isinstance(part, Chainable) and chain.heads[0] is part:
        return part
    raise GraphError(f"connect: expected one node, port or subgraph on each side, got {part!r}")
