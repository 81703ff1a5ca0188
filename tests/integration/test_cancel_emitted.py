"""Cancelling what nodes emit with an id, wherever it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dflow import Cancelled, Graph, HookFailed, Input, Node, Output, edge
from tests.integration.flows import keep, swallow
from tests.integration.test_cancel import LONG_S, Gated, gate, lines, log, of
from tests.support import eventually

__all__ = ["gate", "log"]

pytestmark = pytest.mark.timeout(60)


class Naming(Node):
    """Emits each message with an id made of it."""

    jobs = Input(Any, required=False)
    out = Output()

    @jobs.handler
    def handle(self, job: Any) -> None:
        self.out.emit(job, id=f"job-{job}")


def test_what_a_node_emitted_with_an_id_is_cancelled_by_it(gate: Path, log: Path) -> None:
    naming, gated = Naming(), Gated(gate, log)
    graph = Graph("c", naming >> edge(cancellable=True, capacity=4) >> gated)
    with graph.start(results=gated) as run:
        for number in range(10):
            run.send(naming.jobs, number)
        eventually(lambda: lines(log) == ["0"])
        eventually(lambda: of(run, "naming.out->gated.jobs").in_flight == 4)
        # 2 was sent, 7 has not left, or was not even emitted
        assert run.cancel("job-2") is Cancelled.CANCELLED
        assert run.cancel("job-0") is Cancelled.HANDLING
        gate.touch()
        run.stop()
        assert list(run.results()) == [0, 1, 3, 4, 5, 6, 7, 8, 9]
        report = run.wait(LONG_S)
    assert report.edge("naming.out->gated.jobs").cancelled == 1
    assert report.balances


def test_an_id_that_goes_along_is_cancelled_wherever_the_message_is(gate: Path, log: Path) -> None:
    naming, gated = Naming(), Gated(gate, log)
    with Graph("c", naming >> edge(cancellable=True) >> gated).start(results=gated) as run:
        for number in range(3):
            run.send(naming.jobs, number, id=f"job-{number}")
        eventually(lambda: lines(log) == ["0"])
        eventually(lambda: of(run, "naming.out->gated.jobs").sent == 3)
        assert run.cancel("job-2") is Cancelled.CANCELLED  # done at the first node, queued here
        gate.touch()
        run.stop()
        assert list(run.results()) == [0, 1]
        assert run.wait(LONG_S).balances


def test_all_copies_of_a_message_are_cancelled(tmp_path: Path) -> None:
    gate, logs = tmp_path / "gate", [tmp_path / "left", tmp_path / "right"]
    naming = Naming()
    left = Gated(gate, logs[0]).options(name="left")
    right = Gated(gate, logs[1]).options(name="right")
    graph = Graph("c")
    graph.connect(naming, left, cancellable=True)
    graph.connect(naming, right, cancellable=True)
    graph.add(left >> swallow().options(name="l"), right >> swallow().options(name="r"))
    with graph.start() as run:
        for number in range(3):
            run.send(naming.jobs, number)
        eventually(lambda: all(lines(log) == ["0"] for log in logs))
        eventually(lambda: all(e.sent == 3 for e in run.status().edges if "naming.out" in e.id))
        assert run.cancel("job-1") is Cancelled.CANCELLED
        gate.touch()
        run.stop()
        report = run.wait(LONG_S)
    assert [lines(log) for log in logs] == [["0", "2"], ["0", "2"]]
    assert [report.edge(f"naming.out->{side}.jobs").cancelled for side in ("left", "right")] == [
        1, 1,
    ]  # fmt: skip
    assert report.balances


def test_an_edge_without_ids_refuses_one_and_says_what_to_do() -> None:
    naming = Naming().options(on_error="stop")
    with Graph("c", naming >> keep() >> swallow()).start() as run:
        run.send(naming.jobs, 1)
        with pytest.raises(HookFailed, match=r"cancellable=True"):
            run.wait(LONG_S)
