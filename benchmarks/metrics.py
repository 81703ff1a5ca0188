"""What counting costs: the pipeline of `benchmarks.throughput` with metrics and without them.

    python -m benchmarks.metrics [--count N] [--rounds N]

dflow has no switch for this: its counters are few, and without them no book would balance. So the
side without metrics is made here, in the processes of its run only, by taking out of their code
whatever serves nobody but an onlooker:

* reports to the coordinator, four times a second from each worker and from this process;
* the time since when messages are under way, and the most that ever were, for each batch;
* the time spent in user code, for each turn.

What credit and the books need stays: messages emitted, sent, taken and done, and their bytes.
The statements are found in the syntax tree of dflow's own source by the names they assign to, and
it is an error if one is missing, so that this stays true when dflow changes.

Both sides use the same two cores as every other benchmark. CPU a message is the figure to look at
on a machine that others use.
"""

from __future__ import annotations

import ast
import inspect
import os
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any

from benchmarks import throughput
from benchmarks.registry import Benchmark, Figure
from benchmarks.rounds import MAX_REPEATS, Comparison, measure_parser, print_table
from dflow import Graph

__all__ = ["BENCHMARK", "cuts", "measure", "without"]

OFF = "DFLOW_BENCHMARK_WITHOUT_METRICS"
NEVER_S = 3600.0
BAR = 0.98


class Tally(throughput.Tally):
    """The sink; it is of this module so that every worker imports it, and is without metrics."""


# --- taking metrics out ---------------------------------------------------------------------


class _Without(ast.NodeTransformer):
    """Takes out statements by what they do: ``"self.peak ="``, ``"flights.append("`` and so on."""

    def __init__(self, beginnings: tuple[str, ...]) -> None:
        self.left = list(beginnings)
        self._beginnings = beginnings

    def visit(self, node: ast.AST) -> Any:
        """Return the node, or `pass` in its place."""
        if isinstance(node, ast.stmt) and not isinstance(node, ast.FunctionDef):
            text = ast.unparse(node)
            for beginning in self._beginnings:
                if text.startswith(beginning):
                    self.left = [each for each in self.left if each != beginning]
                    return ast.copy_location(ast.Pass(), node)
        return self.generic_visit(node)


def without(function: Any, *beginnings: str) -> FunctionType:
    """Return a copy of ``function`` without the statements that begin like one of ``beginnings``.

    Raises RuntimeError for one that no statement begins with.
    """
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    cutter = _Without(beginnings)
    changed = ast.fix_missing_locations(cutter.visit(tree))
    if cutter.left:
        raise RuntimeError(f"{function.__qualname__}: expected {cutter.left} in it; it has changed")
    namespace: dict[str, Any] = {}
    source = compile(changed, inspect.getfile(function), "exec")
    exec(source, function.__globals__, namespace)  # it is dflow's own code
    made: FunctionType = namespace[function.__name__]
    return made


def cuts() -> Iterator[tuple[type, str, FunctionType]]:
    """Yield (class, name of a method, the method without metrics)."""
    from dflow.flow.batch import Lane
    from dflow.worker.dispatch import Turns

    peak, flights = "self.peak =", ("while flights and", "flights.append(")
    for owner, name, beginnings in (
        (Lane, "cut", (peak, "if behind or ")),
        (Lane, "_cut_lone", (peak, *flights)),
        (Lane, "_cut_for", flights),
        (Turns, "measured", ("self.busy_ns +=",)),
    ):
        yield owner, name, without(getattr(owner, name), *beginnings)


if os.environ.get(OFF) and "dflow.launch.handle" not in sys.modules:
    for owner, name, method in list(cuts()):  # in the agent, which forks the workers
        setattr(owner, name, method)


# --- measuring -------------------------------------------------------------------------------


def run_dflow(count: int, result: str, **options: Any) -> None:
    """Run the graph once; the sink writes to the file ``result``."""
    chain = throughput.readings(count) >> throughput.enrich() >> Tally(result)
    report = Graph("metrics", chain).run(log_level="WARNING", **options)
    if report.outcome != "finished" or not report.balances:
        raise RuntimeError(f"expected a finished run whose books balance, got\n{report}")
    peaks = [edge.peak for edge in report.edges]
    if any(peaks) is (OFF in os.environ):
        raise RuntimeError(f"expected peaks only with metrics, got {peaks}")


@contextmanager
def _off() -> Iterator[None]:
    from dflow.launch import handle

    before = handle.STATS_S
    os.environ[OFF] = "1"
    handle.STATS_S = NEVER_S
    try:
        yield
    finally:
        del os.environ[OFF]
        handle.STATS_S = before


def run_without(count: int, result: str) -> None:
    """Do as `run_dflow` does, without metrics."""
    with _off():
        run_dflow(count, result, stats_interval_s=NEVER_S)


def measure(
    rounds: int, count: int, repeats: int = MAX_REPEATS
) -> Comparison[throughput.Throughput]:
    """Run without metrics and with them in turn, ``rounds`` times."""
    return throughput.compare_runs(rounds, count, run_without, run_dflow, repeats)


BENCHMARK: Benchmark[throughput.Throughput] = Benchmark(
    name="metrics",
    measure=lambda effort: measure(effort.rounds, 2_000_000 // effort.share, effort.repeats),
    figures=(
        Figure("rate", "msg/s", "higher", lambda one: one.rate, bar=BAR, short=False),
        Figure("cpu", "us/msg", "lower", lambda one: one.cpu_us, bar=1 / BAR, short=False),
    ),
    short=False,
)


def main() -> None:
    """Measure and print."""
    parser = measure_parser(__doc__)
    parser.add_argument("--count", type=int, default=2_000_000, help="messages a round")
    asked = parser.parse_args()
    measured = measure(asked.rounds, asked.count)
    print_table(throughput.rows(measured), ("metrics", "off", "on", "ratio"))
    print(measured.disturbance() or f"the machine was quiet; {measured.repeated} rounds repeated")


if __name__ == "__main__":
    # by its own name: what __main__ holds cannot be imported by the workers as it is here
    from benchmarks import metrics

    metrics.main()
