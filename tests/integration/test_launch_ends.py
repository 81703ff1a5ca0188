"""Sudden ends: whatever dies, nothing of the run is left within two seconds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dflow.graph.plan import WorkerId
from dflow.launch.job import Seed
from dflow.launch.local import Launched
from dflow.launch.protocol import COORDINATOR, Event
from tests.integration.launch_entries import ROOT, alive, exits, start, undent, wait_for_ever
from tests.support import descendants, eventually

METHODS = pytest.mark.parametrize("method", ["fork", "spawn"])
GONE_S = 2.0


def stubborn(seed: Seed) -> int:
    """Be a worker that ignores what it can and has a child of its own."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    subprocess.Popen(["sleep", "1000"], stdin=subprocess.DEVNULL)
    Path(seed.run_dir, f"ready-{seed.worker.replica}").touch()
    return wait_for_ever(seed)


def session_of(pid: int) -> list[int]:
    found = []
    for other in descendants():
        try:
            if os.getsid(other) == pid:
                found.append(other)
        except OSError:
            continue
    return found


def start_stubborn(method: str, events: list[Event] | None = None) -> Launched:
    launched = start(stubborn, 3, None if events is None else events.append, start_method=method)
    eventually(
        lambda: len(list(Path(launched.run_dir).glob("ready-*"))) == 3, what="three busy workers"
    )
    return launched


@METHODS
def test_killed_agent_leaves_nothing_within_two_seconds(method: str) -> None:
    launched = start_stubborn(method)
    os.kill(launched.agent_pid, signal.SIGKILL)
    gone = launched.wait(GONE_S)
    assert (gone.orderly, gone.signal) == (False, signal.SIGKILL)
    assert session_of(launched.agent_pid) == []
    assert not Path(launched.run_dir).exists()


@METHODS
def test_killed_coordinator_ends_the_run_within_two_seconds(method: str) -> None:
    events: list[Event] = []
    launched = start_stubborn(method, events)
    os.kill(launched.pids[COORDINATOR], signal.SIGKILL)
    assert launched.wait(GONE_S).orderly
    assert exits(events)[COORDINATOR].cause == "signal SIGKILL"
    assert session_of(launched.agent_pid) == []
    assert not Path(launched.run_dir).exists()


@METHODS
def test_killed_worker_is_told_and_the_others_go_on(method: str) -> None:
    events: list[Event] = []
    launched = start_stubborn(method, events)
    victim = WorkerId("n", 1)
    os.kill(launched.pids[victim], signal.SIGKILL)
    eventually(lambda: victim in exits(events), what="the worker's end to be told")
    assert exits(events)[victim].cause == "signal SIGKILL"
    assert all(alive(pid) for pid in launched.pids.values())
    os.kill(launched.pids[WorkerId("n", 0)], signal.SIGKILL)
    eventually(lambda: WorkerId("n", 0) in exits(events), what="the second end to be told")
    os.kill(launched.pids[WorkerId("n", 2)], signal.SIGKILL)
    assert launched.wait(GONE_S).orderly
    assert session_of(launched.agent_pid) == []


@METHODS
@pytest.mark.parametrize("victims", ["user", "user and agent"])
def test_killed_user_process_leaves_nothing_within_two_seconds(
    method: str, victims: str, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        undent(f"""
        import json, signal, sys
        if __name__ == "__main__":
            launched = start(wait_for_ever, 3, start_method="{method}")
            pids = [launched.agent_pid, *launched.pids.values()]
            print(json.dumps([launched.run_dir, pids]), flush=True)
            signal.pause()
        """)
    )
    with subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as user:
        assert user.stdout is not None
        run_dir, pids = json.loads(user.stdout.readline())
        user.kill()
        if victims == "user and agent":
            os.kill(pids[0], signal.SIGKILL)
    eventually(lambda: not any(map(alive, pids)), within_s=GONE_S, what="all processes gone")
    if victims == "user":
        eventually(lambda: not Path(run_dir).exists(), within_s=GONE_S, what="its directory gone")
    else:  # nobody was left to do it: the next run on this host does
        os.utime(run_dir, (0, 0))
        start(lambda seed: 0).wait(10)
        assert not Path(run_dir).exists()


def test_user_process_killed_while_its_script_is_loading_leaves_nothing(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        undent("""
        import signal
        def body(seed): pass
        if __name__ == "__main__":
            finish(body)
        print("loading", flush=True)
        signal.pause()
        """)
    )
    with subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as user:
        assert user.stdout is not None
        assert user.stdout.readline() == "loading\n"
        ours = set(descendants())
        user.kill()
    eventually(
        lambda: not (ours & set(descendants())), within_s=GONE_S, what="agent and coordinator gone"
    )


def test_kill_from_the_user_process_leaves_nothing(tmp_path: Path) -> None:
    launched = start_stubborn("fork")
    launched.kill()
    assert session_of(launched.agent_pid) == []
    assert launched.pids.keys() <= {COORDINATOR, *(WorkerId("n", i) for i in range(3))}
    launched.kill()  # again is fine
