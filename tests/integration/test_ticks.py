"""``on_tick`` keeps its cadence whatever else the worker does, and never comes in bursts.

What is measured is counted in the worker: from the first tick to the one that was waited for, so
that neither start nor end of a run matter. A tick may come late by one handler's length.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from dflow import Graph, Input, Node, Output, RunReport, edge, node, sink
from tests.integration.flows import await_file, endless, swallow

pytestmark = [pytest.mark.timeout(60), pytest.mark.alone]

TICK_S = 0.05
TICKS = 31


class Beating(Node):
    """Ticks; tells of its ticks when there were ``wanted`` of them."""

    out = Output()
    beats = Output(list)

    def __init__(self, wanted: int = TICKS) -> None:
        self.wanted = wanted
        self.beat: list[tuple[float, float]] = []

    def on_tick(self) -> None:
        self.beat.append((time.monotonic(), starved_s()))
        if len(self.beat) == self.wanted:
            self.beats.emit(self.beat)


def starved_s() -> float:
    """Return how long the threads of this process have waited for a processor; 0 if unknown."""
    waits = [path.read_text().split()[1] for path in Path("/proc/self/task").glob("*/schedstat")]
    return sum(map(int, waits)) / 1e9


class Idle(Beating):
    """Has an input into which nothing comes."""

    data = Input(Any, required=False)

    @data.handler
    def take(self, x: Any) -> None: ...


class Busy(Beating):
    """Is fed; each message takes ``work_s``, and the first ``first_s``."""

    data = Input(int)

    def __init__(self, work_s: float = 0.0, first_s: float = 0.0, wanted: int = TICKS) -> None:
        super().__init__(wanted)
        self.work_s = work_s
        self.first_s = first_s

    @data.handler
    def take(self, x: int) -> int:
        end = time.monotonic() + (self.work_s if x else max(self.work_s, self.first_s))
        while time.monotonic() < end:
            pass
        return x


class AsyncBusy(Beating):
    """Handles several messages at once, each for ``work_s``."""

    data = Input(int)

    def __init__(self, work_s: float) -> None:
        super().__init__()
        self.work_s = work_s

    @data.handler
    async def take(self, x: int) -> int:
        await asyncio.sleep(self.work_s)
        return x


class AsyncTick(Idle):
    """The hook itself is a coroutine."""

    async def on_tick(self) -> None:  # type: ignore[override]  # may be either
        await asyncio.sleep(0)
        Beating.on_tick(self)


class Fast(Beating):
    """A source that never pauses."""

    def produce(self) -> Iterator[int]:
        number = 0
        while True:
            yield number
            number += 1


class Paced(Beating):
    """An async source that waits for longer than a tick before each value."""

    async def produce(self) -> AsyncIterator[int]:
        while True:
            await asyncio.sleep(4 * TICK_S)
            yield 1


class Eager(Beating):
    """An async source that never waits."""

    async def produce(self) -> AsyncIterator[int]:
        number = 0
        while True:
            yield number
            number += 1


@sink
def stuck(x: Any, until: Path) -> None:
    """Hold the first message until told otherwise."""
    await_file(until)


@dataclass(frozen=True)
class Beats:
    """When the ticks came, and for how long the worker had no processor meanwhile."""

    times: list[float]
    starved_s: float
    report: RunReport

    @property
    def gaps(self) -> list[float]:
        """Seconds between ticks."""
        return [round(b - a, 3) for a, b in pairwise(self.times)]

    def check_cadence(self) -> None:
        """There were as many as there should be, within a fifth.

        For a tick that could not be called because others had the processors, nobody is blamed.
        """
        elapsed_s = self.times[-1] - self.times[0]
        least = 0.8 * (elapsed_s - self.starved_s) / TICK_S
        assert least <= len(self.gaps) <= 1.2 * elapsed_s / TICK_S, self
        assert self.report.node("beating").ticks >= len(self.times)


def beats_of(graph: Graph, beating: Beating, release: Path) -> Beats:
    """Run until the beats are there; return them."""
    with graph.start(results=[beating.beats]) as run:
        beat = next(run.results(beating.beats))
        release.touch()
        run.abort()  # what is in flight does not matter here
        report = run.wait(timeout_s=20)
    assert report.balances, report.imbalances
    return Beats([at for at, _ in beat], beat[-1][1] - beat[0][1], report)


def ticking(beating: Beating) -> Any:
    """Return the node with its cadence."""
    return beating.options(tick_s=TICK_S, name="beating")


def idle() -> Graph:
    return Graph("idle", ticking(Idle()))


def async_tick() -> Graph:
    return Graph("async-tick", ticking(AsyncTick()))


def fast_handlers() -> Graph:
    busy = ticking(Busy())
    return Graph("fast", endless() >> busy.data, busy.out >> swallow())


def slow_handlers() -> Graph:
    busy = ticking(Busy(work_s=0.015))
    return Graph("slow", endless() >> busy.data, busy.out >> swallow())


def tasks() -> Graph:
    busy = ticking(AsyncBusy(work_s=0.01).options(concurrency=8))
    return Graph("tasks", endless() >> busy.data, busy.out >> swallow())


def long_tasks() -> Graph:
    busy = ticking(AsyncBusy(work_s=5 * TICK_S))
    return Graph("long-tasks", endless() >> busy.data, busy.out >> swallow())


def fast_source() -> Graph:
    source = ticking(Fast())
    return Graph("source", source.out >> swallow())


def eager_source() -> Graph:
    source = ticking(Eager())
    return Graph("eager", source.out >> swallow())


def paced_source() -> Graph:
    source = ticking(Paced())
    return Graph("paced", source.out >> swallow())


def fused() -> Graph:
    busy = ticking(Busy())
    graph = Graph("fused", endless() >> busy.data, busy.out >> swallow())
    return graph.fuse("endless", "beating", "swallow")


@pytest.mark.parametrize(
    "make",
    [
        idle, async_tick, fast_handlers, slow_handlers, tasks, long_tasks, fast_source,
        eager_source, paced_source, fused,
    ],
)  # fmt: skip
def test_ticks_keep_their_cadence(make: Callable[[], Graph], tmp_path: Path) -> None:
    graph = make()
    beating = graph.nodes["beating"]
    assert isinstance(beating, Beating)
    beats_of(graph, beating, tmp_path / "go").check_cadence()


@pytest.mark.parametrize("make", [Busy, lambda: AsyncBusy(0.0), Fast, Eager])
def test_ticks_go_on_while_an_output_has_no_credit(
    make: Callable[[], Beating], tmp_path: Path
) -> None:
    release = tmp_path / "go"
    beating = ticking(make())
    graph = Graph("blocked", beating.out >> edge(capacity=1) >> stuck(release))
    if "data" in beating.inputs:
        graph.connect(endless(), beating.data)
    beats_of(graph, beating, release).check_cadence()


def test_handlers_longer_than_a_tick_delay_it_by_one_of_them(tmp_path: Path) -> None:
    work_s = 2.5 * TICK_S
    beating = ticking(Busy(work_s=work_s, wanted=8))
    graph = Graph("longer", endless() >> beating.data, beating.out >> swallow())
    beats = beats_of(graph, beating, tmp_path / "go")
    # after every handler there is a tick; 2.5 periods bring 1 or 2 that cannot be called
    assert min(beats.gaps) >= 0.5 * TICK_S
    assert beats.times[-1] - beats.times[0] - beats.starved_s <= 7 * 1.2 * work_s, beats
    assert beats.report.node("beating").skipped_ticks >= 8


def test_after_a_stall_ticks_do_not_come_in_a_burst(tmp_path: Path) -> None:
    beating = ticking(Busy(first_s=12.3 * TICK_S, wanted=6))

    @node
    def few(x: int) -> int | None:
        return x if x < 3 else None

    graph = Graph("stall", endless() >> few() >> beating.data, beating.out >> swallow())
    beats = beats_of(graph, beating, tmp_path / "go")
    assert min(beats.gaps) >= 0.5 * TICK_S, beats
    assert beats.report.node("beating").skipped_ticks >= 10
    assert "skipped ticks" in str(beats.report)


class Emitting(Busy):
    """Emits with every tick onto an edge that has no credit."""

    def on_tick(self) -> None:
        super().on_tick()
        self.out.emit(-1)


def test_a_tick_that_emits_without_credit_is_skipped_until_credit_comes(tmp_path: Path) -> None:
    release = tmp_path / "go"
    beating = ticking(Emitting(wanted=2))
    graph = Graph("owing", endless() >> beating.data)
    graph.connect(beating.out, stuck(release), capacity=4)
    with graph.start(results=[beating.beats]) as run:
        began = time.monotonic()
        waited = 0.0
        while waited < 8 * TICK_S:  # long enough for several that must not come
            waited = time.monotonic() - began
            run.status()
        release.touch()
        (first, _), (second, _) = next(run.results(beating.beats))
        run.abort()
        report = run.wait(timeout_s=20)
    assert report.balances, report.imbalances
    assert second - first > 4 * TICK_S
    assert report.node("beating").skipped_ticks >= 4
