"""Arrays of 6 MB between processes, against what it costs to write them to shared memory at all.

    python -m benchmarks.frames [--count N] [--rounds N] [--sizes]

The reference is one process that numbers an array and copies it into shared memory, over and over:
the one write that cannot be saved. ``frames`` does the same at a source, and a sink in another
process reads the number; ``frames_forward`` has a node between them that passes every frame on;
``frames_allocate`` has the source write its number into ``ctx.allocate``, so nothing is copied at
all, and its GB/s are those of frames that got there. The clock runs at the sink from the first
frame to the last. Every number is checked.

``--sizes`` shows the cost of messages around 64 KiB, where buffers begin to travel beside messages,
and above: in the message, in shared memory, and as frames of ZeroMQ.
"""

from __future__ import annotations

import json
import mmap
import os
import time
from collections.abc import Iterator
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks import throughput
from benchmarks.registry import Benchmark, Effort, Figure
from benchmarks.rounds import Comparison, compare, measure_parser, print_table
from benchmarks.throughput import Run, Throughput, start_cpu_s
from dflow import Context, Graph, Input, Node, node, source

__all__ = ["BENCHMARKS", "Last", "camera", "measure", "one_round", "passed_on", "rows"]

FRAME_BYTES = 6_000_000
COUNT = 2_000


@source
def camera(count: int, size_bytes: int, allocate: bool, ctx: Context) -> Iterator[np.ndarray]:
    """Yield numbered frames: one array over and over, or each where it will be read."""
    frame = np.zeros(size_bytes, "u1")
    for number in range(count):
        if allocate:
            frame = ctx.allocate(size_bytes)
        frame[:8].view("<u8")[0] = number
        yield frame


@node
def passed_on(frame: np.ndarray) -> np.ndarray:
    """Return the frame itself."""
    return frame


class Last(Node):
    """Reads the number of every frame, and writes what it got to the file ``result``."""

    frames = Input(np.ndarray)

    def __init__(self, result: str) -> None:
        self.result = result
        self.count = self.sum = 0
        self.first_s = self.last_s = 0.0

    @frames.handler
    def look(self, frame: np.ndarray) -> None:
        self.last_s = time.monotonic()
        self.first_s = self.first_s or self.last_s
        self.count += 1
        self.sum += int(frame[:8].view("<u8")[0])

    def on_end(self) -> None:
        got = {"count": self.count, "id_sum": self.sum, "seconds": self.last_s - self.first_s}
        Path(self.result).write_text(json.dumps(got), encoding="utf-8")


def run_dflow(
    count: int,
    result: str,
    *,
    size_bytes: int = FRAME_BYTES,
    allocate: bool = False,
    forward: bool = False,
    shm_bytes: int = 10**9,
) -> None:
    """Run the graph once; the sink writes to the file ``result``."""
    chain = camera(count, size_bytes, allocate) >> (
        passed_on() >> Last(result) if forward else Last(result)
    )
    report = Graph("frames", chain).run(log_level="WARNING", shm_bytes=shm_bytes)
    if report.outcome != "finished" or not report.balances:
        raise RuntimeError(f"expected a finished run whose books balance, got\n{report}")
    copied = sum(each.metrics.get("dflow.copied_buffers", 0) for each in report.nodes)
    if shm_bytes and copied:
        raise RuntimeError(f"expected room for every frame, got {copied:.0f} copied")


def run_memcpy(count: int, result: str, *, size_bytes: int = FRAME_BYTES) -> None:
    """Copy as many frames into shared memory, in a process of its own."""
    process = get_context("fork").Process(target=_copy, args=(count, result, size_bytes))
    process.start()
    process.join()


def _copy(count: int, result: str, size_bytes: int) -> None:
    fd = os.memfd_create("frames")
    os.ftruncate(fd, size_bytes)
    with mmap.mmap(fd, size_bytes) as memory:
        shared = np.frombuffer(memory, "u1")
        frame = np.zeros(size_bytes, "u1")
        np.copyto(shared, frame)
        total = 0
        began = time.monotonic()
        for number in range(count):
            frame[:8].view("<u8")[0] = number
            np.copyto(shared, frame)
            total += int(shared[:8].view("<u8")[0])
        seconds = time.monotonic() - began
        del shared
    os.close(fd)
    got = {"count": count, "id_sum": total, "seconds": seconds}
    Path(result).write_text(json.dumps(got), encoding="utf-8")


