"""``async def`` handlers, hooks and sources: an asyncio loop inside the worker's own loop.

The worker's main thread runs the event loop only while it waits: until a socket is readable,
a task is done, or a timer is due. So tasks run between two looks at the sockets, and no
third thread exists. Generators that never wait for anything give way after a turn. A message is
*taken* when its task starts and *done* when that has ended; of an ordered node, when what it
emitted has left, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from dflow.clock import CLOCK, Clock
from dflow.worker.dispatch import TURN_NS, OnError
from dflow.worker.events import EventLoop
from dflow.worker.handling import Handling, current_task
from dflow.worker.speaking import speaker

if TYPE_CHECKING:
    from dflow.worker.context import Emit
    from dflow.worker.ordered import Order, Slot
    from dflow.worker.plane import Gate

__all__ = ["AsyncRunner", "AsyncSource"]


class AsyncRunner:
    """Runs up to ``concurrency`` coroutines at once; ``handling``: the messages they handle.

    ``node``: whose they are, where several nodes share the loop.
    """

    def __init__(
        self,
        concurrency: int,
        emit: Emit,
        on_error: OnError,
        blocked: Callable[[], bool],
        order: Order | None = None,
        turn_ns: int = TURN_NS,
        events: EventLoop | None = None,
        clock: Clock = CLOCK,
        node: str = "",
    ) -> None:
        self._now = clock.monotonic_ns
        self._order = order
        self._turn_ns = turn_ns
        self._turn_ends_ns = 0
        self._next_turn = asyncio.Event()
        self._events = events or EventLoop()
        self.blocked = blocked
        self._credit = asyncio.Event()
        self._concurrency = concurrency
        self._emit = emit
        self._on_error = on_error
        self._node = node
        self._tasks: set[asyncio.Task[None]] = set()
        self._cancelled: set[asyncio.Task[None]] = set()
        self.handling: set[Handling] = set()
        self.errors = 0
        self.busy_ns = 0

    @property
    def free(self) -> int:
        """How many more coroutines may be started now."""
        return self._concurrency - len(self._tasks)

    @property
    def count(self) -> int:
        """How many coroutines are under way."""
        return len(self._tasks)

    @property
    def late(self) -> bool:
        """Whether this turn has lasted long enough: ticks, commands and sockets wait."""
        return self._now() >= self._turn_ends_ns

    @property
    def active(self) -> bool:
        """Whether any coroutine is under way."""
        return bool(self._tasks)

    def start(self, call: Callable[[], Any], handling: Handling) -> None:
        """Start handling one message."""
        self.handling.add(handling)
        self.spawn(self._handle(call, handling))

    def spawn(self, coroutine: Any) -> None:
        """Run a coroutine as one of the tasks."""
        context = copy_context()
        if self._node:
            context.run(speaker.set, self._node)
        task = self._events.create_task(coroutine, context)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._cancelled.discard(task)
        self._events.wake()
        if not task.cancelled():
            task.exception()  # retrieved: `_handle` has reported it

    async def _handle(self, call: Callable[[], Any], handling: Handling) -> None:
        current_task.set(handling)
        slot = handling.slot
        if self._order is not None:
            self._order.begin(slot)
        try:
            await self._emit_results(call(), paced=True, slot=slot)
        except asyncio.CancelledError as error:
            if self.cancelled_here():
                raise
            self.errors += 1
            self._on_error(_unasked(error), "handler")
        except Exception as error:  # noqa: BLE001  # user code may raise anything
            self.errors += 1
            self._on_error(error, "handler")
        finally:
            self.handling.discard(handling)
        # not for a cancelled task: its effects are unknown
        if self._order is not None and slot is not None:
            self._order.leave(slot)
            return
        handling.channel.finish_one(handling.sequence)

    async def _emit_results(self, results: Any, *, paced: bool, slot: Slot | None = None) -> None:
        """Emit what a coroutine returns or an async generator yields, ``paced`` by credit."""
        if hasattr(results, "__aiter__"):
            async for value in results:
                if value is not None:
                    self.try_to_emit(value, "handler" if paced else "")
                if paced and self.late:
                    self._next_turn.clear()
                    await self._next_turn.wait()
                while paced and (self.blocked() or (slot is not None and slot.crowded)):
                    self._credit.clear()
                    await self._credit.wait()
        else:
            value = await results
            if value is not None:
                self.emit(value)

    def emit(self, value: Any) -> None:
        """Emit, and let the main loop look at the wire soon."""
        self._emit(value)
        self._events.wake()

    def try_to_emit(self, value: Any, where: str) -> None:
        """Emit what was yielded ``where``; if it cannot be, only this value is lost.

        Raises why for a hook, where ``where`` is empty: what is wrong with one ends it.
        """
        try:
            self.emit(value)
        except Exception as error:  # refused, or it cannot travel
            if not where:
                raise
            self.errors += 1
            self._on_error(error, where)

    def call(self, coroutine: Any) -> None:
        """Run a hook's coroutine (or async generator) to its end."""
        try:
            self._events.run(self._emit_results(coroutine, paced=False))
        except asyncio.CancelledError as error:
            raise _unasked(error) from None

    def wait(self, descriptors: Iterable[int], timeout_s: float | None) -> None:
        """Run tasks until one ends, a descriptor is readable, or ``timeout_s`` has passed."""
        self.refresh()
        began = self._now()
        busy = self.active
        self._events.wait(descriptors, timeout_s)
        self.busy_ns += self._now() - began if busy else 0

    def refresh(self) -> None:
        """Let what waits for the next turn go on, and for credit if it has come back."""
        self._turn_ends_ns = self._now() + self._turn_ns
        self._next_turn.set()
        if not self.blocked():
            self._credit.set()

    def cancel(self) -> None:
        """Cancel every task and let it clean up."""
        tasks = list(self._tasks)  # whoever has just ended leaves the set while the others do
        for task in tasks:
            self._cancelled.add(task)
            task.cancel()
        if tasks:
            self._events.run(asyncio.wait(tasks, timeout=1.0))

    def cancelled_here(self) -> bool:
        """Whether the task at hand was cancelled by `cancel`, not by the user's own code."""
        return asyncio.current_task() in self._cancelled

    def close(self) -> None:
        """Release the event loop."""
        self._events.close()


