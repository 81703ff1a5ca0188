"""Text of strangers: nothing a terminal obeys, and no path out of the directory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dflow.bundle.words import moment, plain, safe_name, when


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, ünïcode 日本", "plain text, ünïcode 日本"),
        ("\x1b[31mred\x1b]0;title\x07", "\\x1b[31mred\\x1b]0;title\\x07"),
        ("a\rb\bc\x9bd", "a\\rb\\x08c\\x9bd"),
        ("left\u202eright\u2066x", "left\\u202eright\\u2066x"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("lone \ud800", "lone \\ud800"),
    ],
)
def test_what_a_terminal_would_obey_is_shown(text: str, shown: str) -> None:
    assert plain(text) == shown


@given(st.text())
def test_nothing_harmful_is_left(text: str) -> None:
    shown = plain(text)
    assert "\x1b" not in shown
    assert "\r" not in shown
    shown.encode()


def test_a_long_text_is_cut_off_and_says_so() -> None:
    assert plain("x" * 20, 5) == "xxxxx… (20 characters)"


@given(st.text())
def test_a_name_is_one_file_in_this_directory(text: str) -> None:
    name = safe_name(text)
    assert name
    assert "/" not in name
    assert not name.startswith(".")
    assert len(name) <= 80


@given(st.floats(0, 4e9))
def test_a_time_as_text_sorts_and_comes_back(time_s: float) -> None:
    assert moment(f"{when(time_s)} words") == pytest.approx(time_s, abs=2e-6)
    assert when(time_s) < when(time_s + 1)


@pytest.mark.parametrize("time_s", [float("inf"), float("nan"), -1e20, 1e20])
def test_an_impossible_time_is_the_epoch(time_s: float) -> None:
    assert when(time_s).startswith("1970-01-01")


@pytest.mark.parametrize("text", ["", "    at the second line", "2026", "9999-99-99T00:00:00.0Z"])
def test_what_is_no_time_is_none(text: str) -> None:
    assert moment(text) is None
