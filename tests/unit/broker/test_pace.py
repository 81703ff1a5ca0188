"""How often workers of large runs report, and that nobody is taken for dead for it."""

from __future__ import annotations

import pytest

from dflow.broker.events import Tick
from dflow.broker.pace import (
    PINGS_PER_S,
    REPORTS_PER_S,
    SLOWEST_S,
    ping_interval_s,
    report_interval_s,
)
from dflow.broker.timers import PING_S, SILENCE_S
from dflow.options import RunOptions
from dflow.wire import control as c
from dflow.worker.pulse import COORDINATOR_SILENCE_S
from tests.unit.broker_pair import Fleet, chain

DEFAULT_S = RunOptions().stats_interval_s


@pytest.mark.parametrize("workers", [1, 10, 250])
def test_small_runs_report_as_often_as_asked(workers: int) -> None:
    assert report_interval_s(DEFAULT_S, workers) == DEFAULT_S


@pytest.mark.parametrize("workers", [1000, 2000, 2500])
def test_large_runs_keep_to_a_rate_together(workers: int) -> None:
    assert workers / report_interval_s(DEFAULT_S, workers) == REPORTS_PER_S


def test_a_thousand_workers_report_once_a_second() -> None:
    assert report_interval_s(DEFAULT_S, 1000) == 1.0


def test_what_was_asked_for_is_never_shortened() -> None:
    assert report_interval_s(7.0, 1) == report_interval_s(7.0, 5000) == 7.0


def test_nobody_is_silent_for_long_in_a_run_of_any_size() -> None:
    assert report_interval_s(DEFAULT_S, 10**6) == ping_interval_s(PING_S, 10**6) == SLOWEST_S
    assert min(SILENCE_S, COORDINATOR_SILENCE_S) >= SLOWEST_S * 4


def test_a_thousand_workers_are_pinged_as_often_as_ten() -> None:
    assert ping_interval_s(PING_S, 10) == ping_interval_s(PING_S, 1000) == PING_S
    assert 4000 / ping_interval_s(PING_S, 4000) == PINGS_PER_S


@pytest.mark.parametrize(("workers", "interval_s"), [(2, DEFAULT_S), (500, 0.5)])
def test_workers_are_told_the_pace_when_they_are_assigned(workers: int, interval_s: float) -> None:
    fleet = Fleet(chain("a", "b", b=workers - 1))
    fleet.join(fleet.fake("a").worker)
    (assign,) = [m for _, m in fleet.sent if isinstance(m, c.Assign)]
    assert assign.options["stats_interval_s"] == interval_s


def test_workers_that_keep_the_slowest_pace_are_not_taken_for_dead() -> None:
    fleet = Fleet(chain("a", "b"), managed=False)
    for fake in fleet.fakes.values():
        fake.endless = True
    fleet.join()
    for _ in range(20):
        fleet.advance(SLOWEST_S)
        for fake in fleet.fakes.values():
            fleet.say(fake, c.Stats(fake.stats.to_wire()))
    fleet.feed(Tick())
    assert fleet.warnings() == []
