"""Checks of `Graph.fuse`: which nodes may share a worker process.

Replica i of one node shares a process with replica i of the others, and hands its messages to
that one. So all need the same number of replicas, and with more than one nothing may hang on
*which* replica gets a message. The processes start and stop in topological order, so a group of
nodes must not lie on both sides of another process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from dflow.graph.chain import Connection
from dflow.graph.node import Node
from dflow.graph.problem import Problem
from dflow.options import NodeOptions

__all__ = ["fusing_problems"]

_OF_A_PROCESS: Sequence[tuple[str, Callable[[NodeOptions], object]]] = (
    ("affinity", lambda options: options.affinity),
    ("niceness", lambda options: options.niceness),
)


def fusing_problems(
    connections: Sequence[Connection], groups: Sequence[Sequence[Node]], *, with_cycles: bool
) -> Iterator[Problem]:
    """Yield what keeps groups of nodes from sharing a process.

    ``with_cycles``: the graph itself has cycles, so those that fusing makes cannot be told apart.
    """
    taken: dict[int, Sequence[Node]] = {}
    for group in groups:
        for node in group:
            if id(node) in taken:
                yield Problem(
                    node.name,
                    f"fused twice, with {_names(taken[id(node)])} and with {_names(group)}",
                    "name all nodes that share a worker in one call of graph.fuse",
                )
            taken[id(node)] = group
    for group in groups:
        yield from _replicas(connections, group)
        for option, value in _OF_A_PROCESS:
            asked = {node.name: value(node.node_options) for node in group}
            asked = {name: wanted for name, wanted in asked.items() if wanted is not None}
            if len(set(asked.values())) > 1:
                listed = ", ".join(f"{name} {wanted}" for name, wanted in asked.items())
                yield Problem(
                    f"fuse({_names(group)})",
                    f"{option}: expected one for the worker they share, got {listed}",
                    "give it to one of them, or the same to all",
                )
    if not with_cycles:
        yield from _enclosing(connections, groups, taken)


def _names(group: Sequence[Node]) -> str:
    return ", ".join(node.name for node in group)


def _replicas(connections: Sequence[Connection], group: Sequence[Node]) -> Iterator[Problem]:
    where = f"fuse({_names(group)})"
    counts = {node.name: node.node_options.replicas for node in group}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        yield Problem(
            where,
            f"expected the same number of replicas for all, got {listed}",
            "replica i of one shares a worker with replica i of the others: make them equal",
        )
        return
    if group[0].node_options.replicas == 1:
        return
    for node in group:
        if node.node_options.ordered:
            yield Problem(
                where,
                f"{node.name} is ordered=True with {node.node_options.replicas} replicas, which"
                " needs its messages dealt out one by one",
                "leave it out of the group, or give all one replica",
            )
    inside = set(map(id, group))
    for link in connections:
        both = {id(link.sender.node), id(link.receiver.node)} <= inside
        if both and link.options.key is not None:
            yield Problem(
                str(link),
                "key= between fused nodes with replicas: a replica hands its messages to the one"
                " in its own worker, whatever their keys",
                "route by key on an edge into the group, and leave it out here",
            )


def _enclosing(
    connections: Sequence[Connection],
    groups: Sequence[Sequence[Node]],
    taken: dict[int, Sequence[Node]],
) -> Iterator[Problem]:
    """Yield one problem for each group that a way leaves and comes back to."""
    home = {key: id(group[0]) for key, group in taken.items()}
    after: dict[int, list[Connection]] = {}
    for link in connections:
        sender = home.get(id(link.sender.node), id(link.sender.node))
        if sender != home.get(id(link.receiver.node), id(link.receiver.node)):
            after.setdefault(sender, []).append(link)
    reported: set[int] = set()
    for group in groups:
        start = id(group[0])
        way = [] if start in reported else _way_back(start, home, after)
        if not way:
            continue
        steps = [end.node for link in way for end in (link.sender, link.receiver)]
        between = [node for node in steps if home.get(id(node)) != start]
        reported.update(home.get(id(node), 0) for node in between)
        listed = ", ".join(dict.fromkeys(node.name for node in between))
        yield Problem(
            f"fuse({_names(group)})",
            f"{listed} would have to start after this worker and before it"
            f" ({', '.join(map(str, way))})",
            f"fuse {listed}, too, or fuse only nodes on one side",
        )


def _way_back(
    start: int, home: dict[int, int], after: dict[int, list[Connection]]
) -> list[Connection]:
    """Return the shortest way out of a group and back into it, or an empty list."""
    ways: dict[int, list[Connection]] = {start: []}
    todo = [start]
    for place in todo:
        for link in after.get(place, ()):
            target = home.get(id(link.receiver.node), id(link.receiver.node))
            if target == start:
                return [*ways[place], link]
            if target not in ways:
                ways[target] = [*ways[place], link]
                todo.append(target)
    return []
