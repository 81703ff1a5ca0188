"""Signals at random instants: the run drains or ends, the program says which, nothing is left.

An instant is a line of the main thread or a time (`tests.integration.interrupted`). 16 of them in
CI, drawn by a seed that is printed; DFLOW_CYCLES=1000 tries as many (scripts/nightly cycles), and
DFLOW_SEED=N those of a seed again: the same lines; a time is the same, where it falls is not.
"""

from __future__ import annotations

import inspect
import json
import os
import random
import signal
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.integration.flows import python
from tests.support import MARK, descendants, eventually

INSTANTS = int(os.environ.get("DFLOW_CYCLES") or 16)
SEED = int(os.environ.get("DFLOW_SEED") or random.SystemRandom().randrange(2**32))
ENDS_S = 30
GONE_S = 5

STARTING = ("local.py", "subprocess.py", "runtime.py", "handle.py", "interrupt.py", "stdio.py")
"""Where most goes on while a run starts and ends: half of all instants are drawn from there."""

LASTS_S = 0.4
"""About as long as the program runs."""

SIGNALS = {"ctrl-c": signal.SIGINT, "sigterm": signal.SIGTERM}


def interrupt(number: int, at: list[Any]) -> None:
    """Run the program with signals at these instants; fail unless it ends as it should."""
    where = f"seed {SEED}: {json.dumps({'number': number, 'at': at})}"
    mark = f"{os.environ[MARK]}-{random.getrandbits(64):x}"
    with tempfile.TemporaryDirectory(prefix="di-") as folder:
        environment = {"TMPDIR": folder, MARK: mark}
        asked = json.dumps({"number": number, "at": at})
        program = ("-m", "tests.integration.interrupted", asked)
        with python(*program, environment=environment, process_group=0) as process:
            try:
                told, errors = process.communicate(timeout=ENDS_S)
            except subprocess.TimeoutExpired:
                pytest.fail(f"{where}: it hangs")
        wrong = judge(number, len(at), process.returncode, told, errors)
        assert not wrong, f"{where}: {wrong}\n{told}\n{errors}"
        what = f"nothing left after {where}"
        eventually(lambda: not descendants(mark), within_s=GONE_S, what=what)
        eventually(lambda: not list(Path(folder).iterdir()), within_s=GONE_S, what=what)


def judge(number: int, signals: int, code: int, told: str, errors: str) -> str:
    """Return what is wrong with how the program ended, or nothing."""
    lines = told.splitlines()
    if lines and lines[-1].startswith("left "):
        left = json.loads(lines.pop().removeprefix("left "))
        if left and signals == 1:
            return f"left in the program: {left}"
    reported = lines[0] if lines else ""
    if reported and reported not in (
        "reported finished True", "reported drained True", "reported aborted True",
    ):  # fmt: skip
        return f"an unexpected report: {reported}"
    if "aborted" in reported and signals < 2:
        return "it was aborted by one signal"
    if code == 0:
        # where Python cannot raise, such as in a finalizer, it tells and goes on
        raised = "Traceback" in errors and not errors.startswith("Exception ignored in")
        if lines != [reported, "over"] or raised:
            return "it ended well, but did not say so, or said more"
        return ""
    if number == signal.SIGINT and code == -signal.SIGINT:
        if "dflow.errors" in errors or "KeyboardInterrupt" not in errors:
            return "expected KeyboardInterrupt, and no error of the run"
        if signals == 1 and not errors.endswith("\nKeyboardInterrupt\n"):
            return "expected one KeyboardInterrupt"
        return ""
    if number == signal.SIGTERM and code in (-signal.SIGTERM, 128 + signal.SIGTERM):
        return "" if "Traceback" not in errors else "expected no traceback"
    return f"unexpected exit code {code}"


@cache
def lines() -> list[list[Any]]:
    """Return the lines that the main thread of the program reaches, in order."""
    asked = json.dumps({"number": signal.SIGINT, "at": [], "tell": True})
    with python("-m", "tests.integration.interrupted", asked, process_group=0) as process:
        told, errors = process.communicate(timeout=ENDS_S)
    assert process.returncode == 0, errors
    found: list[list[Any]] = json.loads(told.splitlines()[-1])
    return found


def a_line(chance: random.Random) -> list[Any]:
    """Return a line; half of them are where a run starts and ends."""
    near = [line for line in lines() if line[0] in STARTING]
    return chance.choice(near if chance.random() < 0.5 else lines())


def draw(kind: str, chance: random.Random) -> list[Any]:
    """Return the instants of one trial."""
    if kind == "line":
        return [a_line(chance)]
    if kind == "time":
        return [chance.random() * LASTS_S]
    if kind == "twice":
        return [chance.choice((a_line(chance), chance.random() * LASTS_S)), chance.random() * 0.1]
    return [a_line(chance), *(chance.random() * 0.05 for _ in range(2))]


@pytest.mark.timeout(60 + 3 * INSTANTS)
@pytest.mark.parametrize("kind", ["line", "time", "twice", "three times"])
@pytest.mark.parametrize("name", SIGNALS)
def test_signals_at_random_instants_leave_nothing(
    name: str, kind: str, record_property: Callable[[str, object], None]
) -> None:
    record_property("DFLOW_SEED", SEED)
    chance = random.Random(f"{SEED} {kind} {name}")
    trials = max(1, INSTANTS // (4 * len(SIGNALS)))
    for _ in range(trials):
        interrupt(SIGNALS[name], draw(kind, chance))


def test_ctrl_c_right_after_the_fork_of_the_agent_leaves_nothing() -> None:
    source, begin = inspect.getsourcelines(subprocess.Popen._close_pipe_fds)  # type: ignore[attr-defined]  # is private
    last = next(n for n, text in enumerate(source, begin) if "_closed_child_pipe_fds" in text)
    interrupt(signal.SIGINT, [["subprocess.py", last]])


@pytest.mark.parametrize(
    ("number", "signals", "code", "told", "errors"),
    [
        (signal.SIGINT, 1, 0, "", ""),
        (signal.SIGINT, 1, 0, "reported drained False\nover\n", ""),
        (signal.SIGINT, 1, 0, "reported drained True\n", ""),
        (signal.SIGINT, 1, 0, "reported drained True\nover\n", "Traceback\n"),
        (signal.SIGINT, 1, -2, "reported aborted True\n", "Traceback\nKeyboardInterrupt"),
        (signal.SIGINT, 1, -2, "", "Traceback\ndflow.errors.RunError: \nKeyboardInterrupt\n"),
        (signal.SIGINT, 1, 1, "", "Traceback\ndflow.errors.AgentDied"),
        (signal.SIGINT, 1, -2, "", "Traceback\nKeyboardInterrupt\nand more"),
        (signal.SIGTERM, 1, -2, "", "Traceback\nKeyboardInterrupt"),
        (signal.SIGTERM, 1, 143, "", "Traceback\nSystemExit"),
    ],
)
def test_every_wrong_end_is_noticed(
    number: int, signals: int, code: int, told: str, errors: str
) -> None:
    assert judge(number, signals, code, told, errors)
