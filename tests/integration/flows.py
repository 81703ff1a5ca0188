"""Nodes and calls that the tests of whole runs share.

Workers import this module by name. What a test wants to hold back or let go is a file: it is
the same for every process, and waiting for it needs no sleep.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dflow import Graph, Input, Node, Output, Priority, RunReport, node, sink, source
from dflow.errors import RunError
from dflow.graph.ports import BoundOutput
from tests.support import eventually

__all__ = [
    "Inlet",
    "await_file",
    "collect",
    "count",
    "ended_by",
    "endless",
    "keep",
    "python",
    "run_checked",
    "swallow",
    "write_line",
]  # fmt: skip

ROOT = Path(__file__).parents[2]
LONG_S = 20.0


@source
def count(n: int) -> Iterator[int]:
    """Yield 0 to n - 1."""
    yield from range(n)


@source
def endless() -> Iterator[int]:
    """Count for ever."""
    number = 0
    while True:
        yield number
        number += 1


@node
def keep(x: Any) -> Any:
    """Pass every message on."""
    return x


@sink
def swallow(x: Any) -> None:
    """Take every message."""


class Inlet(Node):
    """Passes on what is sent to it from outside; ``settings`` are on the control band."""

    data = Input(required=False)
    settings = Input(priority=Priority.CONTROL)
    out = Output()

    @data.handler
    def pass_on(self, x: Any) -> Any:
        """Emit it."""
        return x

    @settings.handler
    def change(self, x: Any) -> Any:
        """Emit it, marked."""
        return "settings", x


def await_file(path: Path) -> None:
    """Return once ``path`` exists."""
    eventually(path.exists, within_s=LONG_S, what=str(path))


def write_line(path: Path, text: object) -> None:
    """Append one line; lines of several processes do not mix."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(fd, f"{text}\n".encode())
    finally:
        os.close(fd)


def run_checked(graph: Graph, **options: Any) -> RunReport:
    """Run ``graph`` to its end; its books must balance."""
    with graph.start(**options) as run:
        report = run.wait(LONG_S)
    assert report.balances, report.imbalances
    assert report.outcome == "finished"
    return report


def collect(
    graph: Graph, output: Node | BoundOutput, **options: Any
) -> tuple[list[Any], RunReport]:
    """Run ``graph`` to its end; return what ``output`` emitted and the balanced report."""
    with graph.start(results=[output], **options) as run:
        values = list(run.results())
        report = run.wait(LONG_S)
    assert report.balances, report.imbalances
    assert report.outcome == "finished"
    return values, report


def ended_by(error: RunError) -> RunReport:
    """Return the report of a run that failed; its books must balance, too."""
    report = error.report
    assert isinstance(report, RunReport)
    assert report.balances, report.imbalances
    return report


@contextmanager
def python(
    *arguments: object, environment: Mapping[str, str] | None = None, **options: Any
) -> Iterator[subprocess.Popen[str]]:
    """Start ``python script.py`` (or ``-c``, ``-m`` …) as a user would; its output is captured.

    ``environment`` is added to this process's own.
    """
    ours = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**ours, **(environment or {})},
        **options,
    ) as process:
        try:
            yield process
        finally:
            process.kill()
