"""Where the prints of a run's processes go.

Straight to the user process's own stdout and stderr when those are the real ones: no copy,
and output survives a dying user process. When ``sys.stdout`` is something else (a notebook,
a test's capture, a redirection) the processes write to a pipe and a thread carries it into
that object, because only the user process can reach it.
"""

from __future__ import annotations

import codecs
import os
import sys
from threading import Thread
from typing import Any

__all__ = ["Stdio", "quiet_stdin", "speak_utf8"]

PUMP_BYTES = 1 << 16
JOIN_S = 1.0


class Stdio:
    """Decides for one launch; ``stdin``, ``stdout``, ``stderr`` are for `subprocess.Popen`."""

    def __init__(self) -> None:
        self.captured = not (_is_real(sys.stdout, 1) and _is_real(sys.stderr, 2))
        self.stdin = None if _can_hand_over_stdin() else os.open(os.devnull, os.O_RDONLY)
        self.stdout = self.stderr = None
        self._reads: list[tuple[int, Any]] = []
        self._threads: list[Thread] = []
        if self.captured:
            read, self.stdout = os.pipe()
            self._reads.append((read, sys.stdout))
            read, self.stderr = os.pipe()
            self._reads.append((read, sys.stderr))

    def started(self) -> None:
        """Close what the agent has now, and start carrying what it writes."""
        for fd in (self.stdin, self.stdout, self.stderr):
            if fd is not None:
                os.close(fd)
        for read, stream in self._reads:
            thread = Thread(target=_pump, args=(read, stream), name="dflow-output", daemon=True)
            thread.start()
            self._threads.append(thread)

    def join(self) -> None:
        """Wait until everything written has arrived; at most a second for a stray writer."""
        for thread in self._threads:
            thread.join(JOIN_S)


def _is_real(stream: Any, fd: int) -> bool:
    if stream is None:  # no console at all: nothing to carry it to either
        return True
    try:
        return bool(stream.fileno() == fd)
    except (AttributeError, OSError, ValueError):
        return False


def _can_hand_over_stdin() -> bool:
    """A terminal cannot be read from another session, and a closed stdin not at all."""
    try:
        return not os.isatty(0) and sys.stdin is not None
    except OSError:
        return False


def _pump(read: int, stream: Any) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    with open(read, "rb", buffering=0) as pipe:
        while data := pipe.read(PUMP_BYTES):
            try:
                stream.write(decoder.decode(data))
                stream.flush()
            except Exception:  # noqa: BLE001  # closed by its owner: keep draining for the writers
                continue


def speak_utf8() -> None:
    """Make this process write UTF-8, which is what the pump reads."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def quiet_stdin() -> None:
    """Leave standard input to the workers: a source may be reading it."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
