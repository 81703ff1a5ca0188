"""Signals as something a loop can wait for, so that none interrupts a decision half way."""

from __future__ import annotations

import os
import signal
from types import FrameType, TracebackType
from typing import Any, Self

__all__ = ["SignalWatch", "signal_name"]

WATCHED = (signal.SIGINT, signal.SIGTERM)


class SignalWatch:
    """Collect SIGINT and SIGTERM while inside a ``with``; main thread only."""

    def __init__(self) -> None:
        self._read_fd, self._write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)
        os.set_blocking(self._write_fd, False)
        self._before: dict[signal.Signals, Any] = {}
        self._fd_before = -1

    def __enter__(self) -> Self:
        self._fd_before = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        for number in WATCHED:
            self._before[number] = signal.signal(number, _wake)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._fd_before)
        os.close(self._read_fd)
        os.close(self._write_fd)

    def fileno(self) -> int:
        """Return the descriptor that is readable when a signal has come."""
        return self._read_fd

    def read(self) -> list[int]:
        """Return the signals that came since the last call, in order."""
        try:
            numbers = os.read(self._read_fd, 4096)
        except BlockingIOError:
            return []
        return [number for number in numbers if number in WATCHED]


def signal_name(number: int) -> str:
    """Return ``"SIGKILL"`` for 9, ``"signal 63"`` for one without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _wake(number: int, frame: FrameType | None) -> None:
    """Do nothing: having a Python handler is what makes the wakeup descriptor readable."""
