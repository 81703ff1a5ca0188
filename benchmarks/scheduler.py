"""Bands under load: what niceness by band and turns do for HIGH, and what they leave to LOW.

    python -m benchmarks.scheduler [--rounds N] [--seconds N]

Two graphs. *Beside burners*: a path of three HIGH nodes at 100 messages a second, and eight LOW
nodes that burn every core. HIGH's latency is the age of a message at its sink, counted from the
moment it was due; LOW's throughput is how many pieces of work its nodes did a second. *Shares*: a
HIGH burner on each core, and as many LOW ones; the figure is how many pieces HIGH did for one of
LOW's. The ways to run them alternate, and each figure is the median of the rounds.

Besides, what the scheduler costs a graph that does not need it: small messages, source → map →
sink, against the same with ``slots=0``.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import latency, throughput, workload
from benchmarks.registry import Benchmark, Figure
from benchmarks.rounds import MAX_REPEATS, Comparison, compare, measure_parser, print_table
from dflow import Context, Graph, Input, Node, Priority, node, source

__all__ = ["BENCHMARKS", "HEAD", "WAYS", "Measured", "cost", "figures", "measure", "rows"]

BURNERS = 8
RATE = 100
WARM_UP_S = 1.0
PIECE = 20_000
"""Additions in one piece of a burner's work: half a millisecond or so."""

CORES = len(os.sched_getaffinity(0))
WAYS: dict[str, tuple[int | None, int | None]] = {
    "nothing": (0, 0),
    "niceness": (None, 0),
    "turns": (0, CORES),
    "both": (None, CORES),
    "default": (None, None),
}
"""``niceness`` (None: by band) and ``slots`` (a number: turns whenever burners exceed it)."""

HEAD = ("way", "HIGH p50 ms", "p99 ms", "max ms", "p99 ratio", "LOW pieces/s", "HIGH : LOW")

relay = node(workload.relay)


@source
def paced(count: int) -> Iterator[dict[str, Any]]:
    """Yield ``count`` messages, each stamped with the moment it was due: lateness counts."""
    begin_ns = time.monotonic_ns() + 50_000_000
    for number in range(count):
        due_ns = begin_ns + number * 1_000_000_000 // RATE
        time.sleep(max(0.0, (due_ns - time.monotonic_ns()) / 1e9))
        yield {"id": number, "sent_ns": due_ns}


@source
def burner(ctx: Context) -> Iterator[int]:
    """Burn a core until the run drains, a piece at a time."""
    while not ctx.stopping:
        yield sum(range(PIECE))


