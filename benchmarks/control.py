"""How long a CONTROL message takes while data saturates every edge.

    python -m benchmarks.control [--seconds N]

Source → work → sink, both handlers burning for as long as is measured (50 us, 5 ms) and the sink a
little longer, so that both edges are full and *work* runs out of credit again and again. A
fourth node sends control messages into *work*, at moments that have nothing to do with the
data. Each is stamped with the monotonic clock when it is emitted; its age is taken when its
handler is called.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.registry import Benchmark, Figure
from benchmarks.rounds import Comparison, measure_parser, print_table
from dflow import Context, Graph, Input, Node, Output, Priority, source

__all__ = ["BENCHMARKS", "HANDLERS_US", "Control", "measure", "rows"]

HANDLERS_US = (50, 5000)
RATE = 100
WARM_UP_S = 1.0
SEED = 3

HEAD = ("CONTROL, data saturated", "messages", "p50 us", "p99 us", "max us", "data/s")


def burn(seconds: float) -> None:
    """Compute for that long."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


@source
def flood(ctx: Context) -> Iterator[int]:
    """Yield numbers as fast as they are taken, until the run drains."""
    number = 0
    while not ctx.stopping:
        yield number
        number += 1


@source
def commands(seconds: float) -> Iterator[int]:
    """Yield the time, `RATE` times a second on average, at random moments."""
    chance = random.Random(SEED)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(chance.uniform(0, 2 / RATE))
        yield time.monotonic_ns()


class Work(Node):
    """Burns for every datum, and notes the age of every command."""

    data = Input(int)
    settings = Input(int, priority=Priority.CONTROL)
    out = Output(int)

    def __init__(self, handler_s: float, result: str) -> None:
        self.handler_s = handler_s
        self.result = result
        self.handled = 0
        self.ages: list[tuple[int, int]] = []

    @data.handler
    def work(self, number: int) -> None:
        """Burn, and pass it on."""
        burn(self.handler_s)
        self.handled += 1
        self.out.emit(number)

    @settings.handler
    def note(self, sent_ns: int) -> None:
        """Note the age."""
        now = time.monotonic_ns()
        self.ages.append((now, now - sent_ns))

    def on_end(self) -> None:
        """Write what was seen while the sources ran."""
        found = {"ages": self.ages, "handled": self.handled}
        Path(self.result).write_text(json.dumps(found), encoding="utf-8")


class End(Node):
    """Takes a little longer than `Work`."""

    data = Input(int)

    def __init__(self, handler_s: float) -> None:
        self.handler_s = handler_s

    @data.handler
    def work(self, number: int) -> None:
        """Burn."""
        burn(1.1 * self.handler_s)


@dataclass(frozen=True, slots=True)
class Control:
    """Ages of control messages in microseconds, and how many data messages went by a second."""

    count: int
    p50_us: float
    p99_us: float
    max_us: float
    data_rate: float


def one_run(handler_us: int, seconds: float) -> Control:
    """Run the graph once for about ``seconds``."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "ages")
        work = Work(handler_us / 1e6, str(result))
        capacity = 256
        graph = Graph("control")
        graph.connect(flood(), work.data, capacity=capacity)
        graph.connect(commands(seconds + WARM_UP_S).options(name="commands"), work.settings)
        graph.connect(work.out, End(handler_us / 1e6), capacity=capacity)
        with graph.start(log_level="WARNING") as run:
            began = time.monotonic()
            while time.monotonic() < began + seconds + WARM_UP_S:
                time.sleep(0.1)
            run.stop()
            run.wait()
        found = json.loads(result.read_text(encoding="utf-8"))
    begin_ns = found["ages"][0][0] + WARM_UP_S * 1e9
    ages_us = sorted(age / 1000 for at, age in found["ages"] if at >= begin_ns)
    p50, p99 = (ages_us[int(len(ages_us) * part)] for part in (0.5, 0.99))
    rate = found["handled"] / (seconds + WARM_UP_S)
    return Control(len(ages_us), p50, p99, ages_us[-1], rate)


def measure(seconds: float) -> dict[int, Control]:
    """Run once for each length of handler."""
    return {handler_us: one_run(handler_us, seconds) for handler_us in HANDLERS_US}


def rows(measured: dict[int, Control]) -> list[list[str]]:
    """Return the table's rows."""
    return [
        [
            f"handlers of {handler_us} us",
            f"{one.count}",
            *(f"{value:.0f}" for value in (one.p50_us, one.p99_us, one.max_us, one.data_rate)),
        ]
        for handler_us, one in measured.items()
    ]


def alone(handler_us: int, seconds: float) -> Comparison[Control]:
    """Run once; there is nothing to compare it with."""
    return Comparison(dflow=[one_run(handler_us, seconds)])


BENCHMARKS: tuple[Benchmark[Control], ...] = (
    Benchmark(
        name="control_50us",
        measure=lambda effort: alone(50, 60 / effort.share),
        figures=(
            Figure("p99", "us", "lower", lambda one: one.p99_us, bar=1000),
            Figure("max", "us", "lower", lambda one: one.max_us, bar=5000),
        ),
        short=False,
        has_reference=False,
    ),
    Benchmark(
        name="control_5ms",
        measure=lambda effort: alone(5000, 60 / effort.share),
        figures=(Figure("p99", "us", "lower", lambda one: one.p99_us, bar=6000),),
        short=False,
        has_reference=False,
    ),
)


def main() -> None:
    """Measure and print."""
    parser = measure_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for each length of handler")
    asked = parser.parse_args()
    print_table(rows(measure(asked.seconds)), HEAD)


if __name__ == "__main__":
    main()
