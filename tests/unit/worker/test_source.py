"""Pulling a source's generator: in turns, while there is credit, until it ends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any

import pytest

from dflow.clock import CLOCK, Clock
from dflow.errors import EncodeError
from dflow.worker.faults import Interrupted
from dflow.worker.source import SyncSource
from tests.unit.worker_output import PLENTY, Wireless


class Bench:
    """A source with an output that has ``credit``."""

    def __init__(
        self,
        values: Iterable[Any],
        credit: int = PLENTY,
        *,
        directly: bool = True,
        clock: Clock = CLOCK,
    ) -> None:
        self.output = Wireless(credit)
        self.out = self.output.sent
        self.raised: list[tuple[BaseException, str]] = []
        emit, direct = self.output.ways(directly)
        each, gate = iter(values), self.output.gate
        self.source = SyncSource(each, emit, gate, self.on_error, direct, clock)

    def on_error(self, error: BaseException, where: str) -> None:
        """Note an error."""
        self.raised.append((error, where))

    def turn(self) -> None:
        """Run one turn and flush, as the worker's loop does."""
        self.output.gate.shut = False
        self.source.turn()
        self.output.attend()

    def to_the_end(self) -> None:
        """Run turns until the source is exhausted."""
        while not self.source.exhausted:
            self.turn()


both_ways = pytest.mark.parametrize("directly", [True, False], ids=["directly", "each"])


def test_a_source_is_pulled_to_its_end_in_growing_turns() -> None:
    bench = Bench(range(100), clock=Clock(monotonic_ns=count().__next__))  # no turn takes long
    sizes = []
    while not bench.source.exhausted:
        before = len(bench.out)
        bench.turn()
        sizes.append(len(bench.out) - before)
    assert bench.out == list(range(100))
    assert sizes[:3] == [1, 2, 4]
    assert not bench.raised
    assert bench.source.busy_ns > 0


def test_none_is_not_emitted() -> None:
    bench = Bench([None, 1, None, 2])
    bench.to_the_end()
    assert bench.out == [1, 2]


def test_without_credit_nothing_more_is_pulled() -> None:
    pulled: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(10**6):
            pulled.append(number)
            yield number

    bench = Bench(numbers())
    while len(pulled) < 100:
        bench.turn()
    before = len(pulled)
    bench.output.grant(3)
    bench.turn()
    assert len(pulled) == before + 3 == len(bench.out)
    assert not bench.source.exhausted


def test_a_source_that_raises_is_over_and_keeps_what_it_yielded() -> None:
    def breaks() -> Iterator[int]:
        yield 1
        raise OSError("unplugged")

    bench = Bench(breaks())
    bench.to_the_end()
    assert bench.out == [1]
    assert [(str(error), where) for error, where in bench.raised] == [("unplugged", "source")]
    assert bench.source.errors == 1


@both_ways
def test_a_value_that_cannot_travel_costs_a_generator_only_that_value(directly: bool) -> None:
    bench = Bench((value for value in (1, object(), 2)), directly=directly)
    bench.to_the_end()
    assert bench.out == [1, 2]
    assert [type(error) for error, _ in bench.raised] == [EncodeError]


def test_a_value_that_cannot_travel_ends_any_other_iterator() -> None:
    bench = Bench([1, object(), 2])
    bench.to_the_end()
    assert bench.out == [1]
    assert isinstance(bench.raised[0][0], EncodeError)


def test_an_interrupted_source_is_over_without_an_error() -> None:
    def blocks() -> Iterator[int]:
        yield 1
        raise Interrupted

    bench = Bench(blocks())
    bench.turn()
    bench.turn()
    assert (bench.source.exhausted, bench.raised, bench.source.errors) == (True, [], 0)


def test_closing_runs_the_generators_finally() -> None:
    closed: list[bool] = []

    def device() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    bench = Bench(device())
    bench.turn()
    bench.source.close()
    assert closed == [True]
    assert bench.source.exhausted
    assert not bench.raised


def test_an_error_while_closing_is_reported() -> None:
    def device() -> Iterator[int]:
        try:
            yield 1
        finally:
            raise OSError("stuck")

    bench = Bench(device())
    bench.turn()
    bench.source.close()
    assert [(str(error), where) for error, where in bench.raised] == [("stuck", "source")]


def test_an_iterator_without_close_can_be_closed() -> None:
    bench = Bench([1, 2])
    bench.source.close()
    assert bench.source.exhausted
    assert not bench.source.waiting
