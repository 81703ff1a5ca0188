"""The slope of a series: what must hold whatever the series."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soak.trend import MIN_SAMPLES, Trend, student_t, trend


@st.composite
def some_series(draw: st.DrawFn) -> list[float]:
    """Draw what a long list of floats would shrink too slowly for: by seed, size and roughness."""
    chance = random.Random(draw(st.integers(0, 1 << 30)))
    size = draw(st.sampled_from([1e-6, 1.0, 1e6]))
    length = MIN_SAMPLES + draw(st.integers(0, 200))
    kind = draw(st.sampled_from(["free", "walk", "few values", "constant"]))
    if kind == "free":
        return [chance.gauss(0, size) for _ in range(length)]
    if kind == "few values":
        return [size * chance.randrange(3) for _ in range(length)]
    if kind == "constant":
        return [size] * length
    found = [0.0]
    while len(found) < length:
        found.append(found[-1] + chance.gauss(0, size))
    return found


values = some_series()


def fitted(series: list[float]) -> Trend:
    found = trend([float(t) for t in range(len(series))], series)
    assert found is not None
    return found


@settings(max_examples=40)
@given(values)
def test_interval_is_finite_and_holds_its_middle(series: list[float]) -> None:
    found = fitted(series)
    low, high = found.interval()
    assert math.isfinite(low)
    assert math.isfinite(high)
    assert low <= found.per_hour <= high
    assert min(series) <= found.level <= max(series)


@settings(max_examples=40)
@given(values, st.sampled_from([-1e5, 0.0, 3.0]), st.sampled_from([0.01, 1.0, 50.0]))
def test_moving_and_stretching_a_series_does_the_same_to_its_slope(
    series: list[float], offset: float, factor: float
) -> None:
    found, changed = fitted(series), fitted([factor * v + offset for v in series])
    close = 3600 * (max(1.0, max(map(abs, series))) * factor + abs(offset)) * 1e-8
    assert changed.per_hour == pytest.approx(factor * found.per_hour, rel=1e-6, abs=close)
    assert changed.half_width() == pytest.approx(factor * found.half_width(), rel=1e-3, abs=close)


@settings(max_examples=40)
@given(values)
def test_backwards_is_the_same_slope_down(series: list[float]) -> None:
    found, back = fitted(series), fitted(series[::-1])
    close = 3600 * max(1.0, max(map(abs, series))) * 1e-2
    assert back.per_hour == pytest.approx(-found.per_hour, abs=close)


@settings(max_examples=100)
@given(st.floats(1.0, 500.0), st.floats(0.001, 0.5), st.floats(0.001, 0.5))
def test_students_t_falls_with_the_tails(freedom: float, one: float, other: float) -> None:
    few, many = sorted((one, other))
    assert student_t(few, freedom) >= student_t(many, freedom) * (1 - 1e-3)
