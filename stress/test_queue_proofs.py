"""Ten thousand items through a queue, ten at a time: exact order, a steady rate, flat memory."""

from __future__ import annotations

import asyncio
import random
import threading
import time

import pytest

from dflow import Graph, node
from stress.memory import Memory
from stress.nodes import BASE_MB

ITEMS = 10_000
CONCURRENCY = 10
LEAST_PER_S = 300
MOST_GROWTH_MB = 4.0


@node
async def job(number: int) -> int:
    """Take from nothing to a few milliseconds."""
    await asyncio.sleep(random.Random(number).random() * 0.005)
    return number


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
    memory.assert_within(BASE_MB, {})
    grown = memory.growths_mb()
    assert all(mb < MOST_GROWTH_MB for mb in grown.values()), grown
    assert report.balances


def _key(number: int) -> int:
    return number % 7
