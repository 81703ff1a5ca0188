"""An edge inside a worker: what is handed over, when it is full, and when it ends."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dflow.errors import EncodeError, OptionError
from dflow.flow.batch import MAX_BATCH
from dflow.flow.in_edge import InChannel
from dflow.flow.local_edge import LocalEdge, Ref, refuse_generator
from dflow.graph.plan import EdgePlan
from dflow.message import Priority
from dflow.wire.codec import Codec
from tests.unit.broker_pair import chain

ENCODE = Codec().encode


class Bench:
    """An edge with ``capacity`` and its receiver."""

    def __init__(self, capacity: int, **changes: Any) -> None:
        plan: EdgePlan = replace(chain("a", "b").edges[0], capacity=capacity, local=True)
        self.channel = InChannel(7, plan.id, "in", Priority.NORMAL, capacity, 1 << 20, 1)
        self.edge = LocalEdge(plan, 7, self.channel.window, **changes)

    def flush(self) -> list[Any]:
        """Hand over what there is room for; return it."""
        values: list[Any] = []
        for cut in self.edge.flush(0):
            self.channel.hand_over(cut.payloads, 123, cut.notes)
            values += cut.payloads
        return values

    def take(self, count: int) -> None:
        """Take messages off the inbox, as a dispatcher does."""
        self.channel.take(count)
        self.channel.finish(count)


def test_values_are_handed_over_as_they_are() -> None:
    bench = Bench(8)
    value = object()
    bench.edge.push(value)
    assert bench.edge.waiting == 1
    assert bench.flush() == [value]
    (batch,) = bench.channel.inbox
    assert batch.values is not None
    assert batch.values[0] is value
    assert (batch.headers.edge, batch.headers.sequence, batch.headers.sent_ns) == (
        "a.out->b.in", 0, 123,
    )  # fmt: skip


def test_there_is_never_more_in_the_inbox_than_the_capacity() -> None:
    bench = Bench(3)
    for number in range(5):
        bench.edge.push(number)
    assert bench.flush() == [0, 1, 2]
    assert (bench.edge.full, bench.edge.waiting, bench.flush()) == (True, 2, [])
    bench.take(1)
    assert bench.edge.full  # two wait for one place
    assert bench.flush() == [3]
    bench.take(2)
    bench.take(1)
    assert bench.flush() == [4]
    assert not bench.edge.full


def test_the_books_of_both_ends_agree_at_every_moment() -> None:
    bench = Bench(3)
    for number in range(5):
        bench.edge.push(number)
    bench.flush()
    bench.take(2)
    (window,) = bench.edge.windows
    assert (window.sent, window.sent_bytes, window.taken, window.done) == (3, 0, 2, 2)
    assert (bench.edge.offered, bench.edge.emitted, bench.edge.peak) == (5, 5, 5)
    assert not bench.edge.settled
    bench.flush()
    bench.take(1)
    bench.take(2)
    assert bench.edge.settled


def test_emit_asks_for_attention_at_a_full_batch_or_without_room() -> None:
    bench = Bench(3)
    assert [bench.edge.push(number) for number in range(4)] == [False, False, True, True]
    bench.flush()
    assert not bench.edge.push(4)  # nothing to gain before there is room
    wide = Bench(10 * MAX_BATCH)
    asked = [wide.edge.push(number) for number in range(MAX_BATCH)]
    assert asked == [False] * (MAX_BATCH - 1) + [True]


def test_end_comes_once_after_everything_was_handed_over() -> None:
    bench = Bench(2)
    for number in range(3):
        bench.edge.push(number)
    bench.flush()
    assert bench.edge.end() == []
    bench.take(2)
    bench.flush()
    assert bench.edge.end() == [(7, 3)]
    assert bench.edge.end() == []


def test_a_key_function_is_asked_although_there_is_one_receiver() -> None:
    bench = Bench(2, key=lambda value: value["user"])
    bench.edge.check({"user": "a"}, ENCODE)
    with pytest.raises(KeyError):
        bench.edge.check({}, ENCODE)
    with pytest.raises(OptionError):
        bench.edge.check({"user": {1, 2}}, ENCODE)


def test_a_generator_is_no_value() -> None:
    refuse_generator([1])
    with pytest.raises(EncodeError, match="got a generator"):
        refuse_generator(number for number in range(3))


def test_a_value_in_the_place_of_a_payload_has_no_size() -> None:
    assert len(Ref("any")) == 0
