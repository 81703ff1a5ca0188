"""Start and stop runs of every kind in one process, over and over, and tell what is left of them.

    python -m tests.integration.cycles 1000

prints a JSON line after each round of kinds: what this process holds (`Held`), once its garbage
is collected. A process of its own, so that nothing of other tests is in what it counts.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import json
import math
import os
import statistics
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from dflow import Graph, HookFailed, Input, Node, Output, WorkerDied, edge, node, sink, source
from tests.integration.flows import Inlet, count, endless, keep, swallow

__all__ = ["KINDS", "Held", "leaks"]

OURS = ("dflow.", "zmq", "asyncio", "socket", "subprocess", "threading", "selectors")
LARGE = bytes(300_000)

MOST_OBJECTS = 50
"""Objects of all kinds there may be more: caches of the standard library fill now and then."""

MOST_KB = 3_000
"""How much larger this process may be after the last round than after the first.

What few rounds can show: a run that leaves a third of a megabyte. Less is a matter of the slope.
"""

MOST_KB_A_CYCLE = 2.0
SURE = 3.0
"""By so many standard errors the slope must exceed the limit: few samples prove little."""


@dataclass(frozen=True)
class Held:
    """What one process holds after so many cycles."""

    cycles: int
    rss_kb: int
    objects: int
    files: dict[str, int]
    threads: list[str]
    tasks: int
    children: list[str]
    maps: int
    shared: list[str]
    temporary: list[str]
    ours: dict[str, int]


# --- kinds of runs ------------------------------------------------------------------------


def run_to_its_end() -> None:
    """A run that nobody stops."""
    assert Graph("end", count(50) >> keep() >> swallow()).run().balances


def stop_at_once() -> None:
    """A run that is drained as soon as it runs."""
    with Graph("stop", endless() >> swallow()).start() as run:
        pass
    assert run.report is not None
    assert run.report.balances


def abort_at_once() -> None:
    """A run that is aborted as soon as it runs."""
    run = Graph("abort", endless() >> keep().options(replicas=2) >> swallow()).start(
        log_level="CRITICAL"
    )
    run.abort()
    assert run.wait(20).outcome == "aborted"


def leave_by_an_exception() -> None:
    """A with block that raises."""
    try:
        with Graph("raise", endless() >> swallow()).start(log_level="CRITICAL"):
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass


def send_read_cancel_pause() -> None:
    """Everything a handle can do; one result is left unread."""
    inlet = Inlet()
    graph = Graph("handle", inlet).accept(inlet.data, capacity=8)
    with graph.start(results=inlet) as run:
        for number in range(5):
            run.send(inlet.data, number)
        results = run.results()
        assert [next(results) for _ in range(4)] == [0, 1, 2, 3]
        run.pause(inlet)
        run.cancel(run.send(inlet.data, 6))
        run.resume(inlet)
        run.status()


@source
def large(number: int) -> Iterator[bytes]:
    """Yield what travels in shared memory."""
    for _ in range(number):
        yield LARGE


def large_messages() -> None:
    """Shared memory, mapped here, too; the last message is kept while the run ends."""
    last = keep()
    with Graph("large", large(20) >> last).start(results=last) as run:
        kept = list(run.results())[-1]
    assert bytes(kept[:10]) == LARGE[:10]


@source
async def waits(number: int) -> AsyncIterator[int]:
    """Yield from a coroutine."""
    for value in range(number):
        await asyncio.sleep(0)
        yield value


@node
async def doubles(value: int) -> int:
    """Return the double, later."""
    await asyncio.sleep(0)
    return 2 * value


def inside_a_loop() -> None:
    """A run in a thread of an asyncio loop, of nodes that are coroutines."""
    graph = Graph("async", waits(20) >> doubles().options(concurrency=4) >> swallow())

    async def main() -> bool:
        return (await asyncio.to_thread(graph.run)).balances

    assert asyncio.run(main())


def two_at_once() -> None:
    """Two runs of one graph side by side, over TCP."""
    last = keep()
    graph = Graph("two", count(20) >> edge(capacity=2) >> last)
    with (
        graph.start(results=last, transport="tcp") as one,
        graph.start(results=last) as two,
    ):
        assert list(one.results()) == list(two.results()) == list(range(20))


@sink
def dies(value: int) -> None:
    """End the worker."""
    os._exit(7)


def worker_that_dies() -> None:
    """A run that fails while it runs."""
    try:
        Graph("dies", endless() >> dies()).run(log_level="CRITICAL")
    except WorkerDied:
        return
    raise AssertionError("expected WorkerDied")


class Fails(Node):
    """Cannot start."""

    into = Input(int)
    out = Output(int)

    def on_start(self) -> None:
        """Raise."""
        raise ValueError("expected to fail")

    @into.handler
    def never(self, value: int) -> None:
        """Take nothing."""


def start_that_fails() -> None:
    """A run that never starts."""
    try:
        Graph("fails", count(1) >> Fails() >> swallow()).start(log_level="CRITICAL")
    except HookFailed:
        return
    raise AssertionError("expected HookFailed")


KINDS: tuple[Callable[[], None], ...] = (
    run_to_its_end,
    stop_at_once,
    abort_at_once,
    leave_by_an_exception,
    send_read_cancel_pause,
    large_messages,
    inside_a_loop,
    two_at_once,
    worker_that_dies,
    start_that_fails,
)


# --- what is left -------------------------------------------------------------------------


def held(cycles: int) -> Held:
    """Collect garbage, and look."""
    gc.collect()
    me = psutil.Process()
    return Held(
        cycles=cycles,
        rss_kb=me.memory_info().rss // 1024,
        objects=len(gc.get_objects()),
        files=_files(),
        threads=sorted(thread.name for thread in threading.enumerate()),
        tasks=len(os.listdir("/proc/self/task")),
        children=[f"{child.pid} {child.status()}" for child in me.children(recursive=True)],
        maps=sum("memfd" in line for line in Path("/proc/self/maps").read_text().splitlines()),
        shared=sorted(name for name in os.listdir("/dev/shm") if name.startswith("dflow")),
        temporary=sorted(os.listdir(tempfile.gettempdir())),
        ours=_objects(),
    )


def _files() -> dict[str, int]:
    """Return how many open files there are of each kind."""
    found: Counter[str] = Counter()
    for fd in os.listdir("/proc/self/fd"):
        try:
            kind = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:  # the one that lists
            continue
        found[kind.partition(":[")[0]] += 1
    return dict(sorted(found.items()))


def _objects() -> dict[str, int]:
    """Return how many instances there are of each class that may hold something."""
    found: Counter[str] = Counter()
    for thing in gc.get_objects():
        kind = type(thing)
        if str(kind.__module__).startswith(OURS):
            found[f"{kind.__module__}.{kind.__qualname__}"] += 1
    return dict(sorted(found.items()))


def leaks(rows: Sequence[Held]) -> list[str]:
    """Return what there is more of after the last round than after the first."""
    first, last = rows[0], rows[-1]
    found = [
        f"{name}: {before} after {first.cycles} cycles, {after} after {last.cycles}"
        for name in ("files", "threads", "tasks", "children", "maps", "shared", "temporary", "ours")
        if (before := getattr(first, name)) != (after := getattr(last, name))
    ]
    if last.objects - first.objects > MOST_OBJECTS:
        found.append(f"objects: {first.objects} at first, {last.objects} at last")
    if last.rss_kb - first.rss_kb > MOST_KB:
        found.append(f"memory: {first.rss_kb:,} KB at first, {last.rss_kb:,} KB at last")
        return found
    slope, error = slope_of([(row.cycles, row.rss_kb) for row in rows])
    if slope - SURE * error > MOST_KB_A_CYCLE:
        found.append(f"memory: {slope:.1f} KB a cycle, give or take {error:.1f}")
    return found


def slope_of(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the slope of a line through ``points`` without the first third, and its error.

    Nothing of three points and less: they may lie on a line by chance.
    """
    points = points[len(points) // 3 :]
    if len(points) < 3:
        return 0.0, 0.0
    slope, begin = statistics.linear_regression(*zip(*points, strict=True))
    center = statistics.fmean(x for x, _ in points)
    spread = sum((x - center) ** 2 for x, _ in points)
    missed = sum((y - begin - slope * x) ** 2 for x, y in points)
    return slope, math.sqrt(missed / (len(points) - 2) / spread)


def main(cycles: int) -> None:
    """Do so many cycles, and print a line after each round of kinds."""
    faulthandler.dump_traceback_later(60 + 4 * cycles, exit=True)
    for number in range(cycles):
        KINDS[number % len(KINDS)]()
        if number % len(KINDS) == len(KINDS) - 1:
            print(json.dumps(asdict(held(number + 1))), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
