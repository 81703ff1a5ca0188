"""A path of three HIGH nodes at 100 messages a second beside eight LOW nodes that burn every core.

    python -m benchmarks.scheduler [--rounds N] [--seconds N]

Measured with and without what dflow can do about it: niceness by band, and turns. HIGH's
latency is the age of a message at its sink, from the clock it was stamped with; LOW's
throughput is how many pieces of work its nodes did a second. The four ways alternate, and each
figure is the median of the rounds.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import workload
from benchmarks.rounds import measure_parser, print_table
from dflow import Context, Graph, Input, Node, Priority, node, source

__all__ = ["WAYS", "Shared", "measure", "rows"]

BURNERS = 8
RATE = 100
WARM_UP_S = 1.0
PIECE = 20_000
"""Additions in one piece of LOW's work: a millisecond or so."""

WAYS: dict[str, tuple[int | None, int | None]] = {
    "nothing": (0, 0),
    "niceness": (None, 0),
    "turns": (0, None),
    "both": (None, None),
}
"""Niceness (None: by band) and slots (None: the cores there are)."""

relay = node(workload.relay)


@source
def paced(count: int) -> Iterator[dict[str, Any]]:
    """Yield ``count`` messages, each stamped with the moment it was due: lateness counts."""
    begin_ns = time.monotonic_ns() + 50_000_000
    for number in range(count):
        due_ns = begin_ns + number * 1_000_000_000 // RATE
        time.sleep(max(0.0, (due_ns - time.monotonic_ns()) / 1e9))
        yield {"id": number, "sent_ns": due_ns}


class Ages(workload.LatencyTally, Node):
    """The end of the HIGH path."""

    messages = Input(dict[str, Any])
    add = messages.handler(workload.LatencyTally.add)
    on_end = workload.LatencyTally.finish


@source
def burner(ctx: Context) -> Iterator[int]:
    """Burn a core until the run drains, a piece at a time."""
    while not ctx.stopping:
        yield sum(range(PIECE))


class Pieces(Node):
    """Counts LOW's work."""

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
        self.count += 1

    def on_end(self) -> None:
        """Write how many a second there were."""
        rate = self.count / (self.last_s - self.first_s)
        Path(self.result).write_text(json.dumps(rate), encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Shared:
    """One round. Latency of HIGH in milliseconds, work of LOW in pieces a second."""

    p50_ms: float
    p99_ms: float
    max_ms: float
    low_rate: float


def graph(niceness: int | None, seconds: float, folder: str) -> Graph:
    """Return the graph; results are written into ``folder``."""
    count = int((seconds + WARM_UP_S) * RATE)
    high = {"priority": Priority.HIGH, "niceness": niceness}
    low = {"priority": Priority.LOW, "niceness": niceness}
    made = Graph("scheduler")
    path = [
        paced(count).options(**high),
        relay().options(**high),
        Ages(str(Path(folder, "high"))).options(**high),
    ]
    for one, other in pairwise(path):
        made.connect(one, other, priority=Priority.HIGH)
    tally = Pieces(str(Path(folder, "low"))).options(name="pieces", **low)
    for number in range(BURNERS):
        made.connect(burner().options(name=f"burner{number}", **low), tally, priority=Priority.LOW)
    return made


def one_round(niceness: int | None, slots: int | None, seconds: float) -> Shared:
    """Run once: until the HIGH path has had its messages, then drain."""
    with tempfile.TemporaryDirectory() as folder:
        with graph(niceness, seconds, folder).start(slots=slots, log_level="WARNING") as run:
            ages = Path(folder, "high")
            while not ages.exists():
                time.sleep(0.05)
            run.stop()
            report = run.wait()
        got = json.loads(ages.read_text(encoding="utf-8"))
        low_rate = json.loads(Path(folder, "low").read_text(encoding="utf-8"))
    if not report.balances:
        raise RuntimeError(f"expected a run whose books balance, got\n{report}")
    ages_ms = sorted(age / 1e6 for age in got["ages_ns"][int(WARM_UP_S * RATE) :])
    p50, p99 = (ages_ms[int(len(ages_ms) * part)] for part in (0.5, 0.99))
    return Shared(p50, p99, ages_ms[-1], low_rate)


def measure(rounds: int, seconds: float) -> dict[str, list[Shared]]:
    """Run every way in turn, ``rounds`` times."""
    found: dict[str, list[Shared]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way, (niceness, slots) in WAYS.items():
            found[way].append(one_round(niceness, slots, seconds))
    return found


def figures(measured: dict[str, list[Shared]]) -> dict[str, Shared]:
    """Return the median of every figure, for each way."""
    return {
        way: Shared(
            *(
                median(getattr(one, figure) for one in rounds)
                for figure in ("p50_ms", "p99_ms", "max_ms", "low_rate")
            )
        )
        for way, rounds in measured.items()
    }


HEAD = ("8 LOW nodes burn, HIGH has 100/s", "p50 ms", "p99 ms", "max ms", "p99 ratio", "LOW 1/s")


def rows(measured: dict[str, list[Shared]]) -> list[list[str]]:
    """Return the table's rows; the ratio is to nothing's p99."""
    medians = figures(measured)
    base = medians["nothing"].p99_ms
    return [
        [
            way,
            *(f"{value:.2f}" for value in (one.p50_ms, one.p99_ms, one.max_ms)),
            f"{one.p99_ms / base:.2f}",
            f"{one.low_rate:.0f}",
        ]
        for way, one in medians.items()
    ]


def main() -> None:
    """Measure and print."""
    parser = measure_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a round")
    asked = parser.parse_args()
    print_table(rows(measure(asked.rounds, asked.seconds)), HEAD)


if __name__ == "__main__":
    main()
