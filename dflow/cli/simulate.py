"""``dflow simulate``: runs of a graph in virtual time, and what their seeds make go wrong."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from secrets import randbelow
from typing import TYPE_CHECKING, Any

import click

from dflow.cli.exits import Exit
from dflow.cli.options import TARGET
from dflow.cli.output import json_option, say, show_json, wants_json
from dflow.errors import RunError, WorkerDied

if TYPE_CHECKING:
    from dflow.graph.builder import Graph
    from dflow.testing import Faults, Simulation

__all__ = ["simulate"]

_SHARE = click.FloatRange(0.0, 1.0)
_COUNT = click.IntRange(0)


@click.command(short_help="Run a graph in virtual time, with faults.")
@TARGET
@click.option(
    "--seed", type=int, help="Of the first run; the next have the next.  [default: drawn]"
)
@click.option(
    "--count", type=click.IntRange(1), default=1, show_default=True, help="How many runs."
)
@click.option("--drop-reports", type=_SHARE, default=0.0, metavar="SHARE",
              help="Of the credit reports, so many (0 to 1) are lost.")  # fmt: skip
@click.option("--duplicate-reports", type=_SHARE, default=0.0, metavar="SHARE",
              help="Of the credit reports, so many come twice.")  # fmt: skip
@click.option("--delay", type=float, default=None, metavar="SECONDS",
              help="A frame takes up to so long.")  # fmt: skip
@click.option("--kill-workers", type=_COUNT, default=0, help="So many workers are killed.")
@click.option(
    "--stall-workers", type=_COUNT, default=0, help="So many get no processor for a while."
)
@click.option("--cut-links", type=_COUNT, default=0, help="So many connections break.")
@click.option("--trace", type=click.Path(dir_okay=False, writable=True), metavar="FILE",
              help="Write the trace of the last run to FILE.")  # fmt: skip
@json_option
def simulate(target: str, seed: int | None, count: int, trace: str | None, **faults: Any) -> None:
    """Run a graph in this process, in virtual time, with its real handlers.

    The seed decides what happens when, and what goes wrong: the same seed gives the same run. What
    must always hold is checked after each step. Ends at the first run that fails, with exit code 1
    and its seed; a worker that was to be killed is no failure.

    \b
    Examples:
      dflow simulate flows.py:graph
      dflow simulate flows.py:graph --count 500 --drop-reports 0.1
      dflow simulate flows.py:graph --seed 17 --trace trace.txt
    """
    from dflow.launch.reference import load_graph

    graph = load_graph(target)
    wanted = _faults(**faults)
    base = randbelow(2**31) if seed is None else seed
    outcomes: Counter[str] = Counter()
    virtual_s, steps, began_s = 0.0, 0, time.monotonic()
    last: Simulation | None = None
    for number in range(base, base + count):
        last, problem = _one(graph, number, wanted)
        if last is not None:
            outcomes[last.outcome] += 1
            virtual_s += last.now_s
            steps += last.steps
        if problem is not None:
            last, problem = _with_fewer_faults(graph, number, wanted, last, problem)
            _write(trace, last)
            _failed(number, problem)
    _write(trace, last)
    took_s = time.monotonic() - began_s
    _tell(graph, base, count, outcomes, virtual_s, steps, took_s, last)


def _faults(delay: float | None, **faults: Any) -> Faults:
    from dflow.testing import Faults

    return Faults(**faults) if delay is None else Faults(delay_s=(0.0, delay), **faults)


def _one(graph: Graph, seed: int, faults: Faults) -> tuple[Simulation | None, Exception | None]:
    """Return a run, and why it failed."""
    from dflow.testing import SimulationFailed, simulate

    try:
        return simulate(graph, seed=seed, faults=faults, keep=False), None
    except SimulationFailed as error:
        return error.simulation, error
    except RunError as error:
        found: Simulation | None = getattr(error, "simulation", None)
        asked = isinstance(error, WorkerDied) and faults.kill_workers
        return found, None if asked and found is not None else error


def _with_fewer_faults(
    graph: Graph, seed: int, faults: Faults, failed: Simulation | None, problem: Exception
) -> tuple[Simulation | None, Exception]:
    """Return the same failure with as few of its faults as are found to be enough."""
    from dflow.testing import Faults, SimulationFailed
    from dflow.testing.faults import Fault
    from dflow.testing.minimal import fewer, simplest

    if not isinstance(problem, SimulationFailed) or failed is None or not failed.drawn:
        return failed, problem
    found: list[tuple[Simulation | None, Exception]] = [(failed, problem)]

    def fails(exactly: tuple[Fault, ...]) -> bool:
        last, why = _one(graph, seed, Faults(delay_s=faults.delay_s, exactly=exactly))
        if not isinstance(why, SimulationFailed):
            return False
        found.append((last, why))
        return True

    drawn = tuple(failed.drawn)
    if fails(drawn):
        simplest(drawn, fewer, fails)
    return found[-1]


def _write(file: str | None, simulation: Simulation | None) -> None:
    if file is not None and simulation is not None:
        Path(file).write_text(f"{simulation.trace}\n", encoding="utf-8")


def _failed(seed: int, error: Exception) -> None:
    code = int(Exit.FAILED)
    if wants_json():
        what = {"kind": type(error).__name__, "message": str(error)}
        show_json(ok=False, exit_code=code, seed=seed, error=what)
    else:
        notes = "\n".join(getattr(error, "__notes__", ()))
        say(f"seed {seed}: {type(error).__name__}: {error}" + (f"\n{notes}" if notes else ""))
    click.get_current_context().exit(code)


def _tell(
    graph: Graph,
    base: int,
    count: int,
    outcomes: Counter[str],
    virtual_s: float,
    steps: int,
    took_s: float,
    last: Simulation | None,
) -> None:
    if wants_json():
        report = last.report.to_dict() if last is not None and count == 1 else None
        show_json(
            ok=True, exit_code=0, graph=graph.name, seed=base, count=count,
            outcomes=dict(outcomes), virtual_s=virtual_s, steps=steps,
            **({} if report is None else {"report": report}),
        )  # fmt: skip
        return
    if last is not None and count == 1:
        say(str(last.report))
    told = ", ".join(f"{number} {outcome}" for outcome, number in outcomes.most_common())
    seeds = f"seed {base}" if count == 1 else f"seeds {base} to {base + count - 1}"
    click.echo(
        f"{graph.name}, {seeds}: {told}; {virtual_s:.3f} s of virtual time in {took_s:.2f} s,"
        f" {steps:,} steps"
    )
