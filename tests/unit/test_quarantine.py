"""Quarantine: skipped with its reason, run when asked for, refused without a reason."""

from __future__ import annotations

from typing import Any, cast

import pytest

from tests.quarantine import keep_apart

REASON = "2026-11-21: fails once in a hundred runs under load"


class Item:
    """As much of a test as the plugin looks at."""

    nodeid = "tests/x.py::test_x"

    def __init__(self, *marks: pytest.MarkDecorator) -> None:
        self.marks = [mark.mark for mark in marks]

    def get_closest_marker(self, name: str) -> pytest.Mark | None:
        return next((mark for mark in self.marks if mark.name == name), None)

    def add_marker(self, mark: pytest.MarkDecorator) -> None:
        self.marks.append(mark.mark)

    def skipped(self) -> str | None:
        mark = self.get_closest_marker("skip")
        return None if mark is None else str(mark.kwargs["reason"])


def skipped(*marks: pytest.MarkDecorator, quarantined: bool = False) -> str | None:
    """Return why a test with ``marks`` is skipped."""
    item = Item(*marks)
    keep_apart([cast("Any", item)], quarantined=quarantined)
    return item.skipped()


def test_a_test_in_quarantine_is_skipped_and_says_why() -> None:
    assert skipped(pytest.mark.quarantine(REASON)) == f"in quarantine since {REASON}"
    assert skipped() is None


def test_it_runs_when_asked_for_and_nothing_else_does() -> None:
    assert skipped(pytest.mark.quarantine(REASON), quarantined=True) is None
    assert skipped(quarantined=True) == "not in quarantine"


@pytest.mark.parametrize("arguments", [(), ("flaky",), ("2026-11-21: flaky",), (1,), (REASON, 2)])
def test_a_reason_is_a_day_and_a_sentence(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(pytest.UsageError, match="expected quarantine"):
        skipped(pytest.mark.quarantine(*arguments))
