"""What the exit code of every verb means, in one place."""

from __future__ import annotations

from enum import IntEnum

from dflow.broker.outcome import exit_code
from dflow.errors import GraphError, OptionError, RunError, StartError
from dflow.report import RunReport

__all__ = ["HELP", "Exit", "exit_of_error", "exit_of_report"]


class Exit(IntEnum):
    """Exit codes; 128 + n is "ended because of signal n", as in a shell."""

    OK = 0
    FAILED = 1
    USAGE = 2
    START = 3
    CUT_SHORT = 4
    INTERRUPTED = 130
    TERMINATED = 143


HELP = """\b
Exit codes:
  0    finished, or drained when asked to
  1    the run failed: user code raised, or a process died; or no report could be written
  2    wrong usage, or the graph is not valid
  3    the run could not start: an import, a process, a refused worker
  4    cut short: messages were abandoned (the report says how many)
  130  ended by Ctrl-C      143  ended by SIGTERM
"""


def exit_of_report(report: RunReport, signal: int | None = None) -> int:
    """Return the exit code for a run that ended; ``signal`` is the first that asked it to."""
    return exit_code(report, signal)


def exit_of_error(error: BaseException, signal: int | None = None) -> int:
    """Return the exit code for an error that ended a verb."""
    if isinstance(error, KeyboardInterrupt):
        return Exit.INTERRUPTED
    if isinstance(error, RunError) and isinstance(error.report, RunReport):
        return exit_of_report(error.report, signal)
    if isinstance(error, StartError):
        return Exit.START
    return Exit.USAGE if isinstance(error, GraphError | OptionError) else Exit.FAILED
