"""Which nodes and edges of a large run are worth the room on a screen.

Nobody reads a thousand rows, and laying them out takes nearly a second. So only the rows one would
look for are shown, in their usual order: what has gone wrong or stands out, then what messages pile
up in front of. Everything is in the JSON.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from dflow.report import EdgeStatus, NodeStatus, RunStatus

__all__ = ["edges_worth_showing", "nodes_worth_showing"]

_Row = TypeVar("_Row")


def nodes_worth_showing(status: RunStatus, most: int) -> list[NodeStatus]:
    """Return up to ``most`` nodes, in topological order, without the launching process.

    First those that have errors, are paused or are not where most others are, then those whose
    inputs are the fullest.
    """
    nodes = [node for node in status.nodes if node.kind != "external"]
    usual = Counter(frozenset(node.workers) for node in nodes).most_common(1)
    full: dict[str, float] = {}
    for edge in status.edges if len(nodes) > most else ():
        receiver = edge.id.partition("->")[2].rpartition(".")[0]
        full[receiver] = max(full.get(receiver, 0.0), _fullness(edge))

    def rank(node: NodeStatus) -> tuple[bool, bool, float]:
        odd = frozenset(node.workers) != usual[0][0]
        return bool(node.errors) or node.paused, odd, full.get(node.name, 0.0)

    return _best(nodes, most, rank)


def edges_worth_showing(edges: Sequence[EdgeStatus], most: int) -> list[EdgeStatus]:
    """Return up to ``most`` edges, in their order: the fullest, then those that wait longest."""
    return _best(edges, most, lambda edge: (_fullness(edge), edge.oldest_s))


def _fullness(edge: EdgeStatus) -> float:
    return edge.depth / edge.capacity if edge.capacity else 0.0


def _best(rows: Sequence[_Row], most: int, rank: Callable[[_Row], tuple[float, ...]]) -> list[_Row]:
    if len(rows) <= most:
        return list(rows)
    best = sorted(range(len(rows)), key=lambda place: rank(rows[place]), reverse=True)
    return [rows[place] for place in sorted(best[:most])]
