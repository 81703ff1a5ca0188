"""A status as tables: nodes, edges, and the busiest keys of edges that have any.

A column that would be empty is left out, and so are most rows of a large run
(`dflow.telemetry.choice`), so that what shows is worth a look.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dflow.report import EdgeStatus, KeyStatus, NodeStatus, RunStatus
from dflow.telemetry.choice import edges_worth_showing, nodes_worth_showing
from dflow.why import minutes_text

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

__all__ = ["reasons", "screen"]

_FATES = ("dropped", "coalesced", "expired", "cancelled", "rejected")
_FULL, _FILLING = 0.9, 0.5
_OLD_S = 1.0

_Cell = Callable[[EdgeStatus], "Text | str"]


def screen(status: RunStatus, *, keys: bool = False, most: int | None = None) -> Group:
    """Return ``status`` as something rich can print; ``keys`` adds a table of keys.

    ``most``: rows of each table, None for all; what is left out is counted below it.
    """
    from rich.console import Group
    from rich.text import Text

    all_nodes = [node for node in status.nodes if node.kind != "external"]
    most = max(len(all_nodes), len(status.edges)) if most is None else most
    nodes = nodes_worth_showing(status, most)
    edges = edges_worth_showing(status.edges, most)
    parts: list[Text | Table] = [_headline(status), Text(), _nodes(nodes)]
    parts += _more(len(all_nodes) - len(nodes), "nodes")
    if edges:
        parts += [Text(), _edges(edges)]
        parts += _more(len(status.edges) - len(edges), "edges")
    if keys:
        some = any(edge.keys for edge in status.edges)
        parts += [Text(), _keys(status.edges) if some else Text("no edge counts by key", "dim")]
    return Group(*parts)


def reasons(status: RunStatus) -> Group:
    """Return why ``status`` does not get on, as something rich can print."""
    from rich.console import Group
    from rich.text import Text

    why = status.why()
    style = "bold red" if why.stuck else "bold"
    parts = [_headline(status), Text(), Text(why.summary, style)]
    if why.chains:
        parts += [Text(), Text(why.text)]
    return Group(*parts)


def _more(left_out: int, what: str) -> list[Text]:
    from rich.text import Text

    return [Text(f"and {left_out:,} {what} that stand out less; --all", "dim")] if left_out else []


def _headline(status: RunStatus) -> Text:
    from rich.text import Text

    paused = sum(node.paused for node in status.nodes)
    text = Text.assemble(
        (status.graph, "bold"), f" ({status.run_id})  ", (status.phase, "bold"),
        f" for {_duration(status.uptime_s)}",
    )  # fmt: skip
    if paused:
        text.append(f"  {paused} paused", "yellow")
    return text


def _table(head: Sequence[str], *, left: int = 1) -> Table:
    """Return an empty table whose first ``left`` columns are text, the others numbers."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for place, name in enumerate(head):
        text = place < left
        table.add_column(name, justify="left" if text else "right", no_wrap=True)
    return table


def _nodes(nodes: Sequence[NodeStatus]) -> Table:
    table = _table(("node", "state", "replicas", "handled", "emitted", "errors"), left=2)
    for node in nodes:
        counts = [f"{n:,}" for n in (node.replicas, node.handled, node.emitted)]
        errors = _count(node.errors, "red")
        table.add_row(_styled(node.name, "cyan"), _state(node), *counts, errors)
    return table


def _state(node: NodeStatus) -> Text:
    """Return the step all replicas are at, or how many are at each."""
    steps = list(dict.fromkeys(node.workers))
    text = steps[0] if len(steps) == 1 else ", ".join(f"{node.workers.count(s)} {s}" for s in steps)
    if node.paused:
        return _styled("paused", "yellow")
    return _styled(text, "green" if steps == ["running"] else "")


def _edges(edges: Sequence[EdgeStatus]) -> Table:
    columns: list[tuple[str, _Cell]] = [
        ("edge", lambda e: _styled(e.id, "cyan")),
        ("policy", lambda e: e.policy),
        ("depth", _depth),
        ("waiting", lambda e: f"{e.waiting:,}"),
        ("in flight", lambda e: f"{e.in_flight:,}"),
        ("taken", lambda e: f"{e.taken:,}"),
        ("done", lambda e: f"{e.done:,}"),
    ]
    if any(edge.oldest_s for edge in edges):
        columns.append(("oldest", _oldest))
    columns += [(fate, _fate(fate)) for fate in _FATES if any(getattr(e, fate) for e in edges)]
    table = _table([name for name, _ in columns], left=2)
    for edge in edges:
        table.add_row(*(cell(edge) for _, cell in columns))
    return table


def _depth(edge: EdgeStatus) -> Text:
    share = edge.depth / edge.capacity if edge.capacity else 0.0
    style = "red" if share >= _FULL else "yellow" if share >= _FILLING else ""
    return _styled(f"{edge.depth:,}/{edge.capacity:,}", style)


def _oldest(edge: EdgeStatus) -> Text | str:
    if not edge.oldest_s:
        return ""
    return _styled(_duration(edge.oldest_s), "yellow" if edge.oldest_s >= _OLD_S else "")


def _fate(name: str) -> _Cell:
    return lambda edge: _count(getattr(edge, name), "yellow")


def _keys(edges: Sequence[EdgeStatus]) -> Table:
    rejecting = any(key.rejected for edge in edges for key in edge.keys)
    head = ("edge", "key", "depth", "waiting", "in flight", "done", *["rejected"] * rejecting)
    table = _table(head, left=2)
    for edge in edges:
        name = edge.id
        for key in edge.keys:
            table.add_row(_styled(name, "cyan"), key.key, *_key_counts(key, rejecting=rejecting))
            name = ""
    return table


def _key_counts(key: KeyStatus, *, rejecting: bool) -> list[Text | str]:
    counts: list[Text | str] = [
        f"{count:,}" for count in (key.depth, key.waiting, key.in_flight, key.done)
    ]
    return counts + [_count(key.rejected, "yellow")] * rejecting


def _count(number: int, style: str) -> Text:
    return _styled(f"{number:,}", style if number else "dim")


def _styled(text: str, style: str) -> Text:
    from rich.text import Text

    return Text(text, style)


def _duration(seconds: float) -> str:
    """Return "0.35 s", "12.3 s", "4 min 10 s" or "3 h 2 min"."""
    if seconds < 60:
        return f"{seconds:.{2 if seconds < 1 else 1}f} s"
    return minutes_text(seconds)
