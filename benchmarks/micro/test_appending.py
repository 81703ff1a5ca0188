"""The three ways to append a message to a lane, a batch of 512 small numbers each.

``docs/decisions/0012-results-leave-in-chunks.md`` says why.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.micro.wireless import BATCH, CAPACITY
from dflow.flow.batch import Lane
from dflow.flow.credit import SendWindow
from dflow.wire.codec import Codec
from dflow.worker.context import Direct, _emit_to_lane
from dflow.worker.emitting import emit_directly, emit_each
from dflow.worker.plane import Gate

pytestmark = pytest.mark.benchmark(min_rounds=200, warmup=True)
CODEC = Codec()
VALUES = list(range(BATCH))


def by_push(direct: Direct) -> None:
    """Call `Lane.push` for each value."""
    lane = direct.lane

    def emit(value: Any) -> None:
        if lane.push(CODEC.encode(value)):
            direct.attend()

    emit_each(emit, iter(VALUES), Gate(), BATCH)


def by_emitter(direct: Direct) -> None:
    """Call the emitter of an output with one edge for each value."""
    emit_each(_emit_to_lane(direct), iter(VALUES), Gate(), BATCH)


def by_loop(direct: Direct) -> None:
    """Append in the loop that takes the values."""
    emit_directly(direct, iter(VALUES), Gate(), BATCH)


@pytest.mark.parametrize("way", [by_push, by_emitter, by_loop])
def test_a_batch_is_appended(way: Callable[[Direct], None], benchmark: BenchmarkFixture) -> None:
    def fresh() -> tuple[tuple[Direct], dict[str, Any]]:
        lane = Lane([SendWindow(CAPACITY, 1 << 26)])
        return (Direct(lane, CODEC, lambda: None, Lock()),), {}

    benchmark.pedantic(way, setup=fresh, rounds=2000)  # type: ignore[no-untyped-call]  # ships none
