"""What receiving costs when messages come one at a time, and choosing among many channels.

The full batch is in ``test_edges.py``.
"""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.micro.wireless import CAPACITY, Edge
from dflow.flow.in_edge import InChannel
from dflow.flow.ready import ReadyQueue
from dflow.message import Priority
from dflow.wire.codec import Codec
from dflow.wire.frames import pack_batch, parse

pytestmark = pytest.mark.benchmark(min_rounds=50, warmup=True)
PAYLOAD = Codec().encode({"id": 1, "sensor": "boiler-17", "value": 0.5})


def test_a_single_message_is_parsed_accepted_taken_and_reported(
    benchmark: BenchmarkFixture,
) -> None:
    edge = Edge(Codec())
    into = edge.into

    def one() -> None:
        frame = pack_batch(0, 1, into.window.received, (PAYLOAD,), 0)
        into.accept(parse(frame))
        into.take(1)
        into.finish(1)
        if into.window.due(idle=True):
            into.credit_frame()

    benchmark(one)
    assert into.depth == 0


@pytest.mark.parametrize("channels", [1, 20])
def test_the_ready_queue_goes_once_round(channels: int, benchmark: BenchmarkFixture) -> None:
    queue = ReadyQueue()
    for number in range(channels):
        bands = list(Priority)
        channel = InChannel(number, f"e{number}", "in", bands[number % 4], CAPACITY, 1 << 26, 1)
        channel.accept(parse(pack_batch(number, 1, 0, (PAYLOAD,), 0)))
        queue.push(channel)

    def round_trip() -> None:
        taken = []
        while (channel := queue.pop()) is not None:
            taken.append(channel)
        for channel in taken:
            queue.push(channel)

    benchmark(round_trip)
    assert queue.waiting()
