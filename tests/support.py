"""What tests share: waiting for a condition, and seeing what a run left behind.

Isolation comes first: `isolate` gives the session its own temp directory and marks its
environment, so that "left behind" means left by *this* session, whatever else the machine runs:
several shards of the tests, say (scripts/test).
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import psutil

__all__ = ["MARK", "descendants", "eventually", "isolate", "leftovers", "unheard"]

MARK = "DFLOW_TEST_SESSION"
_SHM = Path("/dev/shm")


def eventually(
    condition: Callable[[], object], *, within_s: float = 5.0, what: str = "the condition"
) -> None:
    """Return as soon as ``condition()`` is true; AssertionError when ``within_s`` passed."""
    deadline = time.monotonic() + within_s
    pause = threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"expected {what} within {within_s} s, and it did not come true")
        pause.wait(0.005)


def unheard() -> str:
    """Return an endpoint nobody listens at, for links whose messages are to stay where they are.

    It is not inproc: libzmq connects what is still pending there when its context ends, and
    crashes at it now and then if something was sent (zeromq/libzmq#4544; two sockets with five
    messages each are enough). Runs only use ipc and tcp.
    """
    return f"ipc://{tempfile.gettempdir()}/{uuid4().hex[:12]}"


def isolate() -> Path:
    """Give this session a temp directory of its own and mark its environment; return it.

    The name is short because a unix socket's path may have only about 100 bytes.
    """
    session = Path(tempfile.mkdtemp(prefix="dt-"))
    os.environ["TMPDIR"] = str(session)
    os.environ[MARK] = uuid4().hex
    tempfile.tempdir = None
    return session


def descendants(mark: str | None = None) -> dict[int, str]:
    """Return pid -> command of every living process this session started, orphans included.

    An orphan is known by the mark in its environment, which exec and fork both hand on; ``mark``
    is another one than this session's, given to a program that a test has started.
    """
    me = os.getpid()
    mark = os.environ.get(MARK, "") if mark is None else mark
    found = {}
    for process in psutil.process_iter():
        try:
            ours = process.environ().get(MARK) == mark if mark else process.ppid() == me
            if ours and process.pid != me and process.status() != psutil.STATUS_ZOMBIE:
                found[process.pid] = " ".join(process.cmdline())[:120]
        except psutil.Error:
            continue
    return found


def leftovers() -> dict[str, set[str]]:
    """Return what exists now and should not outlive a test: by kind, a set of names."""
    session = Path(tempfile.gettempdir())
    names = {entry.name for entry in session.iterdir() if not entry.name.startswith("pytest-of-")}
    return {
        "process": {f"{pid}: {command}" for pid, command in descendants().items()},
        "zombie": _zombies(),
        "temp entry": names,
        "shared memory": _shared_memory(),
        "thread": {t.name for t in threading.enumerate() if t.name.startswith("dflow")},
    }


def _shared_memory() -> set[str]:
    """Named shared memory that may be ours: what programs of others have mapped is theirs."""
    names = {entry.name for entry in _SHM.iterdir()} if _SHM.is_dir() else set()
    found = {name for name in names if name.startswith(("dflow", "psm_", "sem.mp-"))}
    if found:
        ours = {os.getpid(), *descendants()}
        for process in psutil.process_iter():
            if process.pid not in ours:
                with suppress(OSError):
                    maps = Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8")
                    found = {name for name in found if f"{_SHM}/{name}" not in maps}
    return found


def _zombies() -> set[str]:
    """Children that ended and were never waited for."""
    found = set()
    for child in psutil.Process().children():
        try:
            if child.status() == psutil.STATUS_ZOMBIE:
                found.add(str(child.pid))
        except psutil.Error:
            continue
    return found
