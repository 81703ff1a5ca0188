"""The verbs for workers started by hand: ``coordinator`` waits for them, ``worker`` joins.

The token is what lets a process take part, so it is treated as a secret: it comes from
``DFLOW_TOKEN`` rather than the command line (which every user of the machine can read), and is
shown only where it was made up: in the join command on the coordinator's own terminal.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
from typing import Any
from urllib.parse import urlsplit

import click

from dflow.cli.options import TARGET, RunCommand, run_options
from dflow.cli.output import json_option, say, show_json, wants_json
from dflow.cli.run import finish, progress_display, status_observer, write_report
from dflow.options import RunOptions

__all__ = [
    "TOKEN",
    "checked_token",
    "checked_url",
    "coordinator",
    "join_option",
    "token_option",
    "worker",
]

TOKEN = "DFLOW_TOKEN"
_MIN_TOKEN = 8
_ANYWHERE = ("0.0.0.0", "*", "::", "[::]")

token_option = click.option(
    "--token",
    envvar=TOKEN,
    show_envvar=True,
    metavar="TEXT",
    help="Shared secret; better in the environment, for others can read a command line.",
)

join_option = click.option(
    "--join",
    "url",
    metavar="tcp://HOST:PORT",
    help="Ask a coordinator that was started by hand, with its token.",
)


@click.command(cls=RunCommand, short_help="Wait for workers started by hand.")
@TARGET
@click.option(
    "--listen",
    default="tcp://127.0.0.1:0",
    show_default=True,
    metavar="tcp://HOST:PORT",
    help="Where workers join. HOST 0.0.0.0 is every interface, PORT 0 any free port.",
)
@token_option
@run_options
def coordinator(
    target: str,
    listen: str,
    token: str | None,
    options: dict[str, Any],
    progress: bool,
    report_file: str | None,
) -> None:
    """Coordinate a graph whose workers are started by hand, here or on other hosts.

    Prints the command that starts a worker, waits until every replica has one, then runs
    until the graph's inputs are exhausted. Workers import TARGET themselves, so it must be
    found, and be the same, where they run.

    \b
    Examples:
      dflow coordinator flows.py:graph
      DFLOW_TOKEN=secret dflow coordinator package.flows:graph --listen tcp://0.0.0.0:7000
    """
    from dflow.broker.main import CoordinatorConfig, coordinate
    from dflow.bundle.wanted import settled
    from dflow.launch.reference import load_graph

    checked_url(listen, "--listen", "tcp://0.0.0.0:7000")
    secret = checked_token(token) if token else _new_token()
    plan = load_graph(target).plan()
    with progress_display(progress) as display:
        ended = coordinate(
            CoordinatorConfig(
                plan=plan,
                options=settled(RunOptions(**{**options, "transport": "tcp"})),
                run_id=secrets.token_hex(4),
                token=secret,
                endpoint=listen,
                graph_ref=target,
                on_ready=lambda endpoint: _invite(
                    endpoint, len(plan.workers), None if token else secret
                ),
                on_status=status_observer(display),
            )
        )
    finish(ended.report, write_report(ended.report, report_file, ended.exit_code))


def _invite(endpoint: str, workers: int, made_up: str | None) -> None:
    """Say how workers join; ``made_up`` is the token if nobody but us knows it."""
    url = _reachable(endpoint)
    if wants_json():
        show_json(listening=url, workers=workers)
        return
    count = f" --count {workers}" if workers > 1 else ""
    command = f"dflow worker --join {url}{count}"
    if made_up is None:
        say(f"waiting for {workers} workers; start them, with the same {TOKEN}, by\n  {command}")
    else:
        say(f"waiting for {workers} workers; start them by\n  {TOKEN}={made_up} {command}")


def _reachable(endpoint: str) -> str:
    """Return ``endpoint`` with a host that others can use in the place of "any interface"."""
    parts = urlsplit(endpoint)
    if parts.hostname is not None and parts.hostname not in _ANYWHERE:
        return endpoint
    return f"tcp://{socket.gethostname()}:{parts.port}"


@click.command(short_help="Join a coordinator as a worker.")
@click.option(
    "--join", "url", required=True, metavar="tcp://HOST:PORT", help="The coordinator's address."
)
@token_option
@click.option(
    "--count", type=click.IntRange(1, 256), default=1, show_default=True, help="How many workers."
)
@click.option(
    "--bind-host",
    metavar="HOST",
    help="Address other workers reach this host by.  [default: the one that leads to --join]",
)
@json_option
def worker(url: str, token: str | None, count: int, bind_host: str | None) -> None:
    """Join a coordinator as whatever replicas it still needs, and work until the run ends.

    The graph is imported here by the reference the coordinator was given, from this working
    directory and Python's path. Any process manager can start it.

    \b
    Examples:
      DFLOW_TOKEN=secret dflow worker --join tcp://10.0.0.5:7000
      DFLOW_TOKEN=secret dflow worker --join tcp://10.0.0.5:7000 --count 4
    """
    checked_url(url, "--join", "tcp://10.0.0.5:7000")
    if not token:
        raise click.UsageError(f"set {TOKEN} (or --token) to the coordinator's token")
    checked_token(token)
    if count > 1:
        code = _join_many(url, token, count, bind_host)
    else:
        from dflow.worker.main import join_worker

        say(f"joining {url}")
        code = join_worker(url, token, bind_host)
    if wants_json():
        show_json(ok=code == 0, exit_code=code)
    click.get_current_context().exit(code)


def _join_many(url: str, token: str, count: int, bind_host: str | None) -> int:
    """Run ``count`` workers as processes of their own; return the worst exit code.

    They leave Ctrl-C to the coordinator, which drains; a SIGTERM is handed on to all of them.
    """
    command = [sys.executable, "-m", "dflow", "worker", "--join", url]
    if bind_host is not None:
        command += ["--bind-host", bind_host]
    environment = {**os.environ, TOKEN: token}
    workers: list[subprocess.Popen[bytes]] = []

    def hand_on(number: int, _: object) -> None:
        for process in workers:
            process.send_signal(number)

    before = signal.signal(signal.SIGTERM, hand_on), signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        workers += [subprocess.Popen(command, env=environment) for _ in range(count)]
        codes = [process.wait() for process in workers]
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])
        for process in workers:
            process.kill()
    return max(code if code >= 0 else 128 - code for code in codes)


def checked_url(url: str, option: str, example: str) -> str:
    """Return ``url`` if it is like ``example``; raises `click.BadParameter`."""
    parts = urlsplit(url)
    try:
        good = parts.scheme == "tcp" and parts.hostname and parts.port is not None
    except ValueError:  # a port that is no number
        good = False
    if not good or parts.path:
        raise click.BadParameter(
            f"expected an address like {example}, got {url!r}", param_hint=option
        )
    return url


def checked_token(token: str) -> str:
    """Return ``token`` if it is long enough; raises `click.BadParameter`."""
    if len(token) < _MIN_TOKEN:
        raise click.BadParameter(
            f"expected at least {_MIN_TOKEN} characters, got {len(token)}", param_hint="--token"
        )
    return token


def _new_token() -> str:
    """Return a fresh token; refused where nobody would see it, or a log file would keep it."""
    if wants_json() or not sys.stderr.isatty():
        raise click.UsageError(
            f"set {TOKEN}: a fresh token is only shown on a terminal, and stderr is not one"
        )
    return secrets.token_urlsafe(18)
