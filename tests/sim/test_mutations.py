"""A machine that is broken on purpose is found out, or nothing of this folder means anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dflow import Graph, edge, node, sink, source
from dflow.broker import orders
from dflow.broker.lifecycle import Move, Phase, Step
from dflow.flow.batch import Lane
from dflow.flow.credit import ReceiveWindow, SendWindow
from dflow.flow.in_edge import InChannel
from dflow.testing import SimulationFailed, simulate
from dflow.wire import control as c
from dflow.worker.inbound import Inbound
from dflow.worker.state import Phase as WorkerPhase
from dflow.worker.state import WorkerState
from tests.sim.campaign import explain
from tests.sim.oracle import problems
from tests.sim.spec import Case, EdgeSpec, NodeSpec
from tests.sim.trial import try_case


@source
def numbers() -> Iterator[int]:
    yield from range(40)


@node
def add(x: int) -> int:
    return x + 1


@sink
def store(x: int) -> None:
    pass


def chain() -> Graph:
    return Graph("chain", numbers() >> edge(capacity=4) >> add() >> edge(capacity=4) >> store())


def broken(invariant: str, graph: Graph | None = None) -> str:
    """Return what the simulator says of a graph; it names ``invariant``."""
    with pytest.raises(SimulationFailed) as failed:
        simulate(graph or chain(), seed=1, limit_s=100.0)
    text = str(failed.value)
    assert text.startswith(f"{invariant}: "), text
    assert "simulate(graph, seed=1)" in text
    return text


def test_as_it_is_nothing_is_found() -> None:
    assert simulate(chain(), seed=1).results("store") == list(range(1, 41))


def test_a_message_that_is_lost_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    accept = InChannel.accept

    def forgetful(self: InChannel, frame: Any, buffers: Any = ()) -> Any:
        batch = accept(self, frame, buffers)
        if frame.sequence > 8:
            self.inbox.pop()
        return batch

    monkeypatch.setattr(InChannel, "accept", forgetful)
    assert "channel" in broken("order")


def test_a_message_that_is_there_twice_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    accept = InChannel.accept

    def doubling(self: InChannel, frame: Any, buffers: Any = ()) -> Any:
        batch = accept(self, frame, buffers)
        if frame.sequence > 8 and batch is not None:
            self.inbox.append(batch)
            self.window.received += batch.count
        return batch

    monkeypatch.setattr(InChannel, "accept", doubling)
    broken("loss")


def test_credit_that_leaks_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    report = SendWindow.report

    def leaking(self: SendWindow, taken: int, taken_bytes: int, done: int) -> bool:
        return report(self, min(taken, 10), taken_bytes, min(done, 10))

    monkeypatch.setattr(SendWindow, "report", leaking)
    broken("deadlock")


def test_credit_that_nobody_gave_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def generous(self: ReceiveWindow) -> tuple[int, int, int, tuple[int, ...]]:
        return self.received, self.received_bytes, self.done, ()

    monkeypatch.setattr(ReceiveWindow, "report", generous)
    monkeypatch.setattr(ReceiveWindow, "due", lambda self, idle: True)
    broken("credit")


def test_a_receiver_that_never_reports_is_a_deadlock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Inbound, "grant", lambda self, idle: False)
    monkeypatch.setattr(Inbound, "_answer", lambda *args: None, raising=False)
    monkeypatch.setattr("dflow.worker.outbound.Outbound.ask", lambda self: None)
    assert "it to report what is done" in broken("deadlock")


def test_a_message_that_nobody_takes_is_a_deadlock(monkeypatch: pytest.MonkeyPatch) -> None:
    for question in ("waiting", "pop"):
        monkeypatch.setattr(f"dflow.flow.ready.ReadyQueue.{question}", lambda self, **only: None)
    assert "to take a message" in broken("deadlock")


@pytest.mark.parametrize("times", [0, 2])
def test_a_message_that_an_edge_forgets_or_doubles_before_it_counts_it_is_found(
    times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    push = Lane.push
    pushed = 0

    def wrong(self: Lane, payload: bytes, key: bytes = b"") -> bool:
        nonlocal pushed
        pushed += 1
        wanted = False
        for _ in range(times if pushed == 7 else 1):
            wanted = push(self, payload, key)
        return wanted

    monkeypatch.setattr(Lane, "push", wrong)
    assert "messages that were emitted, got" in broken("loss")


def test_a_window_that_is_not_kept_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SendWindow, "room", property(lambda self: 100))
    broken("depth")


def test_stopping_out_of_order_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    in_order = orders.next_level

    def all_at_once(phase: Phase, roll: Any) -> list[Any]:
        if phase is not Phase.STOPPING:
            return in_order(phase, roll)
        due = [p for p in roll if p.step is Step.DRAINED]
        return [todo for p in due for todo in orders._tell(p, Move.STOP, c.Stop())]

    monkeypatch.setattr(orders, "next_level", all_at_once)
    found = []
    for seed in range(8):  # by chance it may be in order
        try:
            simulate(chain(), seed=seed)
        except SimulationFailed as failed:
            found.append(failed.what.partition(":")[0])
    assert len(found) >= 4
    assert set(found) == {"life"}


def test_a_worker_that_runs_too_early_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = WorkerState.handle

    def hasty(self: WorkerState, event: Any, *now: float) -> list[Any]:
        done = handle(self, event, *now)
        if self.phase is WorkerPhase.READY:
            done += handle(self, c.Run(), *now)
        return done

    monkeypatch.setattr(WorkerState, "handle", hasty)
    broken("life")


# --- the oracle ---------------------------------------------------------------------------------


CASE = Case(
    1,
    (NodeSpec("s0", "source", "yield", count=30), NodeSpec("z0", "sink", "return")),
    (EdgeSpec("s0", "z0", capacity=4),),
)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda entries: entries.pop(3), "missing 3 of replica 0"),
        (lambda entries: entries.append(entries[-1]), "got one 2 times"),
        (lambda entries: entries.insert(0, entries.pop()), "in order, got number 0 after 29"),
    ],
    ids=["lost", "doubled", "overtaken"],
)
def test_the_oracle_finds_what_the_nodes_saw(
    spoil: Callable[[list[Any]], object], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoiled(case: Any, plan: Any, log: Any, report: Any) -> list[str]:
        spoil(log.handled["z0"])
        return problems(case, plan, log, report)

    assert try_case(CASE).wrong == ()
    monkeypatch.setattr("tests.sim.trial.problems", spoiled)
    assert any(said in text for text in try_case(CASE).wrong)


def test_a_failure_is_made_smaller_and_told_with_its_trace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nodes = (NodeSpec("s1", "source", "async", count=9, replicas=2), *CASE.nodes)
    case = Case(
        3, (*nodes, NodeSpec("z1", "sink", "async")), (*CASE.edges, EdgeSpec("s1", "z1")),
        faults={"delay_s": [0.0, 0.001], "duplicate_reports": 0.3},
    )  # fmt: skip
    monkeypatch.setattr(SendWindow, "room", property(lambda self: 100))
    told = explain(case, budget_s=5.0)
    assert "depth: edge s0.out->z0.into" in told
    assert '"s1"' not in told  # it has nothing to do with it
    assert "channel 0 " in told
