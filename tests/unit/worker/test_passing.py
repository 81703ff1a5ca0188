"""Which turns pass through a chain, whose time they take, and what a composed function does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dflow.worker.faults import Interrupted
from dflow.worker.passing import EVERY, MOST_NS, Detour, compose, may_pass, shares_of_time


@pytest.mark.parametrize("links", [1, 3, 9])
def test_of_so_many_turns_one_of_each_node_is_measured(links: int) -> None:
    passed = [may_pass(turn, links, 1000, idle=True) for turn in range(EVERY + links)]
    assert passed == [False] * links + [True] * EVERY


def test_nothing_passes_what_is_queued_and_nobody_waits_for_long_handlers() -> None:
    assert may_pass(20, 3, MOST_NS, idle=True)
    assert not may_pass(20, 3, MOST_NS, idle=False)
    assert not may_pass(20, 3, MOST_NS + 1, idle=True)


@pytest.mark.parametrize(
    ("messages", "each_ns", "shares"),
    [
        ([10, 10], [100, 300], [250, 750]),
        ([10, 5, 0], [100, 200, 900], [500, 500, 0]),
        ([10, 10], [0, 0], [500, 500]),
        ([0, 0], [100, 100], [1000, 0]),
        ([3, 3, 3], [1, 1, 1], [333, 333, 334]),
    ],
)
def test_the_time_of_a_turn_is_shared_out_in_proportion(
    messages: list[int], each_ns: list[int], shares: list[int]
) -> None:
    assert shares_of_time(1000, messages, each_ns) == shares


class Edge:
    """What a composed function looks at of an edge."""

    def __init__(self) -> None:
        self.pushed = False


class Story:
    """Composes calls, and notes what becomes of messages."""

    def __init__(self, *calls: Callable[[Any], Any] | None) -> None:
        self.notes: list[tuple[str, int, Any]] = []
        self.edges: list[Any] = [Edge() for _ in calls[1:]]
        self.through = compose(
            calls,
            self.edges,
            lambda at, result: self.notes.append(("odd", at, result)),
            lambda at, error: self.notes.append(("failed", at, type(error))),
            lambda at: self.notes.append(("lost", at, None)),
        )


def test_results_go_from_call_to_call() -> None:
    story = Story(lambda x: x + 1, lambda x: x * 10, str)
    assert [story.through(x) for x in (1, 2)] == ["20", "30"]
    assert story.notes == []


def test_what_a_source_yields_is_passed_in_as_it_is() -> None:
    story = Story(None, lambda x: x * 10)
    assert [story.through(x) for x in (1, None)] == [10, None]
    assert story.notes == [("odd", 0, None)]


def test_only_what_the_last_one_returns_comes_out() -> None:
    story = Story(lambda x: x or None, lambda x: None if x == 2 else x, lambda x: x)
    assert [story.through(x) for x in (0, 1, 2)] == [None, 1, None]
    assert story.notes == [("odd", 0, None), ("odd", 1, None)]


def test_an_emit_by_hand_sends_what_is_returned_after_it_the_same_way() -> None:
    story = Story(lambda x: x, lambda x: x, lambda x: x)
    story.edges[1].pushed = True
    assert story.through(7) is None
    assert story.notes == [("odd", 1, 7)]


def test_an_error_is_that_of_the_call_that_raised() -> None:
    def fail(x: int) -> int:
        raise StopIteration if x == 1 else ValueError(x)

    story = Story(lambda x: x, fail, lambda x: x)
    assert [story.through(x) for x in (1, 2)] == [None, None]
    assert story.notes == [("failed", 1, StopIteration), ("failed", 1, ValueError)]


def test_an_interrupt_passes_and_is_counted_where_it_struck() -> None:
    def interrupted(x: int) -> int:
        raise Interrupted

    story = Story(lambda x: x, interrupted)
    with pytest.raises(Interrupted):
        story.through(1)
    assert story.notes == [("lost", 1, None)]


def test_a_detour_is_no_error() -> None:
    def odd(at: int, result: Any) -> None:
        raise Detour(at, result)

    def fail(*_: Any) -> None:
        raise AssertionError

    through = compose([iter, iter], [None], odd, fail, fail)
    assert through([1]) is not None
    through = compose([lambda x: (each for each in x), iter], [None], odd, fail, fail)
    with pytest.raises(Detour) as raised:
        through([1, 2])
    assert (raised.value.at, list(raised.value.values)) == (0, [1, 2])