def one_round(run: Run, count: int, size_bytes: int, start_s: float = 0.0) -> Throughput:
    """Run one side once and verify what it got: GB/s, and CPU of all processes for a frame."""
    one = throughput.one_round(run, count, start_s)
    return Throughput(one.rate * size_bytes / 1e9, one.cpu_us)


def measure(
    rounds: int, count: int, repeats: int = 0, *, allocate: bool = False, forward: bool = False
) -> Comparison[Throughput]:
    """Copy and run the graph in turn, ``rounds`` times."""
    run = partial(run_dflow, allocate=allocate, forward=forward)
    starts_s = start_cpu_s(run_memcpy, 2), start_cpu_s(run, 2)
    return compare(
        rounds,
        lambda: one_round(run_memcpy, count, FRAME_BYTES, starts_s[0]),
        lambda: one_round(run, count, FRAME_BYTES, starts_s[1]),
        repeats,
    )


def rows(name: str, measured: Comparison[Throughput]) -> list[list[str]]:
    """Return the table's rows."""
    rate = measured.ratio(lambda one: one.rate)
    cpu = measured.ratio(lambda one: one.cpu_us)
    return [
        [f"{name}, GB/s", f"{rate.reference:.1f}", f"{rate.dflow:.1f}", f"{rate.ratio:.2f}"],
        [f"{name}, CPU us", f"{cpu.reference:.0f}", f"{cpu.dflow:.0f}", f"{cpu.ratio:.2f}"],
    ]


def _benchmark(
    name: str, bar: float, *, allocate: bool = False, forward: bool = False, short: bool = False
) -> Benchmark[Throughput]:
    def measured(effort: Effort) -> Comparison[Throughput]:
        return measure(
            effort.rounds,
            COUNT // effort.share,
            effort.repeats,
            allocate=allocate,
            forward=forward,
        )

    why = "memory of frames is in the cache or not, as other programs leave it"
    return Benchmark(
        name=name,
        measure=measured,
        figures=(
            Figure(
                "rate",
                "GB/s",
                "higher",
                lambda one: one.rate,
                bar=bar,
                tolerance=0.2,
                busy_tolerance=0.6,
                why=why,
            ),
            Figure("cpu", "us/frame", "lower", lambda one: one.cpu_us, tolerance=0.25, why=why),
        ),
        short=short,
    )


BENCHMARKS: tuple[Benchmark[Throughput], ...] = (
    _benchmark("frames", 0.8, short=True),
    _benchmark("frames_forward", 0.6, forward=True),
    _benchmark("frames_allocate", 1.8, allocate=True),
)


def sizes(rounds: int) -> list[list[str]]:
    """Return what messages of several sizes cost: microseconds of CPU, both processes together."""
    table: list[list[str]] = []
    for size_bytes in (32_768, 65_400, 65_536, 262_144, 1 << 20, 6_000_000):
        count = max(300, min(20_000, (1 << 31) // size_bytes))
        found = []
        for shm_bytes in (0, 10**9):
            run = partial(run_dflow, size_bytes=size_bytes, shm_bytes=shm_bytes)
            start_s = start_cpu_s(run, 2)
            runs = [one_round(run, count, size_bytes, start_s) for _ in range(rounds)]
            found.append(median(one.cpu_us for one in runs))
        sockets, shared = found
        way = "inline" if size_bytes < 65_536 else "frames"
        table.append(
            [f"{size_bytes:,} bytes, CPU us ({way})", f"{sockets:.0f}", f"{shared:.0f}",
             f"{shared / sockets:.2f}"]
        )  # fmt: skip
    return table


def main() -> None:
    """Measure and print."""
    parser = measure_parser(__doc__)
    parser.add_argument("--count", type=int, default=COUNT, help="frames a round")
    parser.add_argument("--sizes", action="store_true", help="messages around 64 KiB instead")
    asked = parser.parse_args()
    if asked.sizes:
        print_table(sizes(asked.rounds), ("what", "sockets", "shared memory", "ratio"))
        return
    table = rows("frames", measure(asked.rounds, asked.count))
    table += rows("forwarded", measure(asked.rounds, asked.count, forward=True))
    table += rows("allocated", measure(asked.rounds, asked.count, allocate=True))
    print_table(table, ("what", "memcpy", "dflow", "ratio"))


if __name__ == "__main__":
    main()
