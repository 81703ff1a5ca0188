"""Pausing, resuming and draining one node of a run with real processes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from dflow import (
    Graph,
    GraphError,
    Input,
    Node,
    NodeEnded,
    Output,
    Priority,
    Run,
    RunStatus,
    node,
    source,
)
from dflow.report import NodeStatus
from tests.integration.flows import Inlet, count, endless, keep, swallow
from tests.support import eventually

pytestmark = pytest.mark.timeout(30)


class Worker(Node):
    """Passes data on, answers control messages, and ticks."""

    data = Input(int)
    control = Input(int, priority=Priority.CONTROL, required=False)
    out = Output()

    @data.handler
    def handle(self, x: int) -> int:
        return x

    @control.handler
    def change(self, x: int) -> tuple[str, int]:
        return "control", x

    def on_tick(self) -> str:
        return "tick"


@source
def napping(pause_s: float) -> Iterator[int]:
    """Count for ever, with a nap after each number."""
    number = 0
    while True:
        yield number
        number += 1
        time.sleep(pause_s)


@node
def slow(x: int) -> int:
    """Take a moment for each message."""
    time.sleep(0.001)
    return x


QUIET_S = 0.6
"""Longer than what a worker counts takes to show in the status."""


def of(status: RunStatus, name: str) -> NodeStatus:
    """Return one node of a status."""
    return next(n for n in status.nodes if n.name == name)


def handled(run: Run, name: str) -> int:
    """Return how many messages a node has handled and emitted, as far as is known."""
    now = of(run.status(), name)
    return now.handled + now.emitted


def settled(run: Run, name: str) -> int:
    """Return how many messages a node has handled and emitted once that changes no more."""
    seen, since_s = -1, 0.0

    def unchanged() -> bool:
        nonlocal seen, since_s
        status = run.status()
        now = of(status, name)
        if now.handled + now.emitted != seen:
            seen, since_s = now.handled + now.emitted, status.uptime_s
        return status.uptime_s - since_s > QUIET_S

    eventually(unchanged, within_s=10)
    return seen


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_paused_node_handles_nothing_until_it_is_resumed(replicas: int) -> None:
    step = keep().options(name="step", replicas=replicas)
    with Graph("p", endless() >> step >> swallow()).start() as run:
        eventually(lambda: handled(run, "step") > 100)
        run.pause(step)
        paused = settled(run, "step")
        assert [n.name for n in run.status().nodes if n.paused] == ["step"]
        run.resume("step")
        eventually(lambda: handled(run, "step") > paused + 100)
        assert not any(n.paused for n in run.status().nodes)
        run.stop()
        assert run.wait(20).balances


@pytest.mark.parametrize("make", [endless, lambda: napping(0.002)], ids=["busy", "blocked"])
def test_a_paused_source_emits_nothing_until_it_is_resumed(make: Any) -> None:
    numbers = make().options(name="numbers")
    with Graph("p", numbers >> swallow()).start() as run:
        eventually(lambda: handled(run, "numbers") > 10)
        run.pause(numbers)
        paused = settled(run, "numbers")
        run.resume(numbers)
        eventually(lambda: handled(run, "numbers") > paused + 10)


def test_nothing_is_lost_or_reordered_by_pausing() -> None:
    step = slow()
    with Graph("p", count(300) >> step).start(results=step) as run:
        for _ in range(5):
            run.pause(step)
            run.resume(step)
        assert list(run.results()) == list(range(300))
        assert run.wait(20).balances


def test_a_paused_node_hears_control_messages_and_ticks() -> None:
    worker = Worker().options(tick_s=0.02)
    with Graph("p", napping(0.001) >> worker.data).start(results=worker) as run:
        run.pause(worker)
        results = run.results()
        quiet = 0
        while quiet < 5:  # ticks in a row: no data comes in between any more
            quiet = quiet + 1 if next(results) == "tick" else 0
        run.send(worker.control, 7)
        assert next(value for value in results if value != "tick") == ("control", 7)
        run.resume(worker)
        assert isinstance(next(value for value in results if value != "tick"), int)


def test_a_node_paused_while_it_waits_for_credit_stays_paused_when_it_gets_some() -> None:
    first, last = keep().options(name="first"), keep().options(name="last")
    with Graph("p", endless() >> first >> last >> swallow()).start() as run:
        run.pause(last)
        settled(run, "first")  # it is full up to the source now
        run.pause(first)
        run.resume(last)
        paused = settled(run, "first")
        run.resume(first)
        eventually(lambda: handled(run, "first") > paused + 100)


def test_leaving_the_block_lets_everybody_go_on_and_drains() -> None:
    inlet = Inlet()
    with Graph("p", inlet >> swallow()).start() as run:
        run.pause(inlet)
        for number in range(50):
            run.send(inlet.data, number)
    report = run.report
    assert report is not None
    assert report.outcome == "drained"
    assert report.edge("run->inlet.data").delivered == 50
    assert report.wall_s < 10


def test_an_aborted_run_ends_its_paused_nodes() -> None:
    step = keep().options(name="step")
    with Graph("p", endless() >> step >> swallow()).start() as run:
        run.pause(step)
        run.abort()
        assert run.wait(20).outcome == "aborted"


def test_what_cannot_be_paused_is_told_apart() -> None:
    numbers, last = count(3), swallow()
    with Graph("p", numbers >> last, lone := Inlet()).start() as run:
        for act in (run.pause, run.resume, run.drain):
            with pytest.raises(GraphError, match="no node 'swalow'; did you mean 'swallow'"):
                act("swalow")
            with pytest.raises(GraphError, match="is not in it"):
                act(count(1))
        eventually(lambda: run.status().nodes[0].workers == ("drained",))
        with pytest.raises(NodeEnded, match="count: the node has ended"):
            run.pause(numbers)
        run.pause(lone)
        run.stop()
        with pytest.raises(NodeEnded):
            run.pause(lone)
        run.wait(20)
    with pytest.raises(NodeEnded, match="the run has ended"):
        run.resume(lone)


# --- draining one node ---------------------------------------------------------------------


def test_draining_a_node_ends_what_feeds_it_and_the_rest_goes_on() -> None:
    one, other = endless().options(name="one"), endless().options(name="other")
    last, rest = swallow().options(name="last"), swallow().options(name="rest")
    with Graph("d", one >> keep() >> last, other >> rest).start() as run:
        run.pause("keep")
        run.drain(last)
        eventually(lambda: of(run.status(), "last").workers == ("drained",))
        for name in ("one", "keep"):
            assert of(run.status(), name).workers == ("drained",)
        before = handled(run, "other")
        eventually(lambda: handled(run, "other") > before + 100)
        run.stop()
        assert run.wait(20).balances


def test_draining_what_the_outside_feeds_handles_all_that_was_sent_first() -> None:
    inlet = Inlet()
    with Graph("d", inlet >> swallow(), endless() >> keep() >> swallow()).start() as run:
        run.pause(inlet)
        for number in range(200):
            run.send(inlet.data, number)
        run.drain(inlet)
        with pytest.raises(NodeEnded):
            run.send(inlet.data, 1)
        eventually(lambda: of(run.status(), "inlet").workers == ("drained",))
        run.stop()
        report = run.wait(20)
    assert report.edge("run->inlet.data").delivered == 200
    assert report.balances


# --- nodes that share a worker ---------------------------------------------------------------


def test_one_of_two_nodes_in_a_worker_is_paused_and_the_other_goes_on() -> None:
    one, other = keep().options(name="one"), keep().options(name="other")
    graph = Graph(
        "f",
        endless().options(name="e1") >> one >> swallow().options(name="s1"),
        endless().options(name="e2") >> other >> swallow().options(name="s2"),
    )
    with graph.fuse(one, other).start() as run:
        eventually(lambda: handled(run, "one") > 100 and handled(run, "other") > 100)
        run.pause(one)
        paused, going = settled(run, "one"), handled(run, "other")
        eventually(lambda: handled(run, "other") > going + 100)
        assert [n.name for n in run.status().nodes if n.paused] == ["one"]
        run.resume(one)
        eventually(lambda: handled(run, "one") > paused + 100)
        run.stop()
        assert run.wait(20).balances


def test_a_chain_in_one_worker_is_drained_by_its_last_node() -> None:
    numbers, step, last = endless().options(name="numbers"), keep(), swallow()
    graph = Graph("f", numbers >> step >> last, other := Inlet())
    with graph.fuse(numbers, step, last).start() as run:
        eventually(lambda: handled(run, "swallow") > 100)
        run.pause(step)
        run.drain(last)
        eventually(lambda: of(run.status(), "swallow").workers == ("drained",))
        run.send(other.data, 1)
        run.stop()
        assert run.wait(20).balances
