"""The verbs that look at a graph without running it: ``validate`` and ``graph``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from dflow.cli.exits import Exit
from dflow.cli.options import TARGET
from dflow.cli.output import json_option, say, show_json, wants_json

__all__ = ["graph", "validate"]


@click.command(short_help="Report every problem of a graph.")
@TARGET
@json_option
def validate(target: str) -> None:
    """Report every problem of a graph at once; exit code 2 if there is one.

    \b
    Examples:
      dflow validate flows.py:graph
      dflow validate package.flows:graph --json
    """
    from dflow.launch.reference import load_graph

    checked = load_graph(target)
    problems = checked.problems()
    code = Exit.USAGE if problems else Exit.OK
    if wants_json():
        listed = [
            {"where": p.where, "what": p.what, "next_step": p.next_step, "text": str(p)}
            for p in problems
        ]
        show_json(ok=not problems, exit_code=int(code), graph=checked.name, problems=listed)
    elif problems:
        checked.validate()
    else:
        plan = checked.plan()
        click.echo(
            f"{plan.name}: {len(plan.nodes)} nodes, {len(plan.edges)} edges, "
            f"{len(plan.workers)} workers, no problems"
        )
    click.get_current_context().exit(code)


@click.command(short_help="Draw a graph, or print its plan.")
@TARGET
@click.option(
    "--format",
    "style",
    type=click.Choice(["mermaid", "dot", "svg"]),
    default="mermaid",
    show_default=True,
    help="mermaid and dot are text; svg is a picture and needs no other tool.",
)
@click.option("-o", "--output", metavar="FILE", help="Write to FILE instead of stdout.")
@json_option
def graph(target: str, style: str, output: str | None) -> None:
    """Draw a graph.

    With --json, print its plan instead: nodes, edges, channels' bounds, fingerprint.

    \b
    Examples:
      dflow graph flows.py:graph
      dflow graph flows.py:graph --format svg -o flows.svg
      dflow graph flows.py:graph --format dot | dot -Tpng > flows.png
    """
    from dflow.graph import render
    from dflow.launch.reference import load_graph

    plan = load_graph(target).plan()
    if wants_json():
        nodes, edges = [asdict(node) for node in plan.nodes], [asdict(edge) for edge in plan.edges]
        show_json(
            ok=True, exit_code=0, graph=plan.name, nodes=nodes, edges=edges,
            fingerprint=plan.fingerprint,
        )  # fmt: skip
        return
    text: str = getattr(render, style)(plan).rstrip("\n")
    if output is None:
        click.echo(text)
        return
    try:
        Path(output).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise click.BadParameter(f"{output}: {error.strerror}", param_hint="--output") from None
    say(f"wrote {output}")
