"""The simulated transport: frames that take their time, in order on each channel and in no other.

It promises what ZeroMQ does between live processes, and no more: a channel's frames arrive in
order, once; those of different channels overtake each other. What a killed process had on its way
may be lost, from some frame on. A cut connection loses what is on its way in both directions, and
its sender is a stranger to the receiver afterwards, as with a ROUTER socket.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Any

from dflow.testing.faults import Cut, Drop, Duplicate, Fault, Faults
from dflow.testing.kernel import Kernel, Process
from dflow.testing.trace import Trace
from dflow.transport import link
from dflow.wire import frames as f

__all__ = [
    "ControlLink",
    "ControlRouter",
    "InLink",
    "Line",
    "Network",
    "OutLink",
    "Source",
    "edge_of",
]

Arrived = tuple[bytes, bytes, Sequence[memoryview]]


class Source:
    """Something that a poller can wait for; ``number`` stands for its file descriptor."""

    __slots__ = ("listeners", "number", "readable")

    def __init__(self, network: Network) -> None:
        self.readable = False
        self.listeners: list[Callable[[], object]] = []
        self.number = network.number(self)

    def news(self) -> None:
        """It can be read now: tell whoever waits."""
        self.readable = True
        for listener in self.listeners:
            listener()


class Line:
    """One direction of a connection: what is sent arrives in order, or, once cut, not at all."""

    __slots__ = ("_arrive", "_generation", "_last", "_network")

    def __init__(self, network: Network, arrive: Callable[[Any], object]) -> None:
        self._network = network
        self._arrive = arrive
        self._last = 0
        self._generation = 0

    def send(self, item: Any) -> None:
        """Put ``item`` on its way."""
        kernel = self._network.kernel
        self._last = max(self._last + 1, kernel.now + self._network.delay())
        kernel.at(self._last, partial(self._deliver, item, self._generation))

    def lose(self) -> None:
        """Lose what is on its way."""
        self._generation += 1

    def _deliver(self, item: Any, generation: int) -> None:
        if generation == self._generation:
            self._arrive(item)


class Connection:
    """One channel between its two ends. ``peer``: what the receiver knows the sender by."""

    __slots__ = ("back", "into", "name", "network", "origin", "peer", "reports", "there")

    def __init__(self, network: Network, origin: OutLink, into: InLink, name: str) -> None:
        self.network = network
        self.origin = origin
        self.into = into
        self.name = name
        self.there = Line(network, self._arrived)
        self.back = Line(network, self._came_back)
        self.reports = -1  # the welcome does not count
        self.peer = network.stranger()
        into.peers[self.peer] = self

    def _arrived(self, item: tuple[bytes, Sequence[memoryview]]) -> None:
        if self.into.closed or not self.into.process.alive:
            return
        self.network.note(self.into.process, "data", item[0])
        self.into.inbox.append((self.peer, *item))
        self.into.socket.news()

    def _came_back(self, frame: bytes) -> None:
        if self.origin.closed or not self.origin.process.alive:
            return
        self.network.note(self.origin.process, "report", frame)
        self.origin.inbox.append(frame)
        self.origin.socket.news()

    def report(self, frame: bytes) -> None:
        """Send a frame back to the sender; credit reports may be lost, or come twice."""
        if frame[3] != f.CREDIT:
            self.back.send(frame)
            return
        self.reports += 1
        fate = self.network.fate(self.name, self.reports) if self.reports else None
        if not isinstance(fate, Drop):
            self.back.send(frame)
        if isinstance(fate, Duplicate):
            self.network.kernel.at(
                self.network.kernel.now + 4 * self.network.late(fate),
                partial(self.back.send, frame),
            )

    def cut(self) -> None:
        """Lose what is on its way; the sender is a stranger from now on."""
        self.there.lose()
        self.back.lose()
        del self.into.peers[self.peer]
        self.peer = self.network.stranger()
        self.into.peers[self.peer] = self


class OutLink(link.OutLink):
    """The sender's end of one channel."""

    __slots__ = ("closed", "connection", "inbox", "process")

    def __init__(self, network: Network, process: Process, number: int, endpoint: str) -> None:
        self.number = number
        self.shared = False
        self.process = process
        self.inbox: deque[bytes] = deque()
        self.socket: Any = Source(network)
        self.closed = False
        self.connection = network.connect(self, endpoint)

    def send(self, frame: bytes) -> None:
        """Put a frame on its way."""
        self.connection.there.send((frame, ()))

    def send_with(self, frame: bytes, buffers: Sequence[memoryview]) -> None:
        """Put a frame on its way with what lies beside it."""
        copies = [memoryview(bytes(buffer)) for buffer in buffers]
        self.connection.there.send((frame, copies))

    def receive(self) -> bytes | None:
        """Return the next frame from the receiver, or None."""
        inbox = self.inbox
        if not inbox:
            return None
        frame = inbox.popleft()
        self.socket.readable = bool(inbox)
        return frame

    def close(self) -> None:
        """Take nothing more; what was sent arrives."""
        self.closed = True
        self.connection.into.peers.pop(self.connection.peer, None)


