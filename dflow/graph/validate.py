"""Everything that keeps a graph from running, found at once.

Each check yields problems and looks at one thing; none stops at its first find, and none
raises, so a graph with five mistakes is mended in one round.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MappingProxyType

from dflow.graph.chain import Connection
from dflow.graph.composition import NAME, Named
from dflow.graph.fusing import fusing_problems
from dflow.graph.handlers import node_problems
from dflow.graph.node import Node
from dflow.graph.ordering import order_problems
from dflow.graph.ports import BoundInput, BoundOutput
from dflow.graph.problem import Problem
from dflow.graph.shipping import Shippable, shipping_problems, why_not_shippable
from dflow.graph.types import compatible, type_name
from dflow.message import EXTERNAL
from dflow.options import EdgeOptions

__all__ = ["Problem", "Shippable", "find_problems", "why_not_shippable"]


def find_problems(
    parts: Sequence[Named],
    connections: Sequence[Connection],
    results: Sequence[BoundOutput],
    shippable: Shippable,
    *,
    accepted: Mapping[BoundInput, EdgeOptions] = MappingProxyType({}),
    fused: Sequence[Sequence[Node]] = (),
) -> tuple[Problem, ...]:
    """Return every problem, in the order of the parts and edges they are about."""
    nodes = [named.part for named in parts if isinstance(named.part, Node)]
    found = [*_empty(nodes), *_names(parts)]
    for node in nodes:
        found += node_problems(node.name, node)
    found += _unconnected(nodes, connections, results, accepted)
    found += _repeated(connections)
    found += _types(connections)
    found += order_problems(nodes, connections, accepted)
    cycles = list(_cycles(nodes, connections))
    found += cycles
    found += fusing_problems(connections, fused, with_cycles=bool(cycles))
    found += shipping_problems(nodes, connections, shippable, accepted)
    return tuple(found)


def _empty(nodes: Sequence[Node]) -> Iterator[Problem]:
    if not nodes:
        yield Problem(
            "graph", "expected at least one node, got none", "add nodes: graph.add(a >> b)"
        )


def _names(parts: Sequence[Named]) -> Iterator[Problem]:
    for named in parts:
        what = "node" if isinstance(named.part, Node) else "subgraph"
        advice = "give it another name: "
        advice += ".options(name=...)" if what == "node" else "Subgraph(name, ...)"
        given = named.part.node_options.name if isinstance(named.part, Node) else None
        own = named.name.rpartition("/")[2] if given is None else given
        if named.twin:
            yield Problem(named.name, f"two parts have this name, the second is a {what}", advice)
        if named.name == EXTERNAL:
            yield Problem(named.name, "the name stands for the launching process", advice)
        elif not NAME.fullmatch(own):
            yield Problem(
                named.name,
                f"expected a name of letters, digits, - and _, not beginning with a digit or -,"
                f" got {own!r}",
                advice,
            )


def _unconnected(
    nodes: Sequence[Node],
    connections: Sequence[Connection],
    results: Sequence[BoundOutput],
    accepted: Collection[BoundInput],
) -> Iterator[Problem]:
    fed = {link.receiver for link in connections} | set(accepted)
    read = {link.sender for link in connections} | set(results)
    for node in nodes:
        name = node.name
        for port, declared in node.inputs.items():
            if declared.required and BoundInput(node, port) not in fed:
                yield Problem(
                    f"{name}.{port}",
                    "nothing is connected to this required input",
                    "connect an output to it"
                    + ("" if "in" in node.inputs else ", or declare Input(..., required=False)"),
                )
        for port, output in node.outputs.items():
            if output.required and BoundOutput(node, port) not in read:
                yield Problem(
                    f"{name}.{port}",
                    "nothing reads this required output",
                    "connect it to an input, or declare Output(..., required=False)",
                )


def _repeated(connections: Sequence[Connection]) -> Iterator[Problem]:
    pairs = Counter((link.sender, link.receiver) for link in connections)
    for (sender, receiver), times in pairs.items():
        if times > 1:
            yield Problem(
                f"{sender}->{receiver}",
                f"connected {times} times",
                "keep one of them: an edge carries every message",
            )


def _types(connections: Sequence[Connection]) -> Iterator[Problem]:
    for link in connections:
        produced, accepted = link.sender.type, link.receiver.type
        if not compatible(produced, accepted):
            yield Problem(
                str(link),
                f"expected {type_name(accepted)} at {link.receiver},"
                f" got {type_name(produced)} from {link.sender}",
                "change one of the annotations, or put a node between that converts",
            )


def _cycles(nodes: Sequence[Node], connections: Sequence[Connection]) -> Iterator[Problem]:
    """Yield one problem for each set of nodes that reach each other."""
    after: dict[int, list[Node]] = {id(node): [] for node in nodes}
    for link in connections:
        after[id(link.sender.node)].append(link.receiver.node)
    reported: set[int] = set()
    for node in _not_first(nodes, after):
        way = [] if id(node) in reported else _way_back(node, after)
        if way:
            reported.update(map(id, way))
            yield Problem(
                " -> ".join(step.name for step in way),
                "these nodes form a cycle, so none of them would ever end",
                "remove one of the edges between them",
            )


def _not_first(nodes: Sequence[Node], after: Mapping[int, Sequence[Node]]) -> list[Node]:
    """Return the nodes that are on a cycle or come after one; none in a sound graph."""
    waiting = Counter(id(receiver) for receivers in after.values() for receiver in receivers)
    ready = [id(node) for node in nodes if not waiting[id(node)]]
    for key in ready:
        for receiver in after[key]:
            waiting[id(receiver)] -= 1
            if not waiting[id(receiver)]:
                ready.append(id(receiver))
    sound = set(ready)
    return [node for node in nodes if id(node) not in sound]


def _way_back(start: Node, after: Mapping[int, Sequence[Node]]) -> list[Node]:
    """Return the shortest way from ``start`` to itself, or an empty list."""
    came_from: dict[int, Node] = {}
    todo = [start]
    for node in todo:
        for receiver in after[id(node)]:
            if receiver is start:
                way = [start, node]
                while way[-1] is not start:
                    way.append(came_from[id(way[-1])])
                return way[::-1]
            if id(receiver) not in came_from:
                came_from[id(receiver)] = node
                todo.append(receiver)
    return []
