"""The receiving half of a worker's data plane: where channels arrive, and what is granted.

A peer opens a channel with HELLO and the run's token. Whoever breaks the protocol is refused
once and ignored from then on; if it was a planned peer, data may be missing, so the run is
told. Strangers are only counted, and the latest of them remembered.
"""

from __future__ import annotations

import hmac
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from dflow.errors import BufferLost, ProtocolError
from dflow.flow.in_edge import InChannel
from dflow.flow.order import Merge
from dflow.flow.ready import ReadyQueue
from dflow.graph.plan import EdgePlan, Plan, WorkerId
from dflow.options import DEFAULT_CAPACITY
from dflow.transport.link import InLink
from dflow.transport.poller import Poller
from dflow.transport.system import SYSTEM, System
from dflow.wire import frames as f
from dflow.wire.buffers import Memory
from dflow.wire.notes import Notes

__all__ = ["Inbound", "Inputs"]

_HWM_MARGIN = 64
_MOST_STRANGERS = 1024
"""Refused strangers that are remembered; one that was forgotten is refused once more."""


class Inputs:
    """The incoming channels of one node. ``fed``: whether any planned edge ends there.

    ``open`` counts planned channels that have not seen END; ``ended``: the node takes no more.
    """

    __slots__ = ("channels", "ended", "fed", "open")

    def __init__(self, planned: Iterable[InChannel]) -> None:
        self.channels = list(planned)
        self.open = len(self.channels)
        self.fed = bool(self.channels)
        self.ended = False

    @property
    def exhausted(self) -> bool:
        """Whether every planned channel is at its end and nothing is left to handle."""
        return self.open == 0 and not any(channel.inbox for channel in self.channels)

    def drop(self) -> None:
        """Empty every inbox; what was in it stays counted as received, not delivered."""
        for channel in self.channels:
            channel.inbox.clear()


