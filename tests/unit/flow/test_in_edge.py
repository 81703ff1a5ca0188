"""What a channel reads in notes, and which messages it hands out."""

from __future__ import annotations

from typing import Any

import pytest

from dflow.errors import ProtocolError
from dflow.flow.in_edge import LOST, InChannel, Unwanted
from dflow.flow.order import Merge
from dflow.message import Priority
from dflow.wire.frames import pack_batch, pack_end, pack_noted, parse
from dflow.wire.notes import Notes, pack_notes

S = 1_000_000_000
SENT = 50 * S


def channel(number: int = 0, **how: Any) -> InChannel:
    """Return a channel of an edge like ``how``."""
    return InChannel(number, "a.out->b.in", "in", Priority.NORMAL, 64, 1 << 20, 1, **how)


def merged(count: int, *, numbering: bool = False) -> list[InChannel]:
    """Return the channels of a tagged edge."""
    made = tuple(channel(number) for number in range(count))
    merge = Merge("a.out->b.in", count, numbering=numbering)
    for one in made:
        one.join(merge, made)
    return list(made)


def arrive(into: InChannel, messages: int, notes: Notes | None = None) -> None:
    """Let a batch arrive, with ``notes`` if there are any."""
    payloads = [b"\x01"] * messages
    first = into.window.received
    if notes is None:
        into.accept(parse(pack_batch(into.number, 1, first, payloads, SENT)))
    else:
        said = pack_notes(notes)
        into.accept(parse(pack_noted(into.number, 1, first, payloads, SENT, said)))


def results(*tags: int, completed: tuple[int, ...] = ()) -> Notes:
    """Return notes about one result for each of the inputs ``tags``."""
    counts = [1 if number in tags else 0 for number in completed]
    return Notes(tags=tags, places=[0] * len(tags), completed=completed, counts=counts)


def ready(one: InChannel) -> bool:
    """Return whether its first message may be handed out."""
    return one.deliverable


# --- notes --------------------------------------------------------------------------------------


def test_numbers_go_with_their_messages() -> None:
    one = channel(numbered=True)
    arrive(one, 3, Notes(numbers=[2, 5, 6]))
    one.take(1)
    assert list(one.numbers(2)) == [5, 6]


def test_messages_without_numbers_are_outside_the_order() -> None:
    one = channel()
    arrive(one, 2)
    assert list(one.numbers(2)) == [None, None]


@pytest.mark.parametrize(
    ("how", "before", "lie"),
    [
        ({"numbered": True}, Notes(numbers=[4]), Notes(numbers=[4])),
        ({"numbered": True}, Notes(numbers=[4]), Notes(ages_ns=[4])),
        ({"numbered": True}, Notes(numbers=[4]), None),
        ({}, None, Notes(numbers=[4])),
        ({}, None, Notes(ages_ns=[4])),
        ({}, None, Notes(tags=[4], places=[0])),
        ({}, None, Notes(completed=[4], counts=[0])),
    ],
    ids=["number", "instead", "missing", "numbers", "ages", "tags", "completed"],
)
def test_notes_that_the_edge_cannot_have_are_refused_and_change_nothing(
    how: dict[str, Any], before: Notes | None, lie: Notes | None
) -> None:
    one = channel(**how)
    arrive(one, 1, before)
    with pytest.raises(ProtocolError, match=r"a\.out->b\.in"):
        arrive(one, 1, lie)
    assert (one.window.received, len(one.inbox)) == (1, 1)


def test_tags_that_are_not_ascending_are_refused_and_change_nothing() -> None:
    one, _ = merged(2)
    arrive(one, 1, results(7))
    with pytest.raises(ProtocolError, match="expected a result after"):
        arrive(one, 1, results(6))
    assert (one.window.received, len(one.inbox)) == (1, 1)


def test_a_frame_of_notes_alone_needs_no_room() -> None:
    one, other = merged(2)
    arrive(other, 64, results(*range(1, 65)))
    assert not ready(other)
    arrive(one, 0, results(completed=(0,)))
    arrive(other, 0, results(completed=tuple(range(1, 65))))
    assert ready(other)
    assert (one.window.received, len(one.inbox), len(other.inbox)) == (0, 0, 1)


def test_notes_alone_must_be_in_sequence() -> None:
    one, _ = merged(2)
    said = pack_notes(results(completed=(0,)))
    with pytest.raises(ProtocolError, match="without messages"):
        one.accept(parse(pack_noted(0, 1, 3, [], 0, said)))


