"""How cost grows: throughput and CPU a message over the size of everything.

    pip install -r benchmarks/requirements.txt
    python -m benchmarks.growth [--only NAME ...] [--rounds N] [--png FOLDER]
    python -m benchmarks.growth --plot

Five curves: chains, fan-out, size of a message, capacity of the edges, replicas. Each point is
the median of its rounds; a round lasts about a second, whatever the rate. What is measured goes to
``docs/img/growth.json`` and is plotted beside it (`benchmarks.growth_plots`); ``--plot`` draws
again what is there. All of a round are run before the next, so that a slow minute is a slow
point in one round and not a cliff.

There is no reference: shape is the result. Where a curve bends, docs/performance.md says why.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import run, throughput, workload
from benchmarks.rounds import own_cpu_s, watched
from dflow import Graph, Input, Node, edge, node, source
from dflow.graph.chain import Chainable

__all__ = ["CURVES", "Curve", "Point"]

JSON = Path(__file__).parent.parent / "docs" / "img" / "growth.json"
SECONDS = 0.8
MOST = 1_000_000

Build = Callable[[int, int, str], Graph]
"""Makes the graph for a value of x and a number of messages; its sink writes to the file."""

relay = node(workload.relay)


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a plot: ``name`` is ``plot.series``; ``x`` the values it is measured at.

    ``least``: messages of a round at an x, at the least, so that beginning is a small part of it.
    """

    name: str
    x: tuple[int, ...]
    build: Build
    least: Callable[[int], int] = lambda x: 20_000


@dataclass(frozen=True, slots=True)
class Point:
    """Medians at one x: messages a second at the sink, CPU microseconds a message."""

    x: int
    rate: float
    cpu_us: float
    count: int


@source
def blobs(count: int, size: int) -> Iterator[bytes]:
    """Yield ``count`` messages of ``size`` bytes each."""
    blob = bytes(size)
    for _ in range(count):
        yield blob


@node
def millisecond(message: dict[str, Any]) -> dict[str, Any]:
    """Compute for a millisecond of CPU time, and pass it on."""
    until = time.thread_time() + 0.001
    while time.thread_time() < until:
        pass
    return message


class Count(Node):
    """A sink that counts and takes the time from the first message to the last."""

    messages = Input(Any)

    def __init__(self, result: str) -> None:
        self.result = result
        self.count = self.first_ns = 0

    @messages.handler
    def add(self, message: Any) -> None:
        """Count one message."""
        if not self.count:
            self.first_ns = time.monotonic_ns()
        self.count += 1

    def on_end(self) -> None:
        """Write the result."""
        seconds = (time.monotonic_ns() - self.first_ns) / 1e9
        found = {"count": self.count, "seconds": seconds}
        Path(self.result).write_text(json.dumps(found), encoding="utf-8")


def chain(nodes: int, count: int, result: str, *, fused: bool = False) -> Graph:
    """Return source → ``nodes`` relays → sink."""
    parts: list[Any] = [throughput.readings(count), *(relay() for _ in range(nodes))]
    parts.append(Count(result))
    line: Chainable = parts[0]
    for one in parts[1:]:
        line = line >> one
    graph = Graph("chain", line)
    if fused:
        graph.fuse(*parts)
    return graph


def fan_out(sinks: int, count: int, result: str) -> Graph:
    """Return source → ``sinks`` sinks, each of which gets everything; the first one measures."""
    others = [Count(f"{result}.{number}") for number in range(1, sinks)]
    return Graph("fan_out", throughput.readings(count) >> [Count(result), *others])


def size(size_bytes: int, count: int, result: str) -> Graph:
    """Return source → sink with messages of ``size_bytes``."""
    return Graph("size", blobs(count, size_bytes) >> Count(result))


def capacity(messages: int, count: int, result: str) -> Graph:
    """Return source → relay → sink whose edges take ``messages``."""
    link = edge(capacity=messages)
    return Graph("capacity", throughput.readings(count) >> link >> relay() >> link >> Count(result))


def replicas(number: int, count: int, result: str) -> Graph:
    """Return source → ``number`` replicas of a relay → sink."""
    many = relay().options(replicas=number)
    return Graph("replicas", throughput.readings(count) >> many >> Count(result))


