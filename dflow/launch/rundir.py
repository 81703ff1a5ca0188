"""The private directory of a run: its sockets live there and nowhere else.

0700, because libzmq makes ipc sockets 0755 and any process may bind over a live path. The
name has to leave room for a socket's name within the ~100 bytes a unix address may have.

A locked file inside says "in use": the lock is shared by every process forked after it, so
a directory whose lock is free belongs to nobody. That is how the leftovers of a host where
both the user process and the agent were killed are found (`sweep`).
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import stat
import tempfile
import time
from pathlib import Path

from dflow.errors import StartError

__all__ = ["MAX_PATH_BYTES", "RunDirectory", "remove", "sweep"]

PREFIX = "dflow-"
LOCK = "lock"
MAX_PATH_BYTES = 64
FALLBACK = "/tmp"  # mkdtemp in it makes a private directory
MIN_AGE_S = 60.0


class RunDirectory:
    """A fresh directory, locked as long as any process forked from this one lives.

    Raises `StartError` if it cannot be made, or cannot hold the lock and sockets.
    """

    def __init__(self) -> None:
        self.path = _make()
        try:
            self._lock = _lock(self.path)
            _try_socket(self.path)
        except OSError as error:
            self.remove()
            raise _unusable(self.path, error) from None

    def remove(self) -> None:
        """Remove the directory and everything in it; safe to repeat."""
        remove(self.path)


def _make() -> str:
    base = "the directory for temporary files"
    try:
        base = tempfile.gettempdir()
        if len(os.fsencode(base)) + len(PREFIX) + 10 > MAX_PATH_BYTES:
            base = FALLBACK
        return tempfile.mkdtemp(prefix=PREFIX, dir=base)
    except OSError as error:
        raise _unusable(base, error) from None


def _lock(path: str) -> int:
    lock = os.open(Path(path) / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return lock


def _try_socket(path: str) -> None:
    """Make a socket as the run's processes will: not every file system can hold one."""
    probe = Path(path) / "coordinator"
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(probe))
    probe.unlink()


def _unusable(path: str, error: OSError) -> StartError:
    return StartError(
        f"{path}: expected to make the run's private directory, its lock and its sockets there, "
        f"got {error.strerror or error}; set TMPDIR to another directory"
    )


def remove(path: str) -> None:
    """Remove a run directory; missing files are fine, somebody else removes it too."""
    shutil.rmtree(path, ignore_errors=True)


def sweep(base: Path) -> list[str]:
    """Remove the user's run directories in ``base`` that no process holds; return them."""
    removed = []
    with os.scandir(base) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX) and _is_left_over(entry):
                remove(entry.path)
                removed.append(entry.path)
    return removed


def _is_left_over(entry: os.DirEntry[str]) -> bool:
    try:
        info = entry.stat(follow_symlinks=False)
        if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid():
            return False
        if time.time() - info.st_mtime < MIN_AGE_S:
            return False
        lock = os.open(Path(entry.path) / LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(lock)
