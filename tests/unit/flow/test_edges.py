"""The two ends of an edge: routing by key, sequence, END, and what a receiver refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any
from uuid import UUID

import pytest

from dflow.errors import OptionError, ProtocolError
from dflow.flow.in_edge import InChannel
from dflow.flow.out_edge import OutEdge, key_slot
from dflow.message import Headers, Priority
from dflow.wire import frames as f
from dflow.wire.codec import Codec
from dflow.wire.notes import NO_NOTES

CODEC = Codec()
encode = CODEC.encode

KEYS: list[tuple[Any, int]] = [
    ("user-17", 142),
    ("", 848),
    (0, 784),
    (-1, 269),
    (10**30, 435),
    (1.5, 32),
    (True, 770),
    (None, 435),
    (b"\x00\xff", 233),
    (("eu", 7), 601),
    (UUID(int=5), 819),
    ("zürich", 42),
]
"""Keys and their slots of 997: a changed value would send a key to another replica."""


def out_edge(channels: int = 1, capacity: int = 8, *, key: Any = None) -> OutEdge:
    """Return the sending half of an edge on channels 10, 11, …"""
    return OutEdge(0, "a.out->b.in", range(10, 10 + channels), capacity, 1 << 20, key)


def in_channel(number: int = 10, capacity: int = 8) -> InChannel:
    """Return the receiving half of a channel."""
    return InChannel(number, "a.out->b.in", "in", Priority.NORMAL, capacity, 1 << 20, 3)


def batch(*payloads: bytes, sequence: int = 0, epoch: int = 3) -> f.Frame:
    """Return a parsed BATCH for channel 10."""
    return f.parse(f.pack_batch(10, epoch, sequence, payloads, 99))


def emit(edge: OutEdge, *values: Any) -> None:
    """Push values onto the lanes they belong to."""
    for value in values:
        lane, key = edge.route(value, encode)
        lane.push(encode(value), key)


# --- routing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "slot"), KEYS, ids=[repr(key) for key, _ in KEYS])
def test_a_key_has_the_same_slot_for_ever(key: Any, slot: int) -> None:
    assert key_slot(key, 997, encode) == slot


@pytest.mark.parametrize("seed", ["0", "4242"])
def test_a_key_has_the_same_slot_in_every_process(seed: str) -> None:
    code = (
        "from tests.unit.flow.test_edges import KEYS, encode, key_slot\n"
        "print([key_slot(key, 997, encode) for key, _ in KEYS])"
    )
    environ = {**os.environ, "PYTHONHASHSEED": seed}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str([slot for _, slot in KEYS])


@pytest.mark.parametrize(
    "key",
    [{1, 2}, frozenset("ab"), {"a": 1}, ("eu", frozenset("ab")), [1, [{"a"}]]],
    ids=repr,
)
def test_a_key_without_a_defined_order_is_refused(key: Any) -> None:
    with pytest.raises(OptionError, match="one encoding"):
        key_slot(key, 3, encode)


def test_keyed_messages_go_to_the_lane_of_their_key() -> None:
    edge = out_edge(3, key=lambda value: value["user"])
    emit(edge, *({"user": user, "n": n} for n in range(4) for user in ("ann", "bob", "cat")))
    users_of: dict[int, set[str]] = {}
    for number, _, payloads, _ in edge.flush(0):
        values = [CODEC.decode(payload) for payload in payloads]
        users_of.setdefault(number, set()).update(value["user"] for value in values)
        assert [v["n"] for v in values] == sorted(v["n"] for v in values)
    assert sorted(user for users in users_of.values() for user in users) == ["ann", "bob", "cat"]


def fullness(edge: OutEdge, *values: Any) -> list[bool]:
    """Return whether ``edge`` was full before each value was sent, and after the last."""
    seen = [edge.full]
    for value in values:
        emit(edge, value)
        list(edge.flush(0))
        seen.append(edge.full)
    return seen


def test_a_keyed_edge_is_full_when_a_message_is_at_hand_for_a_full_replica() -> None:
    edge = out_edge(2, capacity=1, key=lambda value: value)
    slots = {value: key_slot(value, 2, encode) for value in "abcdef"}
    first = [value for value, slot in slots.items() if slot == slots["a"]]
    other = [value for value, slot in slots.items() if slot != slots["a"]]
    assert fullness(edge, first[0], other[0], first[1]) == [False, False, False, True]


def test_an_unkeyed_edge_is_full_when_all_replicas_are() -> None:
    assert fullness(out_edge(2, capacity=1), "x", "y") == [False, False, True]


# --- sending ------------------------------------------------------------------------------------


def test_batches_carry_their_channel_and_the_number_of_their_first_message() -> None:
    edge = out_edge()
    emit(edge, 1, 2)
    first = edge.flush(5)
    emit(edge, 3)
    second = edge.flush(6)
    seen = [(cut.channel, cut.first, len(cut.payloads), cut.notes) for cut in first + second]
    assert seen == [(10, 0, 2, NO_NOTES), (10, 2, 1, NO_NOTES)]


def test_credit_for_one_replica_of_a_keyed_edge_reopens_its_lane() -> None:
    edge = out_edge(2, capacity=1, key=lambda value: value)
    emit(edge, "x", "x")
    ((number, *_),) = edge.flush(0)
    assert list(edge.flush(0)) == []
    edge.on_credit(number, 1, len(encode("x")), 1)
    assert [cut.channel for cut in edge.flush(0)] == [number]


def test_an_impossible_report_names_what_was_expected() -> None:
    edge = out_edge()
    with pytest.raises(ProtocolError, match="expected taken <= 0"):
        edge.on_credit(10, 1, 1, 1)


def test_end_is_held_back_until_everything_was_flushed_and_said_once() -> None:
    edge = out_edge(2, capacity=1)
    emit(edge, 1, 2, 3)
    list(edge.flush(0))
    assert edge.end() == []
    edge.on_credit(10, 1, 1, 1)
    list(edge.flush(0))
    assert edge.end() == [(10, 2), (11, 1)]
    assert edge.end() == []


def test_settled_means_reported_done_not_just_taken() -> None:
    edge = out_edge()
    seen = [edge.settled]
    emit(edge, 1)
    seen.append(edge.settled)
    list(edge.flush(0))
    for done in (0, 1):
        edge.on_credit(10, 1, 1, done)
        seen.append(edge.settled)
    assert seen == [True, False, False, True]


def test_peak_and_counts_add_up_over_lanes() -> None:
    edge = out_edge(2, key=lambda value: value)
    emit(edge, *range(6))
    assert (edge.offered, edge.waiting, edge.peak) == (6, 6, 0)
    list(edge.flush(0))
    assert (edge.offered, edge.waiting, edge.peak) == (6, 0, 6)


# --- receiving ----------------------------------------------------------------------------------


def test_a_batch_stands_in_the_inbox_with_its_headers() -> None:
    channel = in_channel()
    channel.accept(batch(b"\x01", b"\x02\x03"))
    (arrived,) = channel.inbox
    assert arrived.headers == Headers("a.out->b.in", 0, 99)
    assert (arrived.count, arrived.size_bytes, channel.depth) == (2, 3, 2)


def test_bytes_are_given_back_when_the_whole_batch_is_taken() -> None:
    channel = in_channel()
    channel.accept(batch(b"\x01", b"\x02"))
    channel.take(1)
    assert (channel.window.taken, channel.window.taken_bytes, channel.depth) == (1, 0, 1)
    channel.take(1)
    channel.finish(2)
    assert f.parse_credit(f.parse(channel.credit_frame())) == (2, 2, 2)
    assert not channel.inbox


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (batch(b"\x01", sequence=1), "expected sequence 0, got 1"),
        (batch(b"\x01", epoch=4), "expected epoch 3, got 4"),
        (batch(*[b"\x01"] * 9), "got 9"),
    ],
    ids=["gap", "epoch", "overrun"],
)
def test_a_batch_out_of_order_is_refused_and_changes_nothing(frame: f.Frame, expected: str) -> None:
    channel = in_channel()
    with pytest.raises(ProtocolError, match=expected):
        channel.accept(frame)
    assert (channel.window.received, len(channel.inbox)) == (0, 0)


def test_end_counts_everything_that_was_sent() -> None:
    channel = in_channel()
    channel.accept(batch(b"\x01"))
    with pytest.raises(ProtocolError, match="END expected after 1 messages, got 2"):
        channel.accept_end(f.parse(f.pack_end(10, 3, 2, 0)))
    channel.accept_end(f.parse(f.pack_end(10, 3, 1, 0)))
    assert not channel.exhausted
    channel.take(1)
    assert channel.exhausted


def test_nothing_is_accepted_after_end() -> None:
    channel = in_channel()
    end = f.parse(f.pack_end(10, 3, 0, 0))
    channel.accept_end(end)
    with pytest.raises(ProtocolError, match="after END"):
        channel.accept(batch(b"\x01"))
    with pytest.raises(ProtocolError, match="after END"):
        channel.accept_end(f.parse(f.pack_end(10, 3, 1, 0)))


def test_end_may_be_repeated_and_is_counted_once() -> None:
    channel = in_channel()
    end = f.parse(f.pack_end(10, 3, 0, 0))
    assert channel.accept_end(end)
    assert not channel.accept_end(end)


def test_closed_says_how_far_the_receiver_came() -> None:
    channel = in_channel()
    channel.accept(batch(b"\x01", b"\x02"))
    channel.take(2)
    channel.finish(1)
    frame = f.parse(channel.closed_frame())
    assert frame.kind == f.CLOSED
    assert f.parse_credit(frame) == (2, 2, 1)
