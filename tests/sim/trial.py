"""One case, simulated and judged."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from dflow.broker.events import AbortRequested, DrainRequested
from dflow.errors import DflowError
from dflow.testing import Cut, Drop, Duplicate, Faults, Kill, Simulation, SimulationFailed, Stall
from dflow.testing.kernel import Task
from dflow.testing.simulation import simulate
from dflow.testing.world import World
from tests.sim.build import build
from tests.sim.log import Log, Message, logging_into
from tests.sim.nodes import tick_id
from tests.sim.oracle import problems
from tests.sim.spec import Action, Case

__all__ = ["MOST_STEPS", "Trial", "faults_of", "try_case"]

LIMIT_S = 10_000.0
MOST_STEPS = 1_000_000
"""More than that is a run that does not get on."""

_BY_HANDLE = ("send", "pause", "resume", "drain_node")

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
                send=_messages(case, log),
                raise_errors=False,
                keep=False,
                limit_s=LIMIT_S,
                observe=lambda world: _prepare(world, case),
                **case.options,
            )
        except SimulationFailed as failed:
            simulation = failed.simulation
            if simulation.steps > _most_steps(case) and _loses_reports(case):
                return Trial(case, (), simulation, "unfinished", simulation.steps)
            wrong.append(failed.what)
    if not wrong:
        wrong += problems(case, graph.plan(), log, simulation.report)
        if wrong:  # what the oracle says concerns the whole
            simulation.broken = None
    outcome = simulation.outcome
    return Trial(case, tuple(wrong), simulation, outcome, simulation.steps)


def _loses_reports(case: Case) -> bool:
    """Whether a sender may have to ask for reports, a second and more for each."""
    exactly: Any = case.faults.get("exactly", ())
    return bool(case.faults.get("drop_reports")) or any(kind == "Drop" for kind, *_ in exactly)


def _most_steps(case: Case) -> int:
    """Return how many steps a case may take: one that crawls is broken off, and is no failure."""
    return MOST_STEPS // 5 if _loses_reports(case) else MOST_STEPS


def faults_of(case: Case) -> Faults:
    """Return the faults of a case."""
    plain: dict[str, Any] = dict(case.faults)
    for name in ("delay_s", "within_s", "stall_s"):
        if name in plain:
            plain[name] = tuple(plain[name])
    plain["exactly"] = [_EXACT[kind](*values) for kind, *values in plain.get("exactly", ())]
    return Faults(**plain)


def _messages(case: Case, log: Log) -> dict[str, list[Any]]:
    """Return what is sent from outside, by where to, and note it."""
    found: dict[str, list[Any]] = {}
    for action in case.actions:
        if action.what in _BY_HANDLE:  # there is a handle if there is anything to send
            found.setdefault(action.target if action.what == "send" else _door(case), [])
        if action.what == "send":
            sent = log.sent[action.target]
            for count in range(len(sent), len(sent) + action.count):
                id = tick_id(action.target, 0, count, 3)
                sent.append(Message((id,), 0, count, (), b""))
            found[action.target] = [tuple(message) for message in sent]
    return found


def _door(case: Case) -> str:
    """Return an input of the case, for a handle that sends nothing."""
    return next(f"{node.name}.into" for node in case.nodes if node.kind != "source")


def _prepare(world: World, case: Case) -> None:
    """Arrange what is done from outside, and that no run goes on for ever."""
    for action in case.actions:
        world.kernel.at(action.at_us * 1000, _doing(world, action))

    most = _most_steps(case)

    def look() -> None:
        if world.kernel.steps > most:
            world.crash = RuntimeError(f"expected at most {most} steps")

    world.observe(look)


def _doing(world: World, action: Action) -> Callable[[], None]:
    def do() -> None:
        if action.what == "drain":
            world.tell(DrainRequested())
        elif action.what == "abort":
            world.tell(AbortRequested("as drawn"))
        elif action.what != "send":
            _ask(world, action)

    return do


def _ask(world: World, action: Action) -> None:
    """Do by the handle what takes its time, in a thread of the launching process."""
    launching, main = world.launching, world.launcher
    handle = None if launching is None else launching.handle
    if handle is None or main is None or not main.process.alive or handle.phase != "running":
        return

    def ask() -> None:
        with suppress(DflowError, TimeoutError):  # the node, or the run, has ended meanwhile
            if action.what == "drain_node":
                handle.drain_node(action.target, 30.0)
            else:
                handle.pause(action.target, paused=action.what == "pause")

    Task(world.kernel, main.process, ask, action.what).start()
