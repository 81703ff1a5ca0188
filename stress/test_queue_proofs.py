"""Ten thousand items through a queue, ten at a time: exact order, a steady rate, flat memory."""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import threading
import time
from collections.abc import Iterator
from typing import Self

import psutil
import pytest

from dflow import Graph, Run, node

ITEMS = 10_000
CONCURRENCY = 10
LEAST_PER_S = 300
MB = 1_000_000
WARM = 0.3
"""The share of the run after which memory must be flat: buffers have their size by then."""

MOST_GROWTH_MB = 4.0


@node
async def job(number: int) -> int:
    """Take from nothing to a few milliseconds."""
    await asyncio.sleep(random.Random(number).random() * 0.005)
    return number


class Memory:
    """Samples the resident size of every process of a run, and of this one."""

    def __init__(self, run: Run) -> None:
        pids = {name: pid for name, pid in run.pids.items() if name != "agent"} | {
            "user process": os.getpid()
        }
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self.samples: dict[str, list[tuple[float, float]]] = {name: [] for name in pids}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def _sample(self) -> None:
        while not self._over.wait(0.1):
            for name, process in self._processes.items():
                self.samples[name].append((time.monotonic(), process.memory_info().rss / MB))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def growth_mb(self) -> Iterator[tuple[str, float]]:
        """Yield by process how much it grew, by a line through its samples once warm."""
        for name, samples in self.samples.items():
            warm = samples[int(len(samples) * WARM) :]
            if len(warm) >= 2:
                slope = statistics.linear_regression(*zip(*warm, strict=True)).slope
                yield name, slope * (warm[-1][0] - warm[0][0])


@pytest.mark.parametrize("keyed", [False, True], ids=["one queue", "by key"])
def test_ten_thousand_items_ten_at_a_time(keyed: bool, scale: int) -> None:
    items = ITEMS * scale
    worker = job().options(
        concurrency=CONCURRENCY,
        ordered=True,
        max_in_flight_per_key=CONCURRENCY if keyed else None,
    )
    graph = Graph("proof", worker)
    graph.accept(worker, key=_key if keyed else None, capacity=256)
    with graph.start(results=worker) as run:
        began = time.monotonic()
        sender = threading.Thread(target=lambda: [run.send(worker, n) for n in range(items)])
        with Memory(run) as memory:
            sender.start()
            results = run.results()
            misplaced = sum(next(results) != due for due in range(items))
            took_s = time.monotonic() - began
            sender.join()
        run.stop()
        assert list(results) == []
        report = run.wait(30)
    assert misplaced == 0
    assert items / took_s >= LEAST_PER_S, f"{items / took_s:.0f}/s"
    grown = dict(memory.growth_mb())
    assert all(mb < MOST_GROWTH_MB for mb in grown.values()), grown
    assert report.balances


def _key(number: int) -> int:
    return number % 7
