"""Sudden death of any process of a run: a typed error, exact words, and nothing left behind."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from dflow import (
    AgentDied,
    CoordinatorDied,
    Graph,
    Input,
    Node,
    NodeEnded,
    Output,
    Run,
    RunError,
    RunReport,
    WorkerDied,
    sink,
    source,
)
from tests.integration.flows import await_file, count, ended_by, endless, keep, python, swallow
from tests.support import eventually

pytestmark = pytest.mark.timeout(30)
GONE_S = 2.0


def start(**options: Any) -> Run:
    """Start a run of three workers and wait until messages flow."""
    run = Graph("faults", endless() >> keep() >> swallow()).start(**options)
    eventually(lambda: run.status().edges[1].delivered > 0)
    return run


def processes(run: Run) -> list[psutil.Process]:
    agent = run._launched.agent_pid
    return [psutil.Process(pid) for pid in {agent, *run.pids.values()}]


def alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def kill_and_wait(run: Run, pid: int) -> RunError:
    """Kill ``pid``; return the error of the run once nothing of it is left."""
    all_of_them, run_dir = processes(run), Path(run._launched.run_dir)
    assert run_dir.exists()
    assert oct(run_dir.stat().st_mode & 0o777) == "0o700"
    os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    with pytest.raises(RunError) as caught:
        run.wait(10)
    eventually(
        lambda: not any(map(alive, all_of_them)) and not run_dir.exists(),
        within_s=GONE_S,
        what="every process and the run directory to be gone",
    )
    assert time.monotonic() - killed < 5
    return caught.value


# --- kill -9 ------------------------------------------------------------------------------


@pytest.mark.parametrize("worker", ["endless[0]", "keep[0]", "swallow[0]"])
def test_killed_worker_ends_the_run_with_its_name_its_signal_and_what_was_in_flight(
    worker: str,
) -> None:
    run = start()
    error = kill_and_wait(run, run.pids[worker])
    assert isinstance(error, WorkerDied)
    text = str(error)
    assert worker in text
    assert "SIGKILL" in text
    assert "in flight by edge" in text or "nothing in flight" in text
    report = ended_by(error)
    assert report.outcome == "failed"
    assert report.error_kind == "worker_died"
    exact = {edge.id: edge.exact for edge in report.edges}
    assert (
        list(exact.values())
        == {
            "endless[0]": [False, True],
            "keep[0]": [False, False],
            "swallow[0]": [True, False],
        }[worker]
    )


def test_messages_in_flight_to_a_killed_worker_are_counted(tmp_path: Path) -> None:
    @sink
    def stuck(x: int) -> None:
        await_file(tmp_path / "never")

    graph = Graph("in_flight")
    graph.connect(count(1000), stuck(), capacity=10)
    run = graph.start()
    eventually(lambda: run.status().edges[0].sent >= 10)
    eventually(lambda: run.status().nodes[0].emitted >= 10)
    error = kill_and_wait(run, run.pids["stuck[0]"])
    assert "count.out->stuck.in 10" in str(error)
    (edge,) = ended_by(error).edges
    assert edge.delivered <= 1
    assert edge.abandoned >= 10


def test_killed_coordinator_is_told_and_leaves_nothing() -> None:
    run = start()
    (pid,) = (pid for name, pid in run.pids.items() if "coordinator" in name)
    error = kill_and_wait(run, pid)
    assert isinstance(error, CoordinatorDied)
    assert "SIGKILL" in str(error)
    assert isinstance(error.report, RunReport)
    assert error.report.outcome == "failed"


def test_killed_agent_is_told_and_leaves_nothing() -> None:
    run = start()
    error = kill_and_wait(run, run._launched.agent_pid)
    assert isinstance(error, AgentDied)
    assert "SIGKILL" in str(error)


def test_all_killed_at_once_leave_nothing() -> None:
    run = start()
    agent, run_dir, them = run._launched.agent_pid, run._launched.run_dir, processes(run)
    for process in them:
        if process.pid != agent:
            process.kill()
    os.kill(agent, signal.SIGKILL)
    with pytest.raises((AgentDied, CoordinatorDied, WorkerDied)):
        run.wait(10)
    eventually(lambda: not any(map(alive, them)) and not Path(run_dir).exists(), within_s=GONE_S)


def test_with_block_of_a_failed_run_raises_its_error() -> None:
    with pytest.raises(WorkerDied), start() as run:
        os.kill(run.pids["keep[0]"], signal.SIGKILL)


def test_killed_while_draining_is_an_error_still() -> None:
    run = start()
    os.kill(run.pids["swallow[0]"], signal.SIGSTOP)
    run.stop()
    eventually(lambda: run.phase == "draining")
    error = kill_and_wait(run, run.pids["swallow[0]"])
    assert isinstance(error, WorkerDied)


def test_reader_of_results_is_not_left_waiting() -> None:
    last = keep()
    run = Graph("reader", endless() >> last).start(results=last)
    values = run.results()
    assert next(values) == 0
    os.kill(run.pids["keep[0]"], signal.SIGKILL)
    for _ in values:
        pass
    with pytest.raises(WorkerDied):
        run.wait(10)


def test_sender_without_credit_is_not_left_waiting(tmp_path: Path) -> None:
    class Stuck(Node):
        data = Input(required=False)

        @data.handler
        def handle(self, x: int) -> None:
            await_file(tmp_path / "never")

    stuck = Stuck()
    run = Graph("sender", stuck).start()
    failed = threading.Event()

    def fill() -> None:
        for number in range(100_000):
            try:
                run.send(stuck, number)
            except NodeEnded:
                failed.set()
                return

    thread = threading.Thread(target=fill)
    thread.start()
    eventually(lambda: run.status().edges and run.status().edges[0].sent >= 1024)
    os.kill(run.pids["stuck[0]"], signal.SIGKILL)
    assert failed.wait(10)
    thread.join()
    with pytest.raises(WorkerDied) as caught:
        run.wait(10)
    ended_by(caught.value)


def test_with_block_left_after_the_run_has_failed_raises_why() -> None:
    last = keep()
    run = Graph("late", endless() >> last).start(results=last)

    def read_all() -> None:
        with run:
            os.kill(run.pids["keep[0]"], signal.SIGKILL)
            for _ in run.results():
                pass
            eventually(run._gone.is_set)

    with pytest.raises(WorkerDied):
        read_all()


def test_replica_is_named_by_its_number() -> None:
    graph = Graph("replica", endless() >> keep().options(replicas=3) >> swallow())
    run = graph.start()
    error = kill_and_wait(run, run.pids["keep[2]"])
    assert "keep[2]" in str(error)
    ended_by(error)


SCRIPT = """
import os, sys
from pathlib import Path
from dflow import Graph, sink, source

