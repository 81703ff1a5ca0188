"""An ordered node without sockets: what it emits leaves in the order of its inputs, tagged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, cast

import pytest

from dflow.errors import EdgeFull
from dflow.flow.in_edge import InChannel
from dflow.flow.queue_edge import QueueEdge
from dflow.graph.node import Handler
from dflow.message import Priority
from dflow.wire.codec import Codec
from dflow.wire.frames import pack_batch, pack_noted, parse
from dflow.wire.notes import Notes, pack_notes
from dflow.worker.aio import AsyncRunner
from dflow.worker.context import current_headers
from dflow.worker.dispatch import Dispatcher
from dflow.worker.faults import Interrupted
from dflow.worker.offering import Offering, Prepared
from dflow.worker.ordered import MAX_KEPT, InOrder, Order
from dflow.worker.plane import Gate

CODEC = Codec()
Sent = tuple[Any, tuple[int, int] | None]


class Edge:
    """A tagged edge that only hears which inputs are complete."""

    class plan:  # noqa: N801  # stands for an EdgePlan
        """Of a tagged edge."""

        tagged = True

    def __init__(self) -> None:
        self.completed: list[int] = []

    def complete(self, number: int) -> None:
        """Note a completion."""
        self.completed.append(number)


class Output:
    """What `Offering` does, without edges; shuts the gate when ``credit`` is used up."""

    output = "out"

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.credit = 1 << 30
        self.full = False
        self.sent: list[Sent] = []
        self.withdrawn: list[str | None] = []

    def prepare(self, value: Any, id: str | None = None) -> Prepared:
        """Freeze a value."""
        return Prepared(value, CODEC.encode(value), [], [])

    def commit(
        self,
        prepared: Prepared,
        *,
        id: str | None = None,
        tag: tuple[int, int] | None = None,
        cancelled: bool = False,
    ) -> None:
        """Send."""
        if cancelled:
            self.withdrawn.append(id)
            return
        if self.full:
            raise EdgeFull("b.out->c.in", 1, 1)
        self.sent.append((CODEC.decode(prepared.payload), tag))
        self.credit -= 1
        self.gate.shut = self.credit <= 0


class Bench:
    """An ordered replica with a data input, a control input, and one output."""

    def __init__(self, handler: Callable[[Any], Any]) -> None:
        self.gate = Gate()
        self.edge = Edge()
        self.output = Output(self.gate)
        self.raised: list[BaseException] = []
        self.order = Order([cast("QueueEdge", self.edge)], self.on_error)
        self.emit = InOrder(self.order, cast("Offering", self.output))
        handlers = {"in": Handler.of(handler, handler), "control": Handler.of(handler, handler)}
        self.dispatcher = Dispatcher(
            handlers, self.emit, CODEC, self.gate, self.on_error, None, order=self.order
        )
        self.call = handler
        self.data = InChannel(
            0, "a.out->b.in", "in", Priority.NORMAL, 4096, 1 << 20, 1, numbered=True
        )
        self.control = InChannel(1, "run->b.control", "control", Priority.CONTROL, 64, 1 << 20, 1)

    @cached_property
    def tasks(self) -> AsyncRunner:
        """What runs coroutines; whoever needs it closes it."""
        return AsyncRunner(8, self.emit, self.on_error, lambda: self.output.credit <= 0, self.order)

    def on_error(self, error: BaseException, where: str) -> None:
        """Note an error."""
        self.raised.append(error)

    def feed(self, values: list[Any], numbers: list[int] | None = None) -> None:
        """Let numbered data arrive."""
        numbers = numbers or list(range(len(values)))
        payloads = [CODEC.encode(value) for value in values]
        notes = pack_notes(Notes(numbers=numbers))
        first = self.data.window.received
        self.data.accept(parse(pack_noted(0, 1, first, payloads, 0, notes)))

    def steer(self, value: Any) -> None:
        """Let a control message arrive and be handled."""
        first = self.control.window.received
        self.control.accept(parse(pack_batch(1, 1, first, [CODEC.encode(value)], 0)))
        self.dispatcher.turn(self.control, 1)

    def turns(self) -> None:
        """Handle what is there, until a generator waits for credit."""
        while self.data.inbox and not self.dispatcher.paused:
            self.gate.open()
            self.dispatcher.turn(self.data)

    def grant(self, credit: int) -> None:
        """Give credit and go on with the generator that waits for it."""
        self.output.credit = credit
        self.gate.open()
        self.dispatcher.resume()

    def start(self) -> None:
        """Start tasks for what is there."""
        while self.data.inbox and self.tasks.free:
            for value, handling in self.dispatcher.take(self.data, self.tasks.free):
                self.tasks.start(lambda value=value: self.call(value), handling)  # type: ignore[misc]
        current_headers.set(None)

    def until(self, condition: Callable[[], object]) -> None:
        """Let tasks run until ``condition`` holds."""
        for _ in range(2000):
            if condition():
                return
            self.tasks.wait([], 0)
        raise AssertionError("expected the condition to come true, tasks made no progress")

    @property
    def completed(self) -> list[int]:
        """Which inputs the edge knows to be complete."""
        self.order.tell()
        return self.edge.completed

    @property
    def values(self) -> list[Any]:
        """What was sent, without tags."""
        return [value for value, _ in self.output.sent]

    @property
    def counts(self) -> tuple[int, int]:
        """(taken, done) of the data."""
        return self.data.window.taken, self.data.window.done


# --- one message at a time ----------------------------------------------------------------------


def test_every_result_carries_the_number_of_its_input_and_its_place() -> None:
    def repeat(value: int) -> Iterator[int]:
        yield from [value] * value

    bench = Bench(repeat)
    bench.feed([2, 0, 1], [4, 6, 9])
    bench.turns()
    assert bench.output.sent == [(2, (4, 0)), (2, (4, 1)), (1, (9, 0))]
    assert (bench.completed, bench.counts) == ([4, 6, 9], (3, 3))


def test_each_input_completes_once_whatever_its_handler_does() -> None:
    def erratic(value: int) -> Any:
        match value:
            case 1:
                raise LookupError("1")
            case 2:
                return (number for number in (20, 21))
            case 3:
                raise Interrupted
            case 4:
                return object()
            case 5:
                return None
        return value

    bench = Bench(erratic)
    bench.feed([0, 1, 2, 3, 4, 5, 6])
    bench.turns()
    assert bench.output.sent == [(0, (0, 0)), (20, (2, 0)), (21, (2, 1)), (6, (6, 0))]
    assert bench.completed == [0, 1, 2, 3, 4, 5, 6]
    assert (len(bench.raised), bench.dispatcher.errors, bench.counts) == (2, 2, (7, 7))


def test_a_generator_that_raises_in_between_completes_with_what_it_gave() -> None:
    def breaks(value: int) -> Iterator[int]:
        yield value
        yield cast("int", object())
        yield value
        raise LookupError("enough")

    bench = Bench(breaks)
    bench.feed([7, 8])
    bench.turns()
    assert bench.output.sent == [(7, (0, 0)), (7, (0, 1)), (8, (1, 0)), (8, (1, 1))]
    assert (bench.completed, len(bench.raised)) == ([0, 1], 4)


def test_a_message_that_cannot_be_decoded_is_complete_without_results() -> None:
    bench = Bench(lambda value: value)
    payloads = [b"\x01", b"\xc7\x01\x63x", b"\x02"]
    notes = pack_notes(Notes(numbers=[0, 3, 5]))
    bench.data.accept(parse(pack_noted(0, 1, 0, payloads, 0, notes)))
    bench.turns()
    assert bench.output.sent == [(1, (0, 0)), (2, (5, 0))]
    assert (bench.completed, bench.counts, bench.data.malformed) == ([0, 3, 5], (3, 3), 1)


def test_a_cancelled_message_is_complete_without_results() -> None:
    bench = Bench(lambda value: value)
    bench.feed([1, 2, 3], [0, 3, 5])
    bench.data.cancel(1)
    bench.turns()
    assert bench.output.sent == [(1, (0, 0)), (3, (5, 0))]
    assert (bench.completed, bench.data.withdrawn) == ([0, 3, 5], 1)


def test_a_generator_that_waited_for_credit_goes_on_with_its_own_number() -> None:
    def repeat(value: int) -> Iterator[int]:
        yield from range(value)

    bench = Bench(repeat)
    bench.output.credit = 2
    bench.feed([3, 1], [4, 5])
    bench.turns()
    assert (bench.values, bench.completed, bench.counts) == ([0, 1], [], (1, 0))
    bench.grant(2)
    assert bench.output.sent[2:] == [(2, (4, 2))]
    assert (bench.completed, bench.counts) == ([4], (1, 1))
    bench.turns()
    assert bench.output.sent[3:] == [(0, (5, 0))]


def test_what_a_control_message_emits_meanwhile_stands_outside_the_order() -> None:
    def repeat(value: int) -> Iterator[int]:
        yield from range(value)

    bench = Bench(repeat)
    bench.output.credit = 2
    bench.feed([3], [4])
    bench.turns()
    bench.output.credit = 9
    bench.steer(1)
    bench.grant(9)
    assert bench.output.sent[2:] == [(0, None), (2, (4, 2))]


def test_what_is_emitted_between_messages_stands_outside_the_order() -> None:
    bench = Bench(lambda value: value)
    bench.feed([1])
    bench.turns()
    bench.emit("tick")
    assert bench.output.sent == [(1, (0, 0)), ("tick", None)]


# --- tasks that overtake each other -------------------------------------------------------------


class Doors:
    """Lets each task go on when its door is opened."""

    def __init__(self) -> None:
        self.doors: dict[Any, asyncio.Event] = {}
        self.waiting: set[Any] = set()

    def __getitem__(self, name: Any) -> asyncio.Event:
        return self.doors.setdefault(name, asyncio.Event())

    async def wait(self, name: Any) -> None:
        """Wait at a door."""
        self.waiting.add(name)
        await self[name].wait()
        self.waiting.discard(name)


@pytest.fixture
def doors() -> Doors:
    """Give closed doors."""
    return Doors()


@pytest.fixture
def made() -> Iterator[list[Bench]]:
    """Give a list of benches to clean up."""
    benches: list[Bench] = []
    yield benches
    for bench in benches:
        bench.tasks.cancel()
        bench.tasks.close()


def test_results_of_tasks_leave_in_the_order_of_their_messages(
    doors: Doors, made: list[Bench]
) -> None:
    async def handler(value: int) -> int:
        await doors.wait(value)
        return 10 * value

    bench = Bench(handler)
    made.append(bench)
    bench.feed([0, 1, 2, 3])
    bench.start()
    bench.until(lambda: len(doors.waiting) == 4)
    for name, expected in ((2, []), (1, []), (0, [0, 10, 20]), (3, [0, 10, 20, 30])):
        doors[name].set()
        bench.until(lambda name=name: name not in doors.waiting)  # type: ignore[misc]
        bench.until(lambda expected=expected: bench.values == expected)  # type: ignore[misc]
    bench.until(lambda: not bench.tasks.active)
    assert bench.output.sent == [(10 * n, (n, 0)) for n in range(4)]
    assert (bench.completed, bench.counts) == ([0, 1, 2, 3], (4, 4))


def test_the_first_in_line_emits_at_once_and_the_others_keep(
    doors: Doors, made: list[Bench]
) -> None:
    async def handler(value: int) -> Any:
        bench.emit(("begin", value))
        await doors.wait(value)
        bench.emit(("end", value))

    bench = Bench(handler)
    made.append(bench)
    bench.feed([0, 1])
    bench.start()
    bench.until(lambda: len(doors.waiting) == 2)
    assert bench.values == [("begin", 0)]
    doors[0].set()
    bench.until(lambda: len(bench.values) == 3)
    assert bench.values == [("begin", 0), ("end", 0), ("begin", 1)]
    assert bench.counts == (2, 1)
    doors[1].set()
    bench.until(lambda: not bench.tasks.active)
    assert bench.values[3:] == [("end", 1)]
    assert bench.counts == (2, 2)


def test_what_is_kept_is_frozen_and_a_mistake_raises_where_it_was_made(
    doors: Doors, made: list[Bench]
) -> None:
    async def handler(value: int) -> Any:
        await doors.wait(value)
        if value == 1:
            note = [1]
            bench.emit(note)
            note.append(2)
            bench.emit(object())

    bench = Bench(handler)
    made.append(bench)
    bench.feed([0, 1])
    bench.start()
    bench.until(lambda: len(doors.waiting) == 2)
    doors[1].set()
    bench.until(lambda: len(bench.raised) == 1)
    assert bench.values == []
    doors[0].set()
    bench.until(lambda: not bench.tasks.active)
    assert bench.output.sent == [([1], (1, 0))]


def test_a_message_cancelled_behind_a_running_task_waits_for_its_turn_to_be_complete(
    doors: Doors, made: list[Bench]
) -> None:
    async def handler(value: int) -> int:
        await doors.wait(value)
        return value

    bench = Bench(handler)
    made.append(bench)
    bench.feed([0, 1, 2])
    bench.data.cancel(1)
    bench.start()
    bench.until(lambda: len(doors.waiting) == 2)
    doors[2].set()
    bench.until(lambda: len(doors.waiting) == 1)
    assert bench.completed == []
    doors[0].set()
    bench.until(lambda: not bench.tasks.active)
    assert (bench.completed, bench.values) == ([0, 1, 2], [0, 2])
    assert bench.counts == (3, 3)


def test_a_generator_that_is_not_first_waits_rather_than_fill_the_memory(
    doors: Doors, made: list[Bench]
) -> None:
    given = 0

    async def handler(value: int) -> Any:
        nonlocal given
        if value == 0:
            await doors.wait(value)
        while value and given < 3 * MAX_KEPT:
            given += 1
            yield given
            await asyncio.sleep(0)

    bench = Bench(handler)
    made.append(bench)
    bench.feed([0, 1])
    bench.start()
    bench.until(lambda: given >= MAX_KEPT)
    for _ in range(20):
        bench.tasks.wait([], 0)
    assert given == MAX_KEPT
    doors[0].set()
    bench.until(lambda: given == 3 * MAX_KEPT and not bench.tasks.active)
    assert bench.values == list(range(1, 3 * MAX_KEPT + 1))


def test_a_result_refused_when_its_turn_comes_is_an_error(doors: Doors, made: list[Bench]) -> None:
    async def handler(value: int) -> Any:
        await doors.wait(value)
        return value or None

    bench = Bench(handler)
    made.append(bench)
    bench.feed([0, 1, 2])
    bench.start()
    bench.until(lambda: len(doors.waiting) == 3)
    doors[1].set()
    bench.until(lambda: len(doors.waiting) == 2)
    bench.output.full = True
    doors[0].set()
    bench.until(lambda: len(bench.raised) == 1)
    bench.output.full = False
    doors[2].set()
    bench.until(lambda: not bench.tasks.active)
    assert isinstance(bench.raised[0], EdgeFull)
    assert bench.order.errors == 1
    assert bench.output.sent == [(2, (2, 0))]
    assert bench.completed == [0, 1, 2]


def test_a_result_that_waits_for_its_turn_can_be_cancelled(doors: Doors, made: list[Bench]) -> None:
    async def handler(value: int) -> None:
        bench.emit(value, id=f"id {value}")
        await doors.wait(value)
        bench.emit(value)

    bench = Bench(handler)
    made.append(bench)
    bench.feed([0, 1, 2])
    bench.start()
    bench.until(lambda: len(doors.waiting) == 3)
    assert not bench.order.keeps("id 0")  # it has left
    assert bench.order.keeps("id 1")
    assert bench.order.cancel("id 1")
    for name in range(3):
        doors[name].set()
    bench.until(lambda: not bench.tasks.active)
    assert bench.values == [0, 0, 1, 2, 2]
    assert bench.output.withdrawn == ["id 1"]
    assert not bench.order.cancel("id 1")
