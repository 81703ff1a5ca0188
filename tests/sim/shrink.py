"""What is a little simpler than a case: the boldest first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

from dflow.testing.minimal import fewer
from tests.sim.build import build
from tests.sim.spec import Case, NodeSpec

__all__ = ["simpler"]


def simpler(case: Case) -> Iterator[Case]:
    """Yield cases that have less of something, and can be run."""
    for candidate in _candidates(case):
        fed = {edge.receiver for edge in candidate.edges}
        owed = {node.name for node in candidate.nodes if node.kind != "source"} - fed
        drains = any(action.what in ("drain", "abort") for action in candidate.actions)
        if candidate.nodes and (drains or not owed) and not build(candidate).problems():
            yield candidate


def _candidates(case: Case) -> Iterator[Case]:
    for faults in fewer(tuple(case.faults.items())):
        if len(faults) < len(case.faults):
            yield replace(case, faults=dict(faults))
    for actions in fewer(case.actions):
        if len(actions) < len(case.actions):
            yield replace(case, actions=actions)
    for node in reversed(case.nodes):
        yield _without(case, node.name)
    for edge in case.edges:
        yield replace(case, edges=tuple(other for other in case.edges if other is not edge))
    if case.fused:
        yield replace(case, fused=())
    for option in case.options:
        yield replace(case, options={k: v for k, v in case.options.items() if k != option})
    for at, node in enumerate(case.nodes):
        for plainer in _plainer_node(node):
            yield replace(case, nodes=(*case.nodes[:at], plainer, *case.nodes[at + 1 :]))
    for at, edge in enumerate(case.edges):
        for plain in _plainer(edge, {}):
            yield replace(case, edges=(*case.edges[:at], plain, *case.edges[at + 1 :]))
    for at, action in enumerate(case.actions):
        if action.count > 1:
            less = replace(action, count=action.count // 2)
            yield replace(case, actions=(*case.actions[:at], less, *case.actions[at + 1 :]))
    yield from _fewer_exact(case)


def _fewer_exact(case: Case) -> Iterator[Case]:
    exactly = case.faults.get("exactly", ())
    for chosen in fewer(tuple(exactly)):
        if len(chosen) < len(exactly):
            yield replace(case, faults={**case.faults, "exactly": list(chosen)})


def _without(case: Case, name: str) -> Case:
    groups = [tuple(other for other in group if other != name) for group in case.fused]
    return replace(
        case,
        nodes=tuple(node for node in case.nodes if node.name != name),
        edges=tuple(edge for edge in case.edges if name not in (edge.sender, edge.receiver)),
        fused=tuple(group for group in groups if len(group) > 1),
        actions=tuple(a for a in case.actions if a.target.partition(".")[0] != name),
    )


def _plainer_node(node: NodeSpec) -> Iterator[NodeSpec]:
    if node.count > 1:
        yield replace(node, count=node.count // 2)
        yield replace(node, count=node.count - 1)
    if node.replicas > 2:
        yield replace(node, replicas=2)
    style = {"source": "yield", "node": "return", "sink": "return"}[node.kind]
    if node.style != style:
        yield replace(node, style=style, concurrency=1, fan=1, late=False, ids=False)
    yield from _plainer(node, {"count": node.count})


def _plainer(spec: Any, kept: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the spec with each one of its options at its default."""
    for field in fields(spec):
        value = getattr(spec, field.name)
        named = field.name in ("name", "kind", "style", "sender", "receiver", "output", "input")
        if not named and field.name not in kept and value != field.default:
            yield replace(spec, **{field.name: field.default})
