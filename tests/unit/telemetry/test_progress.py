"""Progress: rates one can trust, lines in a pipe, and a table that shares a terminal."""

from __future__ import annotations

import io
import os
import re
import sys

import pytest

from dflow.report import EdgeStatus, NodeStatus, RunStatus
from dflow.telemetry.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return 2


def status(uptime_s: float, count: int, *, phase: str = "running", errors: int = 0) -> RunStatus:
    nodes = (
        NodeStatus("numbers", "source", 1, 0, count),
        NodeStatus("show", "sink", 2, count, 0, errors),
    )
    edges = (EdgeStatus("numbers.out->show.in", count, count - 10, 512, 1024),)
    return RunStatus("squares", "r-1", phase, uptime_s, nodes, edges)


def test_a_pipe_gets_a_line_at_each_phase_and_every_two_seconds() -> None:
    pipe = io.StringIO()
    with Progress(pipe) as progress:
        progress.update(status(0.1, 0, phase="starting"))
        for quarter in range(1, 24):
            progress.update(status(quarter / 4, quarter * 2500))
        progress.update(status(6.0, 60_000, phase="finished", errors=3))
    lines = pipe.getvalue().splitlines()
    assert [line.split(";")[0] for line in lines] == [
        "squares: starting 0.1 s",
        "squares: running 0.2 s",
        "squares: running 2.2 s",
        "squares: running 4.2 s",
        "squares: finished 6.0 s",
    ]
    assert lines[2].endswith("numbers 10,000/s, show 10,000/s")
    assert lines[-1].endswith("; 3 errors")
    assert "\x1b" not in pipe.getvalue()


def test_a_run_that_waits_for_workers_says_how_many_only_when_that_changes() -> None:
    pipe = io.StringIO()
    with Progress(pipe) as progress:
        for second in range(9):
            steps = ("joined", "absent" if second < 6 else "joined")
            nodes = (NodeStatus("work", "node", 2, workers=steps),)
            progress.update(RunStatus("far", "r", "waiting", float(second), nodes))
    assert pipe.getvalue().splitlines() == [
        "far: waiting 0.0 s; 1 of 2 workers are here",
        "far: waiting 6.0 s; 2 of 2 workers are here",
    ]


def test_the_rate_is_of_the_last_second() -> None:
    pipe = io.StringIO()
    with Progress(pipe) as progress:
        progress.update(status(0.0, 0))
        progress.update(status(10.0, 1_000_000))
        progress.update(status(11.0, 1_000_500))
        progress.update(status(12.0, 1_000_600))
    rates = [line.split("numbers ")[1].split("/s")[0] for line in pipe.getvalue().splitlines()]
    assert rates == ["0", "100,000", "100"]


def test_a_large_graph_shows_its_slowest_nodes() -> None:
    pipe = io.StringIO()
    with Progress(pipe) as progress:
        for second in range(2):
            nodes = tuple(NodeStatus(f"n{i}", "node", 1, i * second) for i in range(40))
            progress.update(RunStatus("wide", "r", f"phase {second}", float(second), nodes))
    last = pipe.getvalue().splitlines()[-1]
    assert "n0 0/s, n1 1/s" in last
    assert last.endswith("(40 nodes)")
    assert "n20" not in last


def test_a_reader_that_left_the_pipe_does_not_end_the_run() -> None:
    read, write = os.pipe()
    os.close(read)
    pipe = os.fdopen(write, "w")
    with Progress(pipe) as progress:
        progress.update(status(1.0, 1))
        progress.update(status(9.0, 2))
    with pytest.raises(BrokenPipeError):
        pipe.close()


def test_a_terminal_gets_a_table_and_prints_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress() as progress:
        progress.update(status(1.0, 1000))
        print("from ", end="")
        print("a worker\nlast", end="")
        with pytest.raises(io.UnsupportedOperation):
            sys.stdout.fileno()  # the launch must not hand our terminal to its processes
        assert os.environ["FORCE_COLOR"] == "1"
        progress.update(status(2.0, 3000))
    assert sys.stdout is terminal
    assert sys.stderr is terminal
    assert "FORCE_COLOR" not in os.environ
    text = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", terminal.getvalue())
    assert "from a worker\n" in text
    assert "last\n" in text
    assert re.search(r"show +2 +3,000 +0 +0 +2,000 +━+ 512", text)


def test_a_redirected_stdout_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", file)
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Progress():
        assert sys.stdout is file
        print("data")
    assert file.getvalue() == "data\n"
