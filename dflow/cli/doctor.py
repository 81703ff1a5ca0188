"""``dflow doctor``: what a failure bundle means, for a person, or for a program with ``--json``."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from dflow.cli.output import json_option, show_json, wants_json

if TYPE_CHECKING:
    from dflow.bundle.doctor import Diagnosis

__all__ = ["doctor", "screen_lines"]

_MOST_PROCESSES = 20
_MOST_LINES = 12


@click.command(short_help="Say what a failure bundle means.")
@click.argument("bundle", metavar="BUNDLE")
@click.option("--all", "whole", is_flag=True, help="Show every process and edge.")
@json_option
def doctor(bundle: str, whole: bool) -> None:
    """Say what failed first, who waited for whom, what was full, and what to do next.

    BUNDLE is the directory that a run left (dflow run --bundle) or dflow bundle made. A bundle that
    is damaged or incomplete is read as far as it goes.

    \b
    Examples:
      dflow doctor dflow-vision-3f2a91c0
      dflow doctor dflow-vision-3f2a91c0 --json | jq '.diagnosis.troubles[0]'
    """
    from dflow.bundle.doctor import diagnose
    from dflow.bundle.folder import read

    opened = read(bundle)
    opened.require_known()
    found = diagnose(opened)
    if wants_json():
        show_json(ok=True, exit_code=0, diagnosis=found.to_dict())
        return
    width = min(shutil.get_terminal_size().columns, 100)
    for line in screen_lines(found, width, whole=whole):
        heading = line.isupper() and not line.startswith(" ")
        click.echo(click.style(line, bold=True) if heading else line)


def screen_lines(found: Diagnosis, width: int, *, whole: bool = False) -> Iterator[str]:
    """Yield the lines of the screen, none wider than ``width`` if it can be helped."""
    yield from _wrapped([f"run {found.run}", f"bundle made {found.made}"], width, "")
    yield from _section("what ended it", _ending(found), width)
    yield from _section("what failed first", _troubles(found), width)
    yield from _section("who waited for whom", found.waits, width)
    most = None if whole else _MOST_LINES
    full = [
        f"{edge.id} had {edge.depth:,} of {edge.capacity:,}"
        + (f", the oldest for {edge.oldest_s:.1f} s" if edge.oldest_s else "")
        for edge in found.full
    ]
    yield from _section("edges that were full", _some(full, most, "edges"), width)
    yield from _section("processes", _processes(found, whole=whole), width)
    yield from _section("what to do next", found.advice, width)
    missing = _some(found.missing, most, "things")
    yield from _section("what the bundle does not say", missing, width)


def _section(title: str, lines: Iterable[str], width: int) -> Iterator[str]:
    shown = list(lines)
    if shown:
        yield ""
        yield title.upper()
        yield from _wrapped(shown, width, "  ")


def _wrapped(lines: Iterable[str], width: int, indent: str) -> Iterator[str]:
    """Yield lines that fit; what goes on is indented further than where its line began."""
    for line in lines:
        own = indent + " " * (len(line) - len(line.lstrip(" ")))
        yield from textwrap.wrap(
            line.strip(" "), max(20, width), initial_indent=own, subsequent_indent=f"{own}  ",
            break_long_words=False, break_on_hyphens=False,
        ) or [""]  # fmt: skip


def _ending(found: Diagnosis) -> Iterator[str]:
    if not found.known:
        yield "nobody knows: the file that says it cannot be read"
        return
    if not found.ended_by:
        yield "nothing: the run was looked at while it went on" if not found.kind else found.kind
        return
    first, *rest = found.ended_by.split("\n")
    yield f"{found.kind}: {first}" if found.kind else first
    yield from (f"  {line}" for line in rest[-_MOST_LINES:])
    if found.busy:
        yield f"still busy: {', '.join(found.busy[:_MOST_LINES])}"


def _troubles(found: Diagnosis) -> Iterator[str]:
    width = max((len(trouble.who) for trouble in found.troubles), default=0)
    for trouble in found.troubles:
        when = round(-trouble.before_s, 3) + 0.0  # no -0.000
        yield f"{when:+9.3f} s  {trouble.who:{width}}  {trouble.what}"
    if found.more_troubles:
        yield f"and {found.more_troubles:,} more (processes/*/log.txt and story.txt)"
    if found.troubles:
        yield "(0 is when the run began to end)"
    elif found.ended_by:
        yield "nothing: nobody died, raised or logged an error before"


def _processes(found: Diagnosis, *, whole: bool) -> Iterator[str]:
    ranked = sorted(found.processes, key=lambda process: not process.bad)  # keeps their order
    shown = ranked if whole else ranked[:_MOST_PROCESSES]
    width = max((len(process.name) for process in shown), default=0)
    for process in shown:
        at = f", {process.at}" if process.at else ""
        yield f"{process.name:{width}}  {process.state}{at}"
        if process.last:
            yield f"  last words: {process.last}"
    if len(shown) < len(ranked):
        yield f"and {len(ranked) - len(shown):,} more; --all shows them"


def _some(lines: list[str], most: int | None, what: str) -> list[str]:
    if most is None or len(lines) <= most:
        return lines
    return [*lines[:most], f"and {len(lines) - most:,} more {what}; --all shows them"]
