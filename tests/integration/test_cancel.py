"""Cancelling messages of a run with real processes: queued, in hand, done, and unheard of."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dflow import (
    Cancelled,
    Context,
    Graph,
    Input,
    Node,
    NodeEnded,
    OptionError,
    Output,
    Run,
    node,
)
from dflow.report import EdgeStatus
from tests.integration.flows import Inlet, await_file, swallow, write_line
from tests.support import eventually

pytestmark = pytest.mark.timeout(60)

LONG_S = 20.0


class Gated(Node):
    """Holds its first message until a file is there; notes and emits what it handles."""

    jobs = Input(Any, required=False)
    out = Output()

    def __init__(self, gate: Path, log: Path) -> None:
        self.gate = gate
        self.log = log

    @jobs.handler
    def handle(self, job: Any) -> Any:
        write_line(self.log, job)
        await_file(self.gate)
        return job


class Polling(Node):
    """Works until it is told that nobody wants the result any more, or a file is there."""

    jobs = Input(Any, required=False)
    out = Output()

    def __init__(self, log: Path, go_on: Path) -> None:
        self.log = log
        self.go_on = go_on

    @jobs.handler
    def handle(self, job: Any, ctx: Context) -> Any:
        write_line(self.log, job)
        eventually(lambda: ctx.cancelled or self.go_on.exists(), within_s=LONG_S)
        return job, ctx.cancelled


@node
async def polling(job: Any, log: str, go_on: str, ctx: Context) -> Any:
    """Do the same as `Polling`, as a task."""
    write_line(Path(log), job)
    async with asyncio.timeout(LONG_S):
        while not (ctx.cancelled or os.path.exists(go_on)):  # noqa: ASYNC110, ASYNC240  # polling is the point
            await asyncio.sleep(0.005)
    return job, ctx.cancelled


def lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def of(run: Run, edge_id: str) -> EdgeStatus:
    """Return an edge as it is now; one on which nothing was sent yet is empty."""
    return next((e for e in run.status().edges if e.id == edge_id), EdgeStatus(edge_id))


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    return tmp_path / "gate"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


# --- queued --------------------------------------------------------------------------------


class Dispatching(Node):
    """Emits each number with an id made of it; the last one tells that all were emitted."""

    numbers = Output(int)

    def __init__(self, emitted: Path) -> None:
        self.emitted = emitted

    def produce(self) -> Iterator[None]:
        for number in range(10):
            self.numbers.emit(number, id=f"number {number}")
        self.emitted.touch()
        yield None


@pytest.mark.parametrize("capacity", [3, 64])
@pytest.mark.parametrize("replicas", [1, 2])
def test_what_a_node_emitted_is_cancelled_by_the_id_it_gave(
    capacity: int, replicas: int, gate: Path, log: Path, tmp_path: Path
) -> None:
    gated = Gated(gate, log).options(replicas=replicas, ordered=True)
    first = Dispatching(tmp_path / "emitted")
    graph = Graph("c")
    graph.connect(first.numbers, gated.jobs, cancellable=True, capacity=capacity)
    with graph.start(results=gated) as run:
        await_file(tmp_path / "emitted")
        eventually(lambda: len(lines(log)) == replicas)
        found = [run.cancel(f"number {n}") for n in (3, 9, 5, 0)]
        assert found == [*[Cancelled.CANCELLED] * 3, Cancelled.HANDLING]
        gate.touch()
        assert list(run.results()) == [0, 1, 2, 4, 6, 7, 8]
        report = run.wait(LONG_S)
    assert report.edge("dispatching.numbers->gated.jobs").cancelled == 3
    assert report.balances, report.imbalances


def test_three_of_ten_never_reach_the_handler_and_the_others_keep_their_order(
    gate: Path, log: Path
) -> None:
    gated = Gated(gate, log)
    with Graph("c", gated).start(results=gated) as run:
        ids = [run.send(gated.jobs, number) for number in range(10)]
        assert len(set(ids)) == 10
        eventually(lambda: lines(log) == ["0"])
        assert [run.cancel(ids[n]) for n in (3, 8, 5)] == [Cancelled.CANCELLED] * 3
        assert run.cancel(ids[3]) in (Cancelled.CANCELLED, Cancelled.DONE)  # again: no harm
        gate.touch()
        run.stop()
        assert list(run.results()) == [0, 1, 2, 4, 6, 7, 9]
        report = run.wait(LONG_S)
    assert lines(log) == ["0", "1", "2", "4", "6", "7", "9"]
    books = report.edge("run->gated.jobs")
    assert (books.sent, books.delivered, books.cancelled) == (10, 7, 3)
    assert report.balances


def test_what_waits_for_credit_is_cancelled_at_its_sender(gate: Path, log: Path) -> None:
    gated = Gated(gate, log)
    graph = Graph("c", gated).accept(gated.jobs, policy="drop_oldest", capacity=8)
    with graph.start() as run:
        ids = [run.send(gated.jobs, 0)]
        eventually(lambda: lines(log) == ["0"])
        ids += [run.send(gated.jobs, number) for number in range(1, 8)]
        assert run.cancel(ids[7]) is Cancelled.CANCELLED
        assert run.cancel(ids[4]) is Cancelled.CANCELLED
        eventually(lambda: of(run, "run->gated.jobs").cancelled == 2)  # at the sender, so at once
        ids += [run.send(gated.jobs, number) for number in (8, 9)]  # there is room again
        gate.touch()
        run.stop()
        report = run.wait(LONG_S)
    assert lines(log) == ["0", "1", "2", "3", "5", "6", "8", "9"]
    books = report.edge("run->gated.jobs")
    assert (books.sent, books.delivered, books.cancelled, books.dropped) == (10, 8, 2, 0)
    assert report.balances


def test_depth_is_right_after_a_cancel(gate: Path, log: Path) -> None:
    gated = Gated(gate, log)
    with Graph("c", gated >> swallow()).start() as run:
        ids = [run.send(gated.jobs, number) for number in range(10)]
        eventually(lambda: of(run, "run->gated.jobs").in_flight == 10)
        run.cancel(ids[4])
        run.cancel(ids[9])
        gate.touch()
        eventually(lambda: of(run, "run->gated.jobs").cancelled == 2)
        now = of(run, "run->gated.jobs")
        assert (now.sent, now.taken, now.done, now.cancelled) == (10, 8, 8, 2)
        assert (now.depth, now.waiting, now.in_flight) == (0, 0, 0)


# --- being handled, done, unknown ----------------------------------------------------------


def test_a_handler_at_work_sees_that_it_is_cancelled(tmp_path: Path, log: Path) -> None:
    worker = Polling(log, tmp_path / "go_on")
    with Graph("c", worker).start(results=worker) as run:
        first, second = run.send(worker.jobs, 1), run.send(worker.jobs, 2)
        results = run.results()
        eventually(lambda: lines(log) == ["1"])
        assert run.cancel(first) is Cancelled.HANDLING
        assert next(results) == (1, True)
        eventually(lambda: lines(log) == ["1", "2"])
        (tmp_path / "go_on").touch()
        assert next(results) == (2, False)
        assert run.cancel(second) is Cancelled.DONE
        run.stop()
        report = run.wait(LONG_S)
    assert report.edge("run->polling.jobs").delivered == 2
    assert report.edge("run->polling.jobs").cancelled == 0
    assert report.balances


def test_only_the_task_that_is_meant_is_cancelled(tmp_path: Path, log: Path) -> None:
    worker = polling(str(log), str(tmp_path / "go_on")).options(concurrency=4)
    with Graph("c", worker).accept(worker).start(results=worker) as run:
        ids = [run.send(worker, number) for number in range(6)]
        eventually(lambda: len(lines(log)) == 4)
        assert run.cancel(ids[2]) is Cancelled.HANDLING
        results = run.results()
        assert next(results) == (2, True)
        eventually(lambda: len(lines(log)) == 5)
        assert run.cancel(ids[5]) is Cancelled.CANCELLED
        (tmp_path / "go_on").touch()
        run.stop()
        assert sorted(results) == [(0, False), (1, False), (3, False), (4, False)]
        assert run.wait(LONG_S).balances


def test_what_is_done_or_unheard_of_says_so() -> None:
    inlet = Inlet()
    with Graph("c", inlet).start(results=inlet) as run:
        sent = run.send(inlet.data, 1)
        assert next(run.results()) == 1
        assert run.cancel(sent) is Cancelled.DONE
        assert run.cancel("nobody's") is Cancelled.UNKNOWN
        with pytest.raises(OptionError, match="expected the id of a message as text, got 7"):
            run.cancel(7)  # type: ignore[arg-type]  # a mistake
        run.stop()
        run.wait(LONG_S)
    with pytest.raises(NodeEnded):
        run.cancel(sent)


# --- ids -----------------------------------------------------------------------------------


def test_a_message_sent_with_an_id_of_ones_own_is_cancelled_by_it(gate: Path, log: Path) -> None:
    gated = Gated(gate, log)
    with Graph("c", gated >> swallow()).start() as run:
        run.send(gated.jobs, 0)
        assert run.send(gated.jobs, 1, id="order-7") == "order-7"
        eventually(lambda: lines(log) == ["0"])
        assert run.cancel("order-7") is Cancelled.CANCELLED
        gate.touch()
        run.stop()
        assert run.wait(LONG_S).balances
    assert lines(log) == ["0"]


# --- from everywhere at once ---------------------------------------------------------------


def test_several_threads_cancel_what_they_sent(gate: Path, log: Path) -> None:
    gated = Gated(gate, log)
    outcomes: dict[int, Cancelled] = {}

    def send_and_cancel(run: Run, numbers: Iterator[int]) -> None:
        for number in numbers:
            sent = run.send(gated.jobs, number)
            if number % 2:
                outcomes[number] = run.cancel(sent)

    with Graph("c", gated).start(results=gated) as run:
        run.send(gated.jobs, -1)
        eventually(lambda: lines(log) == ["-1"])
        threads = [
            threading.Thread(target=send_and_cancel, args=(run, iter(range(k * 20, k * 20 + 20))))
            for k in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LONG_S)
        gate.touch()
        run.stop()
        got = list(run.results())
        report = run.wait(LONG_S)
    assert outcomes == dict.fromkeys(range(1, 80, 2), Cancelled.CANCELLED)
    assert sorted(got) == [-1, *range(0, 80, 2)]
    for start in range(0, 80, 20):  # each thread's messages in the order it sent them
        mine = [n for n in got if start <= n < start + 20]
        assert mine == sorted(mine)
    assert report.edge("run->gated.jobs").cancelled == 40
    assert report.balances