@source
def forever():
    while True:
        yield 1

@sink
def take(x):
    pass

if __name__ == "__main__":
    run = Graph("orphans", forever() >> take()).start()
    pids = {run._launched.agent_pid, *run.pids.values()}
    Path(sys.argv[1]).write_text(" ".join([run._launched.run_dir, *map(str, pids)]))
    Path(sys.argv[1] + ".done").touch()
    run.wait()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_killed_user_process_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    path, out = tmp_path / "orphans.py", tmp_path / "out"
    path.write_text(SCRIPT)
    with python(path, out) as process:
        eventually((tmp_path / "out.done").exists, within_s=20)
        run_dir, *pids = out.read_text().split()
        them = [psutil.Process(int(pid)) for pid in pids]
        assert len(them) == 4
        process.send_signal(number)
        process.communicate(timeout=10)
    assert process.returncode == -number
    eventually(
        lambda: not any(map(alive, them)) and not Path(run_dir).exists(),
        within_s=GONE_S,
        what="every process and the run directory to be gone",
    )


# --- user code that ends its process ------------------------------------------------------


def exits(x: int) -> None:
    if x == 5:
        os._exit(7)


def aborts(x: int) -> None:
    if x == 5:
        os.abort()


def segfaults(x: int) -> None:
    if x == 5:
        import ctypes

        ctypes.string_at(0)


def leaves(x: int) -> None:
    if x == 5:
        raise SystemExit(3)


@pytest.mark.parametrize(
    ("body", "how"),
    [(exits, "exit code 7"), (aborts, "SIGABRT"), (segfaults, "SIGSEGV"), (leaves, "exit code")],
    ids=["os._exit", "os.abort", "segfault", "sys.exit"],
)
def test_handler_that_ends_its_process_is_named(body: Callable[[int], None], how: str) -> None:
    dies = sink(body)()
    graph = Graph("dies")
    graph.connect(count(100), dies, capacity=1)
    with pytest.raises(WorkerDied) as caught:
        graph.run()
    text = str(caught.value)
    assert f"{body.__name__}[0]" in text
    assert how in text
    report = ended_by(caught.value)
    assert report.edges[0].delivered <= 6
    assert report.edges[0].abandoned >= 1


def test_source_that_ends_its_process_is_named() -> None:
    @source
    def dies() -> Iterator[int]:
        yield 1
        os._exit(9)

    with pytest.raises(WorkerDied, match=r"dies\[0\].*exit code 9") as caught:
        Graph("dies", dies() >> swallow()).run()
    ended_by(caught.value)


def test_worker_that_dies_as_it_starts_is_named() -> None:
    class Dies(Node):
        out = Output(int)

        def on_start(self) -> None:
            os._exit(9)

        def produce(self) -> Iterator[int]:
            yield 1

    with pytest.raises(RunError, match=r"dies\[0\].*exit code 9") as caught:
        Graph("dies", Dies()).run()
    ended_by(caught.value)
