"""The ledger notices every way in which messages can go wrong, whatever else adds up."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stress.ledger import Ledger, Verdict


def verdict(numbers: Iterable[int]) -> Verdict:
    ledger = Ledger()
    for number in numbers:
        ledger.add("s", number)
    return ledger.verdict()


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([0, 1, 2], Verdict({"s": 3})),
        ([0, 2, 3], Verdict({"s": 3}, missing=1)),
        ([1, 2], Verdict({"s": 2}, missing=1)),
        ([0, 1, 1, 2], Verdict({"s": 3}, repeated=1)),
        ([0, 1, 2, 0], Verdict({"s": 3}, repeated=1, misplaced=1)),
        ([0, 3, 3], Verdict({"s": 2}, repeated=1, missing=2)),
        ([0, 2, 1], Verdict({"s": 3}, misplaced=1)),
        ([0, 1], Verdict({"s": 2})),  # the last is lost: its count is short
        ([0, 1, 1, 3], Verdict({"s": 3}, repeated=1, missing=1)),  # as many as were sent
    ],
)
def test_every_fault_has_a_verdict_of_its_own(numbers: list[int], expected: Verdict) -> None:
    assert verdict(numbers) == expected


@given(st.permutations(range(30)))
def test_any_order_of_all_is_complete(numbers: list[int]) -> None:
    found = verdict(numbers)
    assert (found.counts, found.repeated, found.missing) == ({"s": 30}, 0, 0)
    assert (found.misplaced == 0) == (numbers == sorted(numbers))


@given(st.permutations(range(30)), st.sampled_from(range(30)))
def test_one_lost_is_always_noticed(numbers: list[int], lost: int) -> None:
    numbers.remove(lost)
    found = verdict(numbers)
    assert found.counts == {"s": 29}
    assert found.missing == (lost != 29)


@given(st.permutations(range(30)), st.sampled_from(range(30)), st.integers(0, 30))
def test_one_repeated_is_always_noticed(numbers: list[int], again: int, at: int) -> None:
    numbers.insert(at, again)
    assert verdict(numbers).repeated == 1


def test_order_is_judged_for_each_way_and_each_origin_alone() -> None:
    ledger = Ledger()
    for origin, number, way in [("a", 0, 1), ("a", 2, 2), ("a", 1, 1), ("b", 0, 1), ("a", 3, 2)]:
        ledger.add(origin, number, way)
    assert ledger.verdict() == Verdict({"a": 4, "b": 1})


def test_memory_is_for_gaps_only() -> None:
    ledger = Ledger()
    for number in [*range(1000), 1001]:
        ledger.add("s", number)
    assert ledger._ahead == {"s": {1001}}
