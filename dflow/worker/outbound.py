"""The sending half of a worker's data plane: out-edges and the channels they leave by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from dflow.errors import ProtocolError
from dflow.flow.asking import Doubt
from dflow.flow.batch import Cut
from dflow.flow.in_edge import InChannel
from dflow.flow.local_edge import LocalEdge, Ref
from dflow.flow.out_edge import OutEdge
from dflow.flow.queue_edge import EdgeCode, QueueEdge
from dflow.graph.plan import EdgePlan, Plan, WorkerId
from dflow.transport.link import OutLink
from dflow.transport.poller import Poller
from dflow.transport.system import SYSTEM, System
from dflow.wire import frames as f
from dflow.wire.buffers import Parcel
from dflow.wire.codec import Codec
from dflow.wire.notes import NO_NOTES, Notes, pack_buffers, pack_notes
from dflow.worker.inbound import Inbound
from dflow.worker.ordered import Order

if TYPE_CHECKING:
    from dflow.worker.way import Way

__all__ = ["Edge", "Merge", "Outbound", "Outputs"]

CATCH_UP_EVERY = 8
"""Reports of a link taken in one by one before all that wait are."""

Edge = OutEdge | LocalEdge | QueueEdge
Merge = Callable[[Any, Any], Any]


class Outputs:
    """The outgoing edges of one node; ``orders`` in which things leave by them.

    ``way``: these are of all the nodes on it.
    """

    __slots__ = ("edges", "orders", "way")

    def __init__(self, edges: Iterable[Edge], orders: list[Order]) -> None:
        self.edges = list(edges)
        self.orders = orders
        self.way: Way | None = None

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
        """Whether anything is still waiting to be sent."""
        return any(edge.waiting or edge.news for edge in self.edges) or any(
            order.news for order in self.orders
        )


class Outbound(Outputs):
    """Every outgoing channel of one participant; those between its nodes end at ``inbound``.

    ``full`` after a `flush` says whether some edge has no credit for another message,
    ``hungry`` whether credit would let something leave. What was sent by its place in shared
    memory is kept until its receiver has reported it done.
    """

    __slots__ = (
        "_asked", "_asking", "_clock", "_codec", "_connect", "_doubts", "_edge_of", "_epoch",
        "_inbound", "_kept", "_labels", "_local", "_on_violation", "_poller", "_token",
        "_unwelcomed", "full", "hungry", "links",
    )  # fmt: skip

    def __init__(
        self,
        plan: Plan,
        me: WorkerId,
        poller: Poller,
        inbound: Inbound,
        *,
        token: str,
        epoch: int,
        edge_key: Callable[[int], Callable[[Any], Any] | None],
        on_violation: Callable[[str], None],
        codec: Codec | None = None,
        edge_merge: Callable[[str], Merge | None] = lambda edge_id: None,
        system: System = SYSTEM,
    ) -> None:
        super().__init__((), [])
        self._clock = system.clock
        self._connect = system.out_link
        self._codec = codec or Codec()
        self._labels = self._codec.twin()  # keys are made readable by the thread that reports
        self._poller = poller
        self._inbound = inbound
        self._local: list[tuple[Edge, InChannel]] = []
        self._token = token
        self._epoch = epoch
        self._on_violation = on_violation
        self._unwelcomed: set[int] = set()
        self._kept: dict[int, dict[int, Parcel]] = {}  # by channel and sequence
        self._asked: dict[int, int] = {}  # reports taken in one by one, by channel
        self.links: dict[int, OutLink] = {}
        self.full = False
        self.hungry = False
        for member in plan.members(me):
            for edge in plan.out_edges(member.node):
                mine = [c for c in plan.channels if (c.edge, c.sender) == (edge.index, member)]
                key, merge = edge_key(edge.index), edge_merge(edge.id)
                self.edges.append(self.make(edge, [c.number for c in mine], key, merge))
        self._edge_of = {number: edge for edge in self.edges for number in edge.channels}
        self._doubts: dict[int, Doubt] = {}
        self._asking: list[int] = []
        for made in self.edges:
            self._expect_reports(made)

    def make(
        self,
        edge: EdgePlan,
        channels: list[int],
        key: Callable[[Any], Any] | None,
        merge: Merge | None,
    ) -> Edge:
        """Return the sending half of an edge, not yet added."""
        if edge.local:
            return self._make_local(edge, channels[0], key, merge)
        if edge.queued:
            code = EdgeCode(self._codec.encode, self._codec.decode, key, merge)
            return QueueEdge(edge, channels, code)
        return OutEdge(
            edge.index,
            edge.id,
            channels,
            edge.capacity,
            edge.max_bytes,
            key,
            self._labels.decode,
            edge.slots if edge.shared else 0,
        )

    def _make_local(
        self,
        plan: EdgePlan,
        number: int,
        key: Callable[[Any], Any] | None,
        merge: Merge | None,
    ) -> Edge:
        channel = self._inbound.channels[number]
        if plan.queued:
            unpack: Callable[[Any], Any] = attrgetter("value")
            code = EdgeCode(self._codec.encode, unpack, key, merge, Ref)
            edge: Edge = QueueEdge(plan, [number], code)
        else:
            edge = LocalEdge(plan, number, channel.window, key)
        self._local.append((edge, channel))
        return edge

    def open(self, rows: Iterable[Any]) -> None:
        """Connect channels, rows of [number, endpoint], and introduce them to their receivers."""
        for number, endpoint in rows:
            link = self._connect(number, endpoint)
            self.links[number] = link
            self._unwelcomed.add(number)
            self._poller.add(link.socket, link)
            link.send(f.pack_hello(number, self._epoch, self._token))

    def add(self, edge: Edge, rows: Iterable[Any]) -> None:
        """Add an edge that was not planned (messages sent from outside)."""
        self.edges.append(edge)
        self._edge_of |= dict.fromkeys(edge.channels, edge)
        self._expect_reports(edge)
        self.open(rows)

    @property
    def welcomed(self) -> bool:
        """Whether every receiver has answered."""
        return not self._unwelcomed

    def flush(self) -> None:
        """Send everything that has credit."""
        full = hungry = False
        for local, channel in self._local:
            if channel.window.due(idle=True):
                local.on_credit(channel.number, *channel.window.report())
        for order in self.orders:
            order.tell()
        for edge in self.edges:
            if edge.waiting or edge.news:
                for cut in edge.flush(self._clock.monotonic_ns()):
                    self._send(cut)
                hungry = hungry or edge.waiting > 0
            full = full or edge.full
        self.full = full
        self.hungry = hungry

    def _send(self, cut: Cut) -> None:
        number, first, payloads, notes = cut
        if number in self._inbound.local:
            queued = isinstance(self._edge_of[number], QueueEdge)
            values = [ref.value for ref in payloads] if queued else payloads
            self._inbound.hand_over(number, values, self._clock.wall_ns(), notes)
            return
        if payloads and type(payloads[0]) is Parcel:
            self._send_parcel(number, first, payloads[0], notes)
        else:
            self.links[number].send(self._frame(number, first, payloads, notes))

    def _frame(self, number: int, first: int, payloads: Sequence[bytes], notes: Notes) -> bytes:
        if notes is NO_NOTES:
            return f.pack_batch(number, self._epoch, first, payloads, self._clock.wall_ns())
        said = pack_notes(notes)
        return f.pack_noted(number, self._epoch, first, payloads, self._clock.wall_ns(), said)

    def _send_parcel(self, number: int, first: int, parcel: Parcel, notes: Notes) -> None:
        """Send the only message of a batch, whose buffers are read where they are or follow it."""
        link = self.links[number]
        places = [buffer.place for buffer in parcel.buffers if buffer.place is not None]
        if link.shared and len(places) == len(parcel.buffers):
            flat = [n for place in places for n in place]
            self._kept.setdefault(number, {})[first] = parcel
            if notes is NO_NOTES:
                said = pack_buffers(flat)
            else:
                said = pack_notes(replace(notes, buffers=flat))
            link.send(
                f.pack_noted(number, self._epoch, first, (parcel,), self._clock.wall_ns(), said)
            )
        else:
            frame = self._frame(number, first, (parcel,), notes)
            link.send_with(frame, [buffer.view for buffer in parcel.buffers])

    def _forget(self, number: int, done: int, beyond: Iterable[int]) -> None:
        """Let go of what a channel's receiver has reported done."""
        kept = self._kept.get(number)
        if kept:
            for sequence in beyond:
                kept.pop(sequence, None)
            while kept and (oldest := next(iter(kept))) < done:  # they are in order
                del kept[oldest]

    def pump(self) -> None:
        """Flush, and take in credit reports if that left something without credit.

        And those of channels with messages in shared memory: the sooner a block is known to be
        done with, the sooner it is written again, while it is still in the processor's cache.
        """
        self.flush()
        if self.full or self.hungry:
            for link in self.links.values():
                while (data := link.receive()) is not None:
                    self._on_report(link.number, data)
            self.flush()
        else:
            for number, kept in self._kept.items():
                if kept:  # one report each: to ask an empty socket costs more than the report
                    self.receive(self.links[number])

    def receive(self, link: OutLink) -> None:
        """Take in one report of a link that can be read, and now and then all there are.

        To ask an empty socket costs more than a report. But a node that comes here less often
        than its receivers report would get ever further behind, and each report that waits in
        libzmq keeps the 8 KiB it was read into.
        """
        data = link.receive()
        if data is None:
            return
        self._on_report(link.number, data)
        asked = self._asked.get(link.number, 0) + 1
        if asked == CATCH_UP_EVERY:
            asked = 0
            while (data := link.receive()) is not None:
                self._on_report(link.number, data)
        self._asked[link.number] = asked

    def end(self, edges: Iterable[Edge]) -> None:
        """Send END on every channel of some edges; on each once."""
        now = self._clock.wall_ns()
        for edge in edges:
            for number, sent in edge.end():
                if number in self._inbound.local:
                    self._inbound.end_local(number)
                    continue
                self.links[number].send(f.pack_end(number, self._epoch, sent, now))

    def _expect_reports(self, edge: Edge) -> None:
        if isinstance(edge, LocalEdge):
            return
        for number, window in zip(edge.channels, edge.windows, strict=True):
            if number not in self._inbound.local:
                self._doubts[number] = Doubt(window)

    def in_doubt(self, now: int) -> bool:
        """Return whether it is time for `ask`; one thread calls it now and then, without a lock."""
        for number, doubt in list(self._doubts.items()):
            edge = self._edge_of[number]
            if not edge.closed and doubt.due(now, ended=edge.ended):
                self._asking.append(number)
        return bool(self._asking)

    def ask(self) -> None:
        """Ask the receivers that nothing was heard of for long how they stand."""
        while self._asking:
            number = self._asking.pop()
            edge, link = self._edge_of[number], self.links.get(number)
            if link is None or number in self._unwelcomed:
                continue
            sent = edge.windows[edge.channels.index(number)].sent
            if edge.ended:
                link.send(f.pack_end(number, self._epoch, sent, self._clock.wall_ns()))
            else:
                link.send(f.pack_ask(number, self._epoch, sent))

    def _on_report(self, number: int, data: bytes) -> None:
        edge = self._edge_of[number]
        try:
            plain = f.parse_plain_credit(data)
            if plain is not None and plain[0] == number and number not in self._unwelcomed:
                _, taken, taken_bytes, done = plain
                edge.on_credit(number, taken, taken_bytes, done)
                self._forget(number, done, ())
                return
            frame = f.parse(data)
            if frame.channel != number:
                raise ProtocolError(f"expected channel {number}, got {frame.channel}")
            if frame.kind == f.REFUSED:
                raise ProtocolError(f"refused: {f.parse_text(frame)}")
            if frame.kind not in (f.CREDIT, f.CLOSED):
                raise ProtocolError(f"expected a credit report, got frame kind {frame.kind}")
            taken, taken_bytes, done = f.parse_credit(frame)
            beyond = f.parse_beyond(frame)
            edge.on_credit(number, taken, taken_bytes, done, beyond)
            self._forget(number, done, beyond)
            self._unwelcomed.discard(number)
            if frame.kind == f.CLOSED:
                edge.closed = True
        except ProtocolError as error:
            self._on_violation(f"edge {edge.id}, channel {number}: {error}")

    def close(self) -> None:
        """Close every socket."""
        for link in self.links.values():
            link.close()
        self._kept.clear()
