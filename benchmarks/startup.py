"""How long a graph takes to flow, how long ``import dflow`` takes, what an idle worker weighs.

    python -m benchmarks.startup [--rounds N] [--nodes N]

Each round is a fresh interpreter. Startup runs from the line before ``graph.run()`` to the
first message's handler in the last of a chain of nodes; the reference spawns as many processes with
`multiprocessing` and connects them in a chain. What ``import dflow`` takes is compared with
``import zmq``. Memory is the proportional set size (PSS) of each worker, which shares pages
with the agent it was forked from.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import reference
from benchmarks.registry import Benchmark, Figure
from benchmarks.rounds import MAX_REPEATS, Comparison, compare, measure_parser, print_table
from dflow import Context, Graph, Input, Node, Output, node, sink, source
from dflow.graph.chain import Chainable

__all__ = ["BENCHMARKS", "Startup", "Weight", "measure", "rows"]

_IMPORT = "import time; b = time.perf_counter(); import {0}; print(time.perf_counter() - b)"


NODES = 10


@dataclass(frozen=True, slots=True)
class Startup:
    """One start: milliseconds to the first message at the last node, and until all has ended."""

    first_ms: float
    ended_ms: float


@dataclass(frozen=True, slots=True)
class Weight:
    """Megabytes of PSS of the workers of one run: the middle one's, and the heaviest's."""

    median_mb: float
    max_mb: float


@source
def one_message() -> Iterator[int]:
    """Yield one message."""
    yield 1


@node
def relay(message: int) -> int:
    """Pass it on."""
    return message


@sink
def note_time(message: int, result: str) -> None:
    """Write the monotonic clock to the file ``result``."""
    Path(result).write_text(str(time.monotonic_ns()), encoding="utf-8")


class Idle(Node):
    """A link of a chain that does nothing but say which process it is."""

    into = Input(int)
    out = Output(int)

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def on_start(self) -> None:
        """Leave a file named after the process."""
        Path(self.folder, str(os.getpid())).touch()

    @into.handler
    def handle(self, message: int) -> int:
        """Pass it on."""
        return message


@source
def waiting(ctx: Context) -> Iterator[int]:
    """Yield nothing until asked to stop."""
    while not ctx.stopping:
        time.sleep(0.01)
        yield from ()


def run_dflow(nodes: int, result: str) -> None:
    """Send one message through a chain of ``nodes`` nodes; ``result`` gets its arrival."""
    chain: Chainable = one_message()
    for _ in range(nodes - 2):
        chain = chain >> relay()
    Graph("startup", chain >> note_time(result)).run(log_level="WARNING")


def start_once(run: Callable[[int, str], None], nodes: int) -> Startup:
    """Run a chain of ``nodes`` nodes once and look at the clock."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "result")
        began_ns = time.monotonic_ns()
        run(nodes, str(result))
        ended_ns = time.monotonic_ns()
        first_ns = int(result.read_text(encoding="utf-8"))
    return Startup((first_ns - began_ns) / 1e6, (ended_ns - began_ns) / 1e6)


def weigh_workers(nodes: int) -> Weight:
    """Start a chain of ``nodes`` idle nodes and weigh the workers."""
    with tempfile.TemporaryDirectory() as folder:
        chain: Chainable = waiting()
        for _ in range(nodes):
            chain = chain >> Idle(folder)
        with Graph("idle", chain).start(log_level="WARNING") as run:
            time.sleep(0.5)
            sizes = [pss_mb(int(path.name)) for path in Path(folder).iterdir()]
            run.stop()
            run.wait(timeout_s=30)
    return Weight(median(sizes), max(sizes))


def pss_mb(pid: int) -> float:
    """Return the proportional set size of a process in megabytes."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError(f"smaps_rollup: expected a Pss line for process {pid}, got none")


def measure(rounds: int, nodes: int = NODES, repeats: int = MAX_REPEATS) -> Comparison[Startup]:
    """Start the reference and dflow in turn, ``rounds`` times, in fresh interpreters."""
    return compare(
        rounds,
        lambda: Startup(**_fresh("--once", "reference", "--nodes", str(nodes))),
        lambda: Startup(**_fresh("--once", "dflow", "--nodes", str(nodes))),
        repeats,
    )


def measure_import(rounds: int) -> Comparison[float]:
    """Import zmq and dflow in turn in fresh interpreters; milliseconds."""
    for module in ("zmq", "dflow"):
        _import_ms(module)  # this one may compile
    return compare(rounds, lambda: _import_ms("zmq"), lambda: _import_ms("dflow"), repeats=0)


def weigh(nodes: int = NODES) -> Comparison[Weight]:
    """Weigh the workers of one run; there is nothing to compare them with."""
    return Comparison(dflow=[Weight(**_fresh("--once", "weight", "--nodes", str(nodes)))])


def _fresh(*arguments: str) -> Any:
    command = [sys.executable, "-m", "benchmarks.startup", *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=120)
    return json.loads(done.stdout)


def _import_ms(module: str) -> float:
    command = [sys.executable, "-c", _IMPORT.format(module)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=60)
    return float(done.stdout) * 1000


BENCHMARKS: tuple[Benchmark[Any], ...] = (
    Benchmark(
        name="startup",
        measure=lambda effort: measure(effort.rounds, repeats=effort.repeats),
        figures=(
            Figure("first_message", "ms", "lower", lambda one: one.first_ms, busy_tolerance=0.35),
        ),
        short=False,
    ),
    Benchmark(
        name="import",
        measure=lambda effort: measure_import(4 * effort.rounds),
        figures=(
            Figure(
                "dflow",
                "ms",
                "lower",
                float,
                tolerance=0.5,
                busy_tolerance=0.5,
                why="a few milliseconds; it guards against importing zmq, a factor of 5",
            ),
        ),
    ),
    Benchmark(
        name="worker",
        measure=lambda effort: weigh(),
        figures=(Figure("pss", "MB", "lower", lambda one: one.median_mb, bar=12),),
        short=False,
        has_reference=False,
    ),
)


def rows(starts: Comparison[Startup], imports: Comparison[float]) -> list[list[str]]:
    """Return the table's rows."""
    found = []
    for name, one in (
        ("first message, ms", starts.ratio(lambda start: start.first_ms)),
        ("all has ended, ms", starts.ratio(lambda start: start.ended_ms)),
        ("import (zmq, dflow), ms", imports.ratio(float)),
    ):
        found.append([name, f"{one.reference:.0f}", f"{one.dflow:.0f}", f"{one.ratio:.2f}"])
    return found


def main() -> None:
    """Measure and print; with ``--once`` do one round, as JSON."""
    parser = measure_parser(__doc__)
    parser.add_argument("--nodes", type=int, default=NODES, help="length of the chain")
    parser.add_argument("--once", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    once: dict[str, Callable[[], Startup | Weight]] = {
        "reference": lambda: start_once(reference.run_start, asked.nodes),
        "dflow": lambda: start_once(run_dflow, asked.nodes),
        "weight": lambda: weigh_workers(asked.nodes),
    }
    if asked.once:
        print(json.dumps(asdict(once[asked.once]())))
        return
    print_table(rows(measure(asked.rounds, asked.nodes), measure_import(4 * asked.rounds)))
    for one in weigh(asked.nodes).dflow:
        print(f"PSS of an idle worker: {one.median_mb:.1f} MB, {one.max_mb:.1f} at the most")


if __name__ == "__main__":
    main()