def working(number: int, count: int, result: str) -> Graph:
    """Return the same with a millisecond of work in the replicas."""
    many = millisecond().options(replicas=number)
    return Graph("working", throughput.readings(count) >> many >> Count(result))


CURVES = (
    Curve("chain.a process each", (1, 2, 3, 4, 6, 8, 12, 16), chain),
    Curve("chain.fused", (1, 2, 3, 4, 6, 8, 12, 16), lambda *a: chain(*a, fused=True)),
    Curve("fan_out.sinks", (1, 2, 3, 4, 6, 8, 12, 16, 24, 32), fan_out),
    Curve(
        "size.one hop",
        tuple(16 * 4**power for power in range(11)),
        size,
        lambda x: max(64, min(20_000, 200_000_000 // x)),
    ),
    Curve(
        "capacity.two hops",
        tuple(2**power for power in range(13)),
        capacity,
        lambda x: min(20_000, 1000 * x),
    ),
    Curve("replicas.no work", (1, 2, 3, 4, 6, 8), replicas),
    Curve("replicas.1 ms of work", (1, 2, 3, 4, 6, 8), working, lambda x: 500),
)


def once(curve: Curve, x: int, count: int) -> tuple[float, float]:
    """Run one graph; return its rate and the CPU seconds of all its processes."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "result")
        before_s = own_cpu_s()
        report = curve.build(x, count, str(result)).run(log_level="WARNING")
        cpu_s = own_cpu_s() - before_s
        got = json.loads(result.read_text(encoding="utf-8"))
    if report.outcome != "finished" or not report.balances or got["count"] != count:
        raise RuntimeError(f"expected {count} messages at the sink, got {got}\n{report}")
    return max(count - 1, 1) / max(got["seconds"], 1e-9), cpu_s


def enough(curve: Curve, x: int) -> int:
    """Return how many messages take about `SECONDS`, or the least."""
    least = curve.least(x)
    rate, _ = once(curve, x, least)
    return max(least, min(MOST, int(rate * SECONDS)))


def measure(curves: list[Curve], rounds: int) -> dict[str, list[Point]]:
    """Measure every point once a round, ``rounds`` times; return their medians."""
    points = [(curve, x) for curve in curves for x in curve.x]
    counts, starts_s = {}, {}
    for curve, x in points:
        counts[curve.name, x] = enough(curve, x)
        starts_s[curve.name, x] = median(once(curve, x, 1)[1] for _ in range(rounds))
        print(f"{curve.name} {x}: {counts[curve.name, x]} messages a round", flush=True)
    runs: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for _ in range(rounds):
        for curve, x in points:
            found = once(curve, x, counts[curve.name, x])
            runs.setdefault((curve.name, x), []).append(found)
    curves_found: dict[str, list[Point]] = {curve.name: [] for curve in curves}
    for (name, x), of_point in runs.items():
        count = counts[name, x]
        cpu_s = median(cpu_s for _, cpu_s in of_point) - starts_s[name, x]
        rate = median(rate for rate, _ in of_point)
        curves_found[name].append(Point(x, rate, max(0.0, cpu_s) / count * 1e6, count))
    return curves_found


def main() -> None:
    """Measure, write, plot."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    names = sorted({curve.name.partition(".")[0] for curve in CURVES})
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--rounds", type=int, default=3, help="how often each point is measured")
    parser.add_argument("--plot", action="store_true", help="only plot what was measured before")
    parser.add_argument("--png", type=Path, metavar="FOLDER", help="draw PNG images there, too")
    parser.add_argument("--json", type=Path, default=JSON, metavar="FILE")
    asked = parser.parse_args()
    from benchmarks import growth_plots  # now, not after minutes: matplotlib may be missing

    if not asked.plot:
        began = time.monotonic()
        run.pin_cores()
        wanted = [curve for curve in CURVES if curve.name.partition(".")[0] in asked.only]
        found, others = watched(lambda: measure(wanted, asked.rounds))
        before = json.loads(asked.json.read_text("utf-8"))["curves"] if asked.json.exists() else {}
        curves = before | {name: [asdict(one) for one in points] for name, points in found.items()}
        result = {**run.taken(), "others": others, "curves": curves}
        asked.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(f"measured in {time.monotonic() - began:.0f} s; written to {asked.json}")
    growth_plots.draw(json.loads(asked.json.read_text("utf-8")), asked.json.parent, asked.png)


if __name__ == "__main__":
    main()
