"""What workers count: plain numbers, cumulative since the worker started.

Counters only grow, so a lost or repeated report is harmless; the last one wins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter
from typing import Any

__all__ = [
    "Doing",
    "Fates",
    "InChannelStats",
    "KeyStats",
    "NodeStats",
    "OutChannelStats",
    "QueueStats",
    "WorkerStats",
]


@dataclass(frozen=True, slots=True)
class Doing:
    """What one replica was doing when its counters were taken.

    ``what`` is told in `dflow.report.ReplicaStatus`, ``for_s``: since at least so many seconds.
    ``busy``: part of the time since the report before that was spent in its own code, 0 to 1.
    ``place``: the line its code is at, "app.py:17 in parse"; known once it has been there for a
    while. ``tasks``: coroutines under way. ``number``: of the input whose result must come next.
    ``edges`` (indexes): by which the message at hand came, which have no credit, or where
    messages wait for their order; ``channels`` of those: without room, or awaited.
    """

    what: str = ""
    for_s: float = 0.0
    busy: float = 0.0
    place: str = ""
    tasks: int = 0
    number: int = 0
    edges: tuple[int, ...] = ()
    channels: tuple[int, ...] = ()

    def to_wire(self) -> list[Any]:
        """Return a row without what is as usual at its end: an idle replica's is short."""
        row = [
            self.what, round(self.for_s, 3), round(self.busy, 3), self.place, self.tasks,
            self.number, list(self.edges), list(self.channels),
        ]  # fmt: skip
        while row and not row[-1]:
            row.pop()
        return row

    @classmethod
    def from_wire(cls, row: Any) -> Doing:
        """Return what a peer sent; raises TypeError or ValueError for anything else."""
        if not isinstance(row, (list, tuple)):
            raise TypeError(f"expected a row, got {type(row).__name__}")
        doing = cls(*row)
        texts, whole = (doing.what, doing.place), (doing.tasks, doing.number)
        seconds = (doing.for_s, doing.busy)
        numbers = (*doing.edges, *doing.channels)
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("expected text for what a replica does, and where")
        if not all(type(number) in (int, float) and 0 <= number < 1e12 for number in seconds):
            raise ValueError("expected seconds >= 0")
        if not all(type(number) is int and number >= 0 for number in (*whole, *numbers)):
            raise ValueError("expected whole numbers >= 0")
        return replace(doing, edges=tuple(doing.edges), channels=tuple(doing.channels))


@dataclass(frozen=True, slots=True)
class NodeStats:
    """Work of one replica. ``busy_ns``: time inside user code; ``skipped``: ticks not called."""

    handled: int = 0
    emitted: int = 0
    errors: int = 0
    ticks: int = 0
    busy_ns: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    skipped: int = 0
    doing: Doing = field(default_factory=Doing)


@dataclass(frozen=True, slots=True)
class Fates:
    """What a sender decided about messages that never went onto the wire."""

    dropped: int = 0
    coalesced: int = 0
    expired: int = 0
    cancelled: int = 0
    rejected: int = 0
    errors: int = 0

    @property
    def total(self) -> int:
        """Messages decided about; ``errors`` counts failed merges and is not among them."""
        return self.dropped + self.coalesced + self.expired + self.cancelled + self.rejected

    def row(self) -> tuple[int, ...]:
        """Return all counts in the order of the fields."""
        return _FATES(self)


@dataclass(frozen=True, slots=True)
class KeyStats:
    """One key of an edge, seen by its sender, in messages.

    ``waiting`` have no credit yet, ``in_flight`` are sent and not done, ``done`` are handled.
    """

    key: str
    waiting: int
    in_flight: int
    done: int
    rejected: int = 0


@dataclass(frozen=True, slots=True)
class QueueStats:
    """One edge, seen by its sender: its oldest message's age, and its busiest keys.

    The oldest of those that wait one by one at the sender, or, of a plain edge, of all not done.
    """

    oldest_s: float = 0.0
    keys: tuple[KeyStats, ...] = ()


@dataclass(frozen=True, slots=True)
class OutChannelStats:
    """One channel, seen by its sender, in messages (``*_bytes``: payload bytes).

    ``sent`` went onto the wire; ``taken`` and ``done`` are the receiver's last report.
    """

    channel: int
    sent: int
    sent_bytes: int
    taken: int
    done: int
    taken_bytes: int = 0


