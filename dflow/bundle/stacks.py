"""Where the threads of a process are: told by itself, or seen from outside when it does not answer.

A process that can run Python prints its own stacks, with the names of its threads and the lines of
code; no values of variables, for they are other people's payloads. One that cannot (a library
holds the interpreter's lock, or it is stopped) is made to by `faulthandler`, whose signal handler
needs no lock: a worker registers it at its start, with a file in the run's private directory. The
same file gets the stacks of a worker that crashed (SIGSEGV and the like), which nobody else could
tell. What is left is ``py-spy``, if there is one on the PATH, and what the kernel says.
"""

from __future__ import annotations

import faulthandler
import linecache
import os
import signal
import sys
import threading
import traceback
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

__all__ = [
    "MOST_CHARACTERS", "be_told_on", "coroutines", "left_behind", "seen_from_outside", "threads",
]  # fmt: skip

STACKS_SIGNAL: int = getattr(signal, "SIGRTMIN", signal.SIGUSR2 - 6) + 6
"""Asks a process that does not answer for its stacks; the next after the pulse's own signal."""

MOST_CHARACTERS = 1024 * 1024
_MOST_FRAMES = 100
_PY_SPY_S = 2.0
_FAULTHANDLER_S = 0.2
_PREFIX = "stacks-"
_MOST_TASKS = 50
_FRAMES = ("cr_frame", "gi_frame", "ag_frame")
_AWAITS = ("cr_await", "gi_yieldfrom", "ag_await")
_STARTS = ("_bootstrap", "_bootstrap_inner", "run")


def threads() -> str:
    """Return the stacks of all threads of this process, the main thread first."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    me, main = threading.get_ident(), threading.main_thread().ident
    frames = sorted(sys._current_frames().items(), key=lambda item: (item[0] != main, item[0]))
    parts = []
    for ident, frame in frames:
        also = ", which tells this" if ident == me else ""
        parts.append(f"thread {names.get(ident, '(not of threading)')}{also}, most recent last:")
        parts += _lines(frame)
        parts.append("")
    return "\n".join(parts)[:MOST_CHARACTERS]


def coroutines(tasks: Collection[Any]) -> str:
    """Return where asyncio tasks are suspended, each down to what it awaits; "" without any."""
    parts: list[str] = []
    for task in list(tasks)[:_MOST_TASKS]:
        parts.append(f"task {task.get_name()}, most recent last:")
        inside = task.get_coro()
        for _ in range(_MOST_FRAMES):
            frame = next((f for name in _FRAMES if (f := getattr(inside, name, None))), None)
            if frame is None:
                break
            parts += _entry(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
            inside = next((i for name in _AWAITS if (i := getattr(inside, name, None))), None)
        parts.append("")
    if len(tasks) > _MOST_TASKS:
        parts.append(f"and {len(tasks) - _MOST_TASKS} more tasks")
    return "\n".join(parts)


def _entry(file: str, line: int, name: str) -> Iterator[str]:
    yield f'  File "{file}", line {line}, in {name}'
    if text := linecache.getline(file, line).strip():
        yield f"    {text}"


def _lines(frame: FrameType) -> Iterator[str]:
    stack = [entry for entry in traceback.extract_stack(frame) if not _is_start_of_thread(entry)]
    if len(stack) > _MOST_FRAMES:
        yield f"  ... {len(stack) - _MOST_FRAMES} outer frames"
    for entry in stack[-_MOST_FRAMES:]:
        yield from _entry(entry.filename, entry.lineno or 0, entry.name)


def _is_start_of_thread(entry: traceback.FrameSummary) -> bool:
    return entry.name in _STARTS and entry.filename == threading.__file__


def be_told_on(run_dir: str) -> None:
    """Let this process leave its stacks in ``run_dir`` when it crashes or is asked by a signal.

    Does nothing where that is not possible, and leaves alone what somebody has set up already.
    """
    if not run_dir or not hasattr(faulthandler, "register"):
        return
    path = _file(run_dir, os.getpid())
    try:
        file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        if not faulthandler.is_enabled():
            faulthandler.enable(file, all_threads=True)
        faulthandler.register(STACKS_SIGNAL, file, all_threads=True, chain=False)
    except (OSError, ValueError, RuntimeError):
        with suppress(OSError):  # the file says that the signal does no harm
            path.unlink()


def _file(run_dir: str, pid: int) -> Path:
    return Path(run_dir) / f"{_PREFIX}{pid}"


def left_behind(run_dir: str, pid: int) -> str:
    """Return the stacks a process left in ``run_dir``; "" if it left none."""
    if not run_dir or not pid:
        return ""
    with suppress(OSError), open(_file(run_dir, pid), "rb") as file:
        return file.read(MOST_CHARACTERS).decode(errors="backslashreplace")
    return ""


def seen_from_outside(pid: int, run_dir: str) -> str:
    """Return what can be seen of a process of ours that does not answer; takes up to 3 s."""
    told = [_ask_by_signal(pid, run_dir), _ask_py_spy(pid), _ask_kernel(pid)]
    return "\n\n".join(part for part in told if part)[:MOST_CHARACTERS]


def _ask_by_signal(pid: int, run_dir: str) -> str:
    """Have `faulthandler` in the process write its stacks."""
    from threading import Event

    file = _file(run_dir, pid)
    if not run_dir or not file.exists():  # it would die of the signal
        return ""
    before = len(left_behind(run_dir, pid))
    pause = Event()
    try:
        os.kill(pid, STACKS_SIGNAL)
    except OSError as error:
        return f"asked by a signal: {error.strerror}"
    for _ in range(20):
        pause.wait(_FAULTHANDLER_S / 20)
        told = left_behind(run_dir, pid)[before:]
        if told.endswith("\n"):
            return f"asked by a signal (faulthandler):\n{told}"
    return "asked by a signal (faulthandler): no answer; the process is stopped or in the kernel"


def _ask_py_spy(pid: int) -> str:
    import shutil  # a worker imports this module when it starts
    import subprocess

    found = shutil.which("py-spy")
    if found is None:
        return "py-spy: not on the PATH"
    try:
        done = subprocess.run(
            [found, "dump", "--nonblocking", "--full-filenames", "--pid", str(pid)],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=_PY_SPY_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"py-spy: {type(error).__name__}"
    said = (done.stdout or done.stderr).decode(errors="backslashreplace")
    return f"py-spy dump:\n{said.strip()}"


def _ask_kernel(pid: int) -> str:
    """Return what state the process is in, and in which call to the kernel each thread is."""
    lines = []
    with suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
        wanted = ("State:", "VmRSS:", "Threads:", "voluntary_ctxt", "nonvoluntary_ctxt")
        lines += [line for line in status.splitlines() if line.startswith(wanted)]
    with suppress(OSError):
        for task in sorted(Path(f"/proc/{pid}/task").iterdir())[:64]:
            with suppress(OSError):
                where = (task / "wchan").read_text(encoding="utf-8", errors="replace")
                lines.append(f"thread {task.name} waits in the kernel at: {where or '0'}")
    return "\n".join(["the kernel:", *lines]) if lines else ""
