"""``python -m soak`` in its short form: files, report, exit codes, stopping and going on.

A few seconds decide nothing about slopes, and nothing here depends on them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dflow.transport.segments import is_supported
from soak.command import main
from soak.looking import marked
from soak.part import PROFILES, SAMPLES
from soak.samples import read
from soak.state import load
from tests.support import eventually

ROOT = Path(__file__).parents[2]
QUICK = ("--sample-s", "0.25", "--warm-up-s", "0")
SHORT = ("--minutes", "0.025", "--seed", "7", "--load", "0.3", *QUICK)
DEADLINE_S = 50.0
pytestmark = pytest.mark.timeout(150)  # a whole graph to start and end, several times


@contextmanager
def soaking(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Start a soak; kill it if the test has not seen its end."""
    command = [sys.executable, "-m", "soak", *map(str, arguments)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> str:
    """Wait for the end and return what it printed."""
    out, _ = process.communicate(timeout=DEADLINE_S)
    return out


def is_flowing(folder: Path, part: int) -> bool:
    """Whether a look of ``part`` has seen messages arrive."""
    try:
        lines = [line for line in read(folder / SAMPLES) if line["part"] == part]
    except OSError:
        return False
    return any(row[4] for line in lines for row in line.get("e", {}).values())


def report_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return found


@pytest.mark.parametrize("profile", PROFILES)
def test_short_soak_is_exact_leaves_nothing_and_reports(
    profile: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if profile == "frames" and not is_supported():
        pytest.skip("needs memfd and locks of Linux")
    folder = tmp_path / profile
    strict = ["--strict"] if profile == "control" else []
    with soaking("--profile", profile, "--dir", folder, *SHORT, *strict) as process:
        out = ended(process)
    assert process.returncode == (3 if strict else 0), out  # a few seconds are no evidence
    assert "soak: not enough evidence" in out
    lines = list(read(folder / SAMPLES))
    assert (lines[0]["k"], lines[-1]["k"]) == ("part", "end")
    assert any(line["k"] == "look" and line.get("e") for line in lines)
    report = report_of(folder)
    found = {f["name"]: f["verdict"] for f in report["findings"]}
    assert found["books"] == found["end to end"] == found["left behind"] == "passed", out
    assert (folder / "report.html").read_text().count("<svg") > 5
    assert [entry.name for entry in folder.glob("*.new")] == []
    assert main(["--report", str(folder)]) == 0
    assert report_of(folder) == report  # judged again, the same
    assert main(["--resume", str(folder)]) == 0
    assert "has had its" in capsys.readouterr().out


def test_killed_soak_leaves_no_process_goes_on_and_can_be_stopped(tmp_path: Path) -> None:
    folder = tmp_path / "soak"
    with soaking("--profile", "control", "--dir", folder, "--minutes", 5, *QUICK) as process:
        eventually(lambda: is_flowing(folder, 1), within_s=DEADLINE_S, what="messages")
        mark = load(folder).mark
        assert len(marked(mark)) > 5
        with soaking("--resume", folder) as second:
            assert "is still at it" in ended(second)
        assert second.returncode == 2
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        eventually(lambda: not marked(mark), within_s=DEADLINE_S, what="no process of the run")
    with soaking("--resume", folder, "--warm-up-s", 0) as process:
        eventually(lambda: is_flowing(folder, 2), within_s=DEADLINE_S, what="messages again")
        process.send_signal(signal.SIGINT)
        out = ended(process)
    assert process.returncode == 130, out
    report = report_of(folder)
    assert [part["number"] for part in report["parts"]] == [1, 2]
    assert [part["end"] and part["end"]["how"] for part in report["parts"]] == [None, "stopped"]
    found = {f["name"]: f["verdict"] for f in report["findings"]}
    assert found["books"] == found["end to end"] == found["left behind"] == "passed", out
    assert "restart" in (folder / "report.html").read_text()


def test_run_that_dies_ends_the_soak_with_the_reason(tmp_path: Path) -> None:
    folder = tmp_path / "soak"
    with soaking("--profile", "control", "--dir", folder, "--minutes", 5, *QUICK) as process:
        eventually(lambda: is_flowing(folder, 1), within_s=DEADLINE_S, what="messages")
        last = [line for line in read(folder / SAMPLES) if line["k"] == "look"][-1]
        os.kill(last["p"]["coordinator"][0], signal.SIGKILL)
        out = ended(process)
    assert process.returncode == 1, out
    assert "soak: failed: the soak" in out
    (reason,) = [f["text"] for f in report_of(folder)["findings"] if f["name"] == "the soak"]
    assert "the coordinator died (SIGKILL)" in reason


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--resume", "nowhere"], "expected the state of a soak"),
        (["--minutes", "0"], "expected a time"),
        (["--resume", "a", "--report", "b"], "got both"),
    ],
)
def test_what_cannot_be_soaked_is_refused_with_the_reason(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert said in capsys.readouterr().err
