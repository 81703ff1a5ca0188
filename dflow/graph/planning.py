"""From a graph to its plan: levels, bands, edge ids. Deterministic, and free of user code."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from dflow.graph.chain import Connection
from dflow.graph.node import Node
from dflow.graph.plan import EdgePlan, NodePlan, Plan, depths, external_edge_id, grouped
from dflow.graph.ports import BoundInput, BoundOutput
from dflow.message import EXTERNAL, Priority
from dflow.options import EdgeOptions, NodeOptions

__all__ = ["build_plan", "is_reordered"]

_READER = NodeOptions()


def build_plan(
    name: str,
    nodes: Mapping[str, Node],
    connections: Sequence[Connection],
    results: Sequence[BoundOutput],
    accepted: Mapping[BoundInput, EdgeOptions],
    fused: Sequence[Collection[Node]] = (),
) -> Plan:
    """Return the plan of a valid graph; ``results`` are read by the launching process.

    ``accepted``: how inputs take messages from outside, where that was said. ``fused``: nodes that
    share a worker.
    """
    homes = {node.name: number for number, group in enumerate(fused) for node in group}
    edges = [_edge(index, link, homes) for index, link in enumerate(connections)]
    levels = depths(nodes, ((edge.sender, edge.receiver) for edge in edges))
    into, out = grouped(edges, _receiver), grouped(edges, _sender)
    planned = [
        _node(each, node, levels[each], into.get(each, ()), out.get(each, ()))
        for each, node in nodes.items()
    ]
    planned.sort(key=lambda node: node.level)  # stable: within a level, the order of adding
    groups = [
        tuple(node.name for node in planned if homes.get(node.name) == number)
        for number in range(len(fused))
    ]
    if results:
        edges += [_result(len(edges) + i, port) for i, port in enumerate(results)]
        ports = tuple(str(port) for port in results)
        bands = (int(Priority.NORMAL),) * len(ports)
        depth = max(levels.values()) + 1
        planned.append(NodePlan(EXTERNAL, "external", 1, depth, ports, (), bands))
    external = _external(nodes, planned, edges, accepted)
    return Plan(name, tuple(planned), tuple(edges), external, tuple(groups))


def _sender(edge: EdgePlan) -> str:
    return edge.sender


def _receiver(edge: EdgePlan) -> str:
    return edge.receiver


def is_reordered(options: NodeOptions) -> bool:
    """Return whether a node's results must be put in order by whoever receives them."""
    return options.ordered and options.replicas > 1


def _edge(index: int, link: Connection, homes: Mapping[str, int]) -> EdgePlan:
    options = link.options
    planned = _planned(
        index,
        str(link),
        (link.sender.node.name, link.sender.name, link.sender.node.node_options),
        (link.receiver.node.name, link.receiver.name, link.receiver.node.node_options),
        options,
        link.priority,
        keyed=options.key is not None,
    )
    ends = {homes.get(end.node.name) for end in (link.sender, link.receiver)}
    fused = len(ends) == 1 and None not in ends
    return replace(planned, local=fused and not planned.broadcast)


def _planned(
    index: int,
    edge_id: str,
    sender: tuple[str, str, NodeOptions],
    receiver: tuple[str, str, NodeOptions],
    options: EdgeOptions,
    priority: Priority,
    *,
    keyed: bool,
) -> EdgePlan:
    (from_node, output, gives), (to_node, into, takes) = sender, receiver
    data = priority is not Priority.CONTROL
    reordered = is_reordered(takes)
    return EdgePlan(
        index=index,
        id=edge_id,
        sender=from_node,
        output=output,
        receiver=to_node,
        input=into,
        policy=options.overflow.name,
        capacity=options.capacity,
        max_bytes=options.max_bytes,
        priority=priority,
        keyed=keyed,
        ttl_s=options.ttl_s,
        broadcast=not data and not keyed and takes.replicas > 1,
        numbered=data and reordered and not is_reordered(gives),
        tagged=data and is_reordered(gives) and (takes.replicas == 1 or keyed or reordered),
        limit=(takes.max_in_flight_per_key or 0) if keyed else 0,
        slots=takes.concurrency,
        shared=data and not keyed and takes.replicas > 1 and from_node != EXTERNAL,
        cancellable=options.cancellable or from_node == EXTERNAL,
    )


def _result(index: int, port: BoundOutput) -> EdgePlan:
    gives = (port.node.name, port.name, port.node.node_options)
    takes = (EXTERNAL, str(port), _READER)
    edge_id = f"{port}->{EXTERNAL}.{port}"
    return _planned(index, edge_id, gives, takes, EdgeOptions(), Priority.NORMAL, keyed=False)


def _external(
    nodes: Mapping[str, Node],
    planned: Sequence[NodePlan],
    edges: Sequence[EdgePlan],
    accepted: Mapping[BoundInput, EdgeOptions],
) -> tuple[EdgePlan, ...]:
    """Return an edge from outside into every input, in the order of the planned nodes."""
    found: list[EdgePlan] = []
    fed = grouped(edges, lambda edge: (edge.receiver, edge.input))
    said = {(port.node.name, port.name): options for port, options in accepted.items()}
    for node in planned:
        if node.kind == "external":
            continue
        takes = nodes[node.name].node_options
        for port, band in zip(node.inputs, node.input_bands, strict=True):
            options = said.get((node.name, port), EdgeOptions())
            inside = fed.get((node.name, port), ())
            keyed_inside = [edge for edge in inside if edge.keyed]
            # a node fed by key gets what comes from outside by the same key
            keyed = options.key is not None or len(keyed_inside) == 1
            edge = _planned(
                len(edges) + len(found),
                external_edge_id(node.name, port),
                (EXTERNAL, "", _READER),
                (node.name, port, takes),
                options,
                Priority(band) if options.priority is None else options.priority,
                keyed=keyed,
            )
            if inside and edge.numbered:  # the order is that of the edge inside
                edge = replace(edge, numbered=False)
            found.append(edge)
    return tuple(found)


def _node(
    name: str, node: Node, level: int, into: Sequence[EdgePlan], out: Sequence[EdgePlan]
) -> NodePlan:
    bands: dict[str, Priority] = {}
    for edge in into:
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
        band=int(_band(node, bands, into, out)),
        ordered=is_reordered(node.node_options),
    )


def _band(
    node: Node, inputs: Mapping[str, Priority], into: Sequence[EdgePlan], out: Sequence[EdgePlan]
) -> Priority:
    """Return the band a node's workers are scheduled in: that of the data it handles."""
    if node.node_options.priority is not None:
        return node.node_options.priority
    bands = [edge.priority for edge in into] or list(inputs.values())
    bands += [edge.priority for edge in out] if not node.inputs else []
    return min((b for b in bands if b is not Priority.CONTROL), default=Priority.NORMAL)
