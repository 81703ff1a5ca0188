"""Coroutines in a worker: how many at once, what counts as done, and how they end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest

from dflow.flow.in_edge import InChannel
from dflow.message import Priority
from dflow.wire.frames import pack_batch, parse
from dflow.worker.aio import AsyncRunner, AsyncSource
from dflow.worker.handling import Handling
from dflow.worker.plane import Gate

PATIENCE_S = 5.0
ENDLESS_NS = 10**15


class Bench:
    """A runner, an output with ``credit``, and a channel full of messages."""

    def __init__(self, concurrency: int = 3, turn_ns: int = ENDLESS_NS) -> None:
        self.out: list[Any] = []
        self.raised: list[tuple[BaseException, str]] = []
        self.credit = 10**9
        self.gate = Gate()
        self.doors: dict[Any, asyncio.Event] = {}
        self.running = 0
        self.most = 0
        self.runner = AsyncRunner(
            concurrency, self.emit, self.on_error, lambda: self.credit <= 0, turn_ns=turn_ns
        )
        self.channel = InChannel(0, "a.out->b.in", "in", Priority.NORMAL, 1000, 1 << 20, 1)
        self.channel.accept(parse(pack_batch(0, 1, 0, [b"\x01"] * 100, 0)))

    def emit(self, value: Any) -> None:
        """Take an emitted value and use up credit."""
        self.out.append(value)
        self.credit -= 1
        self.gate.shut = self.credit <= 0

    def on_error(self, error: BaseException, where: str) -> None:
        """Note an error."""
        self.raised.append((error, where))

    def start(self, call: Callable[[], Any]) -> None:
        """Take a message and start its coroutine, as the worker does."""
        assert self.runner.free > 0
        self.channel.take(1)
        self.runner.start(call, Handling(self.channel, self.channel.window.taken - 1))

    def door(self, name: Any) -> asyncio.Event:
        """Return an event that a handler waits for."""
        return self.doors.setdefault(name, asyncio.Event())

    def waits_for(self, name: Any, result: Any = None) -> Callable[[], Awaitable[Any]]:
        """Return a handler's call that returns ``result`` once its door was opened."""

        async def handler() -> Any:
            self.running += 1
            self.most = max(self.most, self.running)
            try:
                await self.door(name).wait()
            finally:
                self.running -= 1
            return result

        return handler

    def until(self, condition: Callable[[], object]) -> None:
        """Let tasks run until ``condition`` holds."""
        for _ in range(1000):
            if condition():
                return
            self.runner.wait([], 0)
        raise AssertionError("expected the condition to come true, tasks made no progress")

    @property
    def counts(self) -> tuple[int, int]:
        """(taken, done)."""
        return self.channel.window.taken, self.channel.window.done


@pytest.fixture
def bench() -> Iterator[Bench]:
    """Give a bench whose tasks are gone afterwards."""
    made = Bench()
    yield made
    made.runner.cancel()
    made.runner.close()


def test_results_are_emitted_and_none_is_not(bench: Bench) -> None:
    bench.door("a").set()
    bench.start(bench.waits_for("a", 7))
    bench.start(bench.waits_for("a", None))
    bench.until(lambda: not bench.runner.active)
    assert bench.out == [7]
    assert bench.counts == (2, 2)


def test_no_more_than_concurrency_are_under_way(bench: Bench) -> None:
    for name in range(3):
        bench.start(bench.waits_for(name))
    free = [bench.runner.free]
    bench.until(lambda: bench.running == 3)
    bench.door(1).set()
    bench.until(lambda: bench.running == 2)
    free.append(bench.runner.free)
    assert free == [0, 1]
    assert bench.most == 3


def test_done_counts_only_an_unbroken_row(bench: Bench) -> None:
    for name in range(3):
        bench.start(bench.waits_for(name))
    seen = [bench.counts]
    for name in (2, 0, 1):
        bench.door(name).set()
        bench.until(lambda left=bench.runner.free: bench.runner.free > left)  # type: ignore[misc]
        seen.append(bench.counts)
    assert seen == [(3, 0), (3, 0), (3, 1), (3, 3)]


def test_an_error_is_reported_and_its_message_done(bench: Bench) -> None:
    async def fails() -> None:
        raise LookupError("nobody home")

    bench.start(fails)
    bench.until(lambda: not bench.runner.active)
    assert [(str(error), where) for error, where in bench.raised] == [("nobody home", "handler")]
    assert (bench.runner.errors, bench.counts) == (1, (1, 1))