class Inbound:
    """Every incoming channel of one participant, and the queue of those with messages.

    ``inputs`` are those of each of its nodes, by name. ``local``: numbers of the channels that
    come from another of them.
    """

    __slots__ = (
        "_banned", "_epoch", "_externals", "_homes", "_memory", "_on_violation", "_plan", "_poller",
        "_refused", "_system", "_token", "channels", "inputs", "links", "local", "ready",
        "strangers",
    )  # fmt: skip

    def __init__(
        self,
        plan: Plan,
        me: WorkerId,
        poller: Poller,
        *,
        token: str,
        epoch: int,
        on_violation: Callable[[str], None],
        memory: Memory | None = None,
        system: System = SYSTEM,
    ) -> None:
        self._system = system
        self._plan = plan
        self._poller = poller
        self._memory = memory
        self._token = token
        self._epoch = epoch
        self._on_violation = on_violation
        self._banned: set[bytes] = set()
        self._refused: deque[bytes] = deque()  # the strangers of them, oldest first
        self.links: dict[int, InLink] = {}
        self.ready = ReadyQueue()
        self.strangers = 0
        self.channels: dict[int, InChannel] = {}
        self.local = {
            ch.number
            for ch in plan.channels
            if plan.edges[ch.edge].local and plan.host(ch.receiver) == me
        }
        self.inputs: dict[str, Inputs] = {}
        self._homes: dict[int, Inputs] = {}
        self._externals: dict[int, EdgePlan] = {}
        for member in plan.members(me):
            self._add_node(member)

    def _add_node(self, me: WorkerId) -> None:
        """Make the channels of one of the participant's nodes."""
        plan = self._plan
        planned = [ch for ch in plan.channels if ch.receiver == me]
        mine = {ch.number: self._channel(ch.number, plan.edges[ch.edge]) for ch in planned}
        self.channels |= mine
        for edge in plan.in_edges(me.node):
            if edge.tagged:
                self._put_in_order(edge, me)
        outside = {edge.index: edge for edge in plan.external_edges}
        external = {
            ch.number: outside[ch.edge] for ch in plan.external_channels if ch.receiver == me
        }
        self._externals |= external
        self.inputs[me.node] = inputs = Inputs(mine.values())
        self._homes |= dict.fromkeys([*mine, *external], inputs)

    def _channel(self, number: int, edge: EdgePlan, *, external: bool = False) -> InChannel:
        return InChannel(
            number,
            edge.id,
            edge.input,
            edge.priority,
            edge.window,
            edge.max_bytes,
            self._epoch,
            external=external,
            numbered=edge.numbered,
            ttl_s=edge.ttl_s,
            reports=edge.reports,
            fresh=edge.policy == "latest",
        )

    def _put_in_order(self, edge: EdgePlan, me: WorkerId) -> None:
        """Hand out what comes by the channels of a tagged edge in the order of their tags."""
        siblings = tuple(
            self.channels[channel.number]
            for channel in self._plan.channels
            if channel.edge == edge.index and channel.receiver == me
        )
        numbering = self._plan.by_name[me.node].ordered
        merge = Merge(edge.id, len(siblings), numbering=numbering)
        for channel in siblings:
            channel.join(merge, siblings)

    def bind(self, endpoint: Callable[[], str]) -> dict[int, str]:
        """Bind one socket for each band this participant receives on; return band → endpoint."""
        remote = [ch for number, ch in self.channels.items() if number not in self.local]
        bands = {int(channel.priority) for channel in remote}
        bands |= {int(edge.priority) for edge in self._externals.values()}
        capacities = [c.window.capacity for c in self.channels.values()]
        capacities += [edge.window for edge in self._externals.values()]
        hwm = max([DEFAULT_CAPACITY, *capacities]) + _HWM_MARGIN
        for band in sorted(bands):
            link = self._system.in_link(endpoint(), hwm)
            self.links[band] = link
            self._poller.add(link.socket, link)
        return {band: link.endpoint for band, link in self.links.items()}

    def receive(self, link: InLink) -> None:
        """Take in one frame of a link that can be read."""
        try:
            received = link.receive()
        except ProtocolError:
            self.strangers += 1
            return
        if received is not None and received[0] not in self._banned:
            self._on_frame(link, *received)

    def _on_frame(
        self, link: InLink, peer: bytes, data: Any, buffers: Sequence[memoryview]
    ) -> None:
        channel: InChannel | None = None
        number = 0
        try:
            frame = f.parse(data)
            number = frame.channel
            if buffers and frame.kind != f.BATCH:
                raise ProtocolError(f"expected buffers with a batch, got frame kind {frame.kind}")
            if frame.kind == f.HELLO:
                self._welcome(link, peer, frame)
                return
            channel = self.channels.get(number)
            if channel is None or channel.peer != (link, peer):
                if channel is not None and channel.has_ended(frame):
                    link.send(peer, channel.credit_frame())  # it came by a connection since lost
                    return
                channel = None
                raise ProtocolError(f"channel {number} was not opened by this peer")
            if frame.kind == f.BATCH:
                batch = channel.accept(frame, buffers)
                if batch is not None and batch.notes.buffers:
                    batch.buffers = self._borrow(batch.notes)
                self.offer(channel)
            elif frame.kind == f.END:
                if channel.accept_end(frame):
                    self.offer(channel)
                    self._homes[number].open -= not channel.external
                else:  # its sender has not heard of us for long
                    _send(channel, channel.credit_frame())
            elif frame.kind == f.ASK:
                channel.confirm(frame)
                _send(channel, channel.credit_frame())
            else:
                raise ProtocolError(f"expected a batch, END or ASK, got frame kind {frame.kind}")
        except ProtocolError as error:
            if channel is None:
                opened = self.channels.values()
                channel = next((c for c in opened if c.peer == (link, peer)), None)
            self._drop_peer(link, peer, channel, number, error)

    def _borrow(self, notes: Notes) -> list[Any]:
        """Return what lies beside a message, from now on kept here, too; an error where nothing is.

        Now and not when the message is handled: its sender may forget it before.
        """
        found: list[Any] = []
        for place in notes.buffer_places():
            try:
                if self._memory is None:
                    raise BufferLost("expected shared memory, got a participant without")
                found.append(self._memory.borrow(place))
            except BufferLost as error:
                found.append(error.with_traceback(None))
        return found

    def hand_over(self, number: int, values: Sequence[Any], sent_ns: int, notes: Notes) -> None:
        """Take in values of a node in this process."""
        channel = self.channels[number]
        channel.hand_over(values, sent_ns, notes)
        self.ready.push(channel)

    def end_local(self, number: int) -> None:
        """Note that the sender of a channel, a node in this process, is done."""
        channel = self.channels[number]
        channel.end_at = channel.window.received
        self._homes[number].open -= 1

    def offer(self, channel: InChannel) -> None:
        """Let ``channel`` have a turn if anything of it may be handled, and whom it held back."""
        for each in channel.siblings:
            self.ready.push(each)

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
            self._refused.append(peer)
            if len(self._refused) > _MOST_STRANGERS:
                self._banned.remove(self._refused.popleft())
        else:
            channel.malformed += 1
            if not channel.external:
                self._on_violation(f"edge {channel.edge_id}: {error}")

    def _welcome(self, link: InLink, peer: bytes, frame: f.Frame) -> None:
        if not hmac.compare_digest(bytes(frame.body), self._token.encode()):
            raise ProtocolError("wrong token: this channel belongs to another run")
        if frame.epoch != self._epoch:
            raise ProtocolError(f"expected epoch {self._epoch}, got {frame.epoch}")
        channel = self.find(frame.channel)
        if channel is None or channel.peer is not None or channel.number in self.local:
            raise ProtocolError(f"channel {frame.channel} is not open to this peer")
        channel.peer = (link, peer)
        channel.shares = link.shared
        # located while this node was running: that it has ended since is nobody's mistake
        closed = self._homes[frame.channel].ended and channel.external
        link.send(peer, channel.closed_frame() if closed else channel.credit_frame())

    def find(self, number: int) -> InChannel | None:
        """Return the channel with this number; one for messages from outside may be new."""
        channel = self.channels.get(number)
        if channel is None and number in self._externals:
            channel = self._channel(number, self._externals[number], external=True)
            self.channels[number] = channel
            self._homes[number].channels.append(channel)
        return channel

    def grant(self, *, idle: bool) -> bool:
        """Send the reports that are due (``idle``: all owed); return whether any is still owed."""
        owing = False
        for channel in self.channels.values():
            window = channel.window
            if channel.peer is None or not window.due(idle=True):
                continue
            if idle or window.due(idle=False):
                _send(channel, channel.credit_frame())
            else:
                owing = True
        return owing

    def refresh(self, channel: InChannel) -> None:
        """Ask the sender of a fresh channel for what is newer than what is here."""
        channel.refresh()
        if channel.peer is not None:
            _send(channel, channel.credit_frame())

    def end(self, node: str) -> None:
        """Tell senders outside that ``node`` takes no more; idempotent."""
        inputs = self.inputs[node]
        for channel in inputs.channels:
            if channel.external and channel.peer is not None and not inputs.ended:
                _send(channel, channel.closed_frame())
        inputs.ended = True

    def close(self) -> None:
        """Close every socket; nobody can open a channel any more."""
        for inputs in self.inputs.values():
            inputs.ended = True
        for link in self.links.values():
            link.close()


def _send(channel: InChannel, frame: bytes) -> None:
    """Send a report to the sender of an open channel."""
    link, peer = channel.peer
    link.send(peer, frame)
