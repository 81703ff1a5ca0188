"""The live line, and what the exit code says."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from soak.command import Screen, _exit_code, _print
from soak.judging import FAILED, PASSED, UNDECIDED, Finding


class Terminal(io.StringIO):
    """Text that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def line(t: float, **more: Any) -> dict[str, Any]:
    return {
        "t": t,
        "p": {"soak": [1, 0, 0, 5e6, 0, 21, 0, 0, 4, 0.0], "other:x": [2, 0, 0, 9e6, 0]},
        "e": {"a->b": [7, 0, 0, 100 * t, 100 * t, 0]},
        "n": {"a": [0, 0, 3]},
        "l": {"s": [10, 1e6, 4.2e6, 9e6]},
        "trouble": "",
    } | more


def test_terminal_shows_one_line_that_is_rewritten() -> None:
    out = Terminal()
    screen = Screen(out, left_s=3600)
    screen.show(line(1.0))
    screen.show(line(2.0))
    assert out.getvalue().count("\n") == 0
    last = out.getvalue().split("\r\x1b[K")[-1]
    assert last == (
        "0:00:02 of 1:00:00, 1 processes, 5 MB, 21 files open here, 100 messages/s, 7 waiting,"
        " 3 errors, p99 4.2 ms"
    )


def test_file_gets_a_line_a_minute() -> None:
    out = io.StringIO()
    screen = Screen(out, left_s=3600)
    for t in range(150):
        screen.show(line(float(t)))
    assert out.getvalue().count("\n") == 3
    assert "\r" not in out.getvalue()


def test_full_disk_is_said_once_and_its_end_too() -> None:
    out = io.StringIO()
    screen = Screen(out, left_s=3600)
    for t, trouble in enumerate(["", "No space left on device", "No space left on device", ""]):
        screen.show(line(float(t), trouble=trouble))
    assert out.getvalue().count("cannot write samples: No space left on device") == 1
    assert out.getvalue().count("writing again") == 1


def test_exit_code_says_what_came_of_it() -> None:
    def code(verdict: str, *, stopped: bool = False, strict: bool = False) -> int:
        return _exit_code([Finding("a", "soak", verdict, "")], stopped=stopped, strict=strict)

    assert code(PASSED) == code(PASSED, strict=True) == code(UNDECIDED) == 0
    assert code(UNDECIDED, strict=True) == 3
    assert code(FAILED) == code(FAILED, stopped=True) == 1
    assert code(PASSED, stopped=True) == code(UNDECIDED, stopped=True, strict=True) == 130


def test_what_runs_that_failed_have_left_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    findings = [Finding("run", "the run", FAILED, "it failed")]
    _print([], findings, [Path("d/report.html")], [Path("d/bundles/dflow-soak-1")])
    assert "read it with: dflow doctor d/bundles/dflow-soak-1\n" in capsys.readouterr().out
