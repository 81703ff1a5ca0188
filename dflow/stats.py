"""What workers count: plain numbers, cumulative since the worker started.

Counters only grow, so a lost or repeated report is harmless; the last one wins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from typing import Any

__all__ = [
    "Fates",
    "InChannelStats",
    "KeyStats",
    "NodeStats",
    "OutChannelStats",
    "QueueStats",
    "WorkerStats",
]


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
            [list(astuple(o)) for o in self.outs],
            [list(astuple(i)) for i in self.ins],
            {edge: list(astuple(fates)) for edge, fates in self.fates.items()},
            {
                edge: [q.oldest_s, [list(astuple(key)) for key in q.keys]]
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
            NodeStats(*node),
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
            {name: NodeStats(*row) for name, row in fused.items()},
            delayed,
        )


def _node_row(n: NodeStats) -> list[Any]:
    return [n.handled, n.emitted, n.errors, n.ticks, n.busy_ns, dict(n.metrics), n.skipped]