# --- taking turns -------------------------------------------------------------------------------


def test_a_channel_of_a_merge_hands_out_what_is_expected_only() -> None:
    one, other = merged(2)
    arrive(one, 3, results(0, 1, 4, completed=(0, 1)))
    arrive(other, 2, results(2, 3))
    assert one.pick(10, 0) == (None, 2)
    assert not ready(other)
    one.take(2)
    assert not ready(one)
    assert other.pick(10, 0) == (None, 1)


def test_end_lets_the_others_go_on() -> None:
    one, other = merged(2)
    arrive(other, 1, results(3))
    assert not ready(other)
    one.accept_end(parse(pack_end(0, 1, 0, 0)))
    assert ready(other)
    assert other.siblings == (one, other)


def test_a_channel_with_messages_that_are_held_back_is_not_exhausted() -> None:
    one, other = merged(2)
    arrive(other, 1, results(3))
    other.accept_end(parse(pack_end(1, 1, 1, 0)))
    assert not ready(other)
    assert not other.exhausted
    assert not one.exhausted


def test_a_replica_of_an_ordered_node_numbers_what_it_gets() -> None:
    one, other = merged(2, numbering=True)
    arrive(one, 2, Notes(tags=[0, 0], places=[0, 2], completed=[0], counts=[3]))
    arrive(other, 1, Notes(tags=[1], places=[0], completed=[1], counts=[1]))
    assert list(one.numbers(2)) == [0, 2]
    one.take(2)
    assert list(other.numbers(1)) == [3]


# --- what is not wanted -------------------------------------------------------------------------


def test_messages_older_than_their_edge_allows_are_passed_over() -> None:
    one = channel(ttl_s=2.0)
    arrive(one, 3, Notes(ages_ns=[int(1.5 * S), int(1.4 * S), 0]))
    assert one.pick(8, SENT + int(0.4 * S)) == (None, 3)
    assert one.pick(8, SENT + int(0.55 * S)) == (Unwanted.EXPIRED, 1)
    assert one.pick(8, SENT + S) == (Unwanted.EXPIRED, 2)
    one.pass_over(Unwanted.EXPIRED, 2)
    assert one.pick(8, SENT + S) == (None, 1)
    assert (one.expired, one.window.taken, one.window.done) == (2, 2, 2)


def test_a_clock_that_was_set_back_makes_nothing_younger() -> None:
    one = channel(ttl_s=1.0)
    arrive(one, 2, Notes(ages_ns=[2 * S, 0]))
    assert one.pick(8, SENT - 100 * S) == (Unwanted.EXPIRED, 1)


def test_cancelled_messages_are_passed_over_and_the_others_keep_their_order() -> None:
    one = channel()
    arrive(one, 4)
    arrive(one, 2)
    one.cancel(1)
    one.cancel(2)
    one.cancel(4)
    assert one.pick(8, 0) == (None, 1)
    one.take(1)
    assert one.pick(8, 0) == (Unwanted.CANCELLED, 2)
    one.pass_over(Unwanted.CANCELLED, 2)
    assert one.pick(8, 0) == (None, 1)
    one.take(1)
    assert one.pick(8, 0) == (Unwanted.CANCELLED, 1)
    one.pass_over(Unwanted.CANCELLED, 1)
    assert (one.withdrawn, one.window.taken, one.cancelled, one.depth) == (3, 5, set(), 1)


def test_a_message_may_be_cancelled_before_it_arrives() -> None:
    one = channel()
    one.cancel(2)
    arrive(one, 3)
    one.take(2)
    assert one.pick(8, 0) == (Unwanted.CANCELLED, 1)


def test_a_lost_message_has_its_turn_like_any_other() -> None:
    one = channel()
    arrive(one, 3)
    one.inbox[0].values = [1, LOST, 2]
    assert [one.pick(8, 0)] == [(None, 1)]
    one.take(1)
    assert one.pick(8, 0) == (Unwanted.LOST, 1)
    one.pass_over(Unwanted.LOST, 1)
    assert (one.expired, one.withdrawn, one.window.taken) == (0, 0, 2)


def test_a_message_that_is_not_wanted_waits_for_its_turn_in_a_merge() -> None:
    one, other = merged(2)
    arrive(other, 1, results(1, completed=(1,)))
    other.cancel(0)
    assert not ready(other)
    arrive(one, 1, results(0, completed=(0,)))
    one.take(1)
    assert other.pick(8, 0) == (Unwanted.CANCELLED, 1)
