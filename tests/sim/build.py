"""From a case to a graph."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from dflow import Graph, Node, Priority, coalesce
from tests.sim.nodes import KEYS, class_of, merge
from tests.sim.spec import Case, EdgeSpec, NodeSpec

__all__ = ["build", "keys_of"]


def keys_of(case: Case, node: NodeSpec) -> int:
    """Return how many keys the messages of a node have, if an edge to it has any."""
    return max((e.keys for e in case.edges if e.receiver == node.name), default=0) or 1


def build(case: Case) -> Graph:
    """Return the graph of a case, not validated."""
    graph = Graph("case")
    nodes: dict[str, Node] = {}
    for spec in case.nodes:
        made = class_of(spec)(asdict(spec), keys_of(case, spec))
        nodes[spec.name] = made.options(**_options(spec))
        graph.add(made)
    for edge in case.edges:
        sender, receiver = nodes[edge.sender], nodes[edge.receiver]
        graph.connect(
            getattr(sender, edge.output), getattr(receiver, edge.input), **_edge_options(edge)
        )
    for group in case.fused:
        graph.fuse(*group)
    return graph


def _options(spec: NodeSpec) -> dict[str, Any]:
    options: dict[str, Any] = {
        "name": spec.name,
        "replicas": spec.replicas,
        "concurrency": spec.concurrency,
        "ordered": spec.ordered,
        "on_error": spec.on_error,
    }
    if spec.tick_us:
        options["tick_s"] = spec.tick_us / 1e6
    if spec.limit:
        options["max_in_flight_per_key"] = spec.limit
    if spec.priority >= 0:
        options["priority"] = Priority(spec.priority)
    return options


def _edge_options(edge: EdgeSpec) -> dict[str, Any]:
    options: dict[str, Any] = {
        "policy": coalesce(merge) if edge.policy == "coalesce" else edge.policy,
        "capacity": edge.capacity,
        "max_bytes": edge.max_bytes,
    }
    if edge.keys:
        options["key"] = KEYS[edge.keys]
    if edge.band >= 0:
        options["priority"] = Priority(edge.band)
    if edge.ttl_us:
        options["ttl_s"] = edge.ttl_us / 1e6
    if edge.cancellable:
        options["cancellable"] = True
    return options
