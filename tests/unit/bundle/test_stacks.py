"""Where threads are: told by the process itself, or seen from outside."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dflow.bundle.places import place_of
from dflow.bundle.stacks import coroutines, left_behind, seen_from_outside, threads
from tests.support import eventually

linux = pytest.mark.skipif(sys.platform != "linux", reason="signals and /proc of Linux")
PROCESS = """
import sys, time
from dflow.bundle.stacks import be_told_on
be_told_on(sys.argv[1])
def user_code():
    print("here", flush=True)
    {body}
user_code()
"""


@pytest.fixture
def process(tmp_path: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """A list for processes that are killed at the end."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for one in started:
        one.kill()
        one.wait()
        if one.stdout is not None:
            one.stdout.close()


def start(found: list[subprocess.Popen[bytes]], folder: Path, body: str) -> int:
    code = PROCESS.format(body=body)
    started = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    found.append(started)
    assert started.stdout is not None
    assert started.stdout.readline() == b"here\n"
    return started.pid


def test_all_threads_are_told_with_names_and_lines_and_no_values() -> None:
    go_on = threading.Event()
    inside = threading.Event()

    def waits(secret: str) -> None:
        inside.set()
        go_on.wait()

    thread = threading.Thread(target=waits, args=("a-payload",), name="worker-bee")
    thread.start()
    inside.wait()
    told = threads()
    go_on.set()
    thread.join()
    assert told.startswith("thread MainThread, which tells this")
    assert "thread worker-bee, most recent last:" in told
    assert "go_on.wait()" in told
    assert "a-payload" not in told.partition("thread worker-bee")[2]
    assert "_bootstrap" not in told


def test_coroutines_are_told_down_to_what_they_await() -> None:
    async def inner(secret: str) -> None:
        await asyncio.sleep(1000)

    async def outer() -> None:
        await inner("a-payload")

    async def look() -> str:
        tasks = [asyncio.create_task(outer(), name=f"job-{n}") for n in range(60)]
        await asyncio.sleep(0)
        told = coroutines(tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return told

    told = asyncio.run(look())
    first = told.partition("\n\n")[0]
    assert first.startswith("task job-0, most recent last:")
    assert first.index("in outer") < first.index("in inner") < first.index("in sleep")
    assert "await asyncio.sleep(1000)" in first
    assert told.endswith("and 10 more tasks")


@linux
def test_a_process_that_holds_the_lock_is_made_to_tell(
    process: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    hold = "import ctypes; sleep = ctypes.PyDLL(None).sleep\n    while True: sleep(1000)"
    pid = start(process, tmp_path, hold)
    told = ""

    def has_told() -> bool:
        nonlocal told
        told = seen_from_outside(pid, str(tmp_path))
        return "in user_code" in told

    eventually(has_told, what="its stacks")  # the machine may have no core for it at once
    assert "asked by a signal (faulthandler):" in told
    assert "State:" in told
    assert process[0].poll() is None  # looking does no harm


@linux
def test_one_that_is_stopped_is_seen_by_the_kernel(
    process: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    pid = start(process, tmp_path, "time.sleep(1000)")
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: "(stopped)" in seen_from_outside(pid, ""), what="it to stop")
    told = seen_from_outside(pid, str(tmp_path))
    assert "the process is stopped or in the kernel" in told
    assert place_of(told).endswith("(stopped)")


@linux
def test_one_that_never_asked_for_it_gets_no_signal(
    process: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    pid = start(process, tmp_path / "not there", "time.sleep(1000)")
    assert "asked by a signal" not in seen_from_outside(pid, str(tmp_path / "not there"))
    assert process[0].poll() is None


@linux
def test_a_crash_leaves_the_stacks_behind(
    process: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    pid = start(process, tmp_path, "import ctypes; ctypes.string_at(0)")
    assert process[0].wait(20) == -signal.SIGSEGV
    told = left_behind(str(tmp_path), pid)
    assert "Segmentation fault" in told
    assert place_of(told).endswith(" in string_at")
    assert "in user_code" in told


def test_nothing_was_left_where_nothing_crashed(tmp_path: Path) -> None:
    assert left_behind(str(tmp_path), 1) == left_behind("", 1) == ""


def test_of_a_process_that_is_gone_nothing_is_seen() -> None:
    told = seen_from_outside(2**22 + 1, "")
    assert "asked by a signal" not in told
    assert "the kernel:" not in told