def _unasked(error: asyncio.CancelledError) -> RuntimeError:
    """Return what is reported of a cancellation that came out of user code by itself.

    A CancelledError is no Exception: passed on, it would end the task without a word.
    """
    text = "CancelledError, though dflow cancelled nothing; catch it where a task is cancelled"
    return RuntimeError(text).with_traceback(error.__traceback__)


class AsyncSource:
    """Drives an async generator, one value ahead of the gate."""

    def __init__(
        self,
        values: AsyncIterator[Any],
        runner: AsyncRunner,
        gate: Gate,
        on_error: OnError,
    ) -> None:
        self._values = values
        self._runner = runner
        self._gate = gate
        self._on_error = on_error
        self._pulling = False
        self.errors = 0
        self.exhausted = False
        self.busy_ns = 0

    @property
    def waiting(self) -> bool:
        """Whether a value is being waited for."""
        return self._pulling

    def turn(self) -> None:
        """Make sure that values are being pulled."""
        if not self._pulling and not self.exhausted:
            self._pulling = True
            self._runner.spawn(self._pull())

    async def _pull(self) -> None:
        try:
            while not (
                self._gate.shut or self.exhausted or self._runner.late or self._runner.blocked()
            ):
                value = await anext(self._values)
                if value is not None:
                    self._runner.try_to_emit(value, "source")
        except StopAsyncIteration:
            self.exhausted = True
        except asyncio.CancelledError as error:
            self.exhausted = True
            if self._runner.cancelled_here():
                raise
            self.errors += 1
            self._on_error(_unasked(error), "source")
        except Exception as error:  # noqa: BLE001  # user code may raise anything
            self.errors += 1
            self.exhausted = True
            self._on_error(error, "source")
        finally:
            self._pulling = False

    def close(self) -> None:
        """End the source: cancel what it waits for."""
        self.exhausted = True
        self._runner.cancel()
