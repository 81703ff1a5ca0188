"""``dflow status`` beside real runs: found by their directories, or asked by address."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from dflow import Graph, edge
from dflow.errors import RunError
from dflow.launch.observer import Observer
from dflow.launch.rundir import live_runs
from dflow.report import KeyStatus, RunStatus
from tests.integration.flows import Inlet, endless, keep, swallow
from tests.integration.test_cli import TOKEN, dflow, flows, started
from tests.support import eventually

__all__ = ["flows"]

pytestmark = pytest.mark.timeout(60)


def test_a_run_is_shown_while_it_goes_on_and_not_afterwards(flows: Path) -> None:
    with Graph("orders", endless() >> keep() >> swallow()).start() as run:
        shown = dflow(flows, "status")
        assert (shown.returncode, shown.stderr) == (0, "")
        assert shown.stdout.startswith(f"orders ({run.run_id})  running for ")
        assert "\nkeep.out->swallow.in " in shown.stdout
        assert "\x1b" not in shown.stdout
        named = dflow(flows, "status", run.run_id[:5], "--json")
        answer = json.loads(named.stdout)
        assert (answer["ok"], answer["exit_code"]) == (True, 0)
        status = RunStatus.from_dict(answer["status"])
        assert [node.name for node in status.nodes] == [n.name for n in run.status().nodes]
        assert dflow(flows, "status", "nope").returncode == 1
    gone = dflow(flows, "status")
    assert gone.returncode == 1
    assert "no run of yours is under way" in gone.stderr


def test_watching_ends_with_the_run(flows: Path) -> None:
    with started(flows, "run", "flows.py:endless", "--no-progress") as run:
        eventually(lambda: live_runs(), within_s=20)
        with started(flows, "status", "--watch", "--json") as watching:
            eventually(lambda: len(watching.out.read_text().splitlines()) >= 2, within_s=20)
            run.process.terminate()
            assert watching.ended() == 0
        run.ended()
    phases = [json.loads(line)["status"]["phase"] for line in watching.out.read_text().splitlines()]
    assert "running" in phases


def test_several_may_look_at_once_and_the_run_does_not_notice(flows: Path) -> None:
    with Graph("orders", endless() >> swallow()).start() as run:
        (found,) = live_runs()
        observers = [Observer(found.endpoint, found.token) for _ in range(5)]
        try:
            for _ in range(3):
                seen = [observer.status() for observer in observers]
                assert {status.phase for status in seen if status} == {"running"}
            with (
                Observer(found.endpoint, "guessed") as stranger,
                pytest.raises(RunError, match="sent away: token: not the one of this run"),
            ):
                stranger.status()
            run.stop()
            assert run.wait(20).balances
            for observer in observers:
                assert observer.status() is None
                assert observer.report is not None
                assert observer.report.outcome == "drained"
        finally:
            for observer in observers:
                observer.close()


def test_a_coordinator_started_by_hand_is_asked_by_its_address(flows: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    with started(flows, "coordinator", "flows.py:graph", "--listen", url) as coordinator:
        coordinator.await_text("waiting for 4 workers")
        shown = dflow(flows, "status", "--join", url, DFLOW_TOKEN=TOKEN)
        assert shown.returncode == 0, shown.stderr
        assert "waiting" in shown.stdout
        assert "2 absent" not in shown.stdout
        assert shown.stdout.count("absent") == 3  # nodes
        refused = dflow(flows, "status", "--join", url, DFLOW_TOKEN="wrong horse")
        assert refused.returncode == 1
        assert "sent away" in refused.stderr
        coordinator.process.terminate()
        coordinator.ended()
    gone = dflow(flows, "status", "--join", url, DFLOW_TOKEN=TOKEN)
    assert gone.returncode == 1
    assert "no answer within 3 s" in gone.stderr


# --- the numbers ---------------------------------------------------------------------------


def test_queues_are_exact_at_rest() -> None:
    inlet = Inlet()
    with Graph("q", inlet >> edge(capacity=64) >> keep() >> swallow()).start() as run:
        for number in range(500):
            run.send(inlet.data, number)

        def at_rest() -> bool:
            return all(e.done == e.sent == 500 for e in run.status().edges)

        eventually(at_rest, within_s=10)
        for status in run.status().edges:
            assert (status.depth, status.waiting, status.in_flight) == (0, 0, 0)
            assert status.sent == status.delivered == status.taken == status.done == 500
            assert status.oldest_s == 0


def test_keys_of_a_plain_edge_are_exact_at_rest() -> None:
    inlet = Inlet()
    keyed = edge(key=lambda x: x % 7, capacity=64)
    with Graph("k", inlet >> keyed >> keep().options(replicas=2) >> swallow()).start() as run:
        for number in range(700):
            run.send(inlet.data, number)

        def at_rest() -> bool:
            by_key = {key.key: key for e in run.status().edges for key in e.keys}
            return by_key == {
                str(k): KeyStatus(str(k), depth=0, waiting=0, in_flight=0, done=100)
                for k in range(7)
            }

        eventually(at_rest, within_s=10)
        assert all(e.oldest_s == 0 for e in run.status().edges)
