"""The slope of a series and how sure it is, on series whose truth is known."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from soak.trend import MIN_SAMPLES, Trend, block_medians, pooled, student_t, trend
from tests.unit.soak.series import correlated, level, saw_tooth, step

HALF_HOUR, HOUR = 1800, 3600
QUARTER = 900
SERIES = 40


def fitted(values: Sequence[float]) -> Trend:
    found = trend([float(t) for t in range(len(values))], values)
    assert found is not None
    return found


def missed(
    series: Sequence[Sequence[float]], truth_h: float = 0.0, confidence: float = 0.95
) -> int:
    """Count the series whose interval does not hold the truth."""
    found = 0
    for values in series:
        low, high = fitted(values).interval(confidence)
        found += not low <= truth_h <= high
    return found


@pytest.mark.parametrize(
    ("freedom", "at_5_percent", "at_1_percent"),
    [
        (1, 12.706, 63.657),
        (2, 4.303, 9.925),
        (3, 3.182, 5.841),
        (10, 2.228, 3.169),
        (58, 2.002, 2.663),
    ],
)
def test_students_t_is_that_of_the_tables(
    freedom: float, at_5_percent: float, at_1_percent: float
) -> None:
    assert student_t(0.05, freedom) == pytest.approx(at_5_percent, abs=2e-3)
    assert student_t(0.01, freedom) == pytest.approx(at_1_percent, abs=2e-3)


def test_line_without_noise_is_found_exactly() -> None:
    found = fitted([7 + 0.25 * t / HOUR for t in range(HALF_HOUR)])
    assert found.per_hour == pytest.approx(0.25)
    assert found.half_width() == pytest.approx(0.0, abs=1e-6)


def test_constant_count_has_no_slope_and_no_doubt() -> None:
    found = fitted([17.0] * 300)
    assert (found.per_hour, found.half_width(), found.level) == (0.0, 0.0, 17.0)


def test_too_few_samples_have_no_trend() -> None:
    assert trend([float(t) for t in range(MIN_SAMPLES - 1)], [1.0] * (MIN_SAMPLES - 1)) is None


def test_samples_at_one_time_only_have_no_trend() -> None:
    assert trend([5.0] * 200, [float(n) for n in range(200)]) is None


def test_leak_of_2_percent_an_hour_is_seen_through_noise() -> None:
    for seed in range(5):
        low, high = fitted(level(2 * HOUR, seed, percent_h=2.0)).interval()
        assert 1.0 < low < 2.0 < high < 3.0, f"seed {seed}"


@pytest.mark.parametrize("memory_s", [0.5, 15.0, 60.0, 200.0])
def test_interval_of_a_flat_series_holds_the_truth_however_long_its_noise_remembers(
    memory_s: float,
) -> None:
    series = [correlated(QUARTER, seed, memory_s=memory_s) for seed in range(SERIES)]
    assert (
        missed(series) <= 0.15 * SERIES
    )  # 3 are expected; the error for free noise misses 20 to 40


def test_free_noise_gives_narrow_intervals_and_long_memory_wide_ones() -> None:
    free = fitted(level(HALF_HOUR, 1)).half_width()
    slow = fitted(correlated(HALF_HOUR, 1, memory_s=120)).half_width()
    assert slow > 5 * free


@pytest.mark.parametrize("period_s", [30, 150, 350])
def test_saw_tooth_is_not_taken_for_a_leak(period_s: int) -> None:
    series = [saw_tooth(QUARTER, seed, period_s=period_s) for seed in range(SERIES)]
    assert missed(series) <= 0.1 * SERIES


def test_single_step_is_no_evidence_of_a_slope() -> None:
    series = [step(QUARTER, seed, at_s=100 + 15 * seed, height=5.0) for seed in range(SERIES)]
    assert missed(series) <= 0.1 * SERIES


def test_one_peak_changes_nothing() -> None:
    values = list(level(HALF_HOUR, 1))
    before = fitted(values).per_hour
    for t in range(1700, 1705):
        values[t] = 1e9
    assert fitted(values).per_hour == pytest.approx(before, abs=0.5)


def test_interval_shrinks_with_time_to_the_power_of_three_halves() -> None:
    def mean_width(seconds: int) -> float:
        return sum(fitted(level(seconds, seed)).half_width() for seed in range(10)) / 10

    assert mean_width(HALF_HOUR) / mean_width(4 * HALF_HOUR) == pytest.approx(8, rel=0.35)


def test_holes_in_the_samples_do_not_bend_the_line() -> None:
    times = [float(t) for t in range(HOUR) if not 1000 <= t < 2000]
    found = trend(times, [50 + 0.001 * t for t in times])
    assert found is not None
    assert found.per_hour == pytest.approx(3.6)


def test_parts_share_a_slope_and_not_a_level() -> None:
    before = fitted(level(HOUR, 1, percent_h=2.0))
    after = fitted(level(HOUR, 2, percent_h=2.0, at=300.0))  # the level has jumped at the restart
    both = pooled([before, after])
    assert min(before.per_hour, after.per_hour) <= both.per_hour
    assert both.per_hour <= max(before.per_hour, after.per_hour)
    assert both.half_width() < before.half_width()
    assert both.span_s == before.span_s + after.span_s


def test_certain_part_outweighs_an_uncertain_one() -> None:
    certain = Trend(1.0, 0.1, 50, 100, 3600, 60)
    vague = Trend(9.0, 10.0, 50, 100, 3600, 60)
    assert pooled([certain, vague]).per_hour == pytest.approx(1.0, abs=0.01)


def test_pooling_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="expected at least one part"):
        pooled([])


def test_blocks_stand_where_their_samples_are() -> None:
    blocks = block_medians([0, 1, 2, 9, 10], [5, 7, 6, 1, 3], 2)
    assert blocks == [(1, 6), (9.5, 2)]
