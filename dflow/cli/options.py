"""The options that `dflow run` and `dflow coordinator` share: fields of `RunOptions`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from dflow.cli.output import json_option
from dflow.options import RunOptions

__all__ = ["TARGET", "RunCommand", "run_options"]


class RunCommand(click.Command):
    """A verb with ``--bundle [DIR]`` before or after its TARGET.

    Click would take whatever follows ``--bundle`` for DIR. A word that names a graph
    (``flows.py:graph``, ``flows.py``) is the TARGET; such a directory is given by ``--bundle=DIR``.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as click does, after the meaning of a bare ``--bundle`` is settled."""
        settled = list(args)
        for place, word in enumerate(args[:-1]):
            following = args[place + 1]
            if word == "--bundle" and (":" in following or following.endswith(".py")):
                settled[place] = "--bundle=."
        return super().parse_args(ctx, settled)


TARGET = click.argument("target", metavar="TARGET")


def _writable(_: click.Context, __: click.Parameter, file: str | None) -> str | None:
    """Refuse a file that cannot be made, now rather than after a long run."""
    if file is None or Path(file).exists():  # then click has looked at it
        return file
    try:
        Path(file).touch(exist_ok=False)
        Path(file).unlink()
    except FileExistsError:  # a link to a file that is not there yet
        pass
    except OSError as error:
        raise click.BadParameter(f"{file}: {error.strerror}", param_hint="--report") from None
    return file


_DEFAULTS = RunOptions()
_LEVELS = ("TRACE", "DEBUG", "INFO", "SUCCESS", "WARNING", "ERROR", "CRITICAL")
_OPTIONS = (
    click.option(
        "--log",
        type=click.Choice(["human", "json"]),
        default=_DEFAULTS.log,
        show_default=True,
        help="Log lines on stderr: for people, or one JSON object a line.",
    ),
    click.option(
        "--log-level",
        type=click.Choice(_LEVELS, case_sensitive=False),
        default=_DEFAULTS.log_level,
        show_default=True,
        help="Least level that is shown.",
    ),
    click.option(
        "--drain-timeout",
        "drain_timeout_s",
        type=float,
        default=_DEFAULTS.drain_timeout_s,
        show_default=True,
        metavar="SECONDS",
        help="What draining may take when asked to end, before the rest is abandoned.",
    ),
    click.option(
        "--check-types",
        is_flag=True,
        help="Check every emitted value against its port's type.",
    ),
    click.option(
        "--progress/--no-progress",
        default=True,
        help="Live rates on a terminal, a line now and then in a pipe (stderr).  [default: on]",
    ),
    click.option(
        "--report",
        "report_file",
        type=click.Path(dir_okay=False, writable=True),
        callback=_writable,
        metavar="FILE",
        help="Write the run report to FILE as JSON.",
    ),
    click.option(
        "--bundle",
        is_flag=False,
        flag_value=".",
        metavar="[DIR]",
        help="If the run fails, leave a failure bundle in DIR (here, without one).",
    ),
    json_option,
)


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the shared options; the verb gets them as ``options: dict``, and what is not one."""

    @functools.wraps(command)
    def with_options(
        log: str,
        log_level: str,
        drain_timeout_s: float,
        check_types: bool,
        bundle: str | None,
        **rest: Any,
    ) -> Any:
        options = {
            "log": log,
            "log_level": log_level,
            "drain_timeout_s": drain_timeout_s,
            "check_types": check_types,
            "bundle": bundle,
        }
        return command(options=options, **rest)

    decorated: Callable[..., Any] = with_options
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated
