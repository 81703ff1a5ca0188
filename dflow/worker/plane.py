"""A worker's data sockets and the edges behind them: receive, flush, grant.

Every method that touches a socket must be called with ``lock`` held. The main thread holds
it except while user code runs; the pulse thread takes it only when it is free, to flush what
a blocked generator or handler left behind. That is the whole locking discipline.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable
from threading import Lock
from typing import Any

from dflow.clock import wall_ns
from dflow.errors import ProtocolError
from dflow.flow.in_edge import InChannel
from dflow.flow.out_edge import OutEdge
from dflow.flow.ready import ReadyQueue
from dflow.graph.plan import Plan, WorkerId, external_edge_id
from dflow.options import DEFAULT_CAPACITY, DEFAULT_MAX_BYTES
from dflow.stats import InChannelStats, NodeStats, OutChannelStats, WorkerStats
from dflow.transport.link import InLink, OutLink
from dflow.transport.poller import Poller, Wakeup
from dflow.wire import frames as f

__all__ = ["DataPlane", "Gate"]


class Gate:
    """Whether the main thread should end its turn: no credit, a command, or time to flush."""

    __slots__ = ("shut",)

    def __init__(self) -> None:
        self.shut = False


class DataPlane:
    """Every channel of one participant.

    ``on_violation(text)`` is called when a planned peer breaks the protocol: data may be
    missing, so the run must end. Strangers are refused, counted and ignored.
    """

    def __init__(
        self,
        plan: Plan,
        me: WorkerId,
        *,
        token: str,
        epoch: int,
        edge_key: Callable[[int], Callable[[Any], Any] | None],
        on_violation: Callable[[str], None],
    ) -> None:
        self.plan = plan
        self.me = me
        self.lock = Lock()
        self.gate = Gate()
        self.ready = ReadyQueue()
        self.poller = Poller()
        self.wakeup = Wakeup()
        self.poller.add(self.wakeup.fd)
        self.strangers = 0
        self.flushes = 0  # how the pulse sees that the main thread keeps flushing
        self.closed = False
        self._token = token
        self._epoch = epoch
        self._on_violation = on_violation
        self._in_links: dict[int, InLink] = {}
        self._out_links: dict[int, OutLink] = {}
        self._banned: set[bytes] = set()
        self._unwelcomed: set[int] = set()
        self.out_edges = [
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
        self._edge_of_channel = {n: edge for edge in self.out_edges for n in edge.channels}
        self.in_channels: dict[int, InChannel] = {}
        for channel in plan.channels:
            if channel.receiver == me:
                edge = plan.edges[channel.edge]
                self.in_channels[channel.number] = InChannel(
                    channel.number, edge.id, edge.input, edge.priority,
                    edge.capacity, edge.max_bytes, epoch,
                )  # fmt: skip
        self._externals = {
            plan.external_channel(node, port, replica): (node, port)
            for node, port, replica in plan.external_ports
            if WorkerId(node, replica) == me
        }

    # --- opening and closing -------------------------------------------------------------

    def bind(self, endpoint: Callable[[], str]) -> dict[int, str]:
        """Bind one socket for each band this participant receives on."""
        bands = {int(channel.priority) for channel in self.in_channels.values()}
        bands |= {int(self.plan.external_band(*port)) for port in self._externals.values()}
        capacities = [c.window.capacity for c in self.in_channels.values()]
        hwm = max([DEFAULT_CAPACITY, *capacities]) + 64
        for band in sorted(bands):
            link = InLink(endpoint(), hwm)
            self._in_links[band] = link
            self.poller.add(link.socket, link)
        return {band: link.endpoint for band, link in self._in_links.items()}

    def open(self, rows: Iterable[Any]) -> None:
        """Connect every outgoing channel and introduce it to its receiver."""
        for number, endpoint in rows:
            link = OutLink(number, endpoint)
            self._out_links[number] = link
            self._unwelcomed.add(number)
            self.poller.add(link.socket, link)
            link.send(f.pack_hello(number, self._epoch, self._token))

    def add_out_edge(self, edge: OutEdge, rows: Iterable[Any]) -> None:
        """Add an edge that was not planned (messages sent from outside)."""
        self.out_edges.append(edge)
        self._edge_of_channel |= dict.fromkeys(edge.channels, edge)
        self.open(rows)

    @property
    def welcomed(self) -> bool:
        """Whether every receiver has answered."""
        return not self._unwelcomed

    def close(self) -> None:
        """Close every socket; idempotent."""
        if not self.closed:
            self.closed = True
            for in_link in self._in_links.values():
                in_link.close()
            for out_link in self._out_links.values():
                out_link.close()
            self.wakeup.close()

    # --- sending ---------------------------------------------------------------------------

    def flush(self) -> None:
        """Send everything that has credit, and set the gate if an edge has none left."""
        now = wall_ns()
        full = False
        for edge in self.out_edges:
            for number, frame in edge.flush(now):
                self._out_links[number].send(frame)
            full = full or edge.full
        self.gate.shut = full
        self.flushes += 1

    def pump(self) -> None:
        """Flush, and take in credit reports if that left something without credit."""
        self.flush()
        if self.gate.shut:
            for link in self._out_links.values():
                while (data := link.receive()) is not None:
                    self._on_report(link.number, data)
            self.flush()

    def attend(self) -> None:
        """Called by emit, without the lock, when a batch is full or credit has run out."""
        with self.lock:
            self.pump()

    @property
    def blocked(self) -> bool:
        """Whether some outgoing edge has no credit for another message."""
        for edge in self.out_edges:  # noqa: SIM110  # once a turn: a generator costs more
            if edge.full:
                return True
        return False

    @property
    def unsent(self) -> bool:
        """Whether messages are still waiting to be sent."""
        return any(edge.waiting for edge in self.out_edges)

    def end(self) -> None:
        """Send END on every channel, and tell senders outside that no more is taken."""
        now = wall_ns()
        for edge in self.out_edges:
            for number, frame in edge.end(now):
                self._out_links[number].send(frame)
        for channel in self.in_channels.values():
            if channel.external and channel.peer is not None:
                link, peer = channel.peer
                link.send(peer, channel.closed_frame())
        self._externals.clear()

    def _on_report(self, number: int, data: bytes) -> None:
        try:
            frame = f.parse(data)
            if frame.channel != number:
                raise ProtocolError(f"expected channel {number}, got {frame.channel}")
            if frame.kind == f.REFUSED:
                raise ProtocolError(f"refused: {bytes(frame.body).decode(errors='replace')}")
            if frame.kind not in (f.CREDIT, f.CLOSED):
                raise ProtocolError(f"expected a credit report, got frame kind {frame.kind}")
            edge = self._edge_of_channel[number]
            edge.on_credit(number, *f.parse_credit(frame))
            self._unwelcomed.discard(number)
            if frame.kind == f.CLOSED:
                edge.closed = True
        except ProtocolError as error:
            self._on_violation(f"channel {number} to its receiver: {error}")

    # --- receiving -------------------------------------------------------------------------

    def receive(self, ready: Iterable[Any]) -> None:
        """Take in one frame of each link in ``ready`` (what the poller says can be read).

        One and not all: asking a socket that has nothing costs more than asking the poller,
        and a frame is a turn's work already.
        """
        for link in ready:
            if isinstance(link, OutLink):
                data = link.receive()
                if data is not None:
                    self._on_report(link.number, data)
            elif isinstance(link, InLink):
                self._receive_from(link)

    def _receive_from(self, link: InLink) -> None:
        try:
            received = link.receive()
        except ProtocolError:
            self.strangers += 1
            return
        if received is not None and received[0] not in self._banned:
            self._on_frame(link, *received)

    def _on_frame(self, link: InLink, peer: bytes, data: Any) -> None:
        channel: InChannel | None = None
        number = 0
        try:
            frame = f.parse(data)
            number = frame.channel
            if frame.kind == f.HELLO:
                self._welcome(link, peer, frame)
                return
            channel = self.in_channels.get(number)
            if channel is None or channel.peer != (link, peer):
                channel = None
                raise ProtocolError(f"channel {number} was not opened by this peer")
            if frame.kind == f.BATCH:
                channel.accept(frame)
                self.ready.push(channel)
            elif frame.kind == f.END:
                channel.accept_end(frame)
            else:
                raise ProtocolError(f"expected a batch or END, got frame kind {frame.kind}")
        except ProtocolError as error:
            if channel is None:
                opened = self.in_channels.values()
                channel = next((c for c in opened if c.peer == (link, peer)), None)
            self._drop_peer(link, peer, channel, number, error)

    def _drop_peer(
        self,
        link: InLink,
        peer: bytes,
        channel: InChannel | None,
        number: int,
        error: ProtocolError,
    ) -> None:
        """Refuse ``peer`` for good; ``number`` is the channel it spoke of, if it named one."""
        self._banned.add(peer)
        number = channel.number if channel is not None else number
        link.send(peer, f.pack_refused(number, self._epoch, str(error)))
        if channel is None:
            self.strangers += 1
        else:
            channel.malformed += 1
            if not channel.external:
                self._on_violation(f"edge {channel.edge_id}: {error}")

    def _welcome(self, link: InLink, peer: bytes, frame: f.Frame) -> None:
        if not hmac.compare_digest(bytes(frame.body), self._token.encode()):
            raise ProtocolError("wrong token: this channel belongs to another run")
        if frame.epoch != self._epoch:
            raise ProtocolError(f"expected epoch {self._epoch}, got {frame.epoch}")
        channel = self.in_channels.get(frame.channel) or self._external(frame.channel)
        if channel is None or channel.peer is not None:
            raise ProtocolError(f"channel {frame.channel} is not open to this peer")
        channel.peer = (link, peer)
        link.send(peer, channel.credit_frame())

    def _external(self, number: int) -> InChannel | None:
        if number not in self._externals or self.closed:
            return None
        node, port = self._externals[number]
        channel = InChannel(
            number,
            external_edge_id(node, port),
            port,
            self.plan.external_band(node, port),
            DEFAULT_CAPACITY,
            DEFAULT_MAX_BYTES,
            self._epoch,
            external=True,
        )
        self.in_channels[number] = channel
        return channel

    def grant(self, *, idle: bool) -> None:
        """Send the credit reports that are due; when ``idle``, everything owed."""
        for channel in self.in_channels.values():
            if channel.peer is not None and channel.window.due(idle=idle):
                link, peer = channel.peer
                link.send(peer, channel.credit_frame())

    @property
    def owing(self) -> bool:
        """Whether any sender has not yet heard of everything taken."""
        return any(channel.window.due(idle=True) for channel in self.in_channels.values())

    @property
    def fed(self) -> bool:
        """Whether any planned edge ends here."""
        return any(not channel.external for channel in self.in_channels.values())

    @property
    def exhausted(self) -> bool:
        """Whether every planned input is at its end and nothing is left to handle."""
        return all(
            channel.exhausted or (channel.external and not channel.inbox)
            for channel in self.in_channels.values()
        )

    def drop_inputs(self) -> None:
        """Empty every inbox; what was in it stays counted as received, not delivered."""
        for channel in self.in_channels.values():
            channel.inbox.clear()

    # --- counters --------------------------------------------------------------------------

    def stats(self, node: NodeStats) -> WorkerStats:
        """Return every counter of the edges, with those of the node."""
        edges = list(self.out_edges)
        return WorkerStats(
            node,
            {edge.index: edge.offered for edge in edges},
            {edge.index: edge.waiting for edge in edges},
            {edge.index: edge.peak for edge in edges},
            tuple(
                OutChannelStats(number, w.sent, w.sent_bytes, w.taken, w.done)
                for edge in edges
                for number, w in zip(edge.channels, edge.windows, strict=True)
            ),
            tuple(
                InChannelStats(
                    ch.number, ch.window.received, ch.window.taken, ch.window.done, ch.malformed
                )
                for ch in list(self.in_channels.values())
            ),
        )
