"""The private directory of a run: its sockets live there and nowhere else.

0700, because libzmq makes ipc sockets 0755 and any process may bind over a live path. The
name has to leave room for a socket's name within the ~100 bytes a unix address may have.

It also says who runs there and how to ask (`describe`): a file for its owner alone, as it holds
the run's token.

A locked file inside says "in use": the lock is shared by every process forked after it, so
a directory whose lock is free belongs to nobody. That is how the leftovers of a host where
both the user process and the agent were killed are found (`sweep`).
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dflow.errors import StartError

__all__ = [
    "MAX_PATH_BYTES", "LiveRun", "RunDirectory", "coordinator_endpoint", "is_held", "live_runs",
    "parse_note", "remove", "sweep",
]  # fmt: skip

PREFIX = "dflow-"
LOCK = "lock"
ABOUT = "run.json"
MAX_PATH_BYTES = 64
MAX_NOTE_BYTES = 64 * 1024
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

    def describe(self, run_id: str, graph: str, token: str) -> None:
        """Leave a note by which the user's own processes find the run (`live_runs`).

        Raises `StartError`, with the directory removed, if it cannot be written.
        """
        note = {"run_id": run_id, "graph": graph, "token": token, "pid": os.getpid()}
        text = json.dumps(note | {"started_s": time.time()})
        try:
            about = os.open(Path(self.path) / ABOUT, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            with open(about, "w", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            self.remove()
            raise _unusable(self.path, error) from None

    def remove(self) -> None:
        """Remove the directory and everything in it; safe to repeat."""
        remove(self.path)


def _make() -> str:
    base = "the directory for temporary files"
    try:
        base = _base()
        return tempfile.mkdtemp(prefix=PREFIX, dir=base)
    except OSError as error:
        raise _unusable(base, error) from None


def _base() -> str:
    base = tempfile.gettempdir()
    return base if len(os.fsencode(base)) + len(PREFIX) + 10 <= MAX_PATH_BYTES else FALLBACK


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


@dataclass(frozen=True, slots=True)
class LiveRun:
    """A run under way: where its coordinator listens, and the token it wants to hear.

    ``pid`` is the agent's; ``started_s`` is in Unix seconds.
    """

    run_id: str
    graph: str
    token: str
    pid: int
    started_s: float
    path: str

    @property
    def endpoint(self) -> str:
        """Where the coordinator listens."""
        return coordinator_endpoint(self.path)


def coordinator_endpoint(path: str) -> str:
    """Return where the coordinator of the run in that directory listens."""
    return f"ipc://{path}/coordinator"


def live_runs() -> list[LiveRun]:
    """Return this user's runs under way, the oldest first.

    They are looked for where this process would make a run's directory itself.
    """
    return sorted(_runs_in(_base()), key=lambda run: (run.started_s, run.run_id))


def _runs_in(base: str) -> Iterator[LiveRun]:
    try:
        with os.scandir(base) as entries:
            names = [e.path for e in entries if e.name.startswith(PREFIX) and _is_private(e)]
    except OSError:
        return
    for path in names:
        run = _read_about(path)
        if run is not None and is_held(path):
            yield run


def _is_private(entry: os.DirEntry[str]) -> bool:
    """Whether nobody else can have put anything into that directory."""
    try:
        info = entry.stat(follow_symlinks=False)
    except OSError:
        return False
    mine = stat.S_ISDIR(info.st_mode) and info.st_uid == os.getuid()
    return mine and not stat.S_IMODE(info.st_mode) & 0o077


def _read_about(path: str) -> LiveRun | None:
    try:
        with open(Path(path) / ABOUT, "rb") as file:
            note = file.read(MAX_NOTE_BYTES)
    except OSError:  # gone, or not written yet
        return None
    return parse_note(note, path)


def parse_note(note: bytes, path: str) -> LiveRun | None:
    """Return the run that `RunDirectory.describe` wrote of; None if it is not one (yet)."""
    try:
        about = json.loads(note)
        return LiveRun(
            str(about["run_id"]), str(about["graph"]), str(about["token"]), int(about["pid"]),
            float(about["started_s"]), path,
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def is_held(path: str) -> bool:
    """Whether a process of the run in that directory still lives."""
    try:
        lock = os.open(Path(path) / LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(lock)


def _is_left_over(entry: os.DirEntry[str]) -> bool:
    try:
        info = entry.stat(follow_symlinks=False)
    except OSError:
        return False
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid():
        return False
    if time.time() - info.st_mtime < MIN_AGE_S or not (Path(entry.path) / LOCK).is_file():
        return False
    return not is_held(entry.path)
