"""Checks of what ``ordered`` and ``max_in_flight_per_key`` promise: only what can be kept.

Order needs one line of inputs that somebody numbers: a single sender, or a node that is
ordered itself. A limit for each key needs one place that counts. Control messages are exempt:
they stand outside the order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from dflow.graph.chain import Connection
from dflow.graph.node import Node
from dflow.graph.plan import grouped
from dflow.graph.planning import is_reordered
from dflow.graph.ports import BoundInput
from dflow.graph.problem import Problem
from dflow.message import Priority
from dflow.options import EdgeOptions

__all__ = ["order_problems"]


def order_problems(
    nodes: Sequence[Node],
    connections: Sequence[Connection],
    accepted: Mapping[BoundInput, EdgeOptions],
) -> Iterator[Problem]:
    """Yield what keeps a node from handling its messages in the order it promises."""
    data = [link for link in connections if link.priority is not Priority.CONTROL]
    fed = grouped(data, lambda link: id(link.receiver.node))
    for node in nodes:
        options = node.node_options
        into = fed.get(id(node), ())
        if is_reordered(options):
            yield from _ordered(node, into)
        if options.max_in_flight_per_key is not None:
            offers = [(port, o) for port, o in accepted.items() if port.node is node]
            yield from _limited(node, into, offers)


def _ordered(node: Node, into: Sequence[Connection]) -> Iterator[Problem]:
    if node.kind == "source":
        yield Problem(
            node.name,
            "ordered=True, but a source has no inputs whose order its results could keep",
            "remove ordered=True, or use one replica",
        )
        return
    if len(into) > 1:
        listed = ", ".join(str(link) for link in into)
        yield Problem(
            node.name,
            f"ordered=True: expected one edge to take the order from, got {len(into)} ({listed})",
            "put a node with one replica before it that merges them",
        )
    for link in into:
        sender = link.sender.node
        if sender.node_options.replicas > 1 and not is_reordered(sender.node_options):
            yield Problem(
                str(link),
                f"ordered=True at {node.name}: {sender.name} has {sender.node_options.replicas}"
                " replicas, so its messages have no order",
                f"make {sender.name} ordered, too, or give it one replica",
            )
        elif is_reordered(sender.node_options) and (
            link.options.overflow.name != "block" or link.options.ttl_s is not None
        ):
            yield Problem(
                str(link),
                "an edge between two ordered nodes may not lose messages",
                "use policy='block' without ttl_s here",
            )


def _limited(
    node: Node, into: Sequence[Connection], accepted: Sequence[tuple[BoundInput, EdgeOptions]]
) -> Iterator[Problem]:
    keyed = [str(link) for link in into if link.options.key is not None]
    keyed += [f"accept({port})" for port, options in accepted if options.key is not None]
    others = [str(link) for link in into if link.options.key is None]
    if len(keyed) != 1 or others:
        yield Problem(
            node.name,
            "max_in_flight_per_key: expected one edge with key= and no other data into the node"
            f" (CONTROL edges do not count), got {', '.join(keyed + others) or 'none'}",
            "give its edge (or graph.accept) key=..., and merge others before it",
        )
    for link in into:
        if link.options.key is not None and link.sender.node.node_options.replicas > 1:
            yield Problem(
                str(link),
                f"max_in_flight_per_key at {node.name}: {link.sender.node.name} has"
                f" {link.sender.node.node_options.replicas} replicas, which cannot count together",
                f"give {link.sender.node.name} one replica, or put a node with one between them",
            )
