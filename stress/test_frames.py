"""Frames of 6 MB through shared memory: right while they are kept, and memory stays flat.

The short form passes 400 frames; 10,000 with DFLOW_STRESS=25.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dflow import Context, Graph, Input, Node, Output
from dflow.transport.segments import is_supported
from stress.memory import MB
from stress.nodes import BASE_MB, run_checked

pytestmark = pytest.mark.skipif(not is_supported(), reason="needs memfd and locks of Linux")

COUNT = 400
SIZE = 6_000_000
SAMPLES = 40
SLACK_MB = 32.0
"""Five frames: a block that is used for the first time late is not a leak, 60 GB have passed."""


class Sampled:
    """Samples of this process's memory (PSS: shared pages count in parts) as it works."""

    def __init__(self, count: int) -> None:
        self.every = max(1, count // SAMPLES)
        self.samples: list[float] = []

    def step(self, number: int) -> None:
        """Take a sample now and then."""
        if number % self.every == self.every - 1:
            lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
            pss_kb = next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
            self.samples.append(pss_kb * 1024 / MB)

    def note(self, ctx: Context) -> None:
        """Keep the most of the second quarter and of the last as metrics of the node."""
        quarter = len(self.samples) // 4
        ctx.metrics.gauge("early_mb", max(self.samples[quarter : 2 * quarter]))
        ctx.metrics.gauge("late_mb", max(self.samples[-quarter:]))


def checksum(frame: Any) -> int:
    """Return the sum of all words of a frame."""
    return int(frame.view("u8").sum())


class Camera(Node):
    """A source of numbered frames, each with its checksum."""

    out = Output(tuple)

    def __init__(self, count: int, allocated: bool) -> None:
        self.count = count
        self.allocated = allocated

    def produce(self, ctx: Context) -> Iterator[tuple[int, Any, int]]:
        """Write each frame into memory of the run, or into an array of its own."""
        noise = np.random.default_rng(1).integers(0, 256, SIZE, "u1")
        memory = Sampled(self.count)
        for number in range(self.count):
            frame = ctx.allocate(SIZE) if self.allocated else np.empty(SIZE, "u1")
            np.copyto(frame, noise)
            frame.view("u8")[:: SIZE // 80] = number
            yield number, frame, checksum(frame)
            memory.step(number)
        memory.note(ctx)


class Forward(Node):
    """Passes each frame on by reference."""

    into = Input(tuple)
    out = Output(tuple)

    def __init__(self, count: int) -> None:
        self.memory = Sampled(count)

    @into.handler
    def handle(self, message: tuple[int, Any, int]) -> None:
        """Pass it on."""
        self.memory.step(message[0])
        self.out.emit(message)

    def on_end(self, ctx: Context) -> None:
        """Say how much memory it took."""
        self.memory.note(ctx)


class Window(Node):
    """Keeps the last frames and looks at each when it comes and when it goes."""

    into = Input(tuple)
    verdict = Output(dict, required=True)

    def __init__(self, count: int, size: int) -> None:
        self.memory = Sampled(count)
        self.size = size
        self.kept: deque[tuple[int, Any, int]] = deque()
        self.wrong = self.due = 0

    @into.handler
    def handle(self, message: tuple[int, Any, int]) -> None:
        """Check what came, and what has been kept for long enough."""
        self.wrong += message[0] != self.due
        self.due += 1
        self.look(message)
        self.kept.append(message)
        if len(self.kept) > self.size:
            self.look(self.kept.popleft())
        self.memory.step(message[0])

    def look(self, message: tuple[int, Any, int]) -> None:
        """Count a frame that is not what was sent."""
        number, frame, expected = message
        self.wrong += int(frame.view("u8")[0]) != number or checksum(frame) != expected

    def on_end(self, ctx: Context) -> None:
        """Emit the verdict."""
        for message in self.kept:
            self.look(message)
        self.memory.note(ctx)
        self.verdict.emit({"frames": self.due, "wrong": self.wrong})


@pytest.mark.parametrize("allocated", [True, False], ids=["allocated", "copied in"])
@pytest.mark.parametrize("window", [100, 2])
def test_frames_stay_right_in_a_window_and_memory_stays_flat(
    window: int, allocated: bool, scale: int
) -> None:
    count = COUNT * scale
    camera, forward, sink = Camera(count, allocated), Forward(count), Window(count, window)
    # the window, what is on its way, and a block or two whose end was not noticed yet
    shared_mb = (window + 40) * 6.3
    names = ("camera", "forward", "window")
    bounds = dict.fromkeys(names, BASE_MB + shared_mb)
    graph = Graph("frames", camera >> forward >> sink)
    report, verdict, _ = run_checked(graph, sink, bounds)
    assert verdict == {"frames": count, "wrong": 0}
    for name in names:
        metrics = report.node(name).metrics
        print(f"{name}: {metrics['early_mb']:.0f} MB early, {metrics['late_mb']:.0f} MB late")
        assert metrics["late_mb"] <= metrics["early_mb"] + SLACK_MB, report
    shared = report.node("camera").metrics
    assert shared.get("dflow.copied_buffers", 0) == 0, report
    assert shared["dflow.shm_peak_bytes"] <= shared_mb * MB, report
