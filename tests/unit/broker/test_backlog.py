"""A coordinator that is behind reads the newest counters of each sender, and all other messages."""

from __future__ import annotations

from dflow.broker.backlog import newest
from dflow.wire import control as c


def said(key: bytes, *messages: c.Control) -> list[tuple[bytes, list[bytes]]]:
    """Return messages as they arrive."""
    return [(key, [c.encode(message)]) for message in messages]


def heard(arrived: list[tuple[bytes, list[bytes]]]) -> list[tuple[bytes, c.Control]]:
    """Return what is read of them."""
    return [(key, c.decode(frames[0])) for key, frames in newest(arrived)]


def test_only_the_newest_counters_of_each_sender_are_read() -> None:
    arrived = [
        *said(b"a", c.Stats([1])),
        *said(b"b", c.Stats([10])),
        *said(b"a", c.Stats([2]), c.Stats([3])),
    ]
    assert heard(arrived) == [(b"b", c.Stats([10])), (b"a", c.Stats([3]))]


def test_everything_else_is_read_in_order() -> None:
    words: list[c.Control] = [c.Heartbeat(), c.Stats([1]), c.Drained(), c.Stats([2]), c.Heartbeat()]
    expected = [c.Heartbeat(), c.Drained(), c.Stats([2]), c.Heartbeat()]
    assert [message for _, message in heard(said(b"a", *words))] == expected


def test_what_is_no_message_is_left_to_whoever_reads_it() -> None:
    odd = [(b"a", [b""]), (b"a", [b"x", b"y"]), (b"a", [c.encode(c.Stats([1])), b"z"])]
    assert newest(odd) == odd
    assert newest([]) == []
