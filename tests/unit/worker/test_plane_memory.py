"""What lies in shared memory on its way between two planes: kept, borrowed, forgotten, lost."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dflow import Graph, sink, source
from dflow.errors import BufferLost, DecodeError
from dflow.graph.plan import WorkerId
from dflow.message import Priority
from dflow.transport.endpoint import close_context, fresh_endpoint
from dflow.transport.shm import SharedMemory
from dflow.wire.buffers import LARGE_BYTES, Parcel
from dflow.wire.codec import Codec
from dflow.worker.plane import DataPlane
from tests.support import eventually

LARGE = b"x" * LARGE_BYTES

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory files are Linux's")


@source
def sender() -> Iterator[int]:
    """Never called: the test emits by itself."""
    yield 0


@sink
def receiver(x: int) -> None:
    """Never called."""


class Pair:
    """Two planes of a graph of two nodes, linked; each with shared memory of its own."""

    def __init__(self, folder: Path) -> None:
        graph = Graph("pair", sender() >> receiver())
        plan = graph.plan()
        self.complaints: list[str] = []
        self.memories = [SharedMemory(1 << 25, self.complaints.append) for _ in range(2)]
        self.codec = Codec((), self.memories[0])
        self.sender, self.receiver = (
            DataPlane(
                plan,
                WorkerId(name),
                token="t",
                epoch=1,
                edge_key=graph.edge_key,
                on_violation=self.complaints.append,
                memory=memory,
            )
            for name, memory in zip(("sender", "receiver"), self.memories, strict=True)
        )
        bound = self.receiver.inbound.bind(lambda: fresh_endpoint(str(folder), None))
        self.sender.outbound.open([[plan.channels[0].number, bound[int(Priority.NORMAL)]]])
        self.until(lambda: self.sender.outbound.welcomed)
        self.channel = next(iter(self.receiver.inbound.channels.values()))
        (edge,) = self.sender.outbound.edges
        self.lane: Any = edge.lanes[0]  # type: ignore[union-attr]

    def until(self, condition: Any) -> None:
        """Take in what arrives until ``condition`` holds."""

        def looked() -> bool:
            for plane in (self.sender, self.receiver):
                plane.receive(plane.poller.wait(0.01))
            return bool(condition())

        eventually(looked)

    def send(self, *payloads: bytes) -> None:
        """Send messages, and wait until they have arrived."""
        for payload in payloads:
            self.lane.push(payload)
        self.sender.flush()
        arrived = self.channel.window.received + len(payloads)
        self.until(lambda: self.channel.window.received == arrived)

    def handle(self) -> list[Any]:
        """Take the first batch, decode it, and report it done."""
        batch = self.channel.inbox[0]
        values = Codec().decode_each(batch.body, batch.count, batch.buffers)
        self.channel.take(batch.count)
        self.channel.finish(batch.count)
        done = self.channel.window.done
        self.receiver.inbound.grant(idle=True)
        self.until(lambda: self.lane.windows[0].done == done)
        return values


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """Give a pair, closed at the end."""
    made = Pair(tmp_path)
    yield made
    made.sender.close()
    made.receiver.close()
    close_context()


def test_a_sent_message_is_kept_until_it_is_reported_done(pair: Pair) -> None:
    payload = pair.codec.encode([LARGE, "text"])
    assert type(payload) is Parcel
    pair.send(payload, pair.codec.encode("small"))
    kept = pair.sender.outbound._kept
    assert [*kept.values()] == [{0: payload}]
    first, small = pair.handle(), pair.handle()
    assert (first, small) == ([[LARGE, "text"]], ["small"])
    assert [*kept.values()] == [{}]
    assert pair.complaints == []


def test_a_message_is_borrowed_when_it_arrives_and_not_when_it_is_handled(pair: Pair) -> None:
    pair.send(pair.codec.encode(LARGE))
    pair.sender.outbound._kept.clear()  # its sender forgets it, as if it had died
    for _ in range(600):  # and writes all the memory it may have, again and again
        room = pair.memories[0].allocate(LARGE_BYTES)
        assert room is not None
        room[:] = bytes(LARGE_BYTES)
        del room
    assert pair.handle() == [LARGE]


def test_memory_that_is_gone_costs_the_message_that_needs_it_and_no_other(pair: Pair) -> None:
    lost = pair.codec.encode([LARGE])
    assert type(lost) is Parcel
    (buffer,) = lost.buffers
    assert buffer.place is not None
    stale = buffer.place._replace(generation=buffer.place.generation + 7)
    gone = Parcel.of(bytes(lost), [buffer._replace(place=stale)])
    pair.send(gone, pair.codec.encode([LARGE]))
    (error,) = pair.handle()
    assert isinstance(error, BufferLost)
    assert isinstance(error, DecodeError)
    assert pair.handle() == [[LARGE]]
    assert pair.complaints == []


def test_counters_appear_once_there_is_something_to_count(pair: Pair) -> None:
    from dflow.stats import NodeStats

    assert pair.sender.stats(NodeStats()).node.metrics == {}
    pair.send(pair.codec.encode(LARGE))
    metrics = pair.sender.stats(NodeStats()).node.metrics
    assert metrics.keys() == {"dflow.shared_bytes", "dflow.shm_peak_bytes"}
    assert metrics["dflow.shm_peak_bytes"] >= LARGE_BYTES
    assert pair.receiver.stats(NodeStats()).node.metrics == {}
