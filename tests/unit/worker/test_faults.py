"""How errors of user code are shown, and how many of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import CodeType

import pytest

from dflow import Node, Output
from dflow.errors import EncodeError, PortError
from dflow.graph.node import look_up_plainly
from dflow.wire.codec import Codec
from dflow.worker import faults
from dflow.worker.faults import ErrorLog, describe, place_of, user_traceback

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


def test_the_place_of_a_value_is_the_function_or_the_yield_it_came_from() -> None:
    def numbers() -> Iterator[int]:
        yield 1
        yield 2

    values = numbers()
    next(values)
    line = numbers.__code__.co_firstlineno
    assert place_of(values) == f"{__file__}:{line + 1} in numbers"
    assert place_of(partial(numbers)) == f"{__file__}:{line} in numbers"
    assert place_of(len) == place_of(None) == ""


def test_an_error_without_a_line_of_the_users_names_who_emitted_the_value() -> None:
    error = EncodeError("payload: expected data, got object")
    assert describe(error, "a.py:3 in f").endswith("got object (emitted by a.py:3 in f)")
    assert describe(error).endswith("got object")


class Camera(Node):
    """Has a port to misspell."""

    frames = Output(int)

    @property
    def size(self) -> int:
        """Fail as a property may."""
        return self.lens  # type: ignore[attr-defined,no-any-return]  # there is none


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look attributes up as a worker does, for one test."""
    monkeypatch.delattr(Node, "__getattr__")
    look_up_plainly()  # again: harmless


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize(
    ("attribute", "expected"),
    [("framse", "did you mean 'frames'"), ("size", "lens"), ("_model", "_model")],
)
def test_a_misspelt_port_gets_its_hint_where_nodes_run(attribute: str, expected: str) -> None:
    with pytest.raises(AttributeError) as raised:
        getattr(Camera(), attribute)
    assert expected in describe(raised.value)
    assert not isinstance(raised.value, PortError)
