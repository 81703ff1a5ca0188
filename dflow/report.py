"""What a run did: the report at its end, and the status while it goes on.

Plain frozen data that prints as a table and travels as a dict. A report carries counters
kept independently by the two ends of every edge, so whoever holds one can check that the
books balance (`RunReport.imbalances`) without trusting whoever wrote it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, TypeVar

from dflow.message import EXTERNAL
from dflow.plain import checked_fields, checked_rows, plain_fields

if TYPE_CHECKING:
    from dflow.why import Why

__all__ = [
    "FATES",
    "EdgeReport",
    "EdgeStatus",
    "KeyStatus",
    "NodeReport",
    "NodeStatus",
    "ReplicaStatus",
    "RunReport",
    "RunStatus",
    "report_of_the_dead",
]

FATES = (
    "delivered", "dropped", "coalesced", "expired", "cancelled", "rejected", "dead_lettered",
    "abandoned",
)  # fmt: skip
"""What can become of a message once it was sent; in a balanced book they add up to ``sent``."""

_COMPLETE = ("finished", "drained")
_Item = TypeVar("_Item")
_SHOWN_ALWAYS = ("delivered",)


@dataclass(frozen=True, slots=True)
class NodeReport:
    """Work of one node, all replicas together.

    ``busy_s``: seconds inside user code. ``skipped_ticks``: those for which ``on_tick`` could not
    be called in time, or while what the last one emitted still waited for credit.
    """

    name: str
    kind: str
    replicas: int
    handled: int = 0
    emitted: int = 0
    errors: int = 0
    ticks: int = 0
    busy_s: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    skipped_ticks: int = 0


@dataclass(frozen=True, slots=True)
class EdgeReport:
    """Messages of one edge, all channels together.

    ``sent``: emitted onto the edge, each copy of a broadcast for itself (``copies`` a message).
    What became of them: `FATES`. ``rejected`` are messages refused for lack of room, and those
    from outside that reached a node after it had ended; ``abandoned`` were under way when the
    run was cut short. ``withheld`` are those whose fate was decided before the wire; ``refused``
    of them raised `EdgeFull`. ``unsent`` (still waiting for credit), ``wired`` (put on the wire by
    the sender) and ``received`` (arrived at the receiver) are the counters in between;
    ``malformed`` counts frames refused and messages not decoded. ``peak``: most messages ever
    waiting or in flight at once in one worker. ``bytes``: payload bytes put on the wire.
    ``exact`` is False when one end died and what is known comes from the other.
    """

    id: str
    sent: int = 0
    delivered: int = 0
    dropped: int = 0
    coalesced: int = 0
    expired: int = 0
    cancelled: int = 0
    rejected: int = 0
    dead_lettered: int = 0
    abandoned: int = 0
    withheld: int = 0
    refused: int = 0
    copies: int = 1
    merge_errors: int = 0
    unsent: int = 0
    wired: int = 0
    received: int = 0
    malformed: int = 0
    peak: int = 0
    bytes: int = 0
    exact: bool = True

    def imbalances(self) -> Iterator[str]:
        """Yield every way in which the counters of this edge contradict each other."""
        what = f"edge {self.id}"
        fates = sum(getattr(self, fate) for fate in FATES)
        if self.sent != fates:
            yield f"{what}: {self.sent} sent, but {fates} delivered or otherwise accounted for"
        if self.exact and self.sent != self.unsent + self.wired + self.withheld:
            yield (
                f"{what}: {self.sent} sent, but {self.unsent} unsent + {self.wired} on the wire"
                f" + {self.withheld} withheld"
            )
        if not self.wired >= self.received >= self.delivered:
            yield (
                f"{what}: expected wired >= received >= delivered, "
                f"got {self.wired}, {self.received}, {self.delivered}"
            )


@dataclass(frozen=True, slots=True)
class RunReport:
    """How a run went. Times are Unix seconds; ``wall_s`` is by the monotonic clock.

    ``outcome``: ``"finished"`` (inputs exhausted), ``"drained"`` (asked to end),
    ``"drain_timeout"``, ``"aborted"`` or ``"failed"``. ``error`` says what went wrong and
    ``error_kind`` which kind it was: ``"worker_died"``, ``"hook_failed"``,
    ``"start_failed"``, ``"drain_timeout"``, ``"aborted"``, or ``"process_died"`` when it was
    the coordinator or the agent. ``bundle`` is where the failure bundle is, if one was asked for
    and the run failed.
    """

    graph: str
    run_id: str
    outcome: str
    started_s: float
    ended_s: float
    wall_s: float
    error: str | None = None
    error_kind: str | None = None
    nodes: tuple[NodeReport, ...] = ()
    edges: tuple[EdgeReport, ...] = ()
    bundle: str | None = None

    @property
    def balances(self) -> bool:
        """Whether every sent message is accounted for, by counters kept at both ends."""
        return not self.imbalances

    @property
    def imbalances(self) -> list[str]:
        """Every contradiction in the books, one sentence each; empty when they balance."""
        found = [text for edge in self.edges for text in edge.imbalances()]
        if self.outcome in _COMPLETE:
            found += [
                f"edge {edge.id}: expected none abandoned when {self.outcome}, got {edge.abandoned}"
                for edge in self.edges
                if edge.abandoned
            ]
            found += self._uneven_copies()
        return found

    def _uneven_copies(self) -> Iterator[str]:
        """Yield outputs whose edges were not all offered the same messages."""
        copies: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for edge in self.edges:
            output = edge.id.partition("->")[0]
            if output != EXTERNAL and edge.exact:
                copies[output][edge.id] = (edge.sent - edge.refused) // edge.copies
        for output, sent in copies.items():
            if len(set(sent.values())) > 1:
                counts = ", ".join(f"{edge} {count}" for edge, count in sent.items())
                yield f"output {output}: expected the same number on each edge, got {counts}"

    @property
    def totals(self) -> dict[str, int]:
        """Messages of all edges together, by ``sent`` and each of `FATES`."""
        names = ("sent", *FATES)
        return {name: sum(getattr(edge, name) for edge in self.edges) for name in names}

    def node(self, name: str) -> NodeReport:
        """Return the report of one node; KeyError if the run had none of that name."""
        return _named({node.name: node for node in self.nodes}, name)

    def edge(self, edge_id: str) -> EdgeReport:
        """Return the report of one edge; KeyError if the run had none of that id."""
        return _named({edge.id: edge for edge in self.edges}, edge_id)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for msgpack or JSON, with ``balances`` and ``totals`` added."""
        plain = plain_fields(self)
        plain["nodes"] = [plain_fields(n) | {"metrics": dict(n.metrics)} for n in self.nodes]
        plain["edges"] = [plain_fields(edge) for edge in self.edges]
        return plain | {"balances": self.balances, "totals": self.totals}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the report `to_dict` was called on; TypeError for anything else."""
        known = checked_fields(cls, data)
        known["nodes"] = tuple(
            NodeReport(**checked_fields(NodeReport, n)) for n in checked_rows(data, "nodes")
        )
        known["edges"] = tuple(
            EdgeReport(**checked_fields(EdgeReport, e)) for e in checked_rows(data, "edges")
        )
        return cls(**known)

    def to_json(self, indent: int | None = None) -> str:
        """Return the report as JSON text."""
        return json.dumps(self.to_dict(), indent=indent)

    def __str__(self) -> str:
        """Return the report as plain text: a headline, two tables, the balance, the error."""
        parts = [f"run {self.graph} ({self.run_id}): {self.outcome} in {self.wall_s:.2f} s"]
        parts.append(_node_table(self.nodes))
        if self.edges:
            parts.append(_edge_table(self.edges))
        parts.append(self._balance_text())
        failed = [f"{e.id} {e.merge_errors:,}" for e in self.edges if e.merge_errors]
        if failed:
            parts.append(f"coalesce failed, both messages were kept: {', '.join(failed)}")
        if self.bundle:
            parts.append(f"failure bundle; read it with: dflow doctor {self.bundle}")
        if self.error:
            parts.append(f"{self.error_kind or 'error'}: {self.error}")
        return "\n\n".join(parts)

    def _balance_text(self) -> str:
        totals = self.totals
        fates = [f"{totals[f]:,} {f}" for f in FATES if totals[f] or f in _SHOWN_ALWAYS]
        text = f"{totals['sent']:,} sent = {' + '.join(fates)}".replace("_", "-")
        if self.balances:
            return f"books balance: {text}"
        return "\n  ".join([f"books DO NOT balance: {text}", *self.imbalances])


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """What one replica does now. ``step``: how far its worker has come.

    ``what`` is ``"handler"``, ``"source"``, ``"on_start"``, ``"on_tick"``, ``"on_end"`` or
    ``"on_stop"`` (it is in that part of its own code), ``"tasks"`` (its coroutines are under
    way, ``tasks`` of them), ``"idle"`` (it waits for a message), ``"credit"`` (for room on
    ``edges``, of which the channels to ``waits_for`` are full), ``"order"`` (for the result of
    input ``number``, which must come next and which ``waits_for`` may bring), ``"paused"``,
    ``"thread"`` (for a node in the same worker to return), ``"turn"`` (others compute meanwhile),
    ``"ended"``, ``"results"`` (those of the launching
    process that nobody has read yet), ``"send"`` (it waits there for room on ``edges``), or ``""``
    when it has not said yet.

    ``for_s``: since at least so many seconds; ``busy``: part of the last moments spent in its own
    code. ``heard_s``: since the last word of its worker. ``place``: the line its code is at, once
    it has been there for a while.
    """

    name: str
    step: str = ""
    what: str = ""
    for_s: float = 0.0
    busy: float = 0.0
    heard_s: float = 0.0
    pid: int = 0
    place: str = ""
    tasks: int = 0
    number: int = 0
    edges: tuple[str, ...] = ()
    waits_for: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """One node now; counters are cumulative. ``workers``: the step of each replica.

    ``doing``: what each of them does.
    """

    name: str
    kind: str
    replicas: int
    handled: int = 0
    emitted: int = 0
    errors: int = 0
    workers: tuple[str, ...] = ()
    paused: bool = False
    doing: tuple[ReplicaStatus, ...] = ()


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """One key of an edge now, in messages; ``depth`` is ``waiting`` and ``in_flight`` together.

    ``in_flight`` are sent and not done.
    """

    key: str
    depth: int = 0
    waiting: int = 0
    in_flight: int = 0
    done: int = 0
    rejected: int = 0


@dataclass(frozen=True, slots=True)
class EdgeStatus:
    """One edge now, in messages.

    ``depth``: sent and not yet handed to a handler, nor dropped, as the sender knows it;
    ``capacity``: its bound.
    ``waiting`` of them have no credit yet; ``in_flight`` were sent and are not done; ``taken``
    were handed to a handler, ``done`` handled. ``oldest_s``: age in seconds of what has waited
    longest at the sender or, of an edge that forms no queue of its own, of the oldest not done.
    ``keys``: the busiest keys of an edge that has any. ``bytes`` were sent and not yet handed to
    a handler, of ``max_bytes`` at most.
    """

    id: str
    sent: int = 0
    delivered: int = 0
    depth: int = 0
    capacity: int = 0
    policy: str = "block"
    waiting: int = 0
    in_flight: int = 0
    taken: int = 0
    done: int = 0
    dropped: int = 0
    coalesced: int = 0
    expired: int = 0
    cancelled: int = 0
    rejected: int = 0
    oldest_s: float = 0.0
    keys: tuple[KeyStatus, ...] = ()
    bytes: int = 0
    max_bytes: int = 0


@dataclass(frozen=True, slots=True)
class RunStatus:
    """A run now. ``phase`` is one of `dflow.broker.lifecycle.Phase`.

    ``launcher``: what the launching process does, if it takes part.
    """

    graph: str
    run_id: str
    phase: str
    uptime_s: float
    nodes: tuple[NodeStatus, ...] = ()
    edges: tuple[EdgeStatus, ...] = ()
    launcher: ReplicaStatus | None = None

    def why(self) -> Why:
        """Return who waits for whom, and what keeps them all waiting; prints as text."""
        from dflow.why import explain

        return explain(self)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for msgpack or JSON."""
        plain = plain_fields(self)
        plain["nodes"] = [
            plain_fields(n) | {"workers": list(n.workers), "doing": [_brief(r) for r in n.doing]}
            for n in self.nodes
        ]
        plain["launcher"] = None if self.launcher is None else _brief(self.launcher)
        plain["edges"] = [
            plain_fields(e) | {"keys": [plain_fields(k) for k in e.keys]} for e in self.edges
        ]
        return plain

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the status `to_dict` was called on; TypeError for anything else."""
        known = checked_fields(cls, data)
        known["nodes"] = tuple(
            NodeStatus(**checked_fields(NodeStatus, node) | {
                "doing": tuple(_replica_status(row) for row in checked_rows(node, "doing")),
            })
            for node in checked_rows(data, "nodes")
        )  # fmt: skip
        known["edges"] = tuple(_edge_status(edge) for edge in checked_rows(data, "edges"))
        launcher = data.get("launcher")
        known["launcher"] = None if launcher is None else _replica_status(launcher)
        return cls(**known)


def _brief(replica: ReplicaStatus) -> dict[str, Any]:
    """Return what is not as usual, for a run may have thousands."""
    return {name: value for name, value in plain_fields(replica).items() if value or name == "name"}


def _replica_status(data: Mapping[str, Any]) -> ReplicaStatus:
    return ReplicaStatus(**checked_fields(ReplicaStatus, data))


def _edge_status(data: Mapping[str, Any]) -> EdgeStatus:
    known = checked_fields(EdgeStatus, data)
    keys = tuple(KeyStatus(**checked_fields(KeyStatus, key)) for key in checked_rows(data, "keys"))
    return EdgeStatus(**known | {"keys": keys})


_NODE_COLUMNS = ("replicas", "handled", "emitted", "errors", "skipped_ticks")


def _node_table(nodes: Sequence[NodeReport]) -> str:
    """Return the table of nodes; skipped ticks are shown if there were any."""
    always = _NODE_COLUMNS[:-1]
    shown = [c for c in _NODE_COLUMNS if c in always or any(getattr(n, c) for n in nodes)]
    rows = []
    for node in nodes:
        counts = (f"{getattr(node, column):,}" for column in shown)
        rows.append((node.name, *counts, f"{node.busy_s:.2f} s"))
    return _table(("node", *(column.replace("_", " ") for column in shown), "busy"), rows)


def _edge_table(edges: Sequence[EdgeReport]) -> str:
    shown = [f for f in FATES if f in _SHOWN_ALWAYS or any(getattr(e, f) for e in edges)]
    head = ("edge", "sent", *(fate.replace("_", "-") for fate in shown), "peak", "bytes")
    rows = []
    for edge in edges:
        counts = (edge.sent, *(getattr(edge, fate) for fate in shown), edge.peak, edge.bytes)
        name = edge.id if edge.exact else f"{edge.id} (about)"
        rows.append((name, *(f"{count:,}" for count in counts)))
    return _table(head, rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return aligned columns: the first to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = []
    for row in (head, *rows):
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _named(items: Mapping[str, _Item], name: str) -> _Item:
    if name not in items:
        raise KeyError(f"expected one of {', '.join(items)}, got {name!r}")
    return items[name]


def report_of_the_dead(
    graph: str, run_id: str, last: RunStatus | None, what: str, started_s: float, ended_s: float
) -> RunReport:
    """Return the report of a run whose coordinator had no last word.

    It rests on the ``last`` status anybody heard, so its counters are lower bounds and no edge
    is exact; what had not been handed to a handler by then counts as abandoned.
    """
    nodes = last.nodes if last is not None else ()
    edges = last.edges if last is not None else ()
    flying = {edge.id: edge.sent - edge.delivered for edge in edges if edge.sent > edge.delivered}
    listed = ", ".join(f"{edge} {count:,}" for edge, count in flying.items()) or "nothing known"
    text = f"{what}; every process of the run was ended with it; in flight by edge: {listed}"
    return RunReport(
        graph,
        run_id,
        "failed",
        started_s,
        ended_s,
        ended_s - started_s,
        text,
        "process_died",
        tuple(
            NodeReport(n.name, n.kind, n.replicas, n.handled, n.emitted, n.errors) for n in nodes
        ),
        tuple(
            EdgeReport(
                e.id,
                sent=max(e.sent, e.delivered),
                delivered=e.delivered,
                abandoned=max(0, e.sent - e.delivered),
                wired=max(e.sent, e.delivered),
                received=e.delivered,
                exact=False,
            )
            for e in edges
        ),
    )
