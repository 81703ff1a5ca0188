"""Ends of streams: what was sent is what was seen, or it is said what is not."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dflow.report import NodeReport, RunReport
from soak.streams import Seen, Sent, Stream, streams


def report(sent: Iterable[Sent], seen: Iterable[Seen]) -> RunReport:
    """Return a report with the ends' sums as metrics, each at a node of its own."""
    nodes = []
    found: dict[str, float]
    ends: list[Sent | Seen] = [*sent, *seen]
    for number, end in enumerate(ends):
        side = "sent" if isinstance(end, Sent) else "seen"
        found = {
            f"{side}.{end.stream}.count": end.count,
            f"{side}.{end.stream}.sum": end.sum,
        }
        if isinstance(end, Seen):
            found[f"seen.{end.stream}.wrong"] = end.wrong
        nodes.append(NodeReport(f"node{number}", "node", 1, metrics=found))
    return RunReport("g", "id", "drained", 0.0, 1.0, 1.0, nodes=tuple(nodes))


def ends(sent: Iterable[int], *seen: Iterable[int]) -> tuple[Sent, list[Seen]]:
    begin, found = Sent("s"), []
    for number in sent:
        begin.add(number)
    for numbers in seen:
        found.append(Seen("s"))
        for number in numbers:
            found[-1].add(number)
    return begin, found


@given(st.lists(st.integers(0, 1 << 41), min_size=1), st.randoms(use_true_random=False))
def test_whatever_order_and_replica_every_message_is_accounted_for(
    numbers: list[int], chance: object
) -> None:
    middle = len(numbers) // 2
    begin, seen = ends(numbers, numbers[middle:], reversed(numbers[:middle]))
    assert streams(report([begin], seen)) == [Stream("s", len(numbers), len(numbers))]


@given(st.integers(2, 200), st.data())
def test_loss_and_duplicate_together_are_noticed(count: int, data: st.DataObject) -> None:
    lost = data.draw(st.integers(0, count - 1))
    twice = data.draw(st.integers(0, count - 1).filter(lambda n: n != lost))
    begin, seen = ends(range(count), [twice if n == lost else n for n in range(count)])
    (found,) = streams(report([begin], seen))
    assert "but not the same ones" in found.error


def test_loss_is_noticed() -> None:
    begin, seen = ends(range(10), range(9))
    assert (
        streams(report([begin], seen))[0].error == "stream s: expected 10 messages to arrive, got 9"
    )


def test_message_out_of_order_is_noticed() -> None:
    begin, (seen,) = ends(range(3), [])
    for number in (0, 2, 1):
        seen.add(number)
        seen.in_order(number)
    assert "2 of 3 messages were out of order" in streams(report([begin], [seen]))[0].error


def test_stream_without_messages_has_no_fault() -> None:
    begin, seen = ends([], [])
    assert streams(report([begin], seen)) == [Stream("s", 0, 0)]


def test_what_was_sent_from_outside_counts() -> None:
    begin, seen = ends(range(5), range(5))
    assert streams(report([], seen), [begin]) == [Stream("s", 5, 5)]


@pytest.mark.parametrize("times", [0, 1, 100])
def test_message_may_have_to_arrive_any_number_of_times(times: int) -> None:
    begin, seen = ends([], [7] * times + [8])
    begin.add(7, times)
    begin.add(8)
    assert streams(report([begin], seen))[0].error == ""
