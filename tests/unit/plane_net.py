"""Data planes of a graph in which two sources feed one sink, over real sockets in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import zmq

from dflow import Graph, sink, source
from dflow.flow.out_edge import OutEdge
from dflow.graph.plan import Plan, WorkerId
from dflow.message import Priority
from dflow.transport.endpoint import context
from dflow.wire import frames as f
from dflow.wire.codec import Codec
from dflow.worker.plane import DataPlane

__all__ = ["CODEC", "EPOCH", "TOKEN", "Net", "both", "count", "emit", "left", "raw", "right"]

TOKEN = "token-of-the-run"
EPOCH = 5
PATIENCE_MS = 5000
CODEC = Codec()


@source
def left() -> Iterator[int]:
    """Never called: the test emits by itself."""
    yield 0


@source
def right() -> Iterator[int]:
    """The second sender."""
    yield 0


@sink
def both(x: int) -> None:
    """Never called."""


def make_graph() -> Graph:
    """Return a graph in which two sources feed one sink."""
    graph = Graph("fan-in")
    a, b, c = left(), right(), both()
    graph.connect(a, c, capacity=4)
    graph.connect(b, c, capacity=4)
    return graph


class Net:
    """The planes of a graph's workers; ``left`` and ``right`` send to ``both``."""

    def __init__(self, endpoint: Callable[[], str]) -> None:
        self.graph = make_graph()
        self.plan: Plan = self.graph.plan()
        self.endpoint = endpoint
        self.violations: dict[str, list[str]] = {}
        self.made: list[DataPlane] = []
        self.sockets: list[zmq.Socket[bytes]] = []
        self.both = self.plane("both")
        self.bound = self.both.inbound.bind(endpoint)

    def plane(self, name: str, *, token: str = TOKEN, epoch: int = EPOCH) -> DataPlane:
        """Return the data plane of a node's only replica."""
        heard = self.violations.setdefault(name, [])
        made = DataPlane(
            self.plan,
            WorkerId(name),
            token=token,
            epoch=epoch,
            edge_key=self.graph.edge_key,
            on_violation=heard.append,
        )
        self.made.append(made)
        return made

    def sender(self, name: str, **wrong: Any) -> DataPlane:
        """Return a plane of a source whose channels were opened."""
        plane = self.plane(name, **wrong)
        plane.outbound.open(
            [c.number, self.bound[int(Priority.NORMAL)]]
            for c in self.plan.channels
            if c.sender == WorkerId(name)
        )
        return plane

    def until(self, condition: Callable[[], object], *planes: DataPlane) -> None:
        """Take in what arrives until ``condition`` holds; fail when nothing comes any more."""
        planes = planes or tuple(self.made)
        poller = zmq.Poller()
        for plane in planes:
            for socket in sockets(plane):
                poller.register(socket, zmq.POLLIN)
        while not condition():
            assert poller.poll(PATIENCE_MS), "expected something to arrive, nothing did"
            for plane in planes:
                plane.receive(plane.poller.wait(0))

    def quiet(self) -> None:
        """Take in all that was sent; over inproc it can be read as soon as it was sent."""
        while ready := self.both.poller.wait(0):
            self.both.receive(ready)

    def stranger(self) -> zmq.Socket[bytes]:
        """Return a bare socket connected to ``both``."""
        made: zmq.Socket[bytes] = context().socket(zmq.DEALER)
        made.setsockopt(zmq.LINGER, 0)
        made.connect(self.bound[int(Priority.NORMAL)])
        self.sockets.append(made)
        return made

    def answer(self, stranger: zmq.Socket[bytes]) -> f.Frame:
        """Return what ``both`` answers a stranger."""
        self.until(lambda: stranger.poll(0) or self._turn(stranger), self.both)
        return f.parse(stranger.recv())

    def _turn(self, stranger: zmq.Socket[bytes]) -> bool:
        zmq.select([stranger, *sockets(self.both)], [], [], 0.05)
        return bool(stranger.poll(0))

    def connected(self) -> tuple[DataPlane, DataPlane]:
        """Return both senders, welcomed."""
        a, b = self.sender("left"), self.sender("right")
        self.until(lambda: a.outbound.welcomed and b.outbound.welcomed)
        return a, b

    def received(self, edge: int) -> list[Any]:
        """Take everything an edge brought; return the values."""
        (channel,) = (c for c in self.both.inbound.channels.values() if c.number == edge)
        values: list[Any] = []
        while channel.inbox:
            batch = channel.inbox[0]
            values += CODEC.decode_batch(batch.body, batch.count)
            channel.take(batch.count)
            channel.finish(batch.count)
        return values


def sockets(plane: DataPlane) -> list[zmq.Socket[bytes]]:
    """Return every data socket of a plane."""
    return [
        *(link.socket for link in plane.inbound.links.values()),
        *(link.socket for link in plane.outbound.links.values()),
    ]


def emit(plane: DataPlane, *values: Any) -> None:
    """Emit on the plane's only edge and flush."""
    (edge,) = plane.outbound.edges
    assert isinstance(edge, OutEdge)
    for value in values:
        edge.lanes[0].push(CODEC.encode(value))
    plane.attend()


def count(net: Net, number: int) -> int:
    """Return how many messages arrived on a channel."""
    return net.both.inbound.channels[number].window.received


def raw(plane: DataPlane, frame: bytes) -> None:
    """Send any bytes on the plane's only channel."""
    (link,) = plane.outbound.links.values()
    link.send(frame)
