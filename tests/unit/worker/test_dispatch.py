"""A batch through the user's handler: turns, credit in the middle, and errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgpack
import pytest
from loguru import logger

from dflow.errors import DecodeError
from dflow.flow.in_edge import InChannel
from dflow.graph.node import Handler
from dflow.message import Headers, Priority
from dflow.wire.frames import pack_batch, parse
from dflow.worker.context import Context
from dflow.worker.dispatch import MAX_PAUSED, MAX_TURN, TURN_NS, Dispatcher, Turns
from dflow.worker.faults import Interrupted
from tests.unit.worker_output import PLENTY, Wireless


class Bench:
    """A dispatcher with one handler, one channel, and an output with ``credit``."""

    def __init__(
        self, handler: Callable[[Any], Any], *, credit: int = PLENTY, directly: bool = True
    ) -> None:
        self.output = Wireless(credit)
        self.out = self.output.sent
        self.gate = self.output.gate
        self.ctx = Context("b", 0, "run-1", logger)
        self.raised: list[tuple[BaseException, str]] = []
        emit, direct = self.output.ways(directly)
        self.dispatcher = Dispatcher(
            {"in": Handler.of(handler, handler)},
            emit,
            self.output.codec,
            self.gate,
            lambda error, where: self.raised.append((error, where)),
            direct,
        )
        self.channel = InChannel(0, "a.out->b.in", "in", Priority.NORMAL, 10**4, 1 << 30, 1)

    def feed(self, *values: Any) -> None:
        """Let a batch arrive."""
        payloads = [self.output.codec.encode(value) for value in values]
        frame = pack_batch(0, 1, self.channel.window.received, payloads, 77)
        self.channel.accept(parse(frame))

    def turn(self) -> None:
        """Run one turn and flush, as the worker's loop does."""
        self.gate.shut = False
        self.dispatcher.turn(self.channel)
        self.output.attend()

    def turns(self) -> None:
        """Run turns until the inbox is empty, or a generator waits for credit."""
        while self.channel.inbox and not self.dispatcher.paused:
            before = self.channel.depth
            self.turn()
            assert self.channel.depth < before

    def grant(self, credit: int) -> None:
        """Give credit back and go on with the generator that waits for it."""
        self.output.grant(credit)
        self.dispatcher.resume()
        self.output.attend()

    @property
    def counts(self) -> tuple[int, int]:
        """(taken, done)."""
        return self.channel.window.taken, self.channel.window.done

    @property
    def messages(self) -> list[str]:
        """The errors reported so far."""
        return [f"{where}: {error}" for error, where in self.raised]


both_ways = pytest.mark.parametrize("directly", [True, False], ids=["directly", "each"])


def double(value: int) -> int:
    """Return twice the value."""
    return 2 * value


@both_ways
def test_returned_values_are_emitted_in_order_and_none_is_not(directly: bool) -> None:
    bench = Bench(lambda value: value if value % 2 else None, directly=directly)
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
    bench = Bench(double)
    bench.feed(*range(100))
    bench.turns()
    bench.feed(*range(50))
    bench.output.grant(3)
    bench.turn()
    assert bench.counts == (103, 103)


@both_ways
def test_an_exception_in_the_middle_of_a_batch_skips_that_message_only(directly: bool) -> None:
    def fussy(value: int) -> int:
        if value == 3:
            raise ValueError("three")
        return value

    bench = Bench(fussy, directly=directly)
    bench.feed(*range(6))
    bench.turns()
    assert bench.out == [0, 1, 2, 4, 5]
    assert bench.messages == ["handler: three"]
    assert (bench.dispatcher.errors, bench.counts) == (1, (6, 6))


@both_ways
def test_a_stop_iteration_of_a_handler_is_an_error_like_any_other(directly: bool) -> None:
    def first(value: list[int]) -> int:
        return next(iter(value))

    bench = Bench(first, directly=directly)
    bench.feed([1], [], [2], [])
    bench.turns()
    assert bench.out == [1, 2]
    assert (bench.dispatcher.errors, bench.counts) == (2, (4, 4))
    assert all("StopIteration" in message for message in bench.messages)


@both_ways
def test_one_bad_value_costs_a_generator_only_that_value(directly: bool) -> None:
    def mixed(value: int) -> Iterator[Any]:
        yield value
        yield object()
        yield value + 1

    bench = Bench(mixed, directly=directly)
    bench.feed(1, 5)
    bench.turns()
    assert bench.out == [1, 2, 5, 6]
    assert (bench.dispatcher.errors, bench.counts) == (2, (2, 2))


def test_a_generator_of_nothing_but_bad_values_ends_with_the_turn() -> None:
    def bad(value: int) -> Iterator[Any]:
        for number in range(1000):
            if number == 3:
                bench.gate.close()  # as the pulse does when a turn takes long
            yield object()

    bench = Bench(bad)
    bench.feed(1)
    bench.turn()
    assert (bench.dispatcher.errors, bench.counts) == (4, (1, 0))
    bench.grant(1)
    assert (bench.dispatcher.errors, bench.counts) == (1000, (1, 1))


@both_ways
def test_what_a_handler_emits_and_what_it_returns_stay_in_order(directly: bool) -> None:
    def twice(value: int) -> int:
        bench.output.emit(value)
        return -value

    bench = Bench(twice, directly=directly)
    bench.feed(*range(1, 1200))
    bench.turns()
    assert bench.out == [signed for value in range(1, 1200) for signed in (value, -value)]
    lane = bench.output.lane
    assert (lane.waiting, lane.queued_bytes) == (0, lane.flushed_bytes)