def test_an_async_generator_waits_for_credit_between_values(bench: Bench) -> None:
    async def numbers() -> AsyncIterator[int | None]:
        for number in range(4):
            yield number
            yield None

    bench.credit = 2
    bench.start(numbers)
    bench.until(lambda: len(bench.out) == 2)
    for _ in range(5):
        bench.runner.wait([], 0)
    assert (bench.out, bench.counts) == ([0, 1], (1, 0))
    bench.credit = 10
    bench.until(lambda: not bench.runner.active)
    assert (bench.out, bench.counts) == ([0, 1, 2, 3], (1, 1))


def test_a_readable_descriptor_ends_the_wait(bench: Bench) -> None:
    reader, writer = os.pipe()
    try:
        bench.start(bench.waits_for("never"))
        os.write(writer, b"x")
        bench.runner.wait([reader], None)
        assert bench.runner.active
        bench.runner._events._loop.remove_reader(reader)
    finally:
        os.close(reader)
        os.close(writer)


def test_a_finished_task_ends_the_wait(bench: Bench) -> None:
    bench.door("a").set()
    bench.start(bench.waits_for("a"))
    bench.runner.wait([], None)
    assert bench.counts == (1, 1)
    assert bench.runner.busy_ns > 0


def test_an_emitted_value_ends_the_wait(bench: Bench) -> None:
    async def emits_and_stays() -> AsyncIterator[int]:
        yield 1
        await bench.door("never").wait()

    bench.start(emits_and_stays)
    bench.runner.wait([], None)
    assert bench.out == [1]
    assert bench.runner.active


def test_a_wait_has_an_end(bench: Bench) -> None:
    bench.start(bench.waits_for("never"))
    bench.runner.wait([], 0.001)
    assert bench.runner.active


def test_hooks_run_to_their_end_and_may_emit(bench: Bench) -> None:
    async def on_start() -> int:
        await asyncio.sleep(0)
        return 1

    async def on_end() -> AsyncIterator[int]:
        yield 2
        yield 3

    bench.credit = 1  # a hook is not paced: what it emits waits in the lane
    bench.runner.call(on_start())
    bench.runner.call(on_end())
    assert bench.out == [1, 2, 3]


def test_cancelled_tasks_clean_up_and_are_not_done(bench: Bench) -> None:
    bench.start(bench.waits_for("never"))
    bench.until(lambda: bench.running == 1)
    bench.runner.cancel()
    assert (bench.running, bench.runner.active, bench.raised) == (0, False, [])
    assert bench.counts == (1, 0)


@pytest.mark.parametrize("steps", range(8))
def test_a_task_may_be_cancelled_whatever_it_is_about_to_do(bench: Bench, steps: int) -> None:
    async def handler() -> None:
        for _ in range(steps):
            await asyncio.sleep(0)

    bench.start(handler)
    bench.runner.wait([], 0)  # one of them has ended, and nobody has heard of it
    bench.runner.cancel()
    assert (bench.raised, bench.runner.active) == ([], False)


async def cancels_its_own() -> None:
    """Await a task that was cancelled, as user code may forget to guard."""
    task = asyncio.get_running_loop().create_task(asyncio.sleep(3600))
    task.cancel()
    await task


