"""What signals mean to a program that waits for a run.

Before the run exists a signal ends the program, as it would anyway. From then on Ctrl-C once,
or SIGTERM, drains, and Ctrl-C twice stops now. Whether there was anything to drain is for the
coordinator to say: asked before the sources ran, it ends the run at once, and the program then
ends as if the signal had come before. So there is no moment at which a signal is lost.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any, Protocol, Self

__all__ = ["DrainOnSignal"]


class _Run(Protocol):
    def stop(self) -> None: ...
    def abort(self, reason: str = ...) -> None: ...


class DrainOnSignal:
    """Handles SIGINT and SIGTERM inside a ``with`` block; main thread only.

    A handler that the program has installed itself is left alone.
    """

    def __init__(self) -> None:
        self._run: _Run | None = None
        self._first: int | None = None
        self._interrupts = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self
        for number, ordinary in (
            (signal.SIGINT, signal.default_int_handler),
            (signal.SIGTERM, signal.SIG_DFL),
        ):
            if signal.getsignal(number) is ordinary:
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def watch(self, run: _Run) -> None:
        """From now on signals act on ``run``."""
        self._run = run

    def conclude(self, *, started: bool) -> None:
        """End the program as its signal asks if the run never started or was stopped twice."""
        if self._first is not None and (not started or self._interrupts > 1):
            self._end(self._first)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._first = self._first or number
        self._interrupts += number == signal.SIGINT
        if self._run is None:
            self._end(number)
        elif self._interrupts > 1:
            self._run.abort("interrupted twice")
        else:
            self._run.stop()

    def _end(self, number: int) -> None:
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
