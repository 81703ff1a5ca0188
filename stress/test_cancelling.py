"""Messages cancelled, and nodes paused, at random moments from several threads at once.

Whatever the node is like: who was told CANCELLED is never handled, everybody else is, once, in
order where order is promised, and the books balance.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from dflow import Cancelled, Graph, Run, edge, node, source
from stress.memory import Memory
from stress.nodes import BASE_MB

MESSAGES = 400
RECENT = 40
"""Cancelled are only the latest messages: the others are done anyway."""


@node
def blocking(number: int) -> int:
    """Take up to two milliseconds."""
    time.sleep(random.Random(number).random() * 0.002)
    return number


@node
async def waiting(number: int) -> int:
    """Take up to four milliseconds, as one task of several."""
    await asyncio.sleep(random.Random(number).random() * 0.004)
    return number


@source
def numbers(count: int) -> Any:
    """Count."""
    yield from range(count)


KINDS: list[tuple[Callable[[], Any], dict[str, Any], bool]] = [
    (blocking, {}, False),
    (waiting, {"concurrency": 4}, False),
    (blocking, {"replicas": 3, "ordered": True}, False),
    (waiting, {"replicas": 2, "concurrency": 3, "ordered": True}, False),
    (blocking, {"replicas": 2}, True),
    (blocking, {"replicas": 3, "max_in_flight_per_key": 1}, True),
    (waiting, {"concurrency": 4, "max_in_flight_per_key": 2}, True),
]
NAMES = ["plain", "tasks", "ordered", "ordered-tasks", "keyed", "limited", "limited-tasks"]


class Senders:
    """Sends numbers from one thread, cancels them from three others."""

    def __init__(self, run: Run, target: Any, seed: int) -> None:
        self.outcomes: dict[int, list[Cancelled]] = {}
        self._run, self._target = run, target
        self._sent: list[tuple[int, str]] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        threads = [threading.Thread(target=self._send)]
        threads += [
            threading.Thread(target=self._cancel, args=(random.Random(seed * 10 + k),))
            for k in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _send(self) -> None:
        for number in range(MESSAGES):
            sent = self._run.send(self._target, number)
            with self._lock:
                self._sent.append((number, sent))
        self._over.set()

    def _cancel(self, chance: random.Random) -> None:
        while not self._over.is_set():
            with self._lock:
                recent = self._sent[-RECENT:]
            if recent:
                number, sent = chance.choice(recent)
                outcome = self._run.cancel(sent)
                with self._lock:
                    self.outcomes.setdefault(number, []).append(outcome)


@pytest.mark.parametrize(("make", "options", "keyed"), KINDS, ids=NAMES)
def test_who_was_cancelled_is_never_handled_and_all_others_are(
    make: Callable[[], Any], options: dict[str, Any], keyed: bool, scale: int
) -> None:
    for seed in range(scale):
        worker = make().options(**options)
        graph = Graph("cancelling", worker)
        graph.accept(worker, capacity=64, key=(lambda number: number % 5) if keyed else None)
        with graph.start(results=worker) as run, Memory(run) as memory:
            senders = Senders(run, worker, seed)
            run.stop()
            got = list(run.results())
            report = run.wait(30)
        memory.assert_within(BASE_MB, {})
        cancelled = {n for n, all_of in senders.outcomes.items() if Cancelled.CANCELLED in all_of}
        assert len(cancelled) > 10, f"seed {seed}: {senders.outcomes}"
        assert sorted(got) == [n for n in range(MESSAGES) if n not in cancelled], f"seed {seed}"
        if "ordered" in options:
            assert got == sorted(got), f"seed {seed}"
        books = report.edge(f"run->{worker.name}.in")
        assert (books.cancelled, books.delivered) == (len(cancelled), len(got)), f"seed {seed}"
        assert report.balances, report.imbalances


@pytest.mark.parametrize("options", [{}, {"ordered": True}], ids=["any order", "ordered"])
def test_pausing_at_random_moments_loses_nothing_and_keeps_the_order(
    options: dict[str, Any], scale: int
) -> None:
    for seed in range(scale):
        chance = random.Random(seed)
        first = blocking().options(name="first", replicas=2, **options)
        second = waiting().options(name="second", concurrency=3, **options)
        feed = numbers(1500)
        graph = Graph("pausing", feed >> edge(capacity=32) >> first >> second)
        got: list[int] = []
        with graph.start(results=second) as run, Memory(run) as memory:
            reader = threading.Thread(target=_read, args=(run, got))
            reader.start()
            for _ in range(40):
                target = chance.choice((feed, first, second))
                run.pause(target)
                time.sleep(chance.random() * 0.01)
                run.resume(target)
            reader.join(40)
            report = run.wait(40)
        memory.assert_within(BASE_MB, {})
        assert sorted(got) == list(range(1500)), f"seed {seed}"
        if options:
            assert got == sorted(got), f"seed {seed}"
        assert report.balances, report.imbalances


def _read(run: Run, into: list[int]) -> None:
    into.extend(run.results())
