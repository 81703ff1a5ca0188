"""Pictures of a graph as text: Mermaid, Graphviz dot, and SVG (drawn in `dflow.graph.svg`).

All show the same: nodes with their kind and replicas, subgraphs as groups, and on an edge
only what is not the default. They are made from the plan, so equal graphs give equal text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from dflow.graph.plan import EdgePlan, NodePlan, Plan
from dflow.message import EXTERNAL, Priority
from dflow.options import DEFAULT_CAPACITY

if TYPE_CHECKING:
    from dflow.graph.builder import Graph

__all__ = ["dot", "edge_label", "mermaid", "node_caption", "svg"]

_FILL = {"source": "#e3f4e8", "node": "#e6effb", "sink": "#fdeedd", "external": "#f1f1f1"}
_LINE = {"source": "#2f855a", "node": "#2b6cb0", "sink": "#b7641c", "external": "#777777"}
_SHAPES = {"source": ("([", "])"), "sink": ("[[", "]]"), "external": ("{{", "}}")}


def mermaid(graph: Graph | Plan) -> str:
    """Return a Mermaid flowchart, as GitHub and GitLab draw it inside Markdown."""
    plan = plan_of(graph)
    ids = {node.name: f"n{index}" for index, node in enumerate(plan.nodes)}
    lines = ["flowchart LR"]
    for depth, node in _grouped(plan):
        indent = "  " * (depth + 1)
        if isinstance(node, str):
            lines.append(f'{indent}subgraph {_group_id(node)}["{_last(node)}"]')
            continue
        if node is None:
            lines.append(f"{indent}end")
            continue
        opening, closing = _SHAPES.get(node.kind, ("[", "]"))
        caption = node_caption(node)
        text = _last(node.name) + (f"<br/><small>{caption}</small>" if caption else "")
        lines.append(f'{indent}{ids[node.name]}{opening}"{text}"{closing}:::{node.kind}')
    for edge in plan.edges:
        label = edge_label(edge)
        arrow = f'-->|"{label}"|' if label else "-->"
        lines.append(f"  {ids[edge.sender]} {arrow} {ids[edge.receiver]}")
    for kind, fill in _FILL.items():
        if any(node.kind == kind for node in plan.nodes):
            lines.append(f"  classDef {kind} fill:{fill},stroke:{_LINE[kind]},color:#1a202c")
    return "\n".join(lines) + "\n"


def dot(graph: Graph | Plan) -> str:
    """Return a Graphviz digraph."""
    plan = plan_of(graph)
    lines = [
        f'digraph "{plan.name}" {{',
        "  rankdir=LR; compound=true;",
        '  node [shape=box, style="rounded,filled", fontname="Helvetica", fontsize=12];',
        '  edge [fontname="Helvetica", fontsize=10, color="#555555"];',
    ]
    for depth, node in _grouped(plan):
        indent = "  " * (depth + 1)
        if isinstance(node, str):
            lines.append(f'{indent}subgraph "cluster_{node}" {{ label="{_last(node)}";')
        elif node is None:
            lines.append(f"{indent}}}")
        else:
            caption = node_caption(node)
            text = _last(node.name) + (f"\\n{caption}" if caption else "")
            style = f'fillcolor="{_FILL[node.kind]}", color="{_LINE[node.kind]}"'
            lines.append(f'{indent}"{node.name}" [label="{text}", {style}];')
    for edge in plan.edges:
        label = edge_label(edge)
        attributes = f' [label="{label}"]' if label else ""
        lines.append(f'  "{edge.sender}" -> "{edge.receiver}"{attributes};')
    return "\n".join([*lines, "}"]) + "\n"


def svg(graph: Graph | Plan) -> str:
    """Return a standalone SVG picture; needs no other program."""
    from dflow.graph.svg import draw

    return draw(plan_of(graph), fill=_FILL, line=_LINE)


def plan_of(graph: Graph | Plan) -> Plan:
    """Return the plan of a graph, or the plan itself."""
    return graph if isinstance(graph, Plan) else graph.plan()


def node_caption(node: NodePlan) -> str:
    """Return the line under a node's name: what is not the default."""
    if node.kind == "external":
        return "results"
    return f"{node.replicas} replicas" if node.replicas > 1 else ""


def edge_label(edge: EdgePlan) -> str:
    """Return what an edge's picture says: ports, band, key and capacity if not the default."""
    parts: list[str] = []
    if edge.receiver == EXTERNAL:
        parts += [edge.output] if edge.output != "out" else []
    elif edge.output != "out" and edge.input != "in":
        parts.append(f"{edge.output} → {edge.input}")
    elif edge.output != "out":
        parts.append(edge.output)
    elif edge.input != "in":
        parts.append(f"→ {edge.input}")
    if edge.priority is not Priority.NORMAL:
        parts.append(edge.priority.name)
    if edge.policy != "block":
        parts.append(edge.policy)
    if edge.keyed:
        parts.append("by key")
    if edge.capacity != DEFAULT_CAPACITY:
        parts.append(f"≤ {edge.capacity}")
    return ", ".join(parts)


def _grouped(plan: Plan) -> Iterator[tuple[int, NodePlan | str | None]]:
    """Yield (depth, node), with a group's path before its nodes and ``None`` after them."""

    def inside(
        path: str, depth: int, nodes: Sequence[NodePlan]
    ) -> Iterator[tuple[int, NodePlan | str | None]]:
        groups: dict[str, list[NodePlan]] = {}
        for node in nodes:
            group, slash, _ = node.name[len(path) :].partition("/")
            if slash:
                groups.setdefault(group, []).append(node)
            else:
                yield depth, node
        for group, members in groups.items():
            yield depth, f"{path}{group}"
            yield from inside(f"{path}{group}/", depth + 1, members)
            yield depth, None

    yield from inside("", 0, plan.nodes)


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _group_id(path: str) -> str:
    return "g_" + path.replace("/", "__").replace("-", "_")
