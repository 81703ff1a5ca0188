"""The two halves of an edge, and a whole hop, without sockets; each call is a batch of 512.

Divide by 512 for the cost of a message. What a hop costs beyond bare msgpack, measured in
the same session (``test_bare_msgpack``), is dflow's own share.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import workload
from benchmarks.micro.wireless import BATCH, MESSAGES, Edge
from dflow.flow.in_edge import InChannel
from dflow.graph.calls import Handler
from dflow.message import Priority
from dflow.wire.codec import Codec
from dflow.wire.frames import parse
from dflow.worker.dispatch import Dispatcher
from dflow.worker.plane import Gate

pytestmark = pytest.mark.benchmark(min_rounds=50, warmup=True)


@pytest.fixture
def edge() -> Edge:
    """A fresh edge."""
    return Edge(Codec())


def test_out_edge_queues_and_cuts_a_batch(edge: Edge, benchmark: BenchmarkFixture) -> None:
    payloads = [edge.codec.encode(message) for message in MESSAGES]
    (lane,) = edge.out.lanes
    window = lane.windows[0]

    def queue_and_cut() -> None:
        for payload in payloads:
            lane.push(payload)
        edge.send()
        window.report(window.sent, window.sent_bytes, window.sent)

    benchmark(queue_and_cut)
    assert not edge.out.waiting


def test_in_edge_accepts_and_grants_a_batch(edge: Edge, benchmark: BenchmarkFixture) -> None:
    for message in MESSAGES:
        edge.out.lanes[0].push(edge.codec.encode(message))
    (frame,) = edge.send()
    parsed = parse(frame)

    def accept_and_grant() -> None:
        into = InChannel(0, "a.out->b.in", "in", Priority.NORMAL, 2 * BATCH, 1 << 26, 1)
        into.accept(parsed)
        into.take(BATCH)
        into.finish(BATCH)
        into.credit_frame()

    benchmark(accept_and_grant)


def _dispatcher(
    call: Callable[[Any], Any], emit: Callable[[Any], None], codec: Codec
) -> Dispatcher:
    def fail(error: BaseException, where: str) -> None:
        raise AssertionError(where) from error

    handler = Handler(call=call, is_async=False, is_generator=False)
    return Dispatcher({"in": handler}, emit, codec, Gate(), fail)


def _emitter(edge: Edge) -> Callable[[Any], None]:
    (lane,) = edge.out.lanes
    encode, push = edge.codec.encode, lane.push

    def emit(value: Any) -> None:
        push(encode(value))

    return emit


def test_loop_takes_a_batch_through_a_hop(edge: Edge, benchmark: BenchmarkFixture) -> None:
    """Decode, call the handler, encode, cut, frame: all a map worker does but the socket."""
    onward = Edge(edge.codec)
    dispatcher = _dispatcher(workload.enrich, _emitter(onward), edge.codec)
    for message in MESSAGES:
        edge.out.lanes[0].push(edge.codec.encode(message))
    (frame,) = edge.send()
    parsed = parse(frame)
    edge.into.window.capacity = 1 << 60

    def hop() -> None:
        edge.into.window.received = 0
        edge.into.window.taken = edge.into.window.done = 0
        edge.into.accept(parsed)
        while edge.into.inbox:
            dispatcher.turn(edge.into)
        onward.send()
        window = onward.out.windows[0]
        window.report(window.sent, window.sent_bytes, window.sent)
        onward.out.lanes[0].update()

    benchmark(hop)
    assert dispatcher.handled % BATCH == 0
    assert not dispatcher.errors


def test_bare_msgpack(benchmark: BenchmarkFixture) -> None:
    """The same work by hand: unpack a batch, call the function, pack a batch."""
    body = msgpack.packb(MESSAGES)
    pack = msgpack.Packer().pack

    def by_hand() -> bytes:
        packed: bytes = pack([workload.enrich(message) for message in msgpack.unpackb(body)])
        return packed

    assert len(benchmark(by_hand)) > BATCH
