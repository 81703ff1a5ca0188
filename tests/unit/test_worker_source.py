"""Pulling a source's generator: in turns, while there is credit, until it ends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from dflow.errors import EncodeError
from dflow.wire.codec import Codec
from dflow.worker.faults import Interrupted
from dflow.worker.plane import Gate
from dflow.worker.source import SyncSource


class Bench:
    """A source whose output runs out of credit after ``credit`` messages."""

    def __init__(self, values: Iterable[Any], credit: int = 10**9) -> None:
        self.gate = Gate()
        self.out: list[Any] = []
        self.raised: list[tuple[BaseException, str]] = []
        self.credit = credit
        self.encode = Codec().encode
        self.source = SyncSource(iter(values), self.emit, self.gate, self.on_error)

    def on_error(self, error: BaseException, where: str) -> None:
        """Note an error."""
        self.raised.append((error, where))

    def emit(self, value: Any) -> None:
        """Encode, and shut the gate when credit is used up."""
        self.encode(value)
        self.out.append(value)
        self.credit -= 1
        self.gate.shut = self.credit <= 0


def test_a_source_is_pulled_to_its_end_in_growing_turns() -> None:
    bench = Bench(range(100))
    sizes = []
    while not bench.source.exhausted:
        before = len(bench.out)
        bench.source.turn()
        sizes.append(len(bench.out) - before)
    assert bench.out == list(range(100))
    assert sizes[:3] == [1, 2, 4]
    assert not bench.raised
    assert bench.source.busy_ns > 0


def test_none_is_not_emitted() -> None:
    bench = Bench([None, 1, None, 2])
    while not bench.source.exhausted:
        bench.source.turn()
    assert bench.out == [1, 2]


def test_without_credit_nothing_more_is_pulled() -> None:
    pulled: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(10**6):
            pulled.append(number)
            yield number

    bench = Bench(numbers())
    while len(pulled) < 100:
        bench.source.turn()
    before = len(pulled)
    bench.credit = 3
    bench.source.turn()
    assert len(pulled) == before + 3 == len(bench.out)
    assert not bench.source.exhausted


def test_a_source_that_raises_is_over_and_keeps_what_it_yielded() -> None:
    def breaks() -> Iterator[int]:
        yield 1
        raise OSError("unplugged")

    bench = Bench(breaks())
    bench.source.turn()
    bench.source.turn()
    assert bench.out == [1]
    assert bench.source.exhausted
    assert [(str(error), where) for error, where in bench.raised] == [("unplugged", "source")]
    assert bench.source.errors == 1


def test_a_value_that_cannot_travel_ends_the_source_with_an_error() -> None:
    bench = Bench([1, object(), 2])
    while not bench.source.exhausted:
        bench.source.turn()
    assert bench.out == [1]
    assert isinstance(bench.raised[0][0], EncodeError)


def test_an_interrupted_source_is_over_without_an_error() -> None:
    def blocks() -> Iterator[int]:
        yield 1
        raise Interrupted

    bench = Bench(blocks())
    bench.source.turn()
    bench.source.turn()
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
    bench.source.turn()
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
    bench.source.turn()
    bench.source.close()
    assert [(str(error), where) for error, where in bench.raised] == [("stuck", "source")]


def test_an_iterator_without_close_can_be_closed() -> None:
    bench = Bench([1, 2])
    bench.source.close()
    assert bench.source.exhausted
    assert not bench.source.waiting
