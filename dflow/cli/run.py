"""``dflow run``: a graph from start to report, with the exit code that says how it went."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import click

from dflow.cli.exits import Exit, exit_of_error, exit_of_report
from dflow.cli.options import TARGET, RunCommand, run_options
from dflow.cli.output import say, show_error, show_json, wants_json
from dflow.errors import RunError
from dflow.options import RunOptions
from dflow.report import RunReport, RunStatus

if TYPE_CHECKING:
    from dflow.telemetry.progress import Progress

__all__ = ["finish", "progress_display", "run", "status_observer", "write_report"]


@click.command(cls=RunCommand, short_help="Run a graph and print its report.")
@TARGET
@run_options
@click.option(
    "--transport",
    type=click.Choice(["ipc", "tcp"]),
    default=RunOptions().transport,
    show_default=True,
    help="Unix sockets in a private directory, or TCP on the loopback.",
)
@click.option(
    "--start-method",
    type=click.Choice(["fork", "spawn"]),
    help="How workers start.  [default: fork on Linux]",
)
@click.option(
    "--start-timeout",
    "start_timeout_s",
    type=float,
    default=RunOptions().start_timeout_s,
    show_default=True,
    metavar="SECONDS",
    help="From the first process to all nodes ready.",
)
def run(
    target: str,
    options: dict[str, Any],
    progress: bool,
    report_file: str | None,
    transport: str,
    start_method: str | None,
    start_timeout_s: float,
) -> None:
    """Run a graph until its inputs are exhausted, and print the report to stderr.

    Ctrl-C or SIGTERM once drains: sources end, and what is under way is handled. Ctrl-C twice
    stops at once. What nodes print goes to stdout; with --json the last line there is the
    report.

    \b
    Examples:
      dflow run flows.py:graph
      dflow run package.flows:graph --log json --no-progress > out.txt
      dflow run flows.py:graph --json | tail -1 | jq .report.totals
      dflow run flows.py:graph --bundle /var/tmp || dflow doctor /var/tmp/dflow-*
    """
    from dflow import runtime
    from dflow.launch.reference import load_graph

    loaded = load_graph(target)
    started: dict[str, Any] = {
        "transport": transport,
        "start_method": start_method,
        "start_timeout_s": start_timeout_s,
    }
    with _FirstSignal() as asked:
        try:
            # The display comes first: the launch looks at where stdout and stderr lead.
            with progress_display(progress) as display:
                report = runtime.run(
                    loaded, on_status=status_observer(display), **options, **started
                )
        except RunError as error:
            code = exit_of_error(error, asked.first)
            if isinstance(error.report, RunReport):
                code = write_report(error.report, report_file, code)
            show_error(error, code)
            click.get_current_context().exit(code)
    code = exit_of_report(report, asked.first)
    finish(report, write_report(report, report_file, code))


def progress_display(wanted: bool) -> Progress | nullcontext[None]:
    """Return the context manager that shows a run, or one that does nothing."""
    if not wanted:
        return nullcontext()
    from dflow.telemetry.progress import Progress

    return Progress()


def status_observer(display: Progress | None) -> Callable[[RunStatus], None] | None:
    """Return what to call with every status."""
    return None if display is None else display.update


def finish(report: RunReport, code: int) -> None:
    """Print the report and leave with ``code``."""
    if wants_json():
        show_json(ok=code == 0, exit_code=code, report=report.to_dict())
    else:
        say(str(report))
    click.get_current_context().exit(code)


def write_report(report: RunReport, file: str | None, code: int) -> int:
    """Write the report to ``file`` as JSON, if one was named; return the exit code.

    That is ``code``, but 0 becomes 1 when the report could not be written.
    """
    if file is None:
        return code
    try:
        Path(file).write_text(report.to_json(indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        say(f"error: the report could not be written to {file}: {error.strerror}")
        return code or Exit.FAILED
    return code


class _FirstSignal:
    """Remembers which of SIGINT and SIGTERM came first, whoever handles them.

    It only listens at Python's wakeup descriptor: what the signals do stays the runtime's.
    """

    def __init__(self) -> None:
        self._first: int | None = None

    def __enter__(self) -> Self:
        self._read_fd, self._write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)
        os.set_blocking(self._write_fd, False)
        self._before = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        return self

    def __exit__(self, *exc: object) -> None:
        signal.set_wakeup_fd(self._before)
        self._look()
        os.close(self._read_fd)
        os.close(self._write_fd)
        self._read_fd = -1

    @property
    def first(self) -> int | None:
        """The first of the two signals so far."""
        if self._read_fd >= 0:
            self._look()
        return self._first

    def _look(self) -> None:
        try:
            numbers = os.read(self._read_fd, 4096)
        except BlockingIOError:
            return
        for number in numbers:
            if self._first is None and number in (signal.SIGINT, signal.SIGTERM):
                self._first = number
