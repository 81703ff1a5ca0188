"""A source's values on their way into the worker: opened at the first turn, closed once."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from dflow.clock import CLOCK, Clock
from dflow.worker.aio import AsyncRunner, AsyncSource
from dflow.worker.source import SyncSource

if TYPE_CHECKING:
    from dflow.worker.context import Direct, Discard, Emit, LocalDirect
    from dflow.worker.dispatch import Turns
    from dflow.worker.plane import Gate
    from dflow.worker.user_code import UserCode
    from dflow.worker.way import Way

__all__ = ["Feed"]


class Feed:
    """``make`` returns the source's iterable (synchronous or not), or None; it is user code.

    ``need_tasks`` returns what runs coroutines.
    """

    __slots__ = ("_clock", "_code", "_direct", "_emit", "_gate", "_make", "_need_tasks", "_source")

    def __init__(
        self,
        make: Callable[[], Any],
        code: UserCode,
        gate: Gate,
        emit: Emit,
        direct: Direct | LocalDirect | Discard | None,
        need_tasks: Callable[[], AsyncRunner],
        clock: Clock = CLOCK,
    ) -> None:
        self._clock = clock
        self._make = make
        self._code = code
        self._gate = gate
        self._emit = emit
        self._direct = direct
        self._need_tasks = need_tasks
        self._source: SyncSource | AsyncSource | None = None

    @property
    def pullable(self) -> bool:
        """Whether `pull` would do something now."""
        return self._source is None or not (self._source.exhausted or self._source.waiting)

    @property
    def opened(self) -> bool:
        """Whether it was pulled or closed."""
        return self._source is not None

    @property
    def exhausted(self) -> bool:
        """Whether there is no more value."""
        return self._source is not None and self._source.exhausted

    @property
    def errors(self) -> int:
        """Values lost, and generators that raised."""
        return 0 if self._source is None else self._source.errors

    @property
    def busy_ns(self) -> int:
        """Nanoseconds spent in the generator and in emit."""
        return 0 if self._source is None else self._source.busy_ns

    @property
    def values(self) -> Iterator[Any] | None:
        """What it pulls values from; None before the first turn, and of coroutines."""
        return self._source.values if isinstance(self._source, SyncSource) else None

    @property
    def turns(self) -> Turns | None:
        """What measures its turns; None before the first one, and of coroutines."""
        return self._source.turns if isinstance(self._source, SyncSource) else None

    def refused(self, error: Exception) -> None:
        """Report a value that is none."""
        self._code.errors += 1
        self._code.failed(error, "source")

    def pull(self, way: Way | None = None) -> None:
        """Emit values for about one turn; ``way``: it passes through to other nodes."""
        if self._source is None:
            self._source = self._open()
        if self._source.exhausted:
            return
        with self._code:
            if way is not None and isinstance(self._source, SyncSource):
                way.begin()
                self._source.turn(way)
            else:
                self._source.turn()

    def _open(self) -> SyncSource | AsyncSource:
        values: Any = iter(())  # of a source that raises, or is interrupted, before its first value
        try:
            with self._code:
                self._code.emitter = made = self._make()
                values = made if isinstance(made, AsyncIterable) else iter(made or ())
        except Exception as error:  # noqa: BLE001  # user code may raise anything
            self._code.errors += 1
            self._code.failed(error, "source")
        if isinstance(values, AsyncIterable):
            return AsyncSource(aiter(values), self._need_tasks(), self._gate, self._code.failed)
        return self._of(values)

    def _of(self, values: Iterable[Any]) -> SyncSource:
        each, failed = iter(values), self._code.failed
        return SyncSource(each, self._emit, self._gate, failed, self._direct, self._clock)

    def close(self) -> None:
        """End it: its ``finally`` blocks run; one that was never opened stays so."""
        if self._source is not None:
            with self._code:
                self._source.close()
        else:
            self._source = self._of(())
            self._source.exhausted = True
