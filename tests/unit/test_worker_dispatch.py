"""A batch through the user's handler: turns, credit in the middle, and errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from loguru import logger

from dflow.errors import DecodeError
from dflow.flow.in_edge import InChannel
from dflow.graph.node import Handler
from dflow.message import Headers, Priority
from dflow.wire.codec import Codec
from dflow.wire.frames import pack_batch, parse
from dflow.worker.context import Context
from dflow.worker.dispatch import MAX_PAUSED, MAX_TURN, TURN_NS, Dispatcher, Turns
from dflow.worker.faults import Interrupted
from dflow.worker.plane import Gate


class Bench:
    """A dispatcher with one handler, one channel, and an output with ``credit``."""

    def __init__(self, handler: Callable[[Any], Any], *, credit: int = 10**9) -> None:
        self.codec = Codec()
        self.gate = Gate()
        self.ctx = Context("b", 0, "run-1", logger)
        self.credit = credit
        self.out: list[Any] = []
        self.raised: list[tuple[BaseException, str]] = []
        self.dispatcher = Dispatcher(
            {"in": Handler.of(handler, handler)},
            self.emit,
            self.codec,
            self.gate,
            self.ctx,
            lambda error, where: self.raised.append((error, where)),
        )
        self.channel = InChannel(0, "a.out->b.in", "in", Priority.NORMAL, 10**4, 1 << 30, 1)

    def emit(self, value: Any) -> None:
        """Encode, as the real one does, and shut the gate when credit runs out."""
        self.codec.encode(value)
        self.out.append(value)
        self.credit -= 1
        if self.credit <= 0:
            self.gate.shut = True

    def feed(self, *values: Any) -> None:
        """Let a batch arrive."""
        payloads = [self.codec.encode(value) for value in values]
        frame = pack_batch(0, 1, self.channel.window.received, payloads, 77)
        self.channel.accept(parse(frame))

    def turns(self) -> None:
        """Run turns until the inbox is empty, or nothing is taken any more."""
        while self.channel.inbox:
            before = self.channel.depth
            self.gate.shut = False
            self.dispatcher.turn(self.channel)
            assert self.channel.depth < before
            if self.dispatcher.paused:
                return

    def grant(self, credit: int) -> None:
        """Give credit back and go on with the generator that waits for it."""
        self.credit, self.gate.shut = credit, False
        self.dispatcher.resume()

    @property
    def counts(self) -> tuple[int, int]:
        """(taken, done)."""
        return self.channel.window.taken, self.channel.window.done

    @property
    def messages(self) -> list[str]:
        """The errors reported so far."""
        return [f"{where}: {error}" for error, where in self.raised]


def double(value: int) -> int:
    """Return twice the value."""
    return 2 * value


def test_returned_values_are_emitted_in_order_and_none_is_not() -> None:
    bench = Bench(lambda value: value if value % 2 else None)
    bench.feed(*range(6))
    bench.turns()
    assert bench.out == [1, 3, 5]
    assert (bench.dispatcher.handled, bench.counts) == (6, (6, 6))


def test_a_first_turn_is_one_message_and_cheap_turns_grow() -> None:
    bench = Bench(double)
    bench.feed(*range(100))
    bench.dispatcher.turn(bench.channel)
    assert bench.counts == (1, 1)
    bench.dispatcher.turn(bench.channel)
    assert bench.counts == (3, 3)


def test_a_shut_gate_ends_the_turn_after_the_message_at_hand() -> None:
    bench = Bench(double, credit=10**9)
    bench.feed(*range(100))
    bench.turns()
    bench.feed(*range(50))
    bench.credit = 3
    bench.gate.shut = False
    bench.dispatcher.turn(bench.channel)
    assert bench.counts == (103, 103)


def test_an_exception_in_the_middle_of_a_batch_skips_that_message_only() -> None:
    def fussy(value: int) -> int:
        if value == 3:
            raise ValueError("three")
        return value

    bench = Bench(fussy)
    bench.feed(*range(6))
    bench.turns()
    assert bench.out == [0, 1, 2, 4, 5]
    assert bench.messages == ["handler: three"]
    assert (bench.dispatcher.errors, bench.counts) == (1, (6, 6))


def test_a_value_that_cannot_travel_is_the_handlers_error() -> None:
    bench = Bench(lambda value: object() if value == 1 else value)
    bench.feed(0, 1, 2)
    bench.turns()
    assert bench.out == [0, 2]
    assert "object" in bench.messages[0]
    assert bench.counts == (3, 3)


def test_a_batch_that_cannot_be_decoded_is_counted_and_the_next_is_handled() -> None:
    bench = Bench(double)
    bench.channel.accept(parse(pack_batch(0, 1, 0, [b"\xc1", b"\xc1"], 0)))
    bench.feed(4)
    bench.dispatcher.turn(bench.channel)
    assert (bench.dispatcher.errors, bench.channel.malformed, bench.counts) == (2, 1, (2, 2))
    bench.dispatcher.turn(bench.channel)
    assert bench.out == [8]
    ((error, where),) = bench.raised
    assert isinstance(error, DecodeError)
    assert where == "decoding a.out->b.in"


def test_headers_describe_the_batch_at_hand_and_are_gone_afterwards() -> None:
    seen: list[Headers | None] = []
    bench = Bench(lambda value: seen.append(bench.ctx.headers))
    bench.feed(1)
    bench.feed(2)
    bench.turns()
    assert seen == [Headers("a.out->b.in", 0, 77), Headers("a.out->b.in", 1, 77)]
    assert bench.ctx.headers is None


# --- generators ---------------------------------------------------------------------------------


def burst(value: int) -> Iterator[int | None]:
    """Yield ``value`` numbers, with a None in between."""
    for number in range(value):
        yield number
        yield None


def test_a_generator_emits_each_value() -> None:
    bench = Bench(burst)
    bench.feed(2, 0, 3)
    bench.turns()
    assert bench.out == [0, 1, 0, 1, 2]
    assert bench.counts == (3, 3)


def test_a_generator_pauses_without_credit_and_goes_on_where_it_stopped() -> None:
    bench = Bench(burst, credit=2)
    bench.feed(5)
    bench.turns()
    assert (bench.out, bench.counts) == ([0, 1], (1, 0))
    bench.grant(2)
    assert (bench.out, bench.counts) == ([0, 1, 2, 3], (1, 0))
    bench.grant(9)
    assert (bench.out, bench.counts) == ([0, 1, 2, 3, 4], (1, 1))
    assert not bench.dispatcher.paused


def test_messages_before_a_paused_one_are_done() -> None:
    bench = Bench(burst, credit=10**9)
    bench.feed(*[1] * 7)
    bench.turns()  # grow the turn
    bench.feed(1, 1, 5)
    bench.credit = 4
    bench.turns()
    assert bench.counts == (10, 9)
    bench.grant(9)
    assert bench.counts == (10, 10)


def test_a_plain_function_may_return_a_generator_and_it_pauses_too() -> None:
    bench = Bench(lambda value: burst(value), credit=1)
    bench.feed(3)
    bench.turns()
    assert (bench.out, bench.counts) == ([0], (1, 0))
    bench.grant(9)
    assert (bench.out, bench.counts) == ([0, 1, 2], (1, 1))


def test_a_generator_function_may_return_at_once() -> None:
    def maybe(value: int) -> Iterator[int]:
        if value:
            yield value

    bench = Bench(maybe)
    bench.feed(0, 1, 0)
    bench.turns()
    assert (bench.out, bench.counts) == ([1], (3, 3))


def test_a_generator_that_raises_keeps_what_it_yielded_before() -> None:
    def breaks(value: int) -> Iterator[int]:
        yield value
        raise RuntimeError(f"after {value}")

    bench = Bench(breaks)
    bench.feed(1, 2)
    bench.turns()
    assert bench.out == [1, 2]
    assert bench.messages == ["handler: after 1", "handler: after 2"]
    assert bench.counts == (2, 2)


def test_a_generator_that_raises_when_resumed_is_over() -> None:
    def breaks(value: int) -> Iterator[int]:
        yield value
        raise RuntimeError("late")

    bench = Bench(breaks, credit=1)
    bench.feed(1)
    bench.turns()
    bench.grant(5)
    assert (bench.messages, bench.counts) == (["handler: late"], (1, 1))
    assert not bench.dispatcher.paused


def test_a_generator_handler_that_raises_before_it_is_iterated_is_skipped() -> None:
    class Odd:
        """Declared with yield, but its call fails: as a decorated generator may."""

        def __call__(self, value: int) -> Iterator[int]:
            yield value

    odd = Odd()
    bench = Bench(odd)

    def failing(value: int) -> Any:
        if value == 1:
            raise LookupError("no")
        return odd(value)

    bench.dispatcher._handlers["in"] = Handler(failing, False, True)
    bench.feed(0, 1, 2)
    bench.turns()
    assert (bench.out, bench.messages, bench.counts) == ([0, 2], ["handler: no"], (3, 3))


def test_too_many_paused_generators_are_noticed() -> None:
    bench = Bench(burst)
    for _ in range(MAX_PAUSED):
        assert not bench.dispatcher.crowded
        bench.credit = 1
        bench.dispatcher.drain(burst(2))
    crowded = bench.dispatcher.crowded
    assert crowded
    for _ in range(MAX_PAUSED):
        bench.grant(9)
    assert not bench.dispatcher.paused


def test_resume_without_anything_paused_does_nothing() -> None:
    bench = Bench(double)
    bench.dispatcher.resume()
    assert bench.out == []


# --- interruption -------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["function", "generator"])
def test_an_interrupted_message_is_not_an_error_and_ends_the_turn(where: str) -> None:
    def blocks(value: int) -> int:
        raise Interrupted

    def blocks_yielding(value: int) -> Iterator[int]:
        yield value
        raise Interrupted

    bench = Bench(blocks if where == "function" else blocks_yielding)
    bench.feed(1, 2)
    bench.dispatcher.turn(bench.channel)
    assert (bench.raised, bench.dispatcher.errors, bench.counts) == ([], 0, (1, 1))


# --- messages handled as tasks ------------------------------------------------------------------


def test_take_hands_out_values_as_taken_but_not_done() -> None:
    bench = Bench(double)
    bench.feed(1, 2, 3)
    assert bench.dispatcher.take(bench.channel, 2) == [1, 2]
    assert bench.dispatcher.take(bench.channel, 2) == [3]
    assert (bench.counts, bench.dispatcher.handled) == ((3, 0), 3)


def test_take_of_an_undecodable_batch_is_empty_and_counted() -> None:
    bench = Bench(double)
    bench.channel.accept(parse(pack_batch(0, 1, 0, [b"\xc1"], 0)))
    assert bench.dispatcher.take(bench.channel, 5) == []
    assert (bench.dispatcher.handled, bench.dispatcher.errors, bench.counts) == (0, 1, (1, 1))


# --- how long a turn is -------------------------------------------------------------------------


def test_cheap_turns_double_up_to_a_batch() -> None:
    turns = Turns()
    sizes = []
    for _ in range(12):
        turns.measured(turns.size, 1000)
        sizes.append(turns.size)
    assert sizes == [2, 4, 8, 16, 32, 64, 128, 256, MAX_TURN, MAX_TURN, MAX_TURN, MAX_TURN]


def test_a_turn_that_took_too_long_shrinks_to_what_fits() -> None:
    turns = Turns()
    turns.size = 100
    turns.measured(100, 10 * TURN_NS)
    assert turns.size == 10
    turns.measured(1, 100 * TURN_NS)
    assert turns.size == 1


def test_a_turn_cut_short_by_the_gate_does_not_grow() -> None:
    turns = Turns()
    turns.size = 8
    turns.measured(3, 10)
    assert turns.size == 8


def test_time_in_user_code_adds_up_over_ports_hooks_and_resumes() -> None:
    bench = Bench(double)
    bench.feed(*range(20))
    bench.turns()
    busy = bench.dispatcher.busy_ns
    assert busy > 0
    bench.dispatcher.other_ns += 5
    assert bench.dispatcher.busy_ns == busy + 5
