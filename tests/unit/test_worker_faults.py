"""How errors of user code are shown, and how many of them."""

from __future__ import annotations

import sys
from pathlib import Path
from types import CodeType

import pytest

from dflow.wire.codec import Codec
from dflow.worker import faults
from dflow.worker.faults import ErrorLog, describe, user_traceback

SECOND = 1_000_000_000
PACKAGE = Path(sys.modules["dflow"].__file__ or "").parent


def caught(call: str, filename: str, source: str = "") -> Exception:
    """Return what running ``call`` raises, as if it stood in ``filename``."""
    code: CodeType = compile(source or call, filename, "exec")
    try:
        exec(code, {"encode": Codec().encode})
    except Exception as error:  # noqa: BLE001  # whatever the source raises is the subject
        return error
    raise AssertionError(f"{call} was expected to raise")


def test_an_error_is_described_with_the_users_own_line() -> None:
    error = caught("\n1 / 0", "/home/ann/pipeline.py")
    assert describe(error) == (
        "ZeroDivisionError: division by zero (/home/ann/pipeline.py:2 in <module>)"
    )


def test_dflows_own_frames_are_left_out() -> None:
    error = caught("encode(object())", "/home/ann/pipeline.py")
    assert "/home/ann/pipeline.py:1" in describe(error)
    shown = user_traceback(error)
    assert shown.startswith("Traceback (most recent call last):")
    assert '"/home/ann/pipeline.py", line 1' in shown
    assert str(PACKAGE) not in shown
    assert "EncodeError" in shown.splitlines()[-1]


def test_a_users_directory_next_to_the_package_is_not_taken_for_dflow() -> None:
    error = caught("1 / 0", f"{PACKAGE}_plugins/pipeline.py")
    assert "_plugins/pipeline.py:1" in describe(error)


def test_an_error_without_user_frames_is_described_by_itself() -> None:
    assert describe(ValueError("bad")) == "ValueError: bad"


def test_the_first_errors_are_logged_in_full_then_one_a_second() -> None:
    log = ErrorLog()
    error = caught("1 / 0", "/home/ann/pipeline.py")
    lines = [log.line(error, "handler", now) for now in range(faults._FULL_REPORTS)]
    assert all(line is not None and "Traceback" in line for line in lines)
    assert [log.line(error, "handler", 10 + n) for n in range(3)] == [None] * 3
    later = log.line(error, "handler", 10 + SECOND)
    assert later == (
        "handler raised ZeroDivisionError: division by zero (/home/ann/pipeline.py:1 in <module>)"
        "; skipped (and 3 more since the last report)"
    )
    assert log.line(error, "handler", 20 + SECOND) is None


@pytest.mark.parametrize("gap", [SECOND, 5 * SECOND])
def test_rare_errors_are_all_logged(gap: int) -> None:
    log = ErrorLog()
    error = ValueError("x")
    lines = [log.line(error, "source", n * gap) for n in range(20)]
    assert all(line is not None and "more since" not in line for line in lines)


def test_errors_nobody_has_read_of_are_mentioned_at_the_end() -> None:
    log = ErrorLog()
    for now in range(9):
        log.line(ValueError("x"), "handler", now)
    assert log.last_word() == "4 more errors were skipped without a line of their own"
    assert log.last_word() is None