class InLink(link.InLink):
    """The receiver's end of the channels of one band."""

    __slots__ = ("closed", "inbox", "peers", "process")

    def __init__(self, network: Network, process: Process, endpoint: str) -> None:
        self.endpoint = endpoint
        self.shared = False
        self.process = process
        self.inbox: deque[Arrived] = deque()
        self.peers: dict[bytes, Connection] = {}
        self.socket: Any = Source(network)
        self.closed = False
        network.ends[endpoint] = self

    def receive(self) -> Arrived | None:
        """Return (peer, frame, buffers), or None."""
        inbox = self.inbox
        if not inbox:
            return None
        arrived = inbox.popleft()
        self.socket.readable = bool(inbox)
        return arrived

    def send(self, peer: bytes, frame: bytes) -> bool:
        """Send one frame to ``peer``; False when it is gone."""
        connection = self.peers.get(peer)
        if connection is None or not connection.origin.process.alive:
            return False
        connection.report(frame)
        return True

    def close(self) -> None:
        """Take nothing more."""
        self.closed = True


class ControlRouter:
    """Where everybody talks to the coordinator (`dflow.transport.control.ControlRouter`)."""

    __slots__ = ("_network", "endpoint", "inbox", "links", "process", "socket")

    def __init__(self, network: Network, process: Process, endpoint: str) -> None:
        self._network = network
        self.endpoint = endpoint
        self.process = process
        self.inbox: deque[tuple[bytes, list[bytes]]] = deque()
        self.links: dict[bytes, ControlLink] = {}
        self.socket = Source(network)
        network.ends[endpoint] = self

    def receive(self) -> tuple[bytes, list[bytes]] | None:
        """Return (peer, frames) of the next message, or None."""
        if not self.inbox:
            return None
        arrived = self.inbox.popleft()
        self.socket.readable = bool(self.inbox)
        return arrived

    def send(self, peer: bytes, frame: bytes) -> bool:
        """Send one frame to ``peer``; False when it is gone."""
        link = self.links.get(peer)
        if link is None or link.closed or not link.process.alive:
            return False
        link.back.send(frame)
        return True

    def wait(self, timeout_s: float) -> None:
        """Let so much time pass, unless there is something to receive."""
        if not self.inbox:
            self._network.kernel.pause(0, int(timeout_s * 1e9))

    def finish(self, within_s: float) -> None:
        """What was sent arrives."""


class ControlLink(Source):
    """A participant's socket to the coordinator; what it has of one of ZeroMQ is what is used."""

    __slots__ = ("_identity", "_network", "_there", "back", "closed", "inbox", "process")

    def __init__(self, network: Network, process: Process, endpoint: str, identity: bytes) -> None:
        super().__init__(network)
        self._network = network
        self._identity = identity
        self.process = process
        self.inbox: deque[bytes] = deque()
        self.closed = False
        self.back = Line(network, self._came_back)
        router = network.ends[endpoint]
        router.links[identity] = self
        self._there = Line(network, partial(self._arrived, router))

    def _arrived(self, router: ControlRouter, frame: bytes) -> None:
        self._network.note(router.process, "control", frame, self.process)
        router.inbox.append((self._identity, [frame]))
        router.socket.news()

    def _came_back(self, frame: bytes) -> None:
        if self.process.alive and not self.closed:
            self._network.note(self.process, "control", frame)
            self.inbox.append(frame)
            self.news()

    def send(self, frame: bytes) -> None:
        """Put one frame on its way."""
        self._there.send(frame)

    def poll(self, timeout_ms: int) -> bool:
        """Return whether there is something to receive; ``timeout_ms`` passes if there is not."""
        if not self.inbox and timeout_ms:
            self._network.kernel.pause(timeout_ms * 1_000_000, timeout_ms * 1_000_000)
        return bool(self.inbox)

    def recv(self) -> bytes:
        """Return the next frame from the coordinator; there is one."""
        frame = self.inbox.popleft()
        self.readable = bool(self.inbox)
        return frame

    def close(self, linger: int = 0) -> None:
        """Take nothing more; what was sent arrives."""
        self.closed = True

    def lose(self) -> None:
        """Lose what this participant has on its way to the coordinator."""
        self._there.lose()


