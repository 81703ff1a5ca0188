"""A fresh channel (policy latest) holds one message, and can ask for a newer one."""

from __future__ import annotations

import pytest

from dflow.errors import ProtocolError
from dflow.flow.in_edge import STALE_NS, InChannel
from dflow.message import Priority
from dflow.wire import frames as f

SENT_NS = 1_000_000_000


def fresh_channel() -> InChannel:
    """Return the receiving half of an edge with policy latest."""
    return InChannel(
        7, "a.out->b.in", "in", Priority.NORMAL, 1, 1 << 20, 1, reports="ready", fresh=True
    )


def arrive(channel: InChannel, sequence: int) -> None:
    """Let message number ``sequence`` arrive."""
    channel.accept(f.parse(f.pack_batch(7, 1, sequence, [b"\x05"], SENT_NS)))


def credit(channel: InChannel) -> int:
    """Return what a report now says was taken."""
    return f.parse_credit(f.parse(channel.credit_frame()))[0]


def test_a_message_is_stale_once_it_is_old_and_only_then() -> None:
    channel = fresh_channel()
    assert not channel.stale(SENT_NS + 10 * STALE_NS)
    arrive(channel, 0)
    assert not channel.stale(SENT_NS + STALE_NS)
    assert channel.stale(SENT_NS + STALE_NS + 1)


def test_a_newer_message_takes_the_place_of_the_one_it_was_asked_for() -> None:
    channel = fresh_channel()
    arrive(channel, 0)
    channel.refresh()
    assert credit(channel) == 1
    arrive(channel, 1)
    assert len(channel.inbox) == 1
    assert channel.inbox[0].headers.sequence == 1
    assert (channel.superseded, channel.window.taken, channel.window.done) == (1, 1, 1)
    assert credit(channel) == 1  # what was lent is not lent twice


def test_without_a_newer_message_the_old_one_is_handled_and_credit_is_as_if_never_asked() -> None:
    channel = fresh_channel()
    arrive(channel, 0)
    channel.refresh()
    assert credit(channel) == 1
    channel.take(1)
    channel.finish(1)
    assert credit(channel) == 1
    arrive(channel, 1)
    with pytest.raises(ProtocolError, match="expected at most 0 messages"):
        arrive(channel, 2)


def test_nothing_newer_is_asked_for_twice_or_after_the_end() -> None:
    channel = fresh_channel()
    arrive(channel, 0)
    channel.refresh()
    assert not channel.stale(SENT_NS + 10 * STALE_NS)
    ended = fresh_channel()
    arrive(ended, 0)
    ended.accept_end(f.parse(f.pack_end(7, 1, 1, SENT_NS)))
    assert not ended.stale(SENT_NS + 10 * STALE_NS)


def test_more_than_what_was_lent_is_a_violation() -> None:
    channel = fresh_channel()
    arrive(channel, 0)
    with pytest.raises(ProtocolError, match="expected at most 0 messages"):
        arrive(channel, 1)


def test_a_turn_that_has_begun_nothing_takes_back_nothing_that_was_lent() -> None:
    channel = fresh_channel()
    arrive(channel, 0)
    channel.refresh()
    assert credit(channel) == 1
    channel.take(0)
    arrive(channel, 1)
    assert (channel.inbox[0].headers.sequence, channel.superseded) == (1, 1)


def test_a_newer_message_that_was_asked_for_may_be_larger_than_the_window() -> None:
    channel = fresh_channel()
    arrive(channel, 0)
    channel.refresh()
    assert credit(channel) == 1
    large = b"\xc6\0\x20\0\0" + bytes(1 << 21)
    channel.accept(f.parse(f.pack_batch(7, 1, 1, [large], SENT_NS)))
    assert (channel.inbox[0].headers.sequence, channel.superseded) == (1, 1)
    channel.refresh()
    channel.accept(f.parse(f.pack_batch(7, 1, 2, [large], SENT_NS)))
    assert channel.superseded == 2
