"""What the command prints, and where: results to stdout, words about them to stderr.

With ``--json`` a verb prints one JSON object a line to stdout, errors included, each with ``ok``
and ``exit_code`` in the last one. The user's own nodes may print to stdout as well; the
verb's last object is always the last line.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import click

from dflow.errors import GraphError, RunError
from dflow.report import RunReport

__all__ = ["json_option", "say", "show_error", "show_json", "wants_json"]

_JSON = "dflow.json"
_Command = TypeVar("_Command", bound=Callable[..., Any])


def json_option(command: _Command) -> _Command:
    """Add ``--json`` to a verb; ask for it with `wants_json`, also where errors are shown."""

    def remember(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        ctx.meta[_JSON] = value

    return click.option(
        "--json",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=remember,
        help="Print JSON, one object a line, to stdout.",
    )(command)


def wants_json() -> bool:
    """Return whether the verb under way was given ``--json``."""
    return bool(click.get_current_context().meta.get(_JSON))


def show_json(**fields: object) -> None:
    """Print one JSON object as one line."""
    click.echo(json.dumps(fields))


def say(text: str) -> None:
    """Print words about the result to stderr."""
    click.echo(text, err=True)


def show_error(error: BaseException, code: int) -> None:
    """Print what went wrong, and the report as far as there is one."""
    report = error.report if isinstance(error, RunError) else None
    if wants_json():
        what: dict[str, Any] = {"kind": type(error).__name__, "message": str(error)}
        if isinstance(error, GraphError) and error.problems:
            what["problems"] = [str(problem) for problem in error.problems]
        known = {"report": report.to_dict()} if isinstance(report, RunReport) else {}
        show_json(ok=False, exit_code=int(code), error=what, **known)
        return
    if isinstance(report, RunReport) and report.nodes:
        say(f"{report}\n" if not report.error else f"{_without_error(report)}\n")
    else:  # what the report would have said
        for note in getattr(error, "__notes__", ()):
            say(note)
    say(f"{click.style('error:', fg='red', bold=True)} {error}")


def _without_error(report: RunReport) -> str:
    """Return the report as text; its last part, the error, is what comes next anyway."""
    return str(report).removesuffix(f"{report.error_kind or 'error'}: {report.error}").rstrip()
