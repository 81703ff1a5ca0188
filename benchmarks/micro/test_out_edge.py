"""What sending costs by shape: many replicas, keys, one message at a time; no sockets.

Each call sends a batch of 512 messages, or one message where the name says so. The plain
full batch is in ``test_edges.py``.
"""

from __future__ import annotations

from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.micro.wireless import CAPACITY, MESSAGES
from dflow.flow.out_edge import OutEdge
from dflow.flow.sharing import share_out
from dflow.wire.codec import Codec
from dflow.wire.frames import pack_batch

pytestmark = pytest.mark.benchmark(min_rounds=50, warmup=True)
CODEC = Codec()


def make_edge(replicas: int, key: Any = None) -> OutEdge:
    """Return the sending half of an edge to ``replicas`` receivers."""
    return OutEdge(0, "a.out->b.in", range(replicas), CAPACITY, 1 << 26, key)


def pack(edge: OutEdge) -> None:
    """Make frames of what has credit, as the worker does."""
    for number, first, payloads, _ in edge.flush(0):
        pack_batch(number, 1, first, payloads, 0)


def settle(edge: OutEdge) -> None:
    """Give all credit back."""
    for number, window in zip(edge.channels, edge.windows, strict=True):
        edge.on_credit(number, window.sent, window.sent_bytes, window.sent)


@pytest.mark.parametrize("replicas", [1, 8])
def test_one_message_is_queued_cut_framed_and_credited(
    replicas: int, benchmark: BenchmarkFixture
) -> None:
    edge = make_edge(replicas)
    payload = CODEC.encode(MESSAGES[0])
    (lane,) = edge.lanes

    def one() -> None:
        lane.push(payload)
        for number, first, payloads, _ in edge.flush(0):
            pack_batch(number, 1, first, payloads, 0)
            window = edge.windows[number]
            edge.on_credit(number, window.sent, window.sent_bytes, window.sent)

    benchmark(one)
    assert edge.settled


def test_a_batch_is_shared_out_over_eight_replicas(benchmark: BenchmarkFixture) -> None:
    edge = make_edge(8)
    payloads = [CODEC.encode(message) for message in MESSAGES]
    (lane,) = edge.lanes

    def batch() -> None:
        for payload in payloads:
            lane.push(payload)
        pack(edge)
        settle(edge)

    benchmark(batch)
    assert edge.settled


def test_a_batch_is_routed_by_key_to_eight_replicas(benchmark: BenchmarkFixture) -> None:
    edge = make_edge(8, key=lambda message: message["id"])
    encode = CODEC.encode

    def batch() -> None:
        for message in MESSAGES:
            lane, key = edge.route(message, encode)
            lane.push(b"payload", key)
        pack(edge)
        settle(edge)

    benchmark(batch)
    assert edge.settled


def test_shares_of_eight_uneven_replicas(benchmark: BenchmarkFixture) -> None:
    rooms = [2048, 1900, 2048, 17, 0, 1024, 1500, 2000]
    assert sum(benchmark(share_out, 512, rooms, 3)) == 512