@dataclass(frozen=True, slots=True)
class InChannelStats:
    """One channel, seen by its receiver.

    ``received`` arrived, ``delivered`` were handed to a handler, ``done`` are those whose
    handler returned, ``malformed`` counts frames refused and messages not decoded. ``expired``,
    ``cancelled`` and ``superseded`` (by a newer one) were received but not delivered.
    """

    channel: int
    received: int
    delivered: int
    done: int
    malformed: int = 0
    expired: int = 0
    cancelled: int = 0
    superseded: int = 0


@dataclass(frozen=True, slots=True)
class WorkerStats:
    """Everything one participant counts.

    ``offered[edge]``: messages emitted onto an edge; ``unsent[edge]``: those of them still
    waiting for credit; ``peak[edge]``: the most that ever waited or were in flight at once.
    Keys are edge indexes (`EdgePlan.index`). ``fates`` are those of edges whose messages
    wait one by one, ``queues`` of all but those between fused nodes that need no queue.
    ``cpu_ns``: processor time of the process; ``delayed_ns``: time it was ready to compute and had
    no processor. ``fused``: the work of the other nodes in this worker, by name.
    """

    node: NodeStats = field(default_factory=NodeStats)
    offered: Mapping[int, int] = field(default_factory=dict)
    unsent: Mapping[int, int] = field(default_factory=dict)
    peak: Mapping[int, int] = field(default_factory=dict)
    outs: tuple[OutChannelStats, ...] = ()
    ins: tuple[InChannelStats, ...] = ()
    fates: Mapping[int, Fates] = field(default_factory=dict)
    queues: Mapping[int, QueueStats] = field(default_factory=dict)
    cpu_ns: int = 0
    fused: Mapping[str, NodeStats] = field(default_factory=dict)
    delayed_ns: int = 0

    def to_wire(self) -> list[Any]:
        """Return plain lists and dicts for msgpack."""
        return [
            _node_row(self.node),
            dict(self.offered),
            dict(self.unsent),
            dict(self.peak),
            [list(_OUT(o)) for o in self.outs],
            [list(_IN(i)) for i in self.ins],
            {edge: list(fates.row()) for edge, fates in self.fates.items()},
            {
                edge: [q.oldest_s, [list(_KEY(key)) for key in q.keys]]
                for edge, q in self.queues.items()
            },
            self.cpu_ns,
            {name: _node_row(node) for name, node in self.fused.items()},
            self.delayed_ns,
        ]

    @classmethod
    def from_wire(cls, data: Any) -> WorkerStats:
        """Return the stats a peer sent; raises TypeError or ValueError if malformed."""
        node, offered, unsent, peak, outs, ins, fates, queues, cpu_ns, fused, delayed = data
        return cls(
            _node_of(node),
            dict(offered),
            dict(unsent),
            dict(peak),
            tuple(OutChannelStats(*row) for row in outs),
            tuple(InChannelStats(*row) for row in ins),
            {edge: Fates(*row) for edge, row in fates.items()},
            {
                edge: QueueStats(oldest_s, tuple(KeyStats(*row) for row in keys))
                for edge, (oldest_s, keys) in queues.items()
            },
            cpu_ns,
            {name: _node_of(row) for name, row in fused.items()},
            delayed,
        )


def _values(cls: type[Any]) -> Callable[[Any], tuple[Any, ...]]:
    """Return what reads all fields of a counter at once.

    `dataclasses.astuple` takes twenty times as long, and each call leaves CPython 3.11 one freed
    tuple more, up to 2,000 of each length: half a megabyte in every worker, within ten minutes.
    """
    return attrgetter(*(f.name for f in fields(cls)))


_OUT, _IN = _values(OutChannelStats), _values(InChannelStats)
_FATES, _KEY = _values(Fates), _values(KeyStats)


def _node_row(n: NodeStats) -> list[Any]:
    counted = [n.handled, n.emitted, n.errors, n.ticks, n.busy_ns, dict(n.metrics), n.skipped]
    return [*counted, n.doing.to_wire()]


def _node_of(row: Any) -> NodeStats:
    *counted, doing = row
    return replace(NodeStats(*counted), doing=Doing.from_wire(doing))
