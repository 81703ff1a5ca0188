"""Policy latest with real processes: what a handler gets is new, whatever else it has to do."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dflow import Graph, Input, Node, Run, source
from dflow.report import RunReport
from tests.support import eventually

pytestmark = [pytest.mark.timeout(60), pytest.mark.alone]

PERIOD_S = 0.05
FRESH_S = 0.02
"""A message that waited for another handler would be older than a period; most are far younger."""


@source
def camera(frames: int) -> Iterator[float]:
    """Yield the time a thousand times a second."""
    begin = time.monotonic()
    for number in range(frames):
        time.sleep(max(0.0, begin + number * 0.001 - time.monotonic()))
        yield time.monotonic()


@source
def work(n: int) -> Iterator[int]:
    """Yield numbers as fast as they are taken."""
    yield from range(n)


class Viewer(Node):
    """Takes its time for everything, and notes how old each frame is when it is handled."""

    frames = Input(float)
    other = Input(int, required=False)

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.ages: list[float] = []

    @frames.handler
    def look(self, taken_s: float) -> None:
        """Note the age, and be busy."""
        self.ages.append(time.monotonic() - taken_s)
        Path(self.folder, "seen").touch()
        time.sleep(PERIOD_S)

    @other.handler
    def toil(self, number: int) -> None:
        """Be busy."""
        time.sleep(PERIOD_S)

    def on_end(self, ctx) -> None:  # type: ignore[no-untyped-def]  # as a user would write it
        """Keep what was noted."""
        Path(self.folder, f"ages-{ctx.replica}").write_text(json.dumps(self.ages))


def ages_of(folder: Path, report: RunReport) -> list[float]:
    """Return the ages noted by all replicas, without the last of each (nothing newer comes)."""
    assert report.balances, report.imbalances
    found: list[float] = []
    for file in folder.glob("ages-*"):
        found += json.loads(file.read_text())[:-2]
    return found


@pytest.mark.parametrize(("senders", "receivers"), [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_replicas_on_both_sides_see_what_is_new(
    tmp_path: Path, senders: int, receivers: int
) -> None:
    viewer = Viewer(str(tmp_path)).options(replicas=receivers)
    graph = Graph("latest")
    graph.connect(camera(700).options(replicas=senders), viewer.frames, policy="latest")
    report = graph.run(log_level="WARNING")
    assert statistics.median(ages_of(tmp_path, report)) < FRESH_S
    edge = report.edges[0]
    assert edge.sent == edge.delivered + edge.dropped == 700 * senders


def test_another_busy_input_makes_nothing_old(tmp_path: Path) -> None:
    viewer = Viewer(str(tmp_path))
    graph = Graph("latest")
    graph.connect(camera(900), viewer.frames, policy="latest")
    graph.connect(work(9), viewer.other)
    report = graph.run(log_level="WARNING")
    assert statistics.median(ages_of(tmp_path, report)) < FRESH_S


def pause_for(run: Run, viewer: Node, frames: int) -> None:
    """Pause a node until so many more frames were sent."""
    run.pause(viewer)
    before = run.status().edges[0].sent
    eventually(lambda: run.status().edges[0].sent > before + frames)
    run.resume(viewer)


def test_after_a_pause_the_newest_comes_first(tmp_path: Path) -> None:
    pauses = 4
    viewer, seen = Viewer(str(tmp_path)), tmp_path / "seen"
    graph = Graph("latest")
    graph.connect(camera(1_000_000), viewer.frames, policy="latest")
    with graph.start(log_level="WARNING") as run:
        for _ in range(pauses):
            seen.unlink(missing_ok=True)
            eventually(seen.exists)
            pause_for(run, viewer, 300)
        run.stop()
        report = run.wait()
    ages = ages_of(tmp_path, report)
    # each pause was longer; now and then its sender has no processor when it is asked
    assert len([age for age in ages if age > 0.3]) < pauses - 1
    assert statistics.median(ages) < FRESH_S
