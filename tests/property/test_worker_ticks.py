"""Ticks at any load: in cadence, never in bursts, and none unaccounted for."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from dflow.worker.ticks import Ticks

PERIODS = st.sampled_from([0.001, 0.05, 0.1, 1 / 3, 1.0, 7.0, 3600.0])
BEGINS = st.sampled_from([0.0, 0.1, 12345.678, 1e7])


def poll(every: float, begin: float, steps: list[float]) -> tuple[Ticks, list[float]]:
    """Ask whether a tick is due after each of ``steps`` (in periods); return when one was."""
    ticks = Ticks(every)
    ticks.begin(begin)
    now, calls = begin, []
    for step in steps:
        now += step * every
        if ticks.due(now):
            calls.append(now)
        left = ticks.until_s(now)
        assert left is not None
        assert left > 0
        assert not ticks.due(now)
    return ticks, calls


@given(PERIODS, BEGINS, st.lists(st.floats(0.001, 30.0), max_size=60))
def test_every_point_of_the_grid_was_called_or_skipped(
    every: float, begin: float, steps: list[float]
) -> None:
    ticks, calls = poll(every, begin, steps)
    now = begin + sum(step * every for step in steps)
    left = ticks.until_s(now)
    assert left is not None
    passed = round((now + left - begin) / every) - 1
    assert ticks.called + ticks.skipped == passed
    assert ticks.called == len(calls)


@given(PERIODS, BEGINS, st.lists(st.floats(0.001, 30.0), max_size=60))
def test_two_ticks_close_together_never_follow_a_stall(
    every: float, begin: float, steps: list[float]
) -> None:
    ticks = Ticks(every)
    ticks.begin(begin)
    now, free_from, skipped = begin, begin, 0
    for step in steps:
        now += step * every
        if ticks.due(now):
            assert now >= free_from
            free_from = now + every * 0.499 if ticks.skipped > skipped else now
            skipped = ticks.skipped


@given(PERIODS, BEGINS, st.lists(st.floats(0.001, 0.2), min_size=50, max_size=200))
def test_asked_often_enough_they_keep_their_cadence(
    every: float, begin: float, steps: list[float]
) -> None:
    ticks, calls = poll(every, begin, steps)
    assert ticks.skipped == 0
    assert len(calls) == int(sum(steps) + 1e-6)
    assert all(0.799 < (b - a) / every < 1.201 for a, b in pairwise(calls))


@given(PERIODS, st.floats(0.2, 20.0))
def test_handlers_that_take_longer_delay_a_tick_by_one_of_them_at_most(
    every: float, handler: float
) -> None:
    ticks, calls = poll(every, 0.0, [handler] * 400)
    gaps = [(b - a) / every for a, b in zip([0.0, *calls], calls, strict=False)]
    assert max(gaps) <= 1 + handler + 1e-6
    assert len(calls) >= int(400 * min(handler, 1.0) * 0.99) - 1  # every handler, or every period
    if handler < 1:
        assert ticks.skipped == 0


@given(PERIODS, st.lists(st.tuples(st.floats(0.01, 3.0), st.booleans()), max_size=100))
def test_while_a_tick_owes_none_is_called(every: float, steps: list[tuple[float, bool]]) -> None:
    ticks = Ticks(every)
    ticks.begin(0.0)
    now = 0.0
    for step, owes in steps:
        now += step * every
        ticks.owes = owes
        before = ticks.called + ticks.skipped
        called = ticks.due(now)
        assert not (called and owes)
        assert called <= (ticks.called + ticks.skipped - before)
