"""Programs that are unfriendly to a fork, or odd in other ways, run graphs like any other.

Each is a script of its own, because what it does to itself cannot be undone.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from dflow import Graph, RunReport, WorkerDied
from tests.integration.cycles import dies
from tests.integration.flows import LONG_S, ROOT, count, endless, keep, python, swallow

PRELUDE = """
import asyncio, logging, os, resource, signal, socket, sys, threading, time, warnings
from dflow import Graph, Input, Node, WorkerDied
from tests.integration.cycles import dies
from tests.integration.flows import count, endless, keep, swallow

def run(**options):
    report = Graph("odd", count(100) >> keep() >> swallow()).run(**options)
    assert report.balances
    return report.outcome

class Stuck(Node):
    into = Input(int)

    @into.handler
    def handle(self, x):
        open("begun", "w").close()
        time.sleep(1000)

    def on_stop(self):
        open("stopped", "w").close()

"""


def tell(tmp_path: Path, body: str) -> list[str]:
    """Run a script whose main part is ``body`` and return the lines it prints."""
    script = tmp_path / "odd.py"
    main = textwrap.indent(textwrap.dedent(body), "    ")
    script.write_text(f'{PRELUDE}if __name__ == "__main__":\n{main}')
    with python(script, cwd=tmp_path) as process:
        told, errors = process.communicate(timeout=LONG_S)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    return told.splitlines()


# --- several at once ----------------------------------------------------------------------


def test_run_that_fails_leaves_another_of_the_same_process_alone() -> None:
    last = keep()
    with Graph("fine", endless() >> last).start(results=last) as fine:
        values = fine.results()
        assert next(values) == 0
        with pytest.raises(WorkerDied, match="exit code 7"):
            Graph("fails", endless() >> dies()).run(log_level="CRITICAL")
        begun = [next(values) for _ in range(5000)]
        fine.stop()
        rest = list(values)
        report = fine.wait(LONG_S)
    assert [*begun, *rest] == list(range(1, 1 + len(begun) + len(rest)))
    assert report.outcome == "drained"
    assert report.balances


def test_runs_in_several_threads_at_once_each_come_to_their_end() -> None:
    reports: list[RunReport] = []

    def one(number: int) -> None:
        reports.append(Graph(f"thread-{number}", count(100 * number) >> swallow()).run())

    threads = [threading.Thread(target=one, args=(number,)) for number in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG_S)
    assert sorted(report.node("swallow").handled for report in reports) == [100, 200, 300]
    assert all(report.balances for report in reports)


def test_runs_in_threads_of_a_loop_do_not_hold_it_up() -> None:
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0.001)
            beats += 1

    async def main() -> list[RunReport]:
        beating = asyncio.create_task(beat())
        graphs = [Graph(f"loop-{number}", count(100) >> swallow()) for number in (1, 2)]
        reports = await asyncio.gather(*(asyncio.to_thread(graph.run) for graph in graphs))
        beating.cancel()
        return reports

    assert all(report.balances for report in asyncio.run(main()))
    assert beats > 10


# --- what cannot be forked ----------------------------------------------------------------


def test_parent_with_held_locks_sockets_and_a_running_loop(tmp_path: Path) -> None:
    told = tell(
        tmp_path,
        """
        import zmq
        context = zmq.Context()
        server, client = context.socket(zmq.REP), context.socket(zmq.REQ)
        client.connect(f"tcp://127.0.0.1:{server.bind_to_random_port('tcp://127.0.0.1')}")
        listening = socket.create_server(("127.0.0.1", 0))
        held, over = threading.Lock(), threading.Event()
        def hold():
            with held, logging._lock:
                over.wait()
        loop = asyncio.new_event_loop()
        threads = [threading.Thread(target=hold), threading.Thread(target=loop.run_forever)]
        for thread in threads:
            thread.start()
        print(run())
        async def inside():
            return await asyncio.to_thread(run)
        print(asyncio.run_coroutine_threadsafe(inside(), loop).result())
        client.send(b"still here")
        print(server.recv())
        over.set()
        loop.call_soon_threadsafe(loop.stop)
        for thread in threads:
            thread.join()
        loop.close()
        context.destroy(linger=0)
        """,
    )
    assert told == ["finished", "finished", "b'still here'"]


def test_child_of_a_fork_runs_graphs_of_its_own(tmp_path: Path) -> None:
    told = tell(
        tmp_path,
        """
        warnings.simplefilter("ignore")  # from Python 3.12: of the fork beside threads
        def in_child():
            child = os.fork()
            if child == 0:
                print("child", run(), flush=True)
                os._exit(3)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        print(run(), flush=True)
        in_child()
        with Graph("alive", endless() >> swallow()).start() as alive:
            in_child()
        print(alive.report.outcome, alive.report.balances)
        """,
    )
    assert told == ["finished", "child finished", "3", "child finished", "3", "drained True"]


# --- signals ------------------------------------------------------------------------------


def test_exit_code_of_a_worker_is_known_where_the_parent_ignores_its_children(
    tmp_path: Path,
) -> None:
    told = tell(
        tmp_path,
        """
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        print(run())
        try:
            Graph("dies", endless() >> dies()).run(log_level="CRITICAL")
        except WorkerDied as error:
            print("exit code 7" in str(error))
        """,
    )
    assert told == ["finished", "True"]


def test_abort_interrupts_code_where_the_parent_blocks_every_signal(tmp_path: Path) -> None:
    told = tell(
        tmp_path,
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        print(run())
        stuck_run = Graph("stuck", endless() >> Stuck()).start(log_level="CRITICAL")
        while not os.path.exists("begun"):
            time.sleep(0.01)
        stuck_run.abort()
        print(stuck_run.wait(20).outcome)
        """,
    )
    assert told == ["finished", "aborted"]
    assert (tmp_path / "stopped").exists()  # who is killed has no last word


def test_parent_that_dies_of_broken_pipes_outlives_its_agent(tmp_path: Path) -> None:
    told = tell(
        tmp_path,
        """
        from dflow import AgentDied
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        print(run())
        killed = Graph("killed", endless() >> swallow()).start(log_level="CRITICAL")
        os.kill(killed.pids["agent"], signal.SIGKILL)
        try:
            killed.wait(20)
        except AgentDied as error:
            print("SIGKILL" in str(error))
        """,
    )
    assert told == ["finished", "True"]


# --- open files ---------------------------------------------------------------------------


@pytest.mark.parametrize("closed", ["<&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_parent_without_standard_streams(tmp_path: Path, closed: str) -> None:
    script, told = tmp_path / "closed.py", tmp_path / "told"
    script.write_text(
        f'{PRELUDE}if __name__ == "__main__":\n    open({str(told)!r}, "w").write(run())\n'
    )
    command = f"exec {shlex.quote(sys.executable)} {shlex.quote(str(script))} {closed}"
    subprocess.run(
        ["/bin/sh", "-c", command],
        check=True,
        timeout=LONG_S,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert told.read_text() == "finished"


def test_parent_that_may_open_few_files(tmp_path: Path) -> None:
    told = tell(
        tmp_path,
        """
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        print(run())
        """,
    )
    assert told == ["finished"]