async def cancels_itself() -> None:
    """Cancel the task that runs this."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


@pytest.mark.parametrize("handler", [cancels_its_own, cancels_itself])
def test_a_cancellation_out_of_a_handler_is_its_error(
    bench: Bench, handler: Callable[[], Awaitable[None]]
) -> None:
    bench.start(handler)
    bench.start(bench.waits_for("a", 7))
    bench.door("a").set()
    bench.until(lambda: not bench.runner.active)
    ((error, where),) = bench.raised
    assert (where, "CancelledError" in str(error)) == ("handler", True)
    assert (bench.out, bench.runner.errors, bench.counts) == ([7], 1, (2, 2))


def test_a_cancellation_out_of_a_source_is_its_error_and_its_end(bench: Bench) -> None:
    async def breaks() -> AsyncIterator[int]:
        yield 1
        await cancels_its_own()

    one = source(bench, breaks())
    one.turn()
    bench.until(lambda: one.exhausted)
    ((error, where),) = bench.raised
    assert (where, "CancelledError" in str(error)) == ("source", True)
    assert (bench.out, one.errors, one.waiting) == ([1], 1, False)


def test_a_cancellation_out_of_a_hook_is_its_error(bench: Bench) -> None:
    with pytest.raises(RuntimeError, match="CancelledError"):
        bench.runner.call(cancels_its_own())


# --- sources --------------------------------------------------------------------------------------


def source(bench: Bench, values: AsyncIterator[Any]) -> AsyncSource:
    """Return a source that emits into ``bench``."""
    return AsyncSource(values, bench.runner, bench.gate, bench.on_error)


async def numbers(count: int) -> AsyncIterator[int | None]:
    """Yield ``count`` numbers, with a None in between."""
    for number in range(count):
        yield number
        yield None


def test_an_async_source_is_pulled_to_its_end(bench: Bench) -> None:
    one = source(bench, numbers(50))
    one.turn()
    waiting = one.waiting
    one.turn()  # already pulling: nothing more is started
    bench.until(lambda: one.exhausted)
    assert bench.out == list(range(50))
    assert (waiting, one.waiting, one.errors) == (True, False, 0)
    one.turn()
    assert not one.waiting


@pytest.fixture
def hurried() -> Iterator[Bench]:
    """Give a bench whose turns are over at once."""
    made = Bench(turn_ns=0)
    yield made
    made.runner.cancel()
    made.runner.close()


def test_an_async_source_that_never_waits_gives_way_after_a_turn(hurried: Bench) -> None:
    one = source(hurried, numbers(10))
    one.turn()
    hurried.until(lambda: not one.waiting)
    assert hurried.out == []  # the turn was over at once
    hurried.runner._turn_ns = ENDLESS_NS
    one.turn()
    hurried.until(lambda: one.exhausted)
    assert hurried.out == list(range(10))


def test_an_async_generator_that_never_waits_gives_way_after_each_turn(hurried: Bench) -> None:
    hurried.start(lambda: numbers(5))
    seen = []
    for _ in range(100):
        hurried.runner.wait([], 0)
        seen.append(len(hurried.out))
    assert seen[-1] == 5
    assert max(b - a for a, b in pairwise([0, *seen])) == 1
    assert hurried.counts == (1, 1)


def test_an_async_source_stops_at_a_shut_gate_and_goes_on_later(bench: Bench) -> None:
    one = source(bench, numbers(10))
    bench.credit = 3
    one.turn()
    bench.until(lambda: not one.waiting)
    assert (bench.out, one.exhausted) == ([0, 1, 2], False)
    bench.credit, bench.gate.shut = 100, False
    one.turn()
    bench.until(lambda: one.exhausted)
    assert bench.out == list(range(10))


def test_an_async_source_that_raises_is_over(bench: Bench) -> None:
    async def breaks() -> AsyncIterator[int]:
        yield 1
        raise OSError("unplugged")

    one = source(bench, breaks())
    one.turn()
    bench.until(lambda: one.exhausted)
    assert bench.out == [1]
    assert [(str(error), where) for error, where in bench.raised] == [("unplugged", "source")]
    assert one.errors == 1


def test_closing_an_async_source_cancels_what_it_waits_for(bench: Bench) -> None:
    closed: list[bool] = []

    async def device() -> AsyncIterator[int]:
        try:
            yield 1
            await bench.door("never").wait()
        finally:
            closed.append(True)

    one = source(bench, device())
    one.turn()
    bench.until(lambda: bench.out == [1])
    one.close()
    assert (closed, one.exhausted, one.waiting, bench.raised) == ([True], True, False, [])


def refusing(bench: Bench, unwanted: int) -> Callable[[Any], None]:
    """Return an emit that refuses one value."""

    def emit(value: Any) -> None:
        if value == unwanted:
            raise ValueError(f"{value} is refused")
        bench.emit(value)

    return emit


def test_of_an_async_generator_only_the_value_that_is_refused_is_lost(bench: Bench) -> None:
    bench.runner._emit = refusing(bench, 1)
    bench.start(lambda: numbers(4))
    bench.until(lambda: not bench.runner.active)
    assert bench.out == [0, 2, 3]
    assert [(str(error), where) for error, where in bench.raised] == [("1 is refused", "handler")]
    assert bench.runner.errors == 1
    assert bench.counts == (1, 1)


def test_an_async_source_goes_on_after_a_value_that_is_refused(bench: Bench) -> None:
    bench.runner._emit = refusing(bench, 1)
    source = AsyncSource(numbers(4), bench.runner, bench.gate, bench.on_error)
    source.turn()
    bench.until(lambda: source.exhausted)
    assert bench.out == [0, 2, 3]
    assert [where for _, where in bench.raised] == ["source"]
    assert bench.runner.errors + source.errors == 1
