"""What workers count: plain numbers, cumulative since the worker started.

Counters only grow, so a lost or repeated report is harmless; the last one wins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["InChannelStats", "NodeStats", "OutChannelStats", "WorkerStats"]


@dataclass(frozen=True, slots=True)
class NodeStats:
    """Work of one replica. ``busy_ns``: time inside user code."""

    handled: int = 0
    emitted: int = 0
    errors: int = 0
    ticks: int = 0
    busy_ns: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)


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
    handler returned, ``malformed`` counts frames refused and messages not decoded.
    """

    channel: int
    received: int
    delivered: int
    done: int
    malformed: int = 0


@dataclass(frozen=True, slots=True)
class WorkerStats:
    """Everything one participant counts.

    ``offered[edge]``: messages emitted onto an edge; ``unsent[edge]``: those of them still
    waiting for credit; ``peak[edge]``: the most that ever waited or were in flight at once.
    Keys are edge indexes (`EdgePlan.index`).
    """

    node: NodeStats = field(default_factory=NodeStats)
    offered: Mapping[int, int] = field(default_factory=dict)
    unsent: Mapping[int, int] = field(default_factory=dict)
    peak: Mapping[int, int] = field(default_factory=dict)
    outs: tuple[OutChannelStats, ...] = ()
    ins: tuple[InChannelStats, ...] = ()

    def to_wire(self) -> list[Any]:
        """Return plain lists and dicts for msgpack."""
        n = self.node
        return [
            [n.handled, n.emitted, n.errors, n.ticks, n.busy_ns, dict(n.metrics)],
            dict(self.offered),
            dict(self.unsent),
            dict(self.peak),
            [[o.channel, o.sent, o.sent_bytes, o.taken, o.done] for o in self.outs],
            [[i.channel, i.received, i.delivered, i.done, i.malformed] for i in self.ins],
        ]

    @classmethod
    def from_wire(cls, data: Any) -> WorkerStats:
        """Return the stats a peer sent; raises TypeError or ValueError if malformed."""
        node, offered, unsent, peak, outs, ins = data
        return cls(
            NodeStats(*node),
            dict(offered),
            dict(unsent),
            dict(peak),
            tuple(OutChannelStats(*row) for row in outs),
            tuple(InChannelStats(*row) for row in ins),
        )
