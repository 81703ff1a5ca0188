"""The histogram of latencies: close to the truth, whatever it is given, and kept as JSON."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stress.histogram import PERCENTILES, Histogram, in_words

latencies = st.integers(0, 10**12)


def exact(values_ns: list[int], percent: float) -> int:
    rank = max(1, math.ceil(len(values_ns) * percent / 100 - 1e-9))
    return sorted(values_ns)[rank - 1]


@given(st.lists(latencies, min_size=1), st.sampled_from(PERCENTILES))
def test_percentile_is_never_too_good_and_hardly_too_bad(values: list[int], percent: float) -> None:
    truth = exact(values, percent)
    assert truth <= Histogram(values).percentile_ns(percent) <= truth + truth / 64


@given(latencies)
def test_single_value_is_every_percentile_exactly(value: int) -> None:
    one = Histogram([value])
    assert {one.percentile_ns(p) for p in (0, *PERCENTILES, 100)} == {value}
    assert (one.least_ns, one.most_ns, one.mean_ns) == (value, value, value)


@given(st.lists(latencies), st.lists(latencies))
def test_merged_is_what_one_histogram_of_both_is(left: list[int], right: list[int]) -> None:
    merged = Histogram(left).merge(Histogram(right))
    assert merged.to_dict() == Histogram(left + right).to_dict()


@given(st.lists(st.integers(-5, 10**12)))
def test_json_keeps_all_of_it(values: list[int]) -> None:
    before = Histogram(values)
    after = Histogram.from_dict(json.loads(json.dumps(before.to_dict())))
    assert after.to_dict() == before.to_dict()
    after.add(7)  # and it counts on
    assert after.count == before.count + 1


@given(st.lists(latencies, min_size=1))
def test_rows_hold_every_value_once_and_leave_out_no_step(values: list[int]) -> None:
    rows = Histogram(values).rows()
    assert sum(count for _, count in rows) == len(values)
    ends = [end for end, _ in rows]
    assert ends == sorted(ends)
    assert all(2 <= right / left <= 2.5 for left, right in pairwise(ends))
    assert ends[0] >= min(values)
    assert ends[-1] >= max(values)


def test_one_late_message_of_a_thousand_is_seen_by_the_last_percentile_only() -> None:
    late = Histogram([1_000_000] * 999 + [800_000_000])
    assert late.percentile_ns(99) < 1_100_000
    assert late.percentile_ns(99.99) == 800_000_000


def test_text_has_a_bar_for_each_step_and_the_longest_for_the_most() -> None:
    text = str(Histogram([150_000] * 30 + [900_000] * 10))
    first, second, third, fourth = text.splitlines()
    assert first.startswith("40 values, p50 152 us")
    assert "<=  200 us" in second
    assert second.count("#") == 40
    assert third.count("#") == 0
    assert "25.00 %" in fourth
    assert fourth.count("#") == 14


def test_nothing_measured_has_no_percentiles_to_fail_at() -> None:
    nothing = Histogram()
    assert str(nothing) == "nothing was measured"
    assert (nothing.percentile_ns(99), nothing.mean_ns, nothing.rows()) == (0, 0.0, [])


def test_value_from_the_future_counts_as_nothing_and_is_told() -> None:
    odd = Histogram([-3, 5])
    assert (odd.least_ns, odd.early) == (0, 1)
    assert "clocks disagree" in str(odd)


@pytest.mark.parametrize(
    ("value_ns", "text"),
    [(0, "0 ns"), (999, "999 ns"), (1_250_000, "1.25 ms"), (12_300, "12.3 us"), (3e9, "3 s")],
)
def test_durations_are_told_in_the_unit_that_suits_them(value_ns: float, text: str) -> None:
    assert in_words(value_ns) == text
