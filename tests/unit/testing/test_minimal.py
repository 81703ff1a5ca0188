"""Making failures smaller: the walk, and which lines of a trace are kept."""

from __future__ import annotations

from collections.abc import Iterator

from dflow.testing.minimal import fewer, relevant, simplest
from dflow.testing.trace import Trace
from dflow.wire import control as c
from dflow.wire import frames as f


def test_only_what_a_failure_needs_is_left() -> None:
    """Two of a hundred faults make it fail, together."""
    tried = 0

    def fails(items: tuple[int, ...]) -> bool:
        nonlocal tried
        tried += 1
        return {17, 62} <= set(items)

    assert simplest(tuple(range(100)), fewer, fails) == (17, 62)
    assert tried < 200


def test_nothing_simpler_that_fails_leaves_the_case_as_it_is() -> None:
    """It needs all of it."""
    case: tuple[int, ...] = (1, 2, 3)
    assert simplest(case, fewer, lambda items: items == case) == case


def test_the_walk_ends_with_its_budget() -> None:
    """However much there is to try."""
    now = 0.0

    def clock_s() -> float:
        nonlocal now
        now += 1.0
        return now

    def down(number: int) -> Iterator[int]:
        yield number - 1

    assert simplest(1000, down, lambda number: True, budget_s=10.0, clock_s=clock_s) == 991


def test_fewer_begins_with_the_boldest() -> None:
    """Without all, without each half, without each."""
    assert list(fewer("abcd")) == [
        (), ("c", "d"), ("a", "b"), ("b", "c", "d"), ("a", "c", "d"), ("a", "b", "d"),
        ("a", "b", "c"),
    ]  # fmt: skip


def test_statistics_do_not_hide_the_last_frame_of_each_channel() -> None:
    """Where no channel is to blame, it is seen where each of them stands."""
    trace = Trace()
    for number in (0, 1, 0):
        trace.note(1, "b[0]", "data", f.pack_batch(number, 1, 0, [b"x"], 0))
    trace.note(2, "run", "phase", "running")
    for _ in range(50):
        trace.note(3, "b[0]", "control", c.encode(c.Ping()))
    for _ in range(9):
        trace.note(4, "b[0]", "control", c.encode(c.Run()))
    lines = list(relevant(trace, None, {}, most=5))
    assert [line.split()[-1] for line in lines[1:]] == ["0+1", "0+1", *["Run"] * 5]
    assert "6 earlier lines are left out" in lines[0]
    assert not any("Ping" in line for line in lines)
