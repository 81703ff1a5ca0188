"""Bands under real processes: shares of a worker, control beside full data, turns of workers."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dflow import Context, Graph, Input, Node, Output, Priority, edge, node, sink, source
from tests.integration.flows import await_file, collect, count, run_checked, write_line
from tests.support import eventually

pytestmark = pytest.mark.timeout(60)


def burn(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


# --- a worker's own bands -----------------------------------------------------------------


class Shares(Node):
    """Emits at its end how many of a thousand services HIGH had while both bands were busy."""

    high = Input(int, priority=Priority.HIGH)
    low = Input(int, priority=Priority.LOW)
    out = Output(int)

    def __init__(self) -> None:
        self.services: list[Priority] = []
        self.begin = 0

    @high.handler
    def take_high(self, number: int) -> None:
        self.serve(Priority.HIGH)

    @low.handler
    def take_low(self, number: int) -> None:
        self.serve(Priority.LOW)

    def serve(self, band: Priority) -> None:
        burn(0.0003)  # longer than a turn: each message is a service
        self.services.append(band)
        if not self.begin and min(map(self.services.count, (Priority.HIGH, Priority.LOW))) == 50:
            self.begin = len(self.services)  # both sources have started

    def on_end(self) -> int:
        return self.services[self.begin : self.begin + 1000].count(Priority.HIGH)


def test_saturated_bands_share_a_worker_by_their_weights() -> None:
    shares = Shares()
    graph = Graph("shares")
    graph.connect(count(3000).options(name="highs"), shares.high)
    graph.connect(count(1500).options(name="lows"), shares.low)
    (highs,), _ = collect(graph, shares.out)
    assert 640 <= highs <= 960  # 800, give or take a fifth


class Stoppable(Node):
    """Passes data on; a setting leaves a file."""

    data = Input(int)
    settings = Input(str, priority=Priority.CONTROL)
    out = Output(int)

    @data.handler
    def pass_on(self, number: int) -> int:
        return number

    @settings.handler
    def note(self, path: str) -> None:
        write_line(Path(path), "heard")


@sink
def stuck(number: int, begun: str, go_on: str) -> None:
    """Take nothing more until a file is there."""
    if not Path(begun).exists():
        write_line(Path(begun), number)
    await_file(Path(go_on))


def test_control_is_handled_while_output_is_blocked_and_the_inbox_is_full(tmp_path: Path) -> None:
    begun, go_on, heard = (tmp_path / name for name in ("begun", "go_on", "heard"))
    middle = Stoppable()
    graph = Graph("blocked")
    graph.connect(count(200), middle.data, capacity=4)
    graph.connect(middle.out, stuck(str(begun), str(go_on)), capacity=4)
    with graph.start() as run:
        await_file(begun)

        def full() -> bool:
            edges = run.status().edges
            return all(e.depth >= 4 for e in edges if e.id.startswith(("count", "Stoppable")))

        eventually(full, what="both edges full", within_s=10)
        run.send(middle.settings, str(heard))
        await_file(heard)
        assert not go_on.exists()
        write_line(go_on, "")
        report = run.wait(20)
    assert report.balances, report.imbalances
    assert report.node("stuck").handled == 200


# --- turns --------------------------------------------------------------------------------


@source
def burner(pieces: int, log: str) -> Iterator[int]:
    """Burn that many milliseconds, and write from when to when each was."""
    for number in range(pieces):
        began = time.monotonic()
        total = sum(range(40_000))
        write_line(Path(log), f"{began} {time.monotonic()}")
        yield total + number


@sink
def total(number: int) -> None:
    """Take it."""


def burners(number: int, pieces: int, folder: Path, *, band: Priority = Priority.NORMAL) -> Graph:
    graph = Graph("burners")
    end = total()
    for name in (f"burner{i}" for i in range(number)):
        one = burner(pieces, str(folder / name)).options(name=name, priority=band)
        graph.connect(one, end)
    return graph


def overlap(folder: Path) -> float:
    """Return the part of the time in which pieces of different burners ran side by side.

    The first second is left out: burners have to be found out first.
    """
    spans = [
        sorted(tuple(map(float, line.split())) for line in path.read_text().splitlines())
        for path in folder.iterdir()
    ]
    begin = min(one[0][0] for one in spans) + 1.0
    moments = sorted(
        (at, change)
        for one in spans
        for began, ended in one
        if began > begin
        for at, change in ((began, 1), (ended, -1))
    )
    running, before, alone, beside = 0, begin, 0.0, 0.0
    for at, change in moments:
        if running == 1:
            alone += at - before
        elif running > 1:
            beside += at - before
        running, before = running + change, at
    return beside / (alone + beside)


def test_burners_with_one_slot_take_turns_and_finish(tmp_path: Path) -> None:
    report = run_checked(burners(3, 1500, tmp_path), slots=1, stats_interval_s=0.1)
    assert report.node("total").handled == 3 * 1500
    assert overlap(tmp_path) < 0.4


def test_burners_that_share_a_worker_with_their_sinks_take_turns_and_finish(
    tmp_path: Path,
) -> None:
    graph = Graph("fused")
    for name in ("a", "b"):
        one = burner(1000, str(tmp_path / name)).options(name=name)
        graph.connect(one, total().options(name=f"end_{name}"))
        graph.fuse(name, f"end_{name}")
    report = run_checked(graph, slots=1, stats_interval_s=0.1)
    assert [report.node(name).handled for name in ("end_a", "end_b")] == [1000, 1000]
    assert overlap(tmp_path) < 0.4


def test_without_slots_nobody_takes_turns(tmp_path: Path) -> None:
    report = run_checked(burners(3, 100, tmp_path), slots=0)
    assert report.node("total").handled == 300


@source
def burns_on(ctx: Context) -> Iterator[int]:
    """Burn until the run drains."""
    while not ctx.stopping:
        yield sum(range(20_000))


@node
def burns_too(number: int) -> int:
    return number + sum(range(20_000))


def test_a_run_in_turns_drains_in_order() -> None:
    graph = Graph("drained")
    end = total()
    for name in ("a", "b"):
        one = burns_on().options(name=name, priority=Priority.LOW)
        other = burns_too().options(name=f"{name}_too", priority=Priority.HIGH)
        graph.connect(one, other, capacity=64)
        graph.connect(other, end)
    with graph.start(slots=1, stats_interval_s=0.1) as run:
        a_second_later = time.monotonic() + 1  # long enough for turns to have begun

        def under_way() -> bool:
            handled = {one.name: one.handled for one in run.status().nodes}
            return time.monotonic() > a_second_later and handled["total"] > 100

        eventually(under_way, within_s=20)
        run.stop()
        report = run.wait(20)
    assert report.outcome == "drained"
    assert report.balances, report.imbalances
    assert sum(one.abandoned for one in report.edges) == 0


def test_who_waits_for_credit_leaves_its_slot_to_others(tmp_path: Path) -> None:
    begun, go_on = tmp_path / "begun", tmp_path / "go_on"
    logs = tmp_path / "logs"
    logs.mkdir()
    done = tmp_path / "done"

    graph = Graph("stalled")
    stalled = burner(700, str(logs / "stalled")).options(name="stalled")
    graph.connect(stalled, stuck(str(begun), str(go_on)), capacity=4)
    busy = [burner(1000, str(logs / name)).options(name=name) for name in ("one", "two")]
    end = all_taken(2000, str(done))
    for one in busy:
        graph.connect(one, end)
    with graph.start(slots=1, stats_interval_s=0.1) as run:
        await_file(done)
        write_line(go_on, "")
        report = run.wait(20)
    assert report.balances, report.imbalances
    assert report.node("stuck").handled == 700


@sink
def all_taken(number: int, of: int, done: str, ctx: Context) -> None:
    """Leave a file after the last one."""
    ctx.metrics.count("taken")
    if ctx.metrics.values["taken"] == of:
        write_line(Path(done), "")


# --- niceness -----------------------------------------------------------------------------


@node
def niceness(number: int) -> int:
    return os.getpriority(os.PRIO_PROCESS, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is all threads' or none's")
@pytest.mark.parametrize(
    ("band", "beside", "asked", "expected"),
    [
        (Priority.LOW, Priority.HIGH, None, 19),
        (Priority.NORMAL, Priority.HIGH, None, 10),
        (Priority.LOW, Priority.LOW, None, 0),
        (Priority.LOW, Priority.HIGH, 3, 3),
    ],
)
def test_a_lower_band_is_nicer_unless_the_node_says(
    band: Priority, beside: Priority, asked: int | None, expected: int
) -> None:
    own: dict[str, Any] = {"priority": band, "niceness": asked}
    one = niceness().options(**own)
    graph = Graph("nice", count(1).options(priority=beside) >> edge() >> one)
    values, _ = collect(graph, one)
    assert values == [expected]
