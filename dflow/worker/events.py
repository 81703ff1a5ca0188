"""The asyncio loop of a worker: one for all its nodes, as there is one thread to run it.

It runs only while the worker waits: until a socket is readable, a task has something to say, or a
time has passed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from contextvars import Context
from typing import Any

__all__ = ["EventLoop"]


class EventLoop:
    """Made when the first node needs it; closed once, whoever asks. ``make`` returns a loop."""

    def __init__(
        self, make: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    ) -> None:
        self._loop = make()
        self._awake = asyncio.Event()
        self._watched: set[int] = set()

    def create_task(
        self, coroutine: Coroutine[Any, Any, None], context: Context | None = None
    ) -> asyncio.Task[None]:
        """Let a coroutine run whenever the loop does."""
        return self._loop.create_task(coroutine, context=context)

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run a coroutine to its end, and tasks meanwhile."""
        self._loop.run_until_complete(coroutine)

    def wake(self) -> None:
        """End `wait`: there is something to look at."""
        self._awake.set()

    def wait(self, descriptors: Iterable[int], timeout_s: float | None) -> None:
        """Run tasks until `wake`, a descriptor is readable, or ``timeout_s`` has passed."""
        for fd in descriptors:
            if fd not in self._watched:
                self._watched.add(fd)
                self._loop.add_reader(fd, self._awake.set)
        self._loop.run_until_complete(self._until_awake(timeout_s))

    async def _until_awake(self, timeout_s: float | None) -> None:
        if timeout_s == 0:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._awake.wait()
        except TimeoutError:
            pass
        self._awake.clear()

    def tasks(self) -> set[asyncio.Task[Any]]:
        """Return the tasks that are not done; from any thread."""
        return asyncio.all_tasks(self._loop)

    def close(self) -> None:
        """Release the loop; idempotent."""
        if not self._loop.is_closed():
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()