@both_ways
def test_a_value_that_cannot_travel_is_the_handlers_error(directly: bool) -> None:
    bench = Bench(lambda value: object() if value == 1 else value, directly=directly)
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
    assert (bench.dispatcher.errors, bench.channel.malformed, bench.counts) == (2, 2, (2, 2))
    bench.turn()
    assert bench.out == [8]
    ((error, where),) = bench.raised
    assert isinstance(error, DecodeError)
    assert where == "decoding a.out->b.in"


def mixed_batch(bench: Bench, *payloads: Any) -> None:
    """Let a batch arrive in which every ``None`` is a message that no codec can decode."""
    bad = msgpack.packb(msgpack.ExtType(99, b"x"))
    packed = [bad if value is None else bench.output.codec.encode(value) for value in payloads]
    frame = pack_batch(0, 1, bench.channel.window.received, packed, 77)
    bench.channel.accept(parse(frame))


def test_an_undecodable_message_costs_the_others_of_its_batch_nothing() -> None:
    bench = Bench(double)
    mixed_batch(bench, None, (1,), "b", None, 3, None)
    bench.feed(4)
    bench.turns()
    assert bench.out == [(1, 1), "bb", 6, 8]
    assert bench.dispatcher.handled == 4
    assert (bench.dispatcher.errors, bench.channel.malformed, bench.counts) == (3, 3, (7, 7))
    assert {where for _, where in bench.raised} == {"decoding a.out->b.in"}
    assert len(bench.raised) == 3
    assert bench.channel.window.taken_bytes == bench.channel.window.received_bytes


def test_an_undecodable_message_that_ends_the_run_does_so_before_the_next_is_handled() -> None:
    bench = Bench(double)
    shut = bench.dispatcher._on_error

    def stop(error: BaseException, where: str) -> None:
        shut(error, where)
        bench.gate.close()

    bench.dispatcher._on_error = stop
    mixed_batch(bench, 1, None)
    bench.turn()
    assert (bench.out, bench.counts) == ([], (0, 0))
    bench.turns()
    assert (bench.out, bench.counts) == ([2], (2, 2))


def test_take_hands_out_what_can_be_decoded() -> None:
    bench = Bench(double)
    mixed_batch(bench, 1, None, 2)
    taken = [bench.dispatcher.take(bench.channel, 5) for _ in range(3)]
    assert [[(value, one.sequence) for value, one in some] for some in taken] == [
        [(1, 0)],
        [],
        [(2, 2)],
    ]
    # the lost one is done, but not what was taken before it
    assert (bench.dispatcher.handled, bench.dispatcher.errors, bench.counts) == (2, 1, (3, 0))
    bench.channel.finish(1)
    assert bench.counts == (3, 2)


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


@both_ways
def test_a_generator_pauses_without_credit_and_goes_on_where_it_stopped(directly: bool) -> None:
    bench = Bench(burst, credit=2, directly=directly)
    bench.feed(5)
    bench.turns()
    assert (bench.out, bench.counts) == ([0, 1], (1, 0))
    bench.grant(2)
    assert (bench.out, bench.counts) == ([0, 1, 2, 3], (1, 0))
    bench.grant(9)
    assert (bench.out, bench.counts) == ([0, 1, 2, 3, 4], (1, 1))
    assert not bench.dispatcher.paused


def test_messages_before_a_paused_one_are_done() -> None:
    bench = Bench(burst)
    bench.feed(*[1] * 7)
    bench.turns()  # grow the turn
    bench.feed(1, 1, 5)
    bench.output.grant(4)
    bench.turns()
    assert bench.counts == (10, 9)
    bench.grant(9)
    assert bench.counts == (10, 10)


@both_ways
def test_a_plain_function_may_return_a_generator_and_it_pauses_too(directly: bool) -> None:
    bench = Bench(lambda value: burst(value), credit=1, directly=directly)
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


@both_ways
def test_a_generator_that_raises_keeps_what_it_yielded_before(directly: bool) -> None:
    def breaks(value: int) -> Iterator[int]:
        yield value
        raise RuntimeError(f"after {value}")

    bench = Bench(breaks, directly=directly)
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
        bench.output.grant(1)
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
    for expected in ([(1, 0), (2, 1)], [(3, 2)]):
        taken = bench.dispatcher.take(bench.channel, 2)
        assert [(value, handling.sequence) for value, handling in taken] == expected
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
    assert sizes == [2, 4, 8, 16, 32, 64, 128, 256, 512, MAX_TURN, MAX_TURN, MAX_TURN]


def test_a_turn_that_took_too_long_shrinks_to_what_fits() -> None:
    turns = Turns(preempted=lambda: 0)
    turns.size = 100
    turns.measured(100, 10 * TURN_NS)
    assert turns.size == 10
    turns.measured(1, 100 * TURN_NS)
    assert turns.size == 1


def test_a_turn_whose_core_was_taken_away_changes_nothing() -> None:
    counts = iter([1, 5, 5])
    turns = Turns(preempted=lambda: next(counts))
    turns.size = 64
    turns.measured(3, 100 * TURN_NS)
    turns.measured(3, 100 * TURN_NS)
    assert turns.size == 64
    turns.measured(3, 100 * TURN_NS)  # nobody took it: the messages are long
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
