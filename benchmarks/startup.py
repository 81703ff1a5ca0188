"""How long a graph takes to flow, how long ``import dflow`` takes, what an idle worker weighs.

    python -m benchmarks.startup [--rounds N] [--nodes N]

Each round is a fresh interpreter. Startup runs from the line before ``graph.run()`` to the
first message's handler in the last of a chain of nodes. Memory is the proportional set size
(PSS) of each worker, which shares pages with the agent it was forked from.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.rounds import measure_parser, print_table
from dflow import Context, Graph, Input, Node, Output, node, sink, source
from dflow.graph.chain import Chainable

__all__ = ["Startup", "measure", "rows"]

_IMPORT = "import time; b = time.perf_counter(); import {0}; print(time.perf_counter() - b)"


@dataclass(frozen=True, slots=True)
class Startup:
    """Medians over the rounds; ``import_zmq_ms`` is there to compare ``import dflow`` with."""

    nodes: int
    first_message_ms: float
    stopped_ms: float
    import_ms: float
    import_zmq_ms: float
    worker_pss_mb: float
    worker_pss_max_mb: float


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


def start_once(nodes: int) -> dict[str, float]:
    """Run a chain of ``nodes`` nodes once; milliseconds to the first message and to the end."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "result")
        chain: Chainable = one_message()
        for _ in range(nodes - 2):
            chain = chain >> relay()
        graph = Graph("startup", chain >> note_time(str(result)))
        began_ns = time.monotonic_ns()
        graph.run(log_level="WARNING")
        ended_ns = time.monotonic_ns()
        first_ns = int(result.read_text(encoding="utf-8"))
    return {"first": (first_ns - began_ns) / 1e6, "stopped": (ended_ns - began_ns) / 1e6}


def weigh_workers(nodes: int) -> dict[str, float]:
    """Start a chain of ``nodes`` idle nodes; megabytes of PSS of a worker: median and largest."""
    with tempfile.TemporaryDirectory() as folder:
        chain: Chainable = waiting()
        for _ in range(nodes):
            chain = chain >> Idle(folder)
        with Graph("idle", chain).start(log_level="WARNING") as run:
            time.sleep(0.5)
            sizes = [pss_mb(int(path.name)) for path in Path(folder).iterdir()]
            run.stop()
            run.wait(timeout_s=30)
    return {"median": median(sizes), "max": max(sizes)}


def pss_mb(pid: int) -> float:
    """Return the proportional set size of a process in megabytes."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError(f"smaps_rollup: expected a Pss line for process {pid}, got none")


def measure(rounds: int, nodes: int = 10) -> Startup:
    """Measure everything in fresh interpreters, ``rounds`` times each."""
    starts = [_fresh("--once", str(nodes)) for _ in range(rounds)]
    weights = _fresh("--weigh", str(nodes))
    return Startup(
        nodes=nodes,
        first_message_ms=median(one["first"] for one in starts),
        stopped_ms=median(one["stopped"] for one in starts),
        import_ms=_import_ms("dflow", rounds),
        import_zmq_ms=_import_ms("zmq", rounds),
        worker_pss_mb=weights["median"],
        worker_pss_max_mb=weights["max"],
    )


def _fresh(*arguments: str) -> Any:
    command = [sys.executable, "-m", "benchmarks.startup", *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=120)
    return json.loads(done.stdout)


def _import_ms(module: str, rounds: int) -> float:
    command = [sys.executable, "-c", _IMPORT.format(module)]
    runs = [subprocess.run(command, check=True, stdout=subprocess.PIPE) for _ in range(rounds + 1)]
    return median(float(run.stdout) * 1000 for run in runs[1:])  # the first may compile


def rows(measured: Startup) -> list[list[str]]:
    """Return the table's rows; most have no reference."""
    nodes = f"{measured.nodes} nodes: run()"
    return [
        [f"{nodes} to first message, ms", "", f"{measured.first_message_ms:.0f}", ""],
        [f"{nodes} to its return, ms", "", f"{measured.stopped_ms:.0f}", ""],
        ["import zmq, ms", f"{measured.import_zmq_ms:.0f}", "", ""],
        ["import dflow, ms", "", f"{measured.import_ms:.0f}", ""],
        ["PSS of an idle worker, MB", "", f"{measured.worker_pss_mb:.1f}", ""],
    ]


def main() -> None:
    """Measure and print; with ``--once`` or ``--weigh`` do one round, as JSON."""
    parser = measure_parser(__doc__)
    parser.add_argument("--nodes", type=int, default=10, help="length of the chain")
    parser.add_argument("--once", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--weigh", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.once:
        print(json.dumps(start_once(asked.once)))
    elif asked.weigh:
        print(json.dumps(weigh_workers(asked.weigh)))
    else:
        measured = measure(asked.rounds, asked.nodes)
        print_table(rows(measured))
        print(json.dumps(asdict(measured)))


if __name__ == "__main__":
    main()
