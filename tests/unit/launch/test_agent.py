"""What the agent makes of the order in which it hears things."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dflow.graph.plan import NodePlan, Plan, WorkerId
from dflow.launch.agent import Agent
from dflow.launch.job import Job
from dflow.launch.pipe import Pipe
from dflow.launch.protocol import (
    Event,
    Exited,
    Failed,
    Started,
    Warned,
    pack_event,
    parse_event,
)
from dflow.options import RunOptions

WORKERS = (WorkerId("n", 0), WorkerId("n", 1))


@dataclass
class Bench:
    """An agent with two spawned workers that are only pipes, and what it told the user."""

    agent: Agent
    user: Pipe
    workers: dict[WorkerId, Pipe]

    def said(self, worker: WorkerId, *events: Event) -> None:
        for event in events:
            self.workers[worker].send(pack_event(event))

    def told(self) -> list[Event]:
        return [parse_event(message) for message in self.user.available()]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    user, link = Pipe.pair()
    job = Job(
        run_id="r", token="t", epoch=1, plan=Plan("p", (NodePlan("n", "node", 2, 0, (), ()),), ()),
        options=RunOptions(start_method="spawn"), with_handle=False, code=b"", main=None,
        sys_path=[], cwd="/", argv=[], captured=False,
    )  # fmt: skip
    agent: Any = Agent(link, job, os.getppid())
    pipes = {worker: Pipe.pair() for worker in WORKERS}
    agent._loading = {worker: ours for worker, (ours, _) in pipes.items()}
    yield Bench(agent, user, {worker: theirs for worker, (_, theirs) in pipes.items()})
    agent._directory.remove()
    agent._selector.close()
    os.close(agent._parent_fd)
    os.close(agent._directory._lock)
    for pipe in (user, link, agent._coordinator, agent._coordinator_end, *sum(pipes.values(), ())):
        pipe.close()


def test_worker_that_was_ready_and_ended_before_anybody_looked_did_not_fail(bench: Bench) -> None:
    bench.said(WORKERS[0], Started())
    bench.workers[WORKERS[0]].close()
    ended = Exited(WORKERS[0], 1, 0, None)
    bench.agent._on_exited(ended)
    assert bench.told() == [ended]
    bench.agent._on_spawned(WORKERS[0])  # its end of file, from the same round
    assert bench.told() == []


def test_worker_that_ended_before_it_was_ready_fails_the_start(bench: Bench) -> None:
    bench.agent._on_exited(Exited(WORKERS[0], 1, None, 9))
    failed, _ = bench.told()
    assert failed == Failed("n[0]: signal SIGKILL before it had loaded the user's code")


def test_last_words_of_a_worker_that_could_not_load_are_the_reason(bench: Bench) -> None:
    bench.said(WORKERS[0], Failed("no such module"))
    bench.agent._on_exited(Exited(WORKERS[0], 1, 70, None))
    assert bench.told()[0] == Failed("no such module")
    assert len(bench.told()) == 0


def test_run_is_started_when_all_are_ready_and_warned_about_once(bench: Bench) -> None:
    warned = Warned("the guard")
    for worker in WORKERS:
        assert Started() not in bench.told()
        bench.said(worker, warned, Started())
        bench.agent._on_spawned(worker)
    assert bench.told() == [Started()]


def test_kill_of_an_unknown_worker_is_ignored(bench: Bench) -> None:
    bench.agent._obey({"kill": ["nobody", 3]})
    bench.agent._obey({"nonsense": 1})
    assert bench.told() == []
