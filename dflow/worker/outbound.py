"""The sending half of a worker's data plane: out-edges and the channels they leave by."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from dflow.clock import wall_ns
from dflow.errors import ProtocolError
from dflow.flow.out_edge import OutEdge
from dflow.graph.plan import Plan, WorkerId
from dflow.transport.link import OutLink
from dflow.transport.poller import Poller
from dflow.wire import frames as f

__all__ = ["Outbound"]


class Outbound:
    """Every outgoing channel of one participant.

    ``full`` after a `flush` says whether some edge has no credit for another message.
    """

    __slots__ = (
        "_edge_of", "_epoch", "_on_violation", "_poller", "_token", "_unwelcomed",
        "edges", "flushes", "full", "links",
    )  # fmt: skip

    def __init__(
        self,
        plan: Plan,
        me: WorkerId,
        poller: Poller,
        *,
        token: str,
        epoch: int,
        edge_key: Callable[[int], Callable[[Any], Any] | None],
        on_violation: Callable[[str], None],
    ) -> None:
        self._poller = poller
        self._token = token
        self._epoch = epoch
        self._on_violation = on_violation
        self._unwelcomed: set[int] = set()
        self.links: dict[int, OutLink] = {}
        self.flushes = 0  # how the pulse sees that the main thread keeps flushing
        self.full = False
        self.edges = [
            OutEdge(
                edge.index,
                edge.id,
                [c.number for c in plan.channels if c.edge == edge.index and c.sender == me],
                edge.capacity,
                edge.max_bytes,
                epoch,
                edge_key(edge.index),
            )
            for edge in plan.out_edges(me.node)
        ]
        self._edge_of = {number: edge for edge in self.edges for number in edge.channels}

    def open(self, rows: Iterable[Any]) -> None:
        """Connect channels, rows of [number, endpoint], and introduce them to their receivers."""
        for number, endpoint in rows:
            link = OutLink(number, endpoint)
            self.links[number] = link
            self._unwelcomed.add(number)
            self._poller.add(link.socket, link)
            link.send(f.pack_hello(number, self._epoch, self._token))

    def add(self, edge: OutEdge, rows: Iterable[Any]) -> None:
        """Add an edge that was not planned (messages sent from outside)."""
        self.edges.append(edge)
        self._edge_of |= dict.fromkeys(edge.channels, edge)
        self.open(rows)

    @property
    def welcomed(self) -> bool:
        """Whether every receiver has answered."""
        return not self._unwelcomed

    def flush(self) -> None:
        """Send everything that has credit."""
        full = False
        for edge in self.edges:
            if edge.waiting:
                for number, frame in edge.flush(wall_ns()):
                    self.links[number].send(frame)
            full = full or edge.full
        self.full = full
        self.flushes += 1

    def pump(self) -> None:
        """Flush, and take in credit reports if that left something without credit."""
        self.flush()
        if self.full:
            for link in self.links.values():
                while (data := link.receive()) is not None:
                    self._on_report(link.number, data)
            self.flush()

    def receive(self, link: OutLink) -> None:
        """Take in one report of a link that can be read."""
        data = link.receive()
        if data is not None:
            self._on_report(link.number, data)

    @property
    def blocked(self) -> bool:
        """Whether some edge has no credit for another message."""
        for edge in self.edges:  # noqa: SIM110  # once a turn: a generator costs more
            if edge.full:
                return True
        return False

    @property
    def waiting(self) -> int:
        """Messages emitted that have not left."""
        return sum(edge.waiting for edge in self.edges)

    @property
    def unsent(self) -> bool:
        """Whether messages are still waiting to be sent."""
        return any(edge.waiting for edge in self.edges)

    def end(self) -> None:
        """Send END on every channel."""
        now = wall_ns()
        for edge in self.edges:
            for number, frame in edge.end(now):
                self.links[number].send(frame)

    def _on_report(self, number: int, data: bytes) -> None:
        edge = self._edge_of[number]
        try:
            frame = f.parse(data)
            if frame.channel != number:
                raise ProtocolError(f"expected channel {number}, got {frame.channel}")
            if frame.kind == f.REFUSED:
                raise ProtocolError(f"refused: {f.parse_text(frame)}")
            if frame.kind not in (f.CREDIT, f.CLOSED):
                raise ProtocolError(f"expected a credit report, got frame kind {frame.kind}")
            edge.on_credit(number, *f.parse_credit(frame))
            self._unwelcomed.discard(number)
            if frame.kind == f.CLOSED:
                edge.closed = True
        except ProtocolError as error:
            self._on_violation(f"edge {edge.id}, channel {number}: {error}")

    def close(self) -> None:
        """Close every socket."""
        for link in self.links.values():
            link.close()
