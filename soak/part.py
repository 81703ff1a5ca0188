"""One part of a soak, from an empty machine to an empty machine: a soak has one for each start.

Before anything is measured a small run is started and ended, because the first run of a process
imports modules and opens a ZeroMQ context that stay. What there is then is what there must be
in the end: processes (those with the mark of this part in their environment, orphans too),
threads, files, sockets, shared memory, temporary files. Temporary files have a directory of their
own, logs go into a file, so that neither mixes with those of others.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

from dflow import Graph, sink, source
from soak.conduct import Conduct, Ended
from soak.looking import MARK, leftovers, marked
from soak.samples import SampleFile
from soak.state import State, save

__all__ = ["BUNDLES", "LOG", "PROFILES", "SAMPLES", "run_part", "sweep"]

PROFILES = ("mixed", "frames", "control", "churn")
SAMPLES = "samples.jsonl"
BUNDLES = "bundles"
LOG = "log.jsonl"
SETTLE_S = 5.0


@source
def few() -> Iterator[int]:
    """Yield a little."""
    yield from range(10)


@sink
def take(number: int) -> None:
    """Take it."""


def run_part(folder: Path, state: State, left_s: float, show: Callable[[Any], None]) -> str:
    """Soak for ``left_s`` seconds more; return how it ended: ``finished``, ``stopped``, ``failed``.

    ``state`` is what was asked for and the last part's number; the file is kept up to date. The
    lines of the part end with one that says the same, and what was left behind.
    """
    mark = secrets.token_hex(8)
    temp = Path(tempfile.mkdtemp(prefix="soak-"))
    state = state.next_part(str(temp), mark)
    save(folder, state)
    drive = import_module(f"soak.profiles.{state.profile}").drive
    with _surroundings(folder / LOG, temp, mark), SampleFile(folder / SAMPLES) as file:
        conduct = Conduct(
            file, part=state.part, seed=state.seed, load=state.load, temp=temp, left_s=left_s,
            sample_s=state.sample_s, show=show, bundles=folder / BUNDLES,
        )  # fmt: skip
        conduct.write("part", **_about(state))
        with _stopping(conduct):
            _trial()
            before = leftovers(mark, temp)
            conduct.begin()
            try:
                drive(conduct)
            except Ended:
                pass  # the reason is in `conduct.failure`
            except KeyboardInterrupt:
                conduct.stop()
            finally:
                conduct.end()
            after = _settled(before, mark, temp)
        how = "failed" if conduct.failure else "stopped" if conduct.stopped else "finished"
        conduct.write(
            "end", how=how, reason=conduct.failure, before=before, after=after,
            samples_lost=file.lost_in_all, left=list(marked(mark, [os.getpid()]).values()),
        )  # fmt: skip
    shutil.rmtree(temp, ignore_errors=True)
    save(folder, state.over())
    return how


def sweep(state: State) -> dict[int, str]:
    """Remove what a part that was killed has left on the disk; return its living processes.

    The processes of a run die with the one that started it, so there should be none.
    """
    if not state.mark:
        return {}
    deadline = time.monotonic() + SETTLE_S
    while (found := marked(state.mark)) and time.monotonic() < deadline:
        psutil.wait_procs([psutil.Process(pid) for pid in found if psutil.pid_exists(pid)], 0.1)
    temp = Path(state.temp)
    if not found and temp.name.startswith("soak-") and temp.is_dir():
        shutil.rmtree(temp, ignore_errors=True)
    return found


def _about(state: State) -> dict[str, Any]:
    """Return what a reader of the report wants to know of the machine."""
    return {
        "profile": state.profile,
        "seed": state.seed,
        "load": state.load,
        "wanted_s": state.wanted_s,
        "sample_s": state.sample_s,
        "warm_up_s": state.warm_up_s,
        "python": sys.version.split()[0],
        "system": f"{os.uname().sysname} {os.uname().release}",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0,
        "memory": psutil.virtual_memory().total,
    }


def _trial() -> None:
    with Graph("trial", few() >> take()).start(log_level="WARNING") as run:
        run.wait(timeout_s=60)


def _settled(before: Mapping[str, int], mark: str, temp: Path) -> dict[str, int]:
    """Return what there is once everything has gone that goes, or after `SETTLE_S`."""
    deadline = time.monotonic() + SETTLE_S
    pause = threading.Event()
    while True:
        after = leftovers(mark, temp)
        if all(after[what] <= before[what] for what in after) or time.monotonic() > deadline:
            return after
        pause.wait(0.1)


@contextmanager
def _surroundings(log: Path, temp: Path, mark: str) -> Iterator[None]:
    """Give what is started in here a mark, a directory for temporary files and a log file."""
    kept = {name: os.environ.get(name) for name in ("TMPDIR", MARK)}
    os.environ["TMPDIR"], os.environ[MARK] = str(temp), mark
    tempfile.tempdir = None
    sys.stderr.flush()
    terminal = os.dup(2)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    os.dup2(file, 2)
    os.close(file)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(terminal, 2)
        os.close(terminal)
        for name, value in kept.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        tempfile.tempdir = None


@contextmanager
def _stopping(conduct: Conduct) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the part in order; a second Ctrl-C ends it at once."""

    def on_signal(number: int, frame: FrameType | None) -> None:
        if conduct.stopped and number == signal.SIGINT:
            raise KeyboardInterrupt
        conduct.stop()

    before = {
        number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            with suppress(TypeError):
                signal.signal(number, handler)
