"""A machine's story: bounded, in order, and what repeats is counted."""

from __future__ import annotations

import pytest

from dflow.story import Line, Story


def test_lines_come_in_the_order_in_which_they_were_noted() -> None:
    story = Story()
    story.note(1.0, "joined")
    story.note(2.5, "bound")
    assert story.lines() == (Line(1.0, "joined", 1, 1.0), Line(2.5, "bound", 1, 2.5))
    assert [str(line) for line in story.lines()] == ["joined", "bound"]


def test_an_empty_story_has_no_lines() -> None:
    assert Story().lines() == ()
    assert Story().rows() == []


def test_what_repeats_is_one_line_with_a_count_and_the_time_of_the_last() -> None:
    story = Story()
    for now in (1.0, 2.0, 4.0):
        story.note(now, "turn over")
    story.note(5.0, "drained")
    assert story.rows() == [[1.0, "turn over", 3, 4.0], [5.0, "drained", 1, 5.0]]
    assert str(story.lines()[0]) == "turn over (3 times)"


@pytest.mark.parametrize("most", [2, 3, 256])
def test_only_the_last_lines_are_kept_and_all_are_counted(most: int) -> None:
    story = Story(most)
    for n in range(1000):
        story.note(n, f"event {n}")
    assert [line.what for line in story.lines()] == [f"event {n}" for n in range(1000 - most, 1000)]
    assert story.told == 1000


def test_a_line_is_never_long() -> None:
    story = Story()
    story.note(0.0, "x" * 10_000)
    assert len(story.lines()[0].what) == 200
