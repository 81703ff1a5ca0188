"""The cadence of ticks."""

from __future__ import annotations

from dflow.worker.ticks import Ticks


def test_a_node_without_tick_s_never_ticks() -> None:
    ticks = Ticks(None)
    ticks.begin(5.0)
    assert ticks.until_s(100.0) is None
    assert not ticks.due(100.0)


def test_nothing_is_due_before_the_run_begins() -> None:
    ticks = Ticks(1.0)
    assert ticks.until_s(5.0) is None
    assert not ticks.due(5.0)


def test_ticks_come_at_the_cadence_asked_for() -> None:
    ticks = Ticks(1.0)
    ticks.begin(10.0)
    assert ticks.until_s(10.25) == 0.75
    assert not ticks.due(10.9)
    assert ticks.due(11.0)
    assert not ticks.due(11.0)
    assert ticks.due(12.5)
    assert ticks.until_s(12.5) == 0.5  # late once, not from then on


def test_missed_ticks_are_counted_and_never_made_up_for() -> None:
    ticks = Ticks(1.0)
    ticks.begin(10.0)
    assert ticks.due(15.5)
    assert not ticks.due(15.5)
    assert ticks.skipped == 4
    assert ticks.until_s(15.5) == 0.5


def test_after_a_stall_the_next_tick_is_half_a_period_away_at_least() -> None:
    ticks = Ticks(1.0)
    ticks.begin(10.0)
    assert ticks.due(15.75)
    assert ticks.until_s(15.75) == 1.25  # not at 16
    assert (ticks.called, ticks.skipped) == (1, 5)


def test_a_tick_that_owes_is_skipped_until_it_does_not() -> None:
    ticks = Ticks(1.0)
    ticks.begin(0.0)
    assert ticks.due(1.0)
    ticks.owes = True
    assert not ticks.due(2.0)
    assert not ticks.due(3.5)
    assert (ticks.called, ticks.skipped) == (1, 2)
    ticks.owes = False
    assert not ticks.due(3.75)
    assert ticks.due(4.0)
    assert (ticks.called, ticks.skipped) == (2, 2)
