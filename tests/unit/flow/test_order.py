"""Merging the results of ordered replicas: the cases one can name."""

from __future__ import annotations

import pytest

from dflow.errors import ProtocolError
from dflow.flow.order import Merge, Origin
from dflow.wire.notes import NO_NOTES, Notes


def results(*tags: int, completed: tuple[int, ...] = (), counts: tuple[int, ...] = ()) -> Notes:
    """Return notes about one result for each tag; completions have one result unless told."""
    places = [tags[:i].count(tag) for i, tag in enumerate(tags)]
    return Notes(
        tags=tags, places=places, completed=completed, counts=counts or (1,) * len(completed)
    )


def arrive(merge: Merge, channel: int, notes: Notes) -> None:
    """Let a batch of tagged results arrive."""
    merge.check(channel, notes)
    merge.accept(channel, len(notes.tags), notes)


def test_what_a_slow_replica_owes_holds_back_what_a_fast_one_has_done() -> None:
    merge = Merge("a.out->b.in", 2)
    arrive(merge, 1, results(1, 2, 3, completed=(1, 2, 3)))
    assert merge.ready() == []
    arrive(merge, 0, results(0, completed=(0,)))
    assert merge.ready() == [0]
    merge.took(0, 1)
    assert merge.ready() == [1]
    assert merge.available(1, 10) == 3
    assert merge.available(1, 2) == 2


def test_a_filtered_input_is_passed_over_once_it_is_complete() -> None:
    merge = Merge("a.out->b.in", 2)
    arrive(merge, 1, results(1, completed=(1,)))
    assert merge.available(1, 10) == 0
    arrive(merge, 0, results(completed=(0,), counts=(0,)))
    assert merge.available(1, 10) == 1


def test_an_incomplete_input_keeps_its_turn_after_its_first_results() -> None:
    merge = Merge("a.out->b.in", 2)
    arrive(merge, 0, results(0, 0))
    arrive(merge, 1, results(1, completed=(1,)))
    merge.took(0, 2)
    assert merge.ready() == []
    arrive(merge, 0, results(completed=(0,), counts=(2,)))
    assert merge.ready() == [1]


def test_what_was_emitted_outside_the_order_passes_when_it_is_first_of_its_channel() -> None:
    merge = Merge("a.out->b.in", 2)
    merge.accept(1, 2, NO_NOTES)
    arrive(merge, 1, results(5))
    assert merge.available(1, 10) == 2
    assert merge.numbers(1, 2) == [None, None]
    merge.took(1, 2)
    assert merge.ready() == []


def test_when_every_channel_is_beyond_the_expected_number_the_smallest_goes() -> None:
    merge = Merge("a.out->b.in", 3)
    arrive(merge, 0, results(4))
    arrive(merge, 1, results(2))
    assert merge.ready() == []
    merge.end(2)
    assert (merge.ready(), merge.expected) == ([1], 2)


def test_numbers_count_the_results_before_whoever_received_them() -> None:
    merge = Merge("a.out->b.in", 2, numbering=True)
    arrive(merge, 0, results(0, completed=(0, 2), counts=(3, 0)))
    arrive(merge, 1, Notes(tags=[1, 3], places=[4, 0], completed=[1, 3], counts=[5, 1]))
    assert merge.numbers(0, 1) == [0]
    merge.took(0, 1)
    assert merge.available(1, 2) == 2
    assert merge.numbers(1, 2) == [7, 8]


def test_a_receiver_that_numbers_waits_for_what_it_cannot_count() -> None:
    merge = Merge("a.out->b.in", 2, numbering=True)
    arrive(merge, 0, results(1, completed=(1,)))
    arrive(merge, 1, results(2))
    assert merge.ready() == []  # input 0 may have had results that went elsewhere
    arrive(merge, 1, results(completed=(2,)))
    assert merge.ready() == [0]  # nobody will ever tell of it


def test_a_receiver_that_numbers_goes_on_when_every_channel_has_ended() -> None:
    merge = Merge("a.out->b.in", 2, numbering=True)
    arrive(merge, 1, results(2))
    merge.end(0)
    assert merge.ready() == []
    merge.end(1)
    assert merge.ready() == [1]


@pytest.mark.parametrize(
    ("before", "lie"),
    [
        (results(3), results(2)),
        (results(3, 3), Notes(tags=[3], places=[1])),
        (results(3, completed=(3,)), results(3)),
        (results(3, completed=(3,)), results(completed=(3,))),
        (results(0, completed=(0, 1)), results(completed=(1,))),
    ],
    ids=["descending", "same place", "after completion", "completed twice", "not ascending"],
)
def test_notes_that_cannot_be_true_are_refused_and_change_nothing(
    before: Notes, lie: Notes
) -> None:
    merge = Merge("a.out->b.in", 2)
    arrive(merge, 0, before)
    held = merge.held
    with pytest.raises(ProtocolError, match=r"a\.out->b\.in"):
        merge.check(0, lie)
    assert merge.held == held


def test_each_result_of_an_input_has_its_place_on_its_output() -> None:
    origin = Origin(7)
    tags = [origin.tag("out"), origin.tag("errors"), origin.tag("out")]
    assert tags == [(7, 0), (7, 0), (7, 1)]


def test_what_stands_outside_the_order_has_no_tag() -> None:
    assert Origin(None).tag("out") is None


@pytest.mark.timeout(10)
def test_a_result_of_an_input_nobody_can_count_to_does_not_hang() -> None:
    merge = Merge("a.out->b.in", 2, numbering=True)
    far = 2**61
    arrive(merge, 0, results(far, completed=(far,)))
    arrive(merge, 1, results(far + 1, completed=(far + 1,)))
    assert merge.expected == far
    assert merge.ready() == [0]
    merge.took(0, 1)
    assert merge.numbers(1, 1) == [1]


def test_more_completions_than_any_sender_has_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dflow.flow.order.MAX_HELD", 3)
    merge = Merge("a.out->b.in", 2)
    arrive(merge, 1, results(completed=(1, 2, 3)))
    with pytest.raises(ProtocolError, match="at most 3 inputs ahead"):
        merge.check(1, results(completed=(4,)))
    assert merge.held == 3
