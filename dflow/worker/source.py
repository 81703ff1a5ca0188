"""Pulling values from a source's generator, in turns, while there is credit.

How many values make a turn follows the measured cost, as for handlers: a paced source is
flushed after every value, a fast one in full batches. Between the two stands the pulse
thread, which flushes what a generator left behind before it blocked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from dflow.clock import monotonic_ns
from dflow.worker.dispatch import OnError, Turns
from dflow.worker.faults import Interrupted

if TYPE_CHECKING:
    from dflow.worker.plane import Gate

__all__ = ["SyncSource"]


class SyncSource:
    """Drives an iterator; ``exhausted`` once it ended, failed, or was closed."""

    __slots__ = ("_emit", "_gate", "_on_error", "_turns", "_values", "errors", "exhausted")

    def __init__(
        self,
        values: Iterator[Any],
        emit: Callable[[Any], None],
        gate: Gate,
        on_error: OnError,
    ) -> None:
        self._values = values
        self._emit = emit
        self._gate = gate
        self._on_error = on_error
        self._turns = Turns()
        self.errors = 0
        self.exhausted = False

    @property
    def waiting(self) -> bool:
        """Whether it must be left alone for now; never: it is pulled."""
        return False

    @property
    def busy_ns(self) -> int:
        """Nanoseconds spent in the generator and in emit."""
        return self._turns.busy_ns

    def turn(self) -> None:
        """Pull and emit values for about one turn."""
        emit = self._emit
        gate = self._gate
        left = size = self._turns.size
        began = monotonic_ns()
        try:
            for value in self._values:
                if value is not None:
                    emit(value)
                left -= 1
                if gate.shut or left <= 0:
                    break
            else:
                self.exhausted = True
        except Interrupted:
            self.exhausted = True
        except Exception as error:  # noqa: BLE001  # user code may raise anything
            self.errors += 1
            self.exhausted = True  # a generator that raised is over
            self._on_error(error, "source")
        self._turns.measured(size - left, monotonic_ns() - began)

    def close(self) -> None:
        """End the source: its ``finally`` blocks run."""
        self.exhausted = True
        close = getattr(self._values, "close", None)
        if close is not None:
            try:
                close()
            except Exception as error:  # noqa: BLE001  # user code may raise anything
                self.errors += 1
                self._on_error(error, "source")