class Pieces(Node):
    """Counts the work of burners, the warm-up left out."""

    pieces = Input(int)

    def __init__(self, result: str) -> None:
        self.result = result
        self.count = 0
        self.first_s = self.last_s = 0.0

    @pieces.handler
    def add(self, piece: int) -> None:
        """Count one."""
        self.last_s = time.monotonic()
        self.first_s = self.first_s or self.last_s
        self.count += self.last_s - self.first_s > WARM_UP_S

    def on_end(self) -> None:
        """Write how many a second there were."""
        rate = self.count / max(1e-9, self.last_s - self.first_s - WARM_UP_S)
        Path(self.result).write_text(json.dumps(rate), encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Measured:
    """One round. HIGH's latency in milliseconds, LOW's pieces a second, HIGH's pieces to LOW's."""

    p50_ms: float
    p99_ms: float
    max_ms: float
    low_rate: float
    share: float


def connect_burners(
    graph: Graph, count: int, band: Priority, niceness: int | None, result: str
) -> None:
    """Add ``count`` burners of one band, and a sink that counts what they do."""
    options = {"priority": band, "niceness": niceness}
    tally = Pieces(result).options(name=f"pieces_{band.name}", **options)
    for number in range(count):
        one = burner().options(name=f"burner_{band.name}_{number}", **options)
        graph.connect(one, tally, priority=band)


def beside_burners(niceness: int | None, seconds: float, folder: Path) -> Graph:
    """Return the graph of a HIGH path beside LOW burners."""
    made = Graph("beside")
    high = {"priority": Priority.HIGH, "niceness": niceness}
    path = [
        paced(int((seconds + WARM_UP_S) * RATE)).options(**high),
        relay().options(**high),
        latency.Ages(str(folder / "ages")).options(**high),
    ]
    for one, other in pairwise(path):
        made.connect(one, other, priority=Priority.HIGH)
    connect_burners(made, BURNERS, Priority.LOW, niceness, str(folder / "low"))
    return made


def shares(niceness: int | None, folder: Path) -> Graph:
    """Return the graph of burners of two bands."""
    made = Graph("shares")
    for band in (Priority.HIGH, Priority.LOW):
        connect_burners(made, CORES, band, niceness, str(folder / band.name.lower()))
    return made


def one_round(niceness: int | None, slots: int | None, seconds: float) -> Measured:
    """Run both graphs once."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        ages_file = folder / "ages"
        graph = beside_burners(niceness, seconds, folder)
        with graph.start(slots=slots, log_level="WARNING") as run:
            while not ages_file.exists():
                time.sleep(0.05)
            run.stop()
            run.wait()
        ages = json.loads(ages_file.read_text(encoding="utf-8"))["ages_ns"]
        low_rate = json.loads((folder / "low").read_text(encoding="utf-8"))
        with shares(niceness, folder).start(slots=slots, log_level="WARNING") as run:
            time.sleep(seconds + WARM_UP_S)
            run.stop()
            run.wait()
        high, low = (
            json.loads((folder / band).read_text(encoding="utf-8")) for band in ("high", "low")
        )
    ages_ms = sorted(age / 1e6 for age in ages[int(WARM_UP_S * RATE) :])
    p50, p99 = (ages_ms[int(len(ages_ms) * part)] for part in (0.5, 0.99))
    return Measured(p50, p99, ages_ms[-1], low_rate, high / max(low, 1e-9))


def measure(rounds: int, seconds: float) -> dict[str, list[Measured]]:
    """Run every way in turn, ``rounds`` times."""
    found: dict[str, list[Measured]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way, (niceness, slots) in WAYS.items():
            found[way].append(one_round(niceness, slots, seconds))
    return found


def cost(rounds: int, count: int, repeats: int = MAX_REPEATS) -> Comparison[throughput.Throughput]:
    """Return throughput without the scheduler (as the reference) and with it."""
    return throughput.compare_runs(
        rounds,
        count,
        lambda n, result: throughput.run_dflow(n, result, slots=0),
        throughput.run_dflow,
        repeats,
    )


def figures(measured: dict[str, list[Measured]]) -> dict[str, Measured]:
    """Return the median of every figure, for each way."""
    names = ("p50_ms", "p99_ms", "max_ms", "low_rate", "share")
    return {
        way: Measured(*(median(getattr(one, name) for one in rounds) for name in names))
        for way, rounds in measured.items()
    }


def rows(measured: dict[str, list[Measured]]) -> list[list[str]]:
    """Return the table's rows; the ratio is to nothing's p99."""
    medians = figures(measured)
    base = medians["nothing"].p99_ms
    return [
        [
            way,
            *(f"{value:.2f}" for value in (one.p50_ms, one.p99_ms, one.max_ms)),
            f"{one.p99_ms / base:.2f}",
            f"{one.low_rate:.0f}",
            f"{one.share:.1f}",
        ]
        for way, one in medians.items()
    ]


def measure_bands(rounds: int, seconds: float) -> Comparison[Measured]:
    """Run both graphs with neither niceness nor turns, as the reference, and as they are."""
    return compare(
        rounds,
        lambda: one_round(*WAYS["nothing"], seconds),
        lambda: one_round(*WAYS["default"], seconds),
        repeats=0,
    )


BENCHMARKS: tuple[Benchmark[Any], ...] = (
    Benchmark(
        name="scheduler",
        measure=lambda effort: cost(effort.rounds, 2_000_000 // effort.share, effort.repeats),
        figures=throughput.figures(bar=0.98),
        short=False,
    ),
    Benchmark(
        name="bands",
        measure=lambda effort: measure_bands(min(3, effort.rounds), 10 / effort.share),
        figures=(
            Figure(
                "high_p99",
                "ms",
                "lower",
                lambda one: one.p99_ms,
                bar=0.2,
                tolerance=1.0,
                busy_tolerance=2.0,
                why="ten messages of a thousand decide it; it guards against a factor of 10",
            ),
            Figure("low_rate", "pieces/s", "higher", lambda one: one.low_rate, bar=0.8),
        ),
        short=False,
    ),
)


def main() -> None:
    """Measure and print."""
    parser = measure_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a round")
    parser.add_argument("--count", type=int, default=1_000_000, help="messages for the cost")
    asked = parser.parse_args()
    print_table(rows(measure(asked.rounds, asked.seconds)), HEAD)
    print_table(
        throughput.rows(cost(asked.rounds, asked.count)), ("cost", "slots=0", "default", "")
    )


if __name__ == "__main__":
    main()
