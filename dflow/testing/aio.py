"""An asyncio loop in virtual time: when it has nothing to do, other simulated threads run."""

from __future__ import annotations

import asyncio
import inspect
from asyncio import base_events
from collections.abc import Callable
from typing import Any

from dflow.testing.kernel import Task
from dflow.testing.network import Network

__all__ = ["VirtualLoop"]


class VirtualLoop(base_events.BaseEventLoop):
    """The loop of one worker. Sockets and subprocesses are not simulated.

    A function given to an executor (`asyncio.to_thread`) is called at once, in this thread.
    """

    def __init__(self, network: Network) -> None:
        self._abandoned = False
        super().__init__()
        self._network = network
        self._selector = _Selector(network)
        self._clock_resolution = 1e-9
        network.loops.append(self)

    def time(self) -> float:
        """Return virtual time in seconds."""
        return self._network.kernel.now / 1e9

    def add_reader(  # type: ignore[override]  # the same, less precisely
        self, fd: Any, callback: Callable[..., object], *args: Any
    ) -> None:
        """Call ``callback`` whenever a simulated source can be read."""
        source = self._network.sources[fd]
        self._selector.watched.append((source, asyncio.Handle(callback, args, self)))
        source.listeners.append(self._selector.news)

    def run_in_executor(  # type: ignore[override]  # the same, less precisely
        self, executor: Any, func: Any, *args: Any
    ) -> asyncio.Future[Any]:
        """Call ``func`` at once."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001  # handed to whoever awaits it
            future.set_exception(error)
        return future

    def _process_events(self, event_list: list[asyncio.Handle]) -> None:
        for handle in event_list:
            self._ready.append(handle)  # type: ignore[attr-defined]  # as asyncio's own loops do

    def _write_to_self(self) -> None:
        self._selector.news()

    def abandon(self) -> None:
        """Its process has ended: nobody waits for what it still had to do."""
        self._abandoned = True
        for task in asyncio.all_tasks(self):
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # or it complains
            coroutine = task.get_coro()
            if inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:  # type: ignore[arg-type]  # a task is of a coroutine
                coroutine.close()  # or it complains that nobody has awaited it

    def is_closed(self) -> bool:
        """Whether nothing will ever run here."""
        return self._abandoned or super().is_closed()

    def close(self) -> None:
        """Release the loop; idempotent."""
        if not self.is_running():
            super().close()


class _Selector:
    """What `BaseEventLoop` waits with."""

    __slots__ = ("_kernel", "_task", "watched")

    def __init__(self, network: Network) -> None:
        self._kernel = network.kernel
        self._task: Task | None = None
        self.watched: list[tuple[Any, asyncio.Handle]] = []

    def news(self) -> None:
        """Something can be read: end the wait."""
        task, self._task = self._task, None
        if task is not None:
            self._kernel.wake(task)

    def select(self, timeout: float | None) -> list[asyncio.Handle]:
        """Return the callbacks of what can be read; wait for it if there is nothing."""
        kernel = self._kernel
        if timeout != 0 and not any(source.readable for source, _ in self.watched):
            task = self._task = kernel.current
            assert task is not None  # only simulated threads wait
            task.interruptible = True
            task.process.asleep_since = kernel.now
            try:
                kernel.park(timeout)
            finally:
                self._task = None
                task.interruptible = False
                task.process.asleep_since = None
                task.process.on_waking()
        return [handle for source, handle in self.watched if source.readable]
