"""What ``a >> b`` builds: a chain, not yet part of any graph.

``>>`` is sugar over `Graph.connect`. A chain remembers its connections, its heads (what a
sender on the left would feed) and its tails (what a receiver on the right would read).
Ports are resolved as each ``>>`` is evaluated, so a mistake raises at the user's line.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from dflow.errors import GraphError
from dflow.message import Priority
from dflow.options import EdgeOptions

if TYPE_CHECKING:
    from dflow.graph.ports import BoundInput, BoundOutput

__all__ = ["Chain", "Chainable", "Connection", "EdgeSpec", "edge"]


@dataclass(frozen=True, slots=True)
class Connection:
    """One edge to be: from an output port to an input port."""

    sender: BoundOutput
    receiver: BoundInput
    options: EdgeOptions

    def __str__(self) -> str:
        return f"{self.sender}->{self.receiver}"

    @property
    def priority(self) -> Priority:
        """Its band: the one it was given, else the input port's, else NORMAL."""
        given = self.options.priority
        band = self.receiver.priority if given is None else given
        return Priority.NORMAL if band is None else band


class Chainable:
    """What may stand on either side of ``>>``: a node, a port, a subgraph, a chain."""

    __slots__ = ()

    def __rshift__(self, right: Any) -> Chain:
        return chain_of(self).then(right)

    def __rrshift__(self, left: Any) -> Chain:
        return chain_of(left).then(self)

    def check_ready(self) -> None:
        """Raise `GraphError` for what is only about to become part of a graph."""

    def as_output(self) -> BoundOutput:
        """Return the output port meant by naming just this; raises `PortError`."""
        raise NotImplementedError

    def as_input(self) -> BoundInput:
        """Return the input port meant by naming just this; raises `PortError`."""
        raise NotImplementedError


class EdgeSpec(Chainable):
    """Options for the next connection of a chain, made by `edge`."""

    __slots__ = ("options",)

    def __init__(self, options: EdgeOptions) -> None:
        self.options = options

    def __repr__(self) -> str:
        return f"edge({self.options})"

    def check_ready(self) -> NoReturn:
        """Raise `GraphError`: an edge stands between two nodes."""
        raise GraphError("edge(...) >> node: expected a sender on its left: a >> edge(...) >> b")


def edge(**options: Any) -> EdgeSpec:
    """Return options for one connection: ``a >> edge(capacity=10) >> b``.

    Takes what `Graph.connect` takes: ``policy``, ``capacity`` (messages), ``max_bytes``
    (bytes, or text like ``"64MB"``), ``key`` (field name or callable), ``priority``, ``ttl_s``,
    ``cancellable``.
    Raises `OptionError` for a wrong option.
    """
    return EdgeSpec(EdgeOptions().updated(options))


class Chain(Chainable):
    """A piece of a graph written with ``>>``; immutable."""

    def __init__(
        self,
        heads: tuple[Chainable, ...],
        tails: tuple[Chainable, ...],
        connections: tuple[Connection, ...] = (),
        pending: EdgeOptions | None = None,
    ) -> None:
        self.heads = heads
        self.tails = tails
        self.connections = connections
        self.pending = pending

    def __repr__(self) -> str:
        return f"<chain of {len(self.connections)} connections>"

    def then(self, right: Any) -> Chain:
        """Return this chain continued by ``right``."""
        if isinstance(right, EdgeSpec):
            if self.pending is not None:
                raise GraphError("edge(...) >> edge(...): expected a node between two edges")
            return Chain(self.heads, self.tails, self.connections, right.options)
        chain = chain_of(right)
        options = self.pending or EdgeOptions()
        joints = tuple(
            Connection(tail.as_output(), head.as_input(), options)
            for tail in self.tails
            for head in chain.heads
        )
        links = (*self.connections, *joints, *chain.connections)
        return Chain(self.heads, chain.tails, links, chain.pending)

    def parts(self) -> Iterator[Chainable | Connection]:
        """Yield what a graph has to add, in the order it was written."""
        if self.pending is not None:
            raise GraphError("a >> edge(...): expected a receiver after the edge, got the end")
        yield from self.heads
        yield from self.connections
        yield from self.tails


def chain_of(part: Any) -> Chain:
    """Return ``part`` as a chain; a list or tuple stands side by side."""
    if isinstance(part, Chain):
        return part
    if isinstance(part, Chainable):
        part.check_ready()
        return Chain((part,), (part,))
    if isinstance(part, (list, tuple)):
        return _side_by_side([chain_of(item) for item in part])
    raise GraphError(not_a_part(part))


def _side_by_side(chains: list[Chain]) -> Chain:
    if not chains:
        raise GraphError("a >> []: expected at least one node in the list, got none")
    if any(chain.pending is not None for chain in chains):
        raise GraphError("[a >> edge(...)]: expected a receiver after the edge, got the end")
    return Chain(
        tuple(head for chain in chains for head in chain.heads),
        tuple(tail for chain in chains for tail in chain.tails),
        tuple(link for chain in chains for link in chain.connections),
    )


def not_a_part(part: Any) -> str:
    """Return why ``part`` cannot be in a graph, and what to write instead."""
    name = getattr(part, "__name__", None)
    if isinstance(part, type) and issubclass(part, Chainable):
        return f"expected a node, got the class {name}; write {name}(...)"
    if callable(part) and name:
        return (
            f"expected a node, got the function {name}; decorate it with @node and write {name}()"
        )
    return f"expected a node, a port, a subgraph or a list of them, got {part!r}"
