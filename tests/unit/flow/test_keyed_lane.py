"""What a plain edge knows of its keys and of its oldest message."""

from __future__ import annotations

from typing import Any

import pytest

from dflow.errors import ProtocolError
from dflow.flow.keys import MAX_IDLE, MAX_LABEL, MAX_SHOWN, DoneByKey
from dflow.flow.out_edge import OutEdge
from dflow.stats import KeyStats
from dflow.wire.codec import Codec

CODEC = Codec()
encode = CODEC.encode
SECOND = 1_000_000_000


def out_edge(channels: int = 1, capacity: int = 8, *, key: Any = lambda value: value) -> OutEdge:
    """Return the sending half of an edge on channels 0, 1, …, with values as their own keys."""
    return OutEdge(0, "a.out->b.in", range(channels), capacity, 1 << 20, key, CODEC.twin().decode)


def emit(edge: OutEdge, *values: Any) -> None:
    """Push values where they belong."""
    for value in values:
        lane, key = edge.route(value, encode)
        lane.push(encode(value), key)


def finish(edge: OutEdge) -> None:
    """Report everything sent as done."""
    for number, window in zip(edge.channels, edge.windows, strict=True):
        edge.on_credit(number, window.sent, window.sent_bytes, window.sent)


def oldest_s(edge: OutEdge, now_s: float) -> float:
    """Return the age of the oldest message."""
    return edge.queue_stats(int(now_s * SECOND)).oldest_s


class Nothing:
    """No messages under way."""

    undone = 0

    def under_way(self) -> tuple[list[bytes], list[bytes]]:
        """Return no keys."""
        return [], []


class Busy(Nothing):
    """One message in flight."""

    undone = 1

    def under_way(self) -> tuple[list[bytes], list[bytes]]:
        """Return its key."""
        return [], [b"busy"]


# --- keys ---------------------------------------------------------------------------------------


def test_keys_of_a_plain_edge_are_counted_from_end_to_end() -> None:
    edge = out_edge(capacity=2)
    emit(edge, "a", "b", "a", "a")
    edge.flush(0)
    assert edge.queue_stats(0).keys == (
        KeyStats("'a'", waiting=2, in_flight=1, done=0),
        KeyStats("'b'", waiting=0, in_flight=1, done=0),
    )
    edge.on_credit(0, 1, 1, 1)
    edge.on_credit(0, 1, 1, 0)  # overtaken
    assert edge.queue_stats(0).keys == (
        KeyStats("'a'", waiting=2, in_flight=0, done=1),
        KeyStats("'b'", waiting=0, in_flight=1, done=0),
    )
    while not edge.settled:
        edge.flush(0)
        finish(edge)
    assert edge.queue_stats(0).keys == (
        KeyStats("'a'", waiting=0, in_flight=0, done=3),
        KeyStats("'b'", waiting=0, in_flight=0, done=1),
    )


def test_a_key_counts_only_when_its_message_is_pushed() -> None:
    edge = out_edge(3)
    edge.route("refused elsewhere", encode)
    emit(edge, "sent")
    assert [key.key for key in edge.queue_stats(0).keys] == ["'sent'"]


def test_an_edge_without_a_key_has_none_to_show() -> None:
    edge = out_edge(key=None)
    emit(edge, 1, 2)
    edge.flush(0)
    finish(edge)
    assert edge.queue_stats(0).keys == ()


def test_an_impossible_report_changes_no_count() -> None:
    edge = out_edge()
    emit(edge, "a")
    edge.flush(0)
    before = edge.queue_stats(0)
    with pytest.raises(ProtocolError):
        edge.on_credit(0, 2, 2, 2)
    assert edge.queue_stats(0) == before


@pytest.mark.parametrize("key", ["x" * 500, ("eu", 7), list(range(500)), None, b"\x00"])
def test_a_key_is_shown_as_itself(key: Any) -> None:
    edge = out_edge()
    emit(edge, key)
    (shown,) = edge.queue_stats(0).keys
    assert shown.key == repr(key)[:MAX_LABEL]


def test_a_key_that_cannot_be_read_is_shown_as_bytes() -> None:
    counts = DoneByKey()
    counts.add([b"\xc1"], [Nothing()])
    assert [key.key for key in counts.busiest([Nothing()], CODEC.decode)] == [repr(b"\xc1")]


def test_the_last_thousand_keys_done_are_remembered_and_not_all() -> None:
    counts = DoneByKey()
    for number in range(10 * MAX_IDLE):
        counts.add([b"%d" % number], [Nothing()])
        if number % 400 == 0:
            counts.add([b"often"], [Nothing()])
    known = {key for generation in counts._counts for key in generation}
    assert known >= {b"%d" % number for number in range(9 * MAX_IDLE, 10 * MAX_IDLE)}
    assert len(known) <= 2 * MAX_IDLE
    shown = counts.busiest([Nothing()], bytes)
    assert len(shown) == MAX_SHOWN
    assert (shown[0].key, shown[0].done) == (repr(b"often"), 25)


def test_a_key_under_way_is_not_forgotten() -> None:
    counts = DoneByKey()
    counts.add([b"busy", b"idle"], [Busy()])
    for number in range(5 * MAX_IDLE):
        counts.add([b"%d" % number], [Busy()])
    shown = counts.busiest([Busy()], bytes)
    assert shown[0] == KeyStats(repr(b"busy"), waiting=0, in_flight=1, done=1)
    assert repr(b"idle") not in {key.key for key in counts.busiest([], bytes)}


# --- ages ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [None, lambda value: value], ids=["plain", "keyed"])
def test_the_oldest_message_not_done_has_the_age_of_its_batch(key: Any) -> None:
    edge = out_edge(key=key)
    assert oldest_s(edge, 9) == 0
    for second in (1, 3, 4):
        emit(edge, "x")
        edge.flush(second * SECOND)
    ages = [oldest_s(edge, 10)]
    for done in (1, 2, 3):
        edge.on_credit(0, 3, 6, done)
        ages.append(oldest_s(edge, 10))
    assert ages == [9, 7, 6, 0]


def test_time_spent_waiting_for_credit_counts() -> None:
    edge = out_edge(capacity=1, key=None)
    emit(edge, 1, 2)
    edge.flush(1 * SECOND)
    emit(edge, 3)
    edge.flush(5 * SECOND)
    ages = []
    for second in (6, 8):
        finish(edge)
        edge.flush(second * SECOND)
        ages.append(oldest_s(edge, 10))
    finish(edge)
    assert [*ages, oldest_s(edge, 10)] == [9, 5, 0]


def test_a_lane_that_is_never_empty_does_not_grow_old() -> None:
    edge = out_edge(capacity=1, key=None)
    emit(edge, 0)
    for second in range(1, 100):
        emit(edge, second)
        finish(edge)
        edge.flush(second * SECOND)
        assert oldest_s(edge, second) <= 1


def test_what_a_closed_receiver_did_not_take_has_no_age() -> None:
    edge = out_edge()
    emit(edge, 1)
    edge.flush(0)
    edge.closed = True
    assert oldest_s(edge, 10) == 0
