"""The group of verbs, and the one place where an error becomes words and an exit code."""

from __future__ import annotations

from typing import Any

import click

from dflow.cli.bundle import bundle
from dflow.cli.cluster import coordinator, worker
from dflow.cli.doctor import doctor
from dflow.cli.exits import HELP, exit_of_error
from dflow.cli.inspect import graph, validate
from dflow.cli.output import show_error
from dflow.cli.run import run
from dflow.cli.simulate import simulate
from dflow.cli.status import status
from dflow.errors import DflowError, did_you_mean
from dflow.version import __version__

__all__ = ["cli"]


class _Verbs(click.Group):
    """Turns errors of any verb into exit codes, and near misses into suggestions."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb; leaves by `click.exceptions.Exit` when it fails."""
        try:
            return super().invoke(ctx)
        except (DflowError, KeyboardInterrupt) as error:
            code = exit_of_error(error)
            with ctx.scope():
                show_error(Interrupted() if isinstance(error, KeyboardInterrupt) else error, code)
            ctx.exit(code)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb; a near miss is told which one it may have meant."""
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            known = ", ".join(self.list_commands(ctx))
            near = did_you_mean(args[0], self.list_commands(ctx))
            ctx.fail(f"no verb {args[0]!r}{near} (the verbs are {known})")
        return super().resolve_command(ctx, args)


class Interrupted(Exception):
    """What a KeyboardInterrupt, which has no words of its own, is shown as."""

    def __init__(self) -> None:
        super().__init__("interrupted before the run had ended; it was stopped at once")


@click.group(
    cls=_Verbs,
    epilog=HELP,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="dflow")
def cli() -> None:
    """Run graphs of Python functions on many processes.

    \b
    A TARGET names a graph:
      flows.py:graph      the variable `graph` in a file
      package.flows:make  a variable in a module, or a function that returns a graph
      flows.py            the only graph there

    \b
    Examples:
      dflow run flows.py:graph
      dflow validate flows.py:graph --json
      dflow graph flows.py:graph --format svg -o flows.svg
      dflow status
    """


for _verb in (run, simulate, validate, graph, status, bundle, doctor, coordinator, worker):
    cli.add_command(_verb)
