"""A run that does not get on is told as a deadlock, at once, and not by the limit."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from dflow import Graph, edge, node, sink, source
from dflow.flow.credit import ReceiveWindow
from dflow.testing import Drop, Faults, SimulationFailed, simulate, spend
from dflow.testing.kernel import current_task
from dflow.testing.network import Connection
from dflow.testing.system import Poller
from dflow.testing.world import World
from dflow.wire import frames as f


@source
def numbers(n: int) -> Iterator[int]:
    yield from range(n)


@node
def slow(x: int) -> int:
    spend(0.003)
    return x


@sink
def show(x: int) -> None:
    pass


def chain(n: int = 40) -> Graph:
    return Graph("chain", numbers(n) >> edge(capacity=4) >> slow() >> show())


def stuck(**options: Any) -> SimulationFailed:
    with pytest.raises(SimulationFailed) as failed:
        simulate(chain(), seed=1, **options)
    assert failed.value.what.startswith("deadlock: "), failed.value.what
    assert failed.value.simulation.now_s < 120
    return failed.value


def test_reports_that_are_lost_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    report = Connection.report

    def losing(self: Connection, frame: bytes) -> None:
        if frame[3] != f.CREDIT or self.reports < 0:
            report(self, frame)

    monkeypatch.setattr(Connection, "report", losing)
    stuck()


def test_reports_that_are_not_sent_though_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions are answered all the same, so the run does get on, a window a second."""
    monkeypatch.setattr(ReceiveWindow, "due", lambda self, idle: False)
    assert "it to report what is done" in stuck().what


@pytest.mark.parametrize(
    ("at_ns", "expected"),
    [(5_000_000, "expected it to take in frames"), (20_000_000, "expected it to report what is")],
    ids=["from the beginning", "later"],
)
def test_a_worker_that_never_looks_at_its_sockets_again(
    at_ns: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = Poller.wait

    def lost(self: Poller, timeout_s: float | None) -> list[Any]:
        task = current_task()
        assert task is not None
        found = wait(self, timeout_s)
        while task.name == "show[0]" and task.kernel.now > at_ns:
            task.kernel.park(3600.0)
        return found

    monkeypatch.setattr(Poller, "wait", lost)
    assert f"show[0]: {expected}" in stuck().what


def test_a_run_in_which_nothing_happens_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dflow.worker.source.SyncSource.turn", lambda self, way=None: None)
    monkeypatch.setattr("dflow.worker.work.Work.ready", lambda self: False)
    assert "run, running: expected something to happen within 30 s" in stuck().what


def test_code_that_takes_its_time_is_no_deadlock() -> None:
    @node
    def thorough(x: int) -> int:
        spend(45)
        return x

    @node
    async def patient(x: int) -> int:
        await asyncio.sleep(45)
        return x

    graph = Graph("patient", numbers(2) >> edge(capacity=1) >> thorough() >> patient() >> show())
    assert simulate(graph, seed=1).results("show") == [0, 1]


def test_reports_that_are_lost_again_and_again_are_no_deadlock() -> None:
    lost = [Drop("numbers[0].out->slow[0].in", number) for number in range(1, 8)]
    simulation = simulate(chain(3), seed=1, faults=Faults(exactly=lost))
    assert simulation.results("show") == [0, 1, 2]


def test_a_pause_is_no_deadlock() -> None:
    def paused(world: World) -> None:
        def hold() -> None:
            replica = world.workers[world.plan.workers[1]].replica
            assert replica is not None
            replica.work.hold("paused", on=True)

            def go_on() -> None:
                replica.work.hold("paused", on=False)
                replica.plane.wakeup.set()

            world.kernel.at(50_000_000_000, go_on)

        world.kernel.at(20_000_000, hold)

    simulation = simulate(chain(), seed=1, observe=paused, limit_s=300, raise_errors=False)
    assert simulation.results("show") == list(range(40))
