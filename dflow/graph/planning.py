"""From a graph to its plan: levels, bands, edge ids. Deterministic, and free of user code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dflow.graph.chain import Connection
from dflow.graph.node import Node
from dflow.graph.plan import EdgePlan, NodePlan, Plan
from dflow.graph.ports import BoundOutput
from dflow.message import EXTERNAL, Priority
from dflow.options import EdgeOptions

__all__ = ["build_plan"]


def build_plan(
    name: str,
    nodes: Mapping[str, Node],
    connections: Sequence[Connection],
    results: Sequence[BoundOutput],
) -> Plan:
    """Return the plan of a valid graph; ``results`` are read by the launching process."""
    edges = [_edge(index, link) for index, link in enumerate(connections)]
    levels = _levels(nodes, edges)
    planned = [
        _node(node_name, node, levels[node_name], edges) for node_name, node in nodes.items()
    ]
    planned.sort(key=lambda node: node.level)  # stable: within a level, the order of adding
    if results:
        edges += [_result(len(edges) + i, port) for i, port in enumerate(results)]
        ports = tuple(str(port) for port in results)
        bands = (int(Priority.NORMAL),) * len(ports)
        depth = max(levels.values()) + 1
        planned.append(NodePlan(EXTERNAL, "external", 1, depth, ports, (), bands))
    return Plan(name, tuple(planned), tuple(edges))


def _edge(index: int, link: Connection) -> EdgePlan:
    options = link.options
    priority = options.priority
    if priority is None:
        priority = link.receiver.priority
    return EdgePlan(
        index=index,
        id=str(link),
        sender=link.sender.node.name,
        output=link.sender.name,
        receiver=link.receiver.node.name,
        input=link.receiver.name,
        policy=options.policy,
        capacity=options.capacity,
        max_bytes=options.max_bytes,
        priority=Priority.NORMAL if priority is None else priority,
        keyed=options.key is not None,
    )


def _result(index: int, port: BoundOutput) -> EdgePlan:
    options = EdgeOptions()
    return EdgePlan(
        index=index,
        id=f"{port}->{EXTERNAL}.{port}",
        sender=port.node.name,
        output=port.name,
        receiver=EXTERNAL,
        input=str(port),
        policy=options.policy,
        capacity=options.capacity,
        max_bytes=options.max_bytes,
        priority=Priority.NORMAL,
        keyed=False,
    )


def _node(name: str, node: Node, level: int, edges: Sequence[EdgePlan]) -> NodePlan:
    bands: dict[str, Priority] = {}
    for edge in edges:
        if edge.receiver == name:
            bands.setdefault(edge.input, edge.priority)
    for port, declared in node.inputs.items():
        chosen = Priority.NORMAL if declared.priority is None else declared.priority
        bands.setdefault(port, chosen)
    return NodePlan(
        name=name,
        kind=node.kind,
        replicas=node.node_options.replicas,
        level=level,
        inputs=tuple(node.inputs),
        outputs=tuple(node.outputs),
        input_bands=tuple(int(bands[port]) for port in node.inputs),
    )


def _levels(nodes: Mapping[str, Node], edges: Sequence[EdgePlan]) -> dict[str, int]:
    """Return the length of the longest way to each node (Kahn's algorithm)."""
    after: dict[str, list[str]] = {name: [] for name in nodes}
    waiting = dict.fromkeys(nodes, 0)
    for edge in edges:
        after[edge.sender].append(edge.receiver)
        waiting[edge.receiver] += 1
    levels = dict.fromkeys(nodes, 0)
    ready = [name for name, count in waiting.items() if count == 0]
    while ready:
        name = ready.pop()
        for receiver in after[name]:
            levels[receiver] = max(levels[receiver], levels[name] + 1)
            waiting[receiver] -= 1
            if waiting[receiver] == 0:
                ready.append(receiver)
    return levels
