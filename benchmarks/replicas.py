"""A node that computes, once and twice: source → replicas → sink on two cores.

    python -m benchmarks.replicas [--count N] [--rounds N] [--work-us N]

Three comparisons of the same work: one replica with two, two replicas with two that keep the order,
and the same two without any work, where all that order costs can be seen. A message
computes for ``--work-us`` microseconds of CPU time, so what other programs take away makes a
round longer and not lighter. ``alone`` is the share of a round in which
only one of the replicas still had messages: that is what unequal shares cost.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.registry import Benchmark, Effort, Figure
from benchmarks.rounds import MAX_REPEATS, Comparison, compare, measure_parser, print_table
from dflow import Context, Graph, Input, Node, Output, source

__all__ = ["BENCHMARKS", "Round", "measure_order", "measure_replicas"]

Result = tuple[int, int]
"""Number of the message, and which replica computed it."""


@source
def numbers(count: int) -> Iterator[int]:
    """Yield ``count`` numbers from 0."""
    yield from range(count)


class Compute(Node):
    """Burns CPU time for each number and says who did it."""

    numbers = Input(int)
    out = Output(Result)

    def __init__(self, work_us: int) -> None:
        self.work_s = work_us / 1e6
        self.replica = 0

    def on_start(self, ctx: Context) -> None:
        """Learn who this is."""
        self.replica = ctx.replica

    @numbers.handler
    def work(self, number: int) -> Result:
        """Compute."""
        if self.work_s:
            until = time.thread_time() + self.work_s
            while time.thread_time() < until:
                pass
        return number, self.replica


class Collect(Node):
    """Counts, checks, and notes when the last message of each replica came."""

    results = Input(Result)

    def __init__(self, result: str) -> None:
        self.result = result
        self.count = self.total = 0
        self.newest = -1
        self.in_order = True
        self.began_s = 0.0
        self.last_s: dict[int, float] = {}

    @results.handler
    def add(self, result: Result) -> None:
        """Take one result."""
        number, replica = result
        now = time.monotonic()
        if not self.count:
            self.began_s = now
        self.count += 1
        self.total += number
        self.in_order = self.in_order and number > self.newest
        self.newest = number
        self.last_s[replica] = now

    def on_end(self) -> None:
        """Write what was seen."""
        seconds = time.monotonic() - self.began_s
        first = min(self.last_s.values(), default=self.began_s) - self.began_s
        found: dict[str, float] = {
            "count": self.count,
            "total": self.total,
            "in_order": self.in_order,
        }
        found |= {"seconds": seconds, "alone": 1 - first / seconds}
        Path(self.result).write_text(json.dumps(found), encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Round:
    """Messages a second, and the share of the time in which one replica worked alone."""

    rate: float
    alone: float


def one_round(count: int, work_us: int, replicas: int, *, ordered: bool = False) -> Round:
    """Run once and verify what came out."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "result.json")
        work = Compute(work_us).options(replicas=replicas, ordered=ordered)
        chain = numbers(count) >> work >> Collect(str(result))
        report = Graph("replicas", chain).run(log_level="WARNING")
        if report.outcome != "finished" or not report.balances:
            raise RuntimeError(f"expected a finished run whose books balance, got\n{report}")
        got = json.loads(result.read_text(encoding="utf-8"))
    if got["count"] != count or got["total"] != count * (count - 1) // 2:
        raise RuntimeError(f"expected {count} messages, each once, got {got}")
    if ordered and not got["in_order"]:
        raise RuntimeError("expected the results in order")
    return Round(count / got["seconds"], got["alone"])


def measure_replicas(
    rounds: int, count: int, work_us: int, repeats: int = MAX_REPEATS
) -> Comparison[Round]:
    """Run one replica (the reference) and two in turn."""
    one = partial(one_round, count, work_us, 1)
    return compare(rounds, one, partial(one_round, count, work_us, 2), repeats)


def measure_order(
    rounds: int, count: int, work_us: int, repeats: int = MAX_REPEATS
) -> Comparison[Round]:
    """Run two replicas without order (the reference) and with it in turn."""
    two = partial(one_round, count, work_us, 2)
    return compare(rounds, two, partial(two, ordered=True), repeats)


def _replicas(effort: Effort) -> Comparison[Round]:
    return measure_replicas(effort.rounds, 4000 // effort.share, 1000, effort.repeats)


def _order(effort: Effort) -> Comparison[Round]:
    return measure_order(effort.rounds, 4000 // effort.share, 1000, effort.repeats)


def _order_of_nothing(effort: Effort) -> Comparison[Round]:
    return measure_order(effort.rounds, 400_000 // effort.share, 0, effort.repeats)


BENCHMARKS: tuple[Benchmark[Round], ...] = (
    Benchmark(
        name="replicas",
        measure=_replicas,
        figures=(
            Figure("rate", "msg/s", "higher", lambda one: one.rate, bar=1.8, busy_tolerance=0.5),
        ),
        short=False,
    ),
    Benchmark(
        name="ordered",
        measure=_order,
        figures=(
            Figure("rate", "msg/s", "higher", lambda one: one.rate, bar=0.95, busy_tolerance=0.5),
        ),
        short=False,
    ),
    Benchmark(
        name="ordered-no-work",
        measure=_order_of_nothing,
        figures=(Figure("rate", "msg/s", "higher", lambda one: one.rate, busy_tolerance=0.5),),
        short=False,
    ),
)


def _row(name: str, measured: Comparison[Round]) -> list[str]:
    rate = measured.ratio(lambda one: one.rate)
    alone = [
        f"{max(one.alone for one in side):.0%}" for side in (measured.reference, measured.dflow)
    ]
    figures = [f"{rate.reference:,.0f}", f"{rate.dflow:,.0f}", f"{rate.ratio:.2f}"]
    return [name, *figures, " / ".join(alone)]


def main() -> None:
    """Measure and print."""
    parser = measure_parser(__doc__)
    parser.add_argument("--count", type=int, default=4000, help="messages a round that compute")
    parser.add_argument("--work-us", type=int, default=1000, help="CPU time a message")
    asked = parser.parse_args()
    two = measure_replicas(asked.rounds, asked.count, asked.work_us)
    ordered = measure_order(asked.rounds, asked.count, asked.work_us)
    nothing = measure_order(asked.rounds, 50 * asked.count, 0)
    rows = [
        _row("one replica, two, msg/s", two),
        _row("two, two ordered", ordered),
        _row("the same without work", nothing),
    ]
    print_table(rows, ("what", "before", "after", "ratio", "most alone"))
    print(two.disturbance() or f"the machine was quiet; {two.repeated} runs repeated")


if __name__ == "__main__":
    main()
