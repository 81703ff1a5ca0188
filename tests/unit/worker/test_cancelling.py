"""What a request to cancel a message finds: queued, in a handler's hands, or done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from loguru import logger

from dflow.flow.in_edge import InChannel
from dflow.graph.node import Handler
from dflow.message import Cancelled, Priority
from dflow.wire.frames import pack_batch, parse
from dflow.worker.aio import AsyncRunner
from dflow.worker.cancelling import Canceller
from dflow.worker.context import Context
from dflow.worker.dispatch import Dispatcher
from dflow.worker.inbound import Inbound
from tests.unit.worker_output import Wireless


class Bench:
    """A replica with one channel, and somebody who cancels."""

    def __init__(self, handler: Callable[[Any], Any]) -> None:
        self.output = Wireless()
        self.channel = InChannel(4, "a.out->b.in", "in", Priority.NORMAL, 10**4, 1 << 30, 1)
        self.dispatcher = Dispatcher(
            {"in": Handler.of(handler, handler)},
            self.output.emit,
            self.output.codec,
            self.output.gate,
            lambda error, where: None,
            self.output.direct,
        )
        inbound = SimpleNamespace(find={4: self.channel}.get)
        self.canceller = Canceller(cast("Inbound", inbound), self.output.gate)
        self.canceller.watch(self.dispatcher)
        self.ctx = Context("b", 0, "run-1", logger)
        self.ctx.follow(lambda: self.dispatcher.handling)

    def feed(self, count: int) -> None:
        """Let a batch of the numbers from the last on arrive."""
        first = self.channel.window.received
        payloads = [self.output.codec.encode(first + i) for i in range(count)]
        self.channel.accept(parse(pack_batch(4, 1, first, payloads, 0)))

    def turn(self, size: int = 8) -> None:
        """Handle up to ``size`` messages."""
        self.dispatcher.turns["in"].size = size
        self.output.gate.open()
        self.dispatcher.turn(self.channel)
        self.output.attend()

    def cancel(self, sequence: int) -> Cancelled | None:
        """Cancel, as the pulse thread does."""
        return self.canceller.cancel(4, sequence)


def test_a_queued_message_never_reaches_its_handler() -> None:
    bench = Bench(lambda value: value)
    bench.feed(4)
    assert bench.cancel(1) is Cancelled.CANCELLED
    assert bench.cancel(1) is Cancelled.CANCELLED
    while bench.channel.inbox:
        bench.turn()
    assert bench.output.sent == [0, 2, 3]
    assert (bench.channel.withdrawn, bench.channel.window.done) == (1, 4)


def test_a_message_that_has_not_arrived_yet_can_be_cancelled() -> None:
    bench = Bench(lambda value: value)
    assert bench.cancel(1) is Cancelled.CANCELLED
    bench.feed(2)
    bench.turn()
    bench.turn()
    assert bench.output.sent == [0]


def test_what_was_handled_is_done() -> None:
    bench = Bench(lambda value: value)
    bench.feed(2)
    bench.turn()
    assert bench.cancel(0) is Cancelled.DONE


def test_a_channel_nobody_knows_has_no_messages() -> None:
    bench = Bench(lambda value: value)
    assert bench.canceller.cancel(5, 0) is Cancelled.UNKNOWN


def test_in_the_middle_of_a_turn_only_the_very_next_message_is_in_doubt() -> None:
    seen: list[Any] = []

    def handler(value: int) -> int:
        if value == 2:
            seen.extend(bench.cancel(sequence) for sequence in (1, 2, 3, 4, 6, 9))
            seen.append(bench.ctx.cancelled)
        return value

    bench = Bench(handler)
    bench.feed(10)
    bench.turn(size=8)
    assert seen == [
        Cancelled.DONE,
        Cancelled.HANDLING,
        None,
        Cancelled.CANCELLED,
        Cancelled.CANCELLED,
        Cancelled.CANCELLED,
        True,
    ]
    assert bench.output.sent == [0, 1, 2]  # the turn is over: the gate is shut
    assert bench.cancel(3) is Cancelled.CANCELLED
    while bench.channel.inbox:
        bench.turn()
    assert bench.output.sent == [0, 1, 2, 5, 7, 8]


def test_credit_that_comes_back_does_not_open_a_gate_that_is_held() -> None:
    def handler(value: int) -> int:
        if value == 0:
            assert bench.cancel(2) is Cancelled.CANCELLED
        return value

    bench = Bench(handler)
    bench.feed(3)
    bench.turn()
    assert (bench.output.sent, bench.output.gate.held) == ([0], True)


def test_the_message_at_hand_sees_that_it_is_cancelled_and_the_next_does_not() -> None:
    seen: list[bool] = []

    def handler(value: int) -> None:
        seen.append(bench.ctx.cancelled)
        if value == 1:
            bench.cancel(1)
        seen.append(bench.ctx.cancelled)

    bench = Bench(handler)
    bench.feed(3)
    while bench.channel.inbox:
        bench.turn()
    assert seen == [False, False, False, True, False, False]
    assert bench.ctx.cancelled is False


def test_a_paused_generator_sees_it_when_it_goes_on() -> None:
    seen: list[bool] = []

    def handler(value: int) -> Iterator[int]:
        yield value
        seen.append(bench.ctx.cancelled)
        yield value

    bench = Bench(handler)
    bench.output.window.capacity = 1
    bench.output.lane.update()
    bench.feed(2)
    bench.turn()
    assert len(bench.dispatcher.paused) == 1
    assert bench.cancel(0) is Cancelled.HANDLING
    assert bench.cancel(1) is Cancelled.CANCELLED
    bench.output.grant(100)
    bench.dispatcher.resume()
    assert seen == [True]
    assert bench.cancel(0) is Cancelled.DONE


def test_while_a_turn_is_being_put_together_one_has_to_ask_again() -> None:
    bench = Bench(lambda value: value)
    bench.feed(1)
    bench.dispatcher.choosing = True
    assert bench.cancel(0) is None


def test_a_task_sees_it_and_another_does_not() -> None:
    seen: list[tuple[int, bool]] = []

    async def handler(value: int) -> None:
        while value == 0 and not bench.ctx.cancelled:  # noqa: ASYNC110  # no event tells it
            await asyncio.sleep(0)
        seen.append((value, bench.ctx.cancelled))

    bench = Bench(handler)
    tasks = AsyncRunner(2, bench.output.emit, lambda error, where: None, lambda: False)
    bench.canceller.watch(tasks=tasks)
    bench.feed(3)
    for value, handling in bench.dispatcher.take(bench.channel, 2):
        tasks.start(lambda value=value: handler(value), handling)  # type: ignore[misc]
    for _ in range(10):
        tasks.wait([], 0)
    assert seen == [(1, False)]
    assert bench.cancel(1) is Cancelled.DONE
    assert bench.cancel(0) is Cancelled.HANDLING
    assert bench.cancel(2) is Cancelled.CANCELLED
    for _ in range(10):
        tasks.wait([], 0)
    tasks.close()
    assert seen[1:] == [(0, True)]
    assert not tasks.active


@pytest.mark.parametrize("size", [1, 8])
def test_cancelling_keeps_the_books_right(size: int) -> None:
    bench = Bench(lambda value: value)
    bench.feed(10)
    for sequence in (2, 5, 9):
        assert bench.cancel(sequence) is Cancelled.CANCELLED
    while bench.channel.inbox:
        bench.turn(size)
    window = bench.channel.window
    assert (window.taken, window.done, bench.channel.withdrawn) == (10, 10, 3)
    assert bench.dispatcher.handled == 7
