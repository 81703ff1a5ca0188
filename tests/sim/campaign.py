"""Many cases, on some processes; and what is told of one that fails."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import astuple, dataclass, replace
from functools import partial

from dflow.errors import GraphError
from dflow.testing.minimal import relevant, simplest
from tests.sim.draw import draw
from tests.sim.shrink import simpler
from tests.sim.spec import Case
from tests.sim.trial import Trial, try_case

__all__ = ["Verdict", "explain", "judge", "judge_all"]

CHUNK = 10
TRIES = 3
"""Seeds with which a simpler case is tried: another graph has another order of events."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How the case of a seed went; ``wrong`` is empty if it went well."""

    seed: int
    outcome: str
    steps: int
    wrong: tuple[str, ...]


def judge(seed: int, faults: str) -> Verdict:
    """Return how the case of ``seed`` goes; whatever it raises is wrong, too."""
    try:
        trial = try_case(draw(seed, faults))
    except Exception as error:  # noqa: BLE001  # whatever it is, it is a failure
        text = f"raised: {type(error).__name__}: {error}\n{traceback.format_exc()}"
        return Verdict(seed, "raised", 0, (text,))
    return Verdict(seed, trial.outcome, trial.steps, trial.wrong)


def _judge_some(seeds: list[int], faults: str) -> list[Verdict]:
    return [judge(seed, faults) for seed in seeds]


def judge_all(seeds: Iterable[int], faults: str, jobs: int) -> Iterator[Verdict]:
    """Yield the verdict of each seed, in order, from so many processes."""
    if jobs <= 1:
        yield from (judge(seed, faults) for seed in seeds)
        return
    every = list(seeds)
    chunks = [every[at : at + CHUNK] for at in range(0, len(every), CHUNK)]
    with ProcessPoolExecutor(jobs) as pool:
        try:
            for verdicts in pool.map(partial(_judge_some, faults=faults), chunks):
                yield from verdicts
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def explain(case: Case, *, budget_s: float) -> str:
    """Return what is wrong with a failing case, made as small as time allows, and its trace."""
    trial = try_case(case)
    if not trial.wrong:
        return "it does not fail by itself: expected a simulation to be the same each time"
    smallest = _smallest(trial, budget_s)
    lines = [f"  {text}" for text in smallest.wrong[:5]]
    simulation = smallest.simulation
    if simulation is not None:
        lines += ["", f"trace (of {len(simulation.trace)} events):"]
        lines += relevant(simulation.trace, simulation.broken, simulation.channels)
    lines += ["", "the case, made smaller; add it to tests/sim/pinned.json once it is mended:"]
    return "\n".join([*lines, smallest.case.to_json()])


def _smallest(trial: Trial, budget_s: float) -> Trial:
    """Return the simplest failing trial of the same kind that is found in time."""
    latest = trial

    def fails(case: Case) -> bool:
        nonlocal latest
        for step in range(TRIES):
            try:
                tried = try_case(replace(case, seed=trial.case.seed + step))
            except GraphError:  # a named fault has lost its worker
                return False
            if tried.kind == trial.kind:
                latest = tried
                return True
        return False

    named = _with_named_faults(trial)
    if named is not None:
        fails(named)
    simplest(latest.case, simpler, fails, budget_s=budget_s)
    return latest


def _with_named_faults(trial: Trial) -> Case | None:
    """Return the case with the faults that came true, by name, in the place of the drawn ones."""
    if trial.simulation is None:
        return None
    exactly = [[type(fault).__name__, *astuple(fault)] for fault in trial.simulation.drawn]
    kept = {key: trial.case.faults[key] for key in ("delay_s",) if key in trial.case.faults}
    return replace(trial.case, faults={**kept, "exactly": exactly}) if exactly else None
