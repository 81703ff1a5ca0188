"""`simulate`: run a graph to its end in virtual time, and look at what came of it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dflow.errors import DflowError, OptionError, RunError
from dflow.options import RunOptions
from dflow.report import RunReport
from dflow.testing.faults import Faults
from dflow.testing.minimal import relevant
from dflow.testing.spending import sleeping_virtually

if TYPE_CHECKING:
    from dflow.graph.builder import Graph
    from dflow.testing.taps import Taps
    from dflow.testing.trace import Trace
    from dflow.testing.world import World

__all__ = ["Simulation", "SimulationFailed", "simulate"]

LIMIT_S = 3600.0
TOLD = 25
"""How many of the last events a failure shows."""


class SimulationFailed(DflowError, AssertionError):
    """dflow itself broke a promise in a simulation; the message says which, and how to replay it.

    ``simulation`` is what there was until then.
    """

    def __init__(self, text: str, simulation: Simulation) -> None:
        super().__init__(f"{text}\n{simulation.replay}\n{_told(simulation)}")
        self.what = text
        self.simulation = simulation


class Simulation:
    """A run in virtual time that is over.

    ``seed`` gives the same run again; ``report`` is the run's, as `Graph.run` returns it;
    ``trace`` has an event a line; ``now_s`` is how long it took in virtual time, ``steps`` how many
    steps it had; ``logs`` are the log lines: (worker, level, text); ``faults`` what was asked for
    and ``drawn`` what came true of it; `exact_faults` are the same by name and moment. ``refused``
    are the messages from outside that were not taken: (input, value, error).
    """

    def __init__(self, world: World) -> None:
        self.seed = world.seed
        self.faults = world.faults
        self.drawn = list(world.network.faults)
        self.trace: Trace = world.trace
        self.now_s = world.kernel.now / 1e9
        self.steps = world.kernel.steps
        self.logs = [(worker, record.level, record.message) for worker, record in world.logs]
        self.broken = world.broken
        self.channels = world.channels
        self._report = world.report
        self._graph = world.graph
        launching = world.launching
        self.refused = [] if launching is None else launching.refused
        self._taps: Taps | None = world.taps

    @property
    def report(self) -> RunReport:
        """The report of the run."""
        if self._report is None:
            raise RunError("the simulation broke off before there was a report; see its trace")
        return self._report

    @property
    def outcome(self) -> str:
        """How the run ended, as its report says; ``"broken off"`` if there is none."""
        return self._report.outcome if self._report is not None else "broken off"

    @property
    def exact_faults(self) -> Faults:
        """The faults that came true, by name and moment: with the same seed, the same run."""
        return replace(
            self.faults, drop_reports=0.0, duplicate_reports=0.0, kill_workers=0, cut_links=0,
            stall_workers=0, exactly=self.drawn,
        )  # fmt: skip

    @property
    def replay(self) -> str:
        """How to see the same run again."""
        faults = "" if self.faults == Faults() else f", faults={self.faults}"
        return f"seed {self.seed}; the same again: simulate(graph, seed={self.seed}{faults})"

    def results(self, target: Any) -> list[Any]:
        """Return all that an output emitted, in the order of virtual time; of a sink what it got.

        ``target`` is a node (its main output is meant), a port or a name. Of an ordered node the
        results are in the order it promises. Raises `PortError` if there is no such output.
        """
        if self._taps is None:
            raise DflowError("results: expected a simulation that keeps them; pass keep=True")
        return self._taps.results(target)

    def __repr__(self) -> str:
        return f"<Simulation of {self._graph.name!r}, seed {self.seed}, {self.now_s:.6f} s>"


def simulate(
    graph: Graph,
    *,
    seed: int | None = None,
    faults: Faults | None = None,
    send: Mapping[Any, Sequence[Any]] | None = None,
    raise_errors: bool = True,
    keep: bool = True,
    limit_s: float = LIMIT_S,
    observe: Callable[[World], object] | None = None,
    **run_options: Any,
) -> Simulation:
    """Run ``graph`` to its end in this thread, in virtual time, with its real handlers.

    ``seed`` decides the order of everything that happens at once, how long frames take, and what
    ``faults`` come true; None draws one. ``send`` are messages from outside: input
    (``"node.port"``, a port, or a node with one input) to values. ``run_options`` are those of
    `Graph.run`. With ``keep=False`` there are no `Simulation.results`, and messages go the shortest
    way, as in a real run. ``limit_s`` bounds virtual time. ``observe`` is called with the `World`
    before it runs.

    User code takes no virtual time but by `spend`, ``time.sleep`` and ``asyncio.sleep``.

    Raises what ``graph.run()`` would raise, with ``.simulation`` added, unless ``raise_errors`` is
    False; `SimulationFailed` if dflow breaks a promise; `GraphError` and `OptionError` for what
    cannot be run, `PortError` for what ``send`` names, and ImportError without greenlet
    (``pip install 'dflow[testing]'``).
    """
    try:
        from dflow.testing.kernel import sleep_virtually
    except ImportError as error:
        raise ImportError(
            "simulate: expected the package greenlet; pip install 'dflow[testing]'"
        ) from error
    from dflow.testing.taps import Taps
    from dflow.testing.watcher import Watcher
    from dflow.testing.world import World

    _check_arguments(graph, faults, send, limit_s)
    if seed is not None and type(seed) is not int:
        raise OptionError(f"simulate(seed=...): expected a whole number or None, got {seed!r}")
    options = RunOptions().updated(run_options)
    world = World(
        graph,
        graph.plan(),
        options,
        secrets.randbelow(2**32) if seed is None else seed,
        Faults() if faults is None else faults,
        Taps(graph) if keep else None,
        send,
    )
    if observe is not None:
        observe(world)
    watcher = Watcher(world)
    with sleeping_virtually(sleep_virtually):
        over = world.run(limit_s)
    watcher.conclude()
    simulation = Simulation(world)
    _check(world, simulation, over, limit_s)
    if raise_errors:
        _raise_failure(simulation)
    return simulation


def _check_arguments(graph: Any, faults: Any, send: Any, limit_s: Any) -> None:
    """Raise `OptionError` for what is of another type; what is in them is checked further on."""
    from dflow.graph.builder import Graph

    good_limit = isinstance(limit_s, (int, float)) and 0 < limit_s < float("inf")
    lists = isinstance(send, Mapping) and all(isinstance(v, Sequence) for v in send.values())
    for name, good, wanted, got in (
        ("graph", isinstance(graph, Graph), "a Graph", graph),
        ("faults", faults is None or isinstance(faults, Faults), "Faults(...)", faults),
        ("send", send is None or lists, "a mapping from inputs to lists of values", send),
        ("limit_s", good_limit, "seconds above 0", limit_s),
    ):
        if not good:
            raise OptionError(f"simulate({name}=...): expected {wanted}, got {got!r:.200}")


def _check(world: World, simulation: Simulation, over: bool, limit_s: float) -> None:
    """Raise `SimulationFailed` if the run did not end as every run must."""
    if isinstance(world.crash, KeyboardInterrupt):
        raise world.crash
    if world.crash is not None:
        kind = type(world.crash).__name__
        text = f"expected every participant to work, got {kind}: {world.crash}"
        raise SimulationFailed(text, simulation) from world.crash
    if world.broken is not None:
        raise SimulationFailed(str(world.broken), simulation)
    if not over:
        text = (
            f"expected the run to be over within {limit_s:g} s of virtual time, got a run that is "
            f"{world.state.phase.value}; data moved last at {world.last_progress_ns / 1e9:.6f} s"
        )
        raise SimulationFailed(text, simulation)


def _raise_failure(simulation: Simulation) -> None:
    report = simulation.report
    if report.error is not None and report.outcome != "aborted":
        from dflow.runtime import failure_of

        failure = failure_of(report)
        failure.report = report
        failure.add_note(simulation.replay)
        failure.__dict__["simulation"] = simulation
        raise failure


def _told(simulation: Simulation) -> str:
    """Return the last lines of the trace that are about what went wrong."""
    lines = relevant(simulation.trace, simulation.broken, simulation.channels, TOLD)
    return "\n".join([f"of {len(simulation.trace)} events:", *lines])
