"""``dflow bundle``: a failure bundle of a run that goes on, from another terminal."""

from __future__ import annotations

import os

import click

from dflow.cli.cluster import join_option, token_option
from dflow.cli.output import json_option, say, show_json, wants_json
from dflow.cli.status import observing

__all__ = ["bundle"]


@click.command(short_help="Write a failure bundle of a run under way.")
@click.argument("run_id", required=False, metavar="[RUN]")
@click.option(
    "-o",
    "--output",
    "directory",
    default=".",
    show_default=True,
    metavar="DIR",
    help="Where the bundle's own directory is made.",
)
@join_option
@token_option
@json_option
def bundle(run_id: str | None, directory: str, url: str | None, token: str | None) -> None:
    """Write down what every process of a run knows: stories, stacks, logs, counters, queues.

    The run goes on. RUN is the beginning of a run's id; with only one run under way it is not
    needed. The directory that was made is printed; dflow doctor reads it.

    \b
    Examples:
      dflow doctor $(dflow bundle)
      dflow bundle 3f2a -o /tmp
    """
    with observing(run_id, url, token) as observer:
        about = observer.status()
        files = observer.bundle() if about is not None else None
    from dflow.bundle.folder import folder_name, write
    from dflow.errors import RunError

    if about is None or not files:
        raise RunError("the run ended meanwhile, or its coordinator keeps no bundles")
    path = write(files, os.path.abspath(directory), folder_name(about.graph, about.run_id))
    if wants_json():
        show_json(ok=True, exit_code=0, bundle=path)
    else:
        click.echo(path)
        say(f"read it with: dflow doctor {path}")
