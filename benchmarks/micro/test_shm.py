"""What shared memory costs beside the copy into it; run with pytest-benchmark.

    pytest benchmarks/micro/test_shm.py --benchmark-columns=min,median --benchmark-sort=name

"memcpy" is the floor: the same bytes copied into ordinary memory that is warm.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from benchmarks.micro.test_codec import Benchmark
from dflow.transport.shm import SharedMemory
from dflow.wire.buffers import Place
from dflow.wire.large import address_of

SIZE = 6_000_000


@pytest.fixture
def owner() -> Iterator[SharedMemory]:
    """Return shared memory to allocate from."""
    memory = SharedMemory(256 << 20, print)
    yield memory
    memory.close()


def place_of(memory: SharedMemory, view: memoryview) -> Place:
    """Return where an allocated block lies."""
    buffer = memory.place_of(address_of(view), len(view))
    assert buffer is not None
    assert buffer.place is not None
    return buffer.place


def measure(benchmark: Benchmark, function: Any, iterations: int = 2000) -> None:
    """Measure one call after another."""
    benchmark.group = "shm"
    benchmark.pedantic(function, (), rounds=30, iterations=iterations)


def test_allocate_and_free(benchmark: Benchmark, owner: SharedMemory) -> None:
    def run() -> None:
        owner.allocate(SIZE)

    measure(benchmark, run)


def test_allocate_show_and_free(benchmark: Benchmark, owner: SharedMemory) -> None:
    def run() -> None:
        view = owner.allocate(SIZE)
        assert view is not None
        place_of(owner, view)

    measure(benchmark, run)


def test_borrow_and_release(benchmark: Benchmark, owner: SharedMemory) -> None:
    reader, view = SharedMemory(0, print), owner.allocate(SIZE)
    assert view is not None
    place = place_of(owner, view)

    def run() -> None:
        reader.borrow(place)

    measure(benchmark, run)
    reader.close()


def test_a_frame_kept_by_a_reader_for_eight_frames(
    benchmark: Benchmark, owner: SharedMemory
) -> None:
    reader = SharedMemory(0, print)
    kept: list[Any] = [None] * 8

    def run() -> None:
        view = owner.allocate(SIZE)
        assert view is not None
        kept.append(reader.borrow(place_of(owner, view)))
        del kept[0]

    measure(benchmark, run)
    del kept[:]
    reader.close()


def test_copy_6_mb_in(benchmark: Benchmark, owner: SharedMemory) -> None:
    source = np.ones(SIZE, "u1")

    def run() -> None:
        view = owner.allocate(SIZE)
        assert view is not None
        np.copyto(np.frombuffer(view, "u1"), source)

    measure(benchmark, run, iterations=20)


def test_copy_6_mb_memcpy(benchmark: Benchmark) -> None:
    source, target = np.ones(SIZE, "u1"), np.ones(SIZE, "u1")

    def run() -> None:
        np.copyto(target, source)

    measure(benchmark, run, iterations=20)
