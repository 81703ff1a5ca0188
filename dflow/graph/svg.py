"""Drawing a plan as SVG. Text is measured by rule of thumb: no fonts are at hand here."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from dflow.graph.layout import Box, Layout, Line, layered
from dflow.graph.plan import EdgePlan, NodePlan, Plan
from dflow.graph.render import edge_label, node_caption

__all__ = ["draw"]

NAME_SIZE, SMALL_SIZE = 13, 11
NARROW = set("fijlrt.,:|/()[] I1-")
STACK = 3
"""Pixels between the outlines that hint at replicas."""

_STYLE = f"""
  text {{ font-family: Inter, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1a202c }}
  .name {{ font-size: {NAME_SIZE}px; font-weight: 600; text-anchor: middle }}
  .small {{ font-size: {SMALL_SIZE}px; fill: #4a5568; text-anchor: middle }}
  .label {{ font-size: {SMALL_SIZE}px; fill: #4a5568; text-anchor: middle }}
  .edge {{ fill: none; stroke: #718096; stroke-width: 1.4 }}
"""

_HEAD = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
    ' viewBox="0 0 {width} {height}" role="img">'
)
_TIP = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"'
    ' orient="auto"><path d="M0 0.5 L8 4 L0 7.5 z" fill="#718096"/></marker></defs>'
)


def draw(plan: Plan, *, fill: Mapping[str, str], line: Mapping[str, str]) -> str:
    """Return the picture of ``plan``; ``fill`` and ``line`` are colours by node kind."""
    position = {node.name: index for index, node in enumerate(plan.nodes)}
    labels = [edge_label(edge) for edge in plan.edges]
    layout = layered(
        [node.level for node in plan.nodes],
        [_size(node) for node in plan.nodes],
        [(position[edge.sender], position[edge.receiver]) for edge in plan.edges],
        [text_width(label, SMALL_SIZE) for label in labels],
    )
    return "\n".join([*_head(plan, layout), *_body(plan, layout, labels, fill, line), "</svg>", ""])


def text_width(text: str, size: float) -> float:
    """Return about how wide ``text`` is in pixels, rather too wide than too narrow."""
    return sum(0.36 if char in NARROW else 0.62 for char in text) * size


def _size(node: NodePlan) -> tuple[float, float]:
    name = text_width(node.name, NAME_SIZE * 1.08)  # bold
    caption = node_caption(node)
    width = max(name, text_width(caption, SMALL_SIZE)) + 32
    return max(width, 84.0), 48.0 if caption else 38.0


def _head(plan: Plan, layout: Layout) -> list[str]:
    width, height = round(layout.width), round(layout.height)
    return [
        _HEAD.format(width=width, height=height),
        f"<title>{escape(plan.name)}</title>",
        f"<style>{_STYLE}</style>",
        _TIP,
        f'<rect width="{width}" height="{height}" rx="8" fill="#ffffff"/>',
    ]


def _body(
    plan: Plan,
    layout: Layout,
    labels: list[str],
    fill: Mapping[str, str],
    line: Mapping[str, str],
) -> list[str]:
    parts = [_path(edge, way) for edge, way in zip(plan.edges, layout.lines, strict=True)]
    for node, box in zip(plan.nodes, layout.boxes, strict=True):
        parts += _node(node, box, fill[node.kind], line[node.kind])
    for label, way in zip(labels, layout.lines, strict=True):
        if label:
            parts += _label(label, *_label_place(way))
    return parts


def _node(node: NodePlan, box: Box, fill: str, line: str) -> list[str]:
    corner = 18 if node.kind in ("source", "sink") else 7
    top, middle = box.y - box.height / 2, box.x + box.width / 2
    shifts = range((min(node.replicas, 3) - 1) * STACK, -1, -STACK)
    parts = [f"<g><title>{escape(node.name)} ({node.kind})</title>"]
    parts += [
        f'<rect x="{box.x + shift:.1f}" y="{top + shift:.1f}" width="{box.width:.1f}"'
        f' height="{box.height:.1f}" rx="{corner}" fill="{fill}" stroke="{line}"'
        f' stroke-width="1.4"/>'
        for shift in shifts
    ]
    caption = node_caption(node)
    name_y = box.y - 3 if caption else box.y + 4.5
    parts.append(f'<text class="name" x="{middle:.1f}" y="{name_y:.1f}">{escape(node.name)}</text>')
    if caption:
        parts.append(
            f'<text class="small" x="{middle:.1f}" y="{box.y + 13:.1f}">{escape(caption)}</text>'
        )
    return [*parts, "</g>"]


def _path(edge: EdgePlan, way: Line) -> str:
    first, last = way.boxes[0], way.boxes[-1]
    x, y = first.x + first.width, way.start_y
    path = f"M{x:.1f} {y:.1f}"
    for bend in way.boxes[1:-1]:
        path += _curve(x, y, bend.x, bend.y) + f" H{bend.x + bend.width:.1f}"
        x, y = bend.x + bend.width, bend.y
    path += _curve(x, y, last.x - 2, way.end_y)
    title = f"<title>{escape(edge.id)}</title>"
    return f'<path class="edge" d="{path}" marker-end="url(#tip)">{title}</path>'


def _curve(x: float, y: float, to_x: float, to_y: float) -> str:
    half = (x + to_x) / 2
    return f" C{half:.1f} {y:.1f} {half:.1f} {to_y:.1f} {to_x:.1f} {to_y:.1f}"


def _label(text: str, x: float, y: float) -> list[str]:
    width = text_width(text, SMALL_SIZE) + 8
    left, top = x - width / 2, y - 7
    cleared = f'x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="14" rx="3"'
    return [
        f'<rect {cleared} fill="#ffffff"/>',
        f'<text class="label" x="{x:.1f}" y="{y + 4:.1f}">{escape(text)}</text>',
    ]


def _label_place(way: Line) -> tuple[float, float]:
    """Return where a label is least in the way: on a long line's first straight stretch."""
    first, second = way.boxes[0], way.boxes[1]
    if len(way.boxes) > 2:
        return second.x + second.width / 2, second.y
    return (first.x + first.width + second.x) / 2, (way.start_y + way.end_y) / 2
