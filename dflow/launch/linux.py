"""What Linux offers so that no process outlives its run; harmless no-ops elsewhere.

Three independent means, because each has a hole: the parent-death signal (`die_with_parent`)
fires when the forking *thread* ends and is lost if the parent died before it was asked for;
a pidfd (`watch_pid`) never lies but somebody has to look at it; the session
(`session_members`) also names grandchildren that user code started, but only while its
leader is alive or not yet reaped.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

__all__ = [
    "die_with_parent",
    "kill_session",
    "name_process",
    "session_members",
    "watch_pid",
]

PR_SET_PDEATHSIG = 1  # linux/prctl.h
PR_SET_NAME = 15

KILL_ROUNDS = 5
KILL_ROUND_MS = 1000


@cache
def _prctl() -> Any:
    """Return prctl(2), or None off Linux. Call once before forking: looking it up is slow."""
    if sys.platform != "linux":
        return None
    return ctypes.CDLL(None).prctl


def die_with_parent(parent: int, signum: int = signal.SIGKILL) -> bool:
    """Have this process signalled when its parent ends; False where that is not possible.

    ``parent`` is the pid the parent had when it started this process: if it is gone already
    the signal would never come, so this process ends at once. ``signum=0`` takes it back.
    """
    prctl = _prctl()
    if prctl is None or prctl(PR_SET_PDEATHSIG, int(signum), 0, 0, 0) != 0:
        return False
    if signum and os.getppid() != parent:
        os._exit(1)
    return True


def name_process(name: str) -> None:
    """Show ``name`` (15 bytes of it) in ps and top."""
    prctl = _prctl()
    if prctl is not None:
        prctl(PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def watch_pid(pid: int) -> int | None:
    """Return a descriptor that is readable once ``pid`` ended; None where there are none."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:  # gone already, or a kernel before 5.3
        return None


def session_members(session: int) -> list[int]:
    """Return the live processes of ``session`` other than its leader and the caller."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        pid = int(stat.parent.name)
        if pid in (session, os.getpid()):
            continue
        try:
            # pid (comm) state ppid pgrp session …; comm may hold spaces and brackets
            fields = stat.read_bytes().rpartition(b")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] not in (b"Z", b"X"):
            found.append(pid)
    return found


def kill_session(session: int) -> None:
    """SIGKILL every process of ``session`` but its leader, and see them end (1 s a round).

    Only sound while the leader's pid cannot be reused: it is alive, or not reaped. Repeated,
    because a process can fork between being listed and being killed.
    """
    for _ in range(KILL_ROUNDS):
        members = session_members(session)
        if not members:
            return
        poll = select.poll()
        ends = [fd for pid in members if (fd := watch_pid(pid)) is not None]
        for fd in ends:
            poll.register(fd, select.POLLIN)
        for pid in members:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        while ends:
            ready = poll.poll(KILL_ROUND_MS)
            for fd, _ in ready:
                poll.unregister(fd)
                ends.remove(fd)
                os.close(fd)
            if not ready:
                break
        for fd in ends:
            os.close(fd)
