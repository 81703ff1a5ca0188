"""A dispatcher's turn by kind of handler: 512 messages through user code, nothing emitted far.

The whole hop of a map worker is in ``test_edges.py``; here emit is `list.append`, so what is
measured is decoding, calling and counting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.micro.wireless import BATCH, MESSAGES
from dflow.flow.in_edge import InChannel
from dflow.graph.calls import Handler
from dflow.message import Priority
from dflow.wire.codec import Codec
from dflow.wire.frames import pack_batch, parse
from dflow.worker.dispatch import Dispatcher
from dflow.worker.plane import Gate
from dflow.worker.source import SyncSource

pytestmark = pytest.mark.benchmark(min_rounds=50, warmup=True)


def returns(message: Any) -> Any:
    """Hand the message on."""
    return message


def drops(message: Any) -> None:
    """Emit nothing."""


def yields(message: Any) -> Iterator[Any]:
    """Hand the message on, as a generator."""
    yield message


def fail(error: BaseException, where: str) -> None:
    """Refuse to measure a failure."""
    raise AssertionError(where) from error


@pytest.mark.parametrize("call", [returns, drops, yields])
def test_a_batch_is_handled(call: Callable[[Any], Any], benchmark: BenchmarkFixture) -> None:
    codec = Codec()
    out: list[Any] = []
    handler = Handler.of(call, call)
    dispatcher = Dispatcher({"in": handler}, out.append, codec, Gate(), fail)
    channel = InChannel(0, "a.out->b.in", "in", Priority.NORMAL, 1 << 60, 1 << 60, 1)
    payloads = [codec.encode(message) for message in MESSAGES]

    def batch() -> None:
        out.clear()
        channel.accept(parse(pack_batch(0, 1, channel.window.received, payloads, 0)))
        while channel.inbox:
            dispatcher.turn(channel)

    benchmark(batch)
    assert len(out) == (0 if call is drops else BATCH)
    assert channel.window.done == channel.window.received


def test_a_source_is_pulled_for_a_batch(benchmark: BenchmarkFixture) -> None:
    out: list[Any] = []

    def pull() -> None:
        out.clear()
        source = SyncSource(iter(MESSAGES), out.append, Gate(), fail)
        while not source.exhausted:
            source.turn()

    benchmark(pull)
    assert len(out) == BATCH
