"""Queues with many workers behind them: the order is exact in every case.

What the order is of: handlers begin in the order of the queue (of their key, where there is one),
and results leave in the order of their inputs where the node is ordered. The long run is in
``stress/test_queue_proofs.py``.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from dflow import Cancelled, EdgeFull, Graph, Input, Node, Output, node
from tests.integration.flows import await_file, write_line
from tests.support import eventually

pytestmark = pytest.mark.timeout(60)

LONG_S = 30.0


class Logged(Node):
    """Notes when it begins and ends each job; a job is (action, number)."""

    jobs = Input(Any, required=False)
    out = Output()

    def __init__(self, log: Path, pause_s: float = 0.0, stuck: str = "", gate: str = "") -> None:
        self.log = log
        self.pause_s = pause_s
        self.stuck = stuck
        self.gate = gate

    @jobs.handler
    def handle(self, job: tuple[str, int]) -> tuple[str, int]:
        action, number = job
        write_line(self.log, f"begin {action} {number}")
        if action == self.stuck:
            await_file(Path(self.gate))
        time.sleep(self.pause_s * (1 + number % 3))
        write_line(self.log, f"end {action} {number}")
        return job


@node
async def uneven(number: int) -> int:
    """Take from nothing to a few milliseconds, whatever the number."""
    await asyncio.sleep(random.Random(number).random() * 0.004)
    return number


def log_of(path: Path) -> list[tuple[str, str, int]]:
    """Return (begin or end, action, number) in the order in which it happened."""
    rows = [line.split() for line in path.read_text().splitlines()]
    return [(what, action, int(number)) for what, action, number in rows]


def begun(path: Path, action: str) -> list[int]:
    return [n for what, a, n in log_of(path) if (what, a) == ("begin", action)]


def most_at_once(path: Path) -> dict[str, int]:
    """Return the most jobs of each action that were under way at once, and of all under ""."""
    now: defaultdict[str, int] = defaultdict(int)
    most: defaultdict[str, int] = defaultdict(int)
    for what, action, _ in log_of(path):
        for name in (action, ""):
            now[name] += 1 if what == "begin" else -1
            most[name] = max(most[name], now[name])
    return dict(most)


def test_ten_items_one_at_a_time(tmp_path: Path) -> None:
    worker = Logged(tmp_path / "log", pause_s=0.001)
    with Graph("ten", worker).start(results=worker) as run:
        for number in range(10):
            run.send(worker.jobs, ("a", number))
        run.stop()
        assert list(run.results()) == [("a", n) for n in range(10)]
        assert run.wait(LONG_S).balances
    happened = [(what, n) for what, _, n in log_of(tmp_path / "log")]
    assert happened == [(what, n) for n in range(10) for what in ("begin", "end")]


def test_a_thousand_items_five_at_a_time_come_out_in_order() -> None:
    worker = uneven().options(concurrency=5, ordered=True)
    with Graph("thousand", worker).accept(worker).start(results=worker) as run:
        sender = threading.Thread(target=lambda: [run.send(worker, n) for n in range(1000)])
        sender.start()
        results = run.results()
        got = [next(results) for _ in range(1000)]
        sender.join(LONG_S)
        run.stop()
        assert list(results) == []
        report = run.wait(LONG_S)
    assert got == list(range(1000))
    assert report.balances


@pytest.mark.parametrize(("limit", "replicas"), [(1, 3), (2, 4)])
def test_three_actions_run_at_once_each_in_its_own_order(
    tmp_path: Path, limit: int, replicas: int
) -> None:
    log = tmp_path / "log"
    worker = Logged(log, pause_s=0.001).options(replicas=replicas, max_in_flight_per_key=limit)
    graph = Graph("actions", worker).accept(worker.jobs, key=lambda job: job[0], capacity=1000)
    with graph.start(results=worker) as run:
        for number in range(50):
            for action in "abc":
                run.send(worker.jobs, (action, number))
        run.stop()
        got = list(run.results())
        report = run.wait(LONG_S)
    assert sorted(got) == [(action, n) for action in "abc" for n in range(50)]
    for action in "abc":
        numbers = begun(log, action)
        if limit == 1:
            assert numbers == list(range(50))
        else:  # two of one action may begin in two processes at the same moment
            assert all(abs(n - at) < limit for at, n in enumerate(numbers))
    most = most_at_once(log)
    assert max(most[action] for action in "abc") <= limit
    assert most[""] > 1
    ends = [action for what, action, _ in log_of(log) if what == "end"]
    changes = sum(a != b for a, b in pairwise(ends))
    assert changes > 50  # they completed in between each other
    assert report.balances


def test_an_action_that_is_stuck_does_not_delay_the_others(tmp_path: Path) -> None:
    log, gate = tmp_path / "log", tmp_path / "gate"
    worker = Logged(log, stuck="a", gate=str(gate)).options(replicas=3, max_in_flight_per_key=1)
    graph = Graph("stuck", worker).accept(worker.jobs, key=lambda job: job[0], capacity=1000)
    with graph.start() as run:
        for number in range(50):
            for action in "abc":
                run.send(worker.jobs, (action, number))

        def others_done() -> bool:
            return all(("end", action, 49) in log_of(log) for action in "bc")

        eventually(lambda: log.exists() and others_done(), within_s=LONG_S)
        assert begun(log, "a") == [0]

        def known() -> list[tuple[str, int, int, int]]:
            keys = [k for e in run.status().edges for k in e.keys]
            return sorted((k.key, k.waiting, k.in_flight, k.done) for k in keys)

        eventually(lambda: known() == [("'a'", 49, 1, 0), ("'b'", 0, 0, 50), ("'c'", 0, 0, 50)])
        gate.touch()
        run.stop()
        assert run.wait(LONG_S).balances
    for action in "abc":
        assert begun(log, action) == list(range(50))


def test_three_of_ten_are_cancelled_and_the_rest_keep_their_order(tmp_path: Path) -> None:
    worker = Logged(tmp_path / "log")
    with Graph("cancel", worker).start(results=worker) as run:
        run.pause(worker)
        ids = [run.send(worker.jobs, ("a", number)) for number in range(10)]
        assert [run.cancel(ids[n]) for n in (2, 4, 9)] == [Cancelled.CANCELLED] * 3
        run.resume(worker)
        run.stop()
        assert [n for _, n in run.results()] == [0, 1, 3, 5, 6, 7, 8]
        report = run.wait(LONG_S)
    edge = report.edge("run->logged.jobs")
    assert (edge.sent, edge.delivered, edge.cancelled) == (10, 7, 3)
    assert report.balances


def test_the_eleventh_is_rejected_at_a_capacity_of_ten(tmp_path: Path) -> None:
    worker = Logged(tmp_path / "log")
    graph = Graph("full", worker).accept(worker.jobs, policy="reject", capacity=10)
    with graph.start(results=worker) as run:
        run.pause(worker)
        for number in range(10):
            run.send(worker.jobs, ("a", number))
        for _ in range(3):
            with pytest.raises(EdgeFull) as full:
                run.send(worker.jobs, ("a", 99))
            assert (full.value.edge, full.value.capacity, full.value.depth) == (
                "run->logged.jobs", 10, 10,
            )  # fmt: skip
        eventually(lambda: run.status().edges[-1].rejected == 3)
        now = next(e for e in run.status().edges if e.id == "run->logged.jobs")
        assert (now.depth, now.capacity, now.taken) == (10, 10, 0)
        run.resume(worker)
        results = run.results()
        assert [next(results) for _ in range(10)] == [("a", n) for n in range(10)]

        def room() -> bool:
            try:
                run.send(worker.jobs, ("a", 10))
            except EdgeFull:
                return False
            return True

        eventually(room)
        assert next(results) == ("a", 10)
        run.stop()
        report = run.wait(LONG_S)
    edge = report.edge("run->logged.jobs")
    assert edge.delivered == 11
    assert edge.rejected == edge.sent - 11 >= 3
    assert report.balances