class Network:
    """All connections of one simulation. ``names`` tells what a channel is called by its number."""

    def __init__(
        self, kernel: Kernel, trace: Trace, faults: Faults, seed: int, names: dict[int, str]
    ) -> None:
        self.kernel = kernel
        self.ends: dict[str, Any] = {}
        self.sources: list[Source] = []
        self.loops: list[Any] = []  # of asyncio
        self.connections: list[Connection] = []
        self.moved_ns = 0  # when a frame with data arrived last
        self.faults: list[Fault] = []  # that came true
        self._trace = trace
        self._faults = faults
        self._seed = seed
        self._dice = Random(f"{seed} reports")
        self._names = names
        self._strangers = 0
        self._exactly = {(each.channel, each.number): each for each in faults.exactly
                         if isinstance(each, (Drop, Duplicate))}  # fmt: skip
        low, high = faults.delay_s
        self._least_ns, self._most_ns = int(low * 1e9), int(high * 1e9)

    def number(self, source: Source) -> int:
        """Return what stands for the file descriptor of a new source."""
        self.sources.append(source)
        return len(self.sources) - 1

    def stranger(self) -> bytes:
        """Return a name that no peer has had."""
        self._strangers += 1
        return b"peer-%d" % self._strangers

    def delay(self) -> int:
        """Return how long the next frame takes, in ns."""
        return self.kernel.between(self._least_ns, self._most_ns)

    def late(self, fault: Duplicate) -> int:
        """The same for a report that comes once more: of each fault alike, drawn or given back."""
        return int(self._dice_of(fault).uniform(self._least_ns, self._most_ns))

    def _dice_of(self, what: object) -> Random:
        return Random(f"{self._seed} {what}")

    def connect(self, origin: OutLink, endpoint: str) -> Connection:
        """Return a new connection of a channel."""
        name = self._names.get(origin.number, f"channel {origin.number}")
        found = Connection(self, origin, self.ends[endpoint], name)
        self.connections.append(found)
        return found

    def note(
        self, process: Process, what: str, frame: bytes, sender: Process | None = None
    ) -> None:
        """Note that a frame has arrived."""
        if what == "data":
            self.moved_ns = self.kernel.now
        place = process.name if sender is None else f"{sender.name} > {process.name}"
        self._trace.note(self.kernel.now, place, what, frame)

    def fault(self, fault: Fault) -> None:
        """Note that something goes wrong."""
        self.faults.append(fault)
        self._trace.note(self.kernel.now, "", "fault", repr(fault))

    def fate(self, name: str, number: int) -> Drop | Duplicate | None:
        """Return what becomes of a credit report; None if it arrives."""
        faults = self._faults
        found = self._exactly.get((name, number))
        if faults.drop_reports and self._dice.random() < faults.drop_reports:
            found = Drop(name, number)
        elif faults.duplicate_reports and self._dice.random() < faults.duplicate_reports:
            found = Duplicate(name, number)
        if found is not None:
            self.fault(found)
        return found

    def cut(self, cut: Cut) -> None:
        """Break a connection, unless it is not there (any more)."""
        for each in self.connections:
            named = cut.channel in (each.name, edge_of(each.name))
            if named and not each.origin.closed and each.origin.process.alive:
                self.fault(cut)
                each.cut()
                return

    def killed(self, process: Process) -> None:
        """A process has died: of what it sent, some may not have left it."""
        dice = self._dice_of(f"{process.name} killed")
        for each in self.connections:
            if each.origin.process is process and dice.random() < 0.5:
                each.there.lose()
            if each.into.process is process and dice.random() < 0.5:
                each.back.lose()
        for source in self.sources:
            mine = isinstance(source, ControlLink) and source.process is process
            if mine and dice.random() < 0.5:
                source.lose()  # type: ignore[attr-defined]  # it is a ControlLink


def edge_of(channel: str) -> str:
    """Return ``a.out->b.in`` of ``a[0].out->b[1].in``."""
    return re.sub(r"\[\d+\]", "", channel)
