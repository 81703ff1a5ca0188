"""``dflow status``: look at a run under way, from another terminal.

A run is found by its private directory, which only its user can read; one whose coordinator was
started by hand, by its address and token.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import click

from dflow.cli.cluster import TOKEN, checked_token, checked_url, join_option, token_option
from dflow.cli.output import json_option, say, show_json, wants_json
from dflow.cli.screen import reasons, screen
from dflow.errors import OptionError, RunError, did_you_mean
from dflow.report import RunStatus

if TYPE_CHECKING:
    from rich.console import Group

    from dflow.launch.observer import Observer
    from dflow.launch.rundir import LiveRun

__all__ = ["observing", "status"]

EVERY_S = 1.0
MOST_ROWS = 40
"""Nodes, and edges, that are shown unless all are asked for."""

Draw = Callable[[RunStatus], "Group"]
_PIPE_WIDTH = 1000


@click.command(short_help="Show a run under way.")
@click.argument("run_id", required=False, metavar="[RUN]")
@click.option("--keys", is_flag=True, help="Show the busiest keys of edges that have keys.")
@click.option("--all", "whole", is_flag=True, help="Show every node and edge of a large run.")
@click.option("--why", is_flag=True, help="Say who waits for whom, and what keeps them waiting.")
@click.option("--watch", is_flag=True, help="Show it every second until the run ends, or Ctrl-C.")
@join_option
@token_option
@json_option
def status(
    run_id: str | None,
    keys: bool,
    whole: bool,
    why: bool,
    watch: bool,
    url: str | None,
    token: str | None,
) -> None:
    """Show nodes, edges and queues of a run under way: yours, on this host.

    RUN is the beginning of a run's id; with only one run under way it is not needed. Looking
    costs the run nothing, and several may look at once.

    \b
    Examples:
      dflow status
      dflow status 3f2a --keys --watch
      dflow status --why
      dflow status --json | jq '.status.edges[] | {id, depth}'
      DFLOW_TOKEN=secret dflow status --join tcp://10.0.0.5:7000
    """
    draw = reasons if why else partial(screen, keys=keys, most=None if whole else MOST_ROWS)
    with observing(run_id, url, token) as observer:
        if watch:
            _watch(observer, draw, why=why)
        else:
            now = observer.status()
            if now is None:
                raise _gone(observer)
            _show(now, draw, why=why)


@contextmanager
def observing(run_id: str | None, url: str | None, token: str | None) -> Iterator[Observer]:
    """Give a guest's connection to the run that is meant; errors list what there is."""
    if url is None:
        found = _choose(run_id)
        endpoint, secret = found.endpoint, found.token
    else:
        if run_id is not None:
            raise click.UsageError("give either a RUN or --join, not both")
        endpoint, secret = checked_url(url, "--join", "tcp://10.0.0.5:7000"), token or ""
        if not secret:
            raise click.UsageError(f"set {TOKEN} (or --token) to the coordinator's token")
        checked_token(secret)
    from dflow.launch.observer import Observer
    from dflow.transport.endpoint import close_context

    try:
        with Observer(endpoint, secret) as observer:
            yield observer
    finally:
        close_context()


def _choose(run_id: str | None) -> LiveRun:
    """Return the run that is meant; errors list what there is."""
    from dflow.launch.rundir import live_runs

    runs = live_runs()
    if not runs:
        raise RunError("no run of yours is under way on this host; start one with dflow run")
    meant = [run for run in runs if run.run_id.startswith(run_id or "")]
    if len(meant) == 1:
        return meant[0]
    if run_id is None:
        raise OptionError(f"{len(runs)} runs are under way; name one:{_listed(runs)}")
    if meant:
        raise OptionError(f"{len(meant)} runs begin with {run_id!r}; say more:{_listed(meant)}")
    near = did_you_mean(run_id, [run.run_id for run in runs])
    raise RunError(f"no run {run_id!r}{near}; under way:{_listed(runs)}")


def _listed(runs: list[LiveRun]) -> str:
    width = max(len(run.graph) for run in runs)
    now = time.time()
    return "".join(
        f"\n  {run.run_id}  {run.graph:{width}}  {now - run.started_s:6,.0f} s  agent {run.pid}"
        for run in runs
    )


def _gone(observer: Observer) -> RunError:
    report = observer.report
    how = f": {report.outcome}" if report is not None else ""
    return RunError(f"the run ended meanwhile{how}")


def _show(now: RunStatus, draw: Draw, *, why: bool) -> None:
    """Print a status to stdout."""
    if wants_json():
        said = {"why": now.why().to_dict()} if why else {}
        show_json(ok=True, exit_code=0, status=now.to_dict(), **said)
        return
    from rich.console import Console

    terminal = sys.stdout.isatty()
    console = Console(file=sys.stdout, width=None if terminal else _PIPE_WIDTH)
    with console.capture() as capture:
        console.print(draw(now))
    click.echo("\n".join(line.rstrip() for line in capture.get().splitlines()))


def _watch(observer: Observer, draw: Draw, *, why: bool) -> None:
    """Show the run again and again; return when it ends, or at Ctrl-C."""
    try:
        if sys.stdout.isatty() and not wants_json():
            _watch_live(observer, draw)
        else:
            _watch_lines(observer, draw, why=why)
    except KeyboardInterrupt:
        return
    report = observer.report
    if report is not None and not wants_json():
        say(f"the run ended: {report.outcome}")


def _watch_lines(observer: Observer, draw: Draw, *, why: bool) -> None:
    while (now := observer.status()) is not None:
        _show(now, draw, why=why)
        if not wants_json():
            click.echo()
        time.sleep(EVERY_S)


def _watch_live(observer: Observer, draw: Draw) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console(file=sys.stdout)
    with Live(console=console, auto_refresh=False, screen=True) as live:
        while (now := observer.status()) is not None:
            live.update(draw(now), refresh=True)
            time.sleep(EVERY_S)
