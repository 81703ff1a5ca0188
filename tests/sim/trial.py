"""One case, simulated and judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dflow.broker.events import AbortRequested, DrainRequested
from dflow.testing import Cut, Drop, Duplicate, Faults, Kill, Simulation, SimulationFailed, Stall
from dflow.testing.simulation import simulate
from dflow.testing.world import World
from tests.sim.build import build
from tests.sim.log import Log, logging_into
from tests.sim.oracle import problems
from tests.sim.spec import Action, Case

__all__ = ["MOST_STEPS", "Trial", "faults_of", "try_case"]

LIMIT_S = 10_000.0
MOST_STEPS = 1_000_000
"""More than that is a run that does not get on."""

_EXACT = {kind.__name__: kind for kind in (Cut, Drop, Duplicate, Kill, Stall)}


@dataclass(frozen=True)
class Trial:
    """How a case went. ``wrong``: what broke, the worst first; empty if nothing did."""

    case: Case
    wrong: tuple[str, ...]
    simulation: Simulation | None
    outcome: str
    steps: int

    @property
    def kind(self) -> str:
        """What sort of thing is wrong, so that a smaller case can be told to fail alike."""
        return self.wrong[0].partition(":")[0].partition(" ")[0] if self.wrong else ""


def try_case(case: Case) -> Trial:
    """Return how a case went."""
    graph = build(case)
    log = Log()
    simulation: Simulation | None = None
    wrong: list[str] = []
    with logging_into(log):
        try:
            simulation = simulate(
                graph,
                seed=case.seed,
                faults=faults_of(case),
                raise_errors=False,
                keep=False,
                limit_s=LIMIT_S,
                observe=lambda world: _prepare(world, case),
                **case.options,
            )
        except SimulationFailed as failed:
            simulation = failed.simulation
            wrong.append(failed.what)
    if not wrong:
        wrong += problems(case, graph.plan(), log, simulation.report)
        if wrong:  # what the oracle says concerns the whole
            simulation.broken = None
    outcome = simulation.outcome
    return Trial(case, tuple(wrong), simulation, outcome, simulation.steps)


def faults_of(case: Case) -> Faults:
    """Return the faults of a case."""
    plain: dict[str, Any] = dict(case.faults)
    for name in ("delay_s", "within_s", "stall_s"):
        if name in plain:
            plain[name] = tuple(plain[name])
    plain["exactly"] = [_EXACT[kind](*values) for kind, *values in plain.get("exactly", ())]
    return Faults(**plain)


def _prepare(world: World, case: Case) -> None:
    """Arrange what is done from outside, and that no run goes on for ever."""
    for action in case.actions:
        world.kernel.at(action.at_us * 1000, _doing(world, action))

    def look() -> None:
        if world.kernel.steps > MOST_STEPS:
            world.crash = RuntimeError(f"expected at most {MOST_STEPS} steps")

    world.observe(look)


def _doing(world: World, action: Action) -> Callable[[], None]:
    def do() -> None:
        if action.what == "drain":
            world.tell(DrainRequested())
        elif action.what == "abort":
            world.tell(AbortRequested("as drawn"))

    return do
