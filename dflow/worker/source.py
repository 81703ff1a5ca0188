"""Pulling values from a source's generator, in turns, while there is credit.

How many values make a turn follows the measured cost, as for handlers: a paced source is
flushed after every value, a fast one in full batches. Between the two stands the pulse
thread, which flushes what a generator left behind before it blocked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import GeneratorType
from typing import TYPE_CHECKING, Any

from dflow.clock import CLOCK, Clock
from dflow.worker.context import Direct
from dflow.worker.dispatch import MAX_TURN, TURN_NS, OnError, Turns
from dflow.worker.emitting import emit_results
from dflow.worker.faults import Interrupted

if TYPE_CHECKING:
    from dflow.worker.context import Discard, LocalDirect
    from dflow.worker.plane import Gate
    from dflow.worker.way import Way

__all__ = ["SyncSource"]


MAX_PULL = 4 * MAX_TURN
"""Values a turn at most, where full batches leave in the middle of a turn: all that a worker does
between turns is done for more messages."""


class SyncSource:
    """Drives an iterator; ``exhausted`` once it ended, failed, or was closed."""

    __slots__ = (
        "_direct",
        "_emit",
        "_gate",
        "_now",
        "_on_error",
        "errors",
        "exhausted",
        "turns",
        "values",
    )

    def __init__(
        self,
        values: Iterator[Any],
        emit: Callable[[Any], None],
        gate: Gate,
        on_error: OnError,
        direct: Direct | LocalDirect | Discard | None = None,
        clock: Clock = CLOCK,
    ) -> None:
        self._now = clock.monotonic_ns
        self.values = values
        self._emit = emit
        self._direct = direct
        self._gate = gate
        self._on_error = on_error
        most = MAX_PULL if isinstance(direct, Direct) else MAX_TURN
        self.turns = Turns(TURN_NS, clock.preempted, most)
        self.errors = 0
        self.exhausted = False

    @property
    def waiting(self) -> bool:
        """Whether it must be left alone for now; never: it is pulled."""
        return False

    @property
    def busy_ns(self) -> int:
        """Nanoseconds spent in the generator and in emit."""
        return self.turns.busy_ns

    def turn(self, way: Way | None = None) -> None:
        """Pull and emit values for about one turn; ``way``: it passes through to other nodes."""
        pulled = 0
        began = self._now()
        try:
            if way is not None:
                pulled, self.exhausted = way.pull(self.values, self.turns.size)
            else:
                pulled, self.exhausted = emit_results(
                    self._emit, self._direct, self.values, self._gate, self.turns.size
                )
        except Interrupted:
            self.exhausted = True
        except Exception as error:  # noqa: BLE001  # user code may raise anything
            # of a generator only that value is lost; if it raised itself, it has no next one
            self.errors += 1
            self.exhausted = not isinstance(self.values, GeneratorType)
            self._on_error(error, "source")
        self.turns.measured(pulled, self._now() - began)

    def close(self) -> None:
        """End the source: its ``finally`` blocks run."""
        self.exhausted = True
        close = getattr(self.values, "close", None)
        if close is not None:
            try:
                close()
            except Exception as error:  # noqa: BLE001  # user code may raise anything
                self.errors += 1
                self._on_error(error, "source")
