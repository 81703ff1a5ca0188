"""Where the boxes and lines of a picture go: a small layered layout, left to right.

Sugiyama's method with the simple choice at each step: columns are topological levels, long
edges pass through invisible boxes, crossings are reduced by barycentre sweeps, and heights
are the least-squares fit to the neighbours' heights under "no two boxes overlap" (pool
adjacent violators). Good for the tens of nodes a picture is for; no dependency.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

__all__ = ["Box", "Layout", "Line", "layered"]

COLUMN_GAP = 56.0
ROW_GAP = 26.0
PORT_GAP = 18.0
MARGIN = 24.0
SWEEPS = 8


@dataclass(slots=True, eq=False)
class Box:
    """A node (or, with ``key`` negative, a bend of a long edge); ``y`` is its middle."""

    key: int
    column: int
    width: float
    height: float
    x: float = 0.0
    y: float = 0.0
    before: list[Box] = field(default_factory=list)
    after: list[Box] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Line:
    """An edge as the boxes it passes, and the height at which it leaves and arrives."""

    boxes: list[Box]
    start_y: float = 0.0
    end_y: float = 0.0


@dataclass(frozen=True, slots=True)
class Layout:
    """``boxes`` by position of the node, ``lines`` by position of the edge."""

    boxes: list[Box]
    lines: list[Line]
    width: float
    height: float


def layered(
    columns: Sequence[int],
    sizes: Sequence[tuple[float, float]],
    edges: Sequence[tuple[int, int]],
    label_widths: Sequence[float],
) -> Layout:
    """Place nodes with the given columns and sizes; ``edges`` are pairs of node positions."""
    boxes = [
        Box(key, column, *size)
        for key, (column, size) in enumerate(zip(columns, sizes, strict=True))
    ]
    grid: list[list[Box]] = [[] for _ in range(max(columns, default=-1) + 1)]
    for box in boxes:
        grid[box.column].append(box)
    lines = [_line(boxes[sender], boxes[receiver], grid) for sender, receiver in edges]
    _make_room(lines, boxes)
    for sweep in range(SWEEPS):
        _order(grid, forward=sweep % 2 == 0)
    _stack(grid)
    for sweep in range(SWEEPS):
        _settle(grid, forward=sweep % 2 == 0)
    width = _spread(grid, lines, label_widths)
    top = min((box.y - box.height / 2 for box in boxes), default=0.0)
    for column in grid:
        for box in column:
            box.y += MARGIN - top
    _fan(lines, boxes)
    height = max((box.y + box.height / 2 for column in grid for box in column), default=0.0)
    return Layout(boxes, lines, width, height + MARGIN)


def _line(sender: Box, receiver: Box, grid: list[list[Box]]) -> Line:
    """Return the line between two boxes, with a bend in every column between."""
    bends = [Box(-1, column, 0.0, 2.0) for column in range(sender.column + 1, receiver.column)]
    for bend in bends:
        grid[bend.column].append(bend)
    passed = [sender, *bends, receiver]
    for left, right in pairwise(passed):
        left.after.append(right)
        right.before.append(left)
    return Line(passed)


def _make_room(lines: Sequence[Line], boxes: Sequence[Box]) -> None:
    for box in boxes:
        ports = max(len(box.before), len(box.after))
        box.height = max(box.height, ports * PORT_GAP + 8)


def _order(grid: list[list[Box]], *, forward: bool) -> None:
    """Sort each column by the mean position of its neighbours in the column before."""
    for column in grid if forward else grid[::-1]:
        place: dict[int, float] = {}
        for position, box in enumerate(column):
            near = box.before if forward else box.after
            ranks = [grid[other.column].index(other) for other in near] if near else [position]
            place[id(box)] = sum(ranks) / len(ranks)
        column.sort(key=lambda box: place[id(box)])


def _stack(grid: list[list[Box]]) -> None:
    for column in grid:
        y = 0.0
        for box in column:
            box.y = y + box.height / 2
            y += box.height + ROW_GAP
        for box in column:
            box.y -= (y - ROW_GAP) / 2


def _settle(grid: list[list[Box]], *, forward: bool) -> None:
    """Move each column's boxes towards their neighbours as far as they do not overlap."""
    for column in grid if forward else grid[::-1]:
        wanted = []
        for box in column:
            near = (box.before if forward else box.after) or [box]
            wanted.append(sum(other.y for other in near) / len(near))
        offsets = [0.0]
        for above, below in pairwise(column):
            offsets.append(offsets[-1] + (above.height + below.height) / 2 + ROW_GAP)
        fitted = _isotonic([want - offset for want, offset in zip(wanted, offsets, strict=False)])
        for box, value, offset in zip(column, fitted, offsets, strict=False):
            box.y = value + offset


def _isotonic(values: Sequence[float]) -> list[float]:
    """Return the non-decreasing sequence nearest to ``values`` (pool adjacent violators)."""
    pools: list[tuple[float, int]] = []
    for value in values:
        total, count = value, 1
        while pools and pools[-1][0] / pools[-1][1] >= total / count:
            previous, number = pools.pop()
            total, count = total + previous, count + number
        pools.append((total, count))
    return [total / count for total, count in pools for _ in range(count)]


def _spread(grid: list[list[Box]], lines: Sequence[Line], label_widths: Sequence[float]) -> float:
    """Set every box's ``x`` (its left side), with room between columns for the labels."""
    gaps = [COLUMN_GAP] * len(grid)
    for line, width in zip(lines, label_widths, strict=True):
        start = line.boxes[0].column
        gaps[start] = max(gaps[start], width + COLUMN_GAP)
    x = MARGIN
    for index, column in enumerate(grid):
        widest = max((box.width for box in column), default=0.0)
        for box in column:
            box.x = x if box.key < 0 else x + (widest - box.width) / 2
            box.width = widest if box.key < 0 else box.width
        x += widest + gaps[index]
    return x - (gaps[-1] if grid else 0.0) + MARGIN


def _fan(lines: Sequence[Line], boxes: Sequence[Box]) -> None:
    """Spread the ends of lines over a box's side, in the order of where they lead."""
    for box in boxes:
        leaving = sorted((line for line in lines if line.boxes[0] is box), key=_next_y)
        for line, y in zip(leaving, _heights(box, len(leaving)), strict=True):
            line.start_y = y
        arriving = sorted((line for line in lines if line.boxes[-1] is box), key=_previous_y)
        for line, y in zip(arriving, _heights(box, len(arriving)), strict=True):
            line.end_y = y


def _next_y(line: Line) -> float:
    return line.boxes[1].y


def _previous_y(line: Line) -> float:
    return line.boxes[-2].y


def _heights(box: Box, count: int) -> list[float]:
    return [box.y + (index - (count - 1) / 2) * PORT_GAP for index in range(count)]
