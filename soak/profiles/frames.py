"""Profile *frames*: 6 MB arrays through shared memory, kept for a while, looked at twice.

Every other frame is made by `ctx.allocate` and so never copied, the others are copied in once. They
are passed on by reference, kept in a window by one sink, and shown to another that only wants
the newest.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from typing import Any

from dflow import Context, Graph, Input, Node, Output, latest
from soak.conduct import Conduct
from soak.streams import Collect, Seen, Sent, now_ns, paced

__all__ = ["drive", "frames_graph"]

SIZE = 6_000_000
PER_S = 20.0
KEPT = 30
Frame = tuple[int, int, Any, int]


def checksum(frame: Any) -> int:
    """Return the sum of all words of a frame."""
    return int(frame.view("u8").sum())


class Camera(Node):
    """A source of ``(number, time, frame, checksum)``."""

    out = Output(tuple)

    def __init__(self, seed: int, load: float) -> None:
        self.seed = seed
        self.load = load

    def produce(self, ctx: Context) -> Iterator[Frame]:
        """Yield until the run drains."""
        import numpy as np

        noise = np.random.default_rng(self.seed).integers(0, 256, SIZE, "u1")
        sent = Sent("frames")
        for number in paced(ctx, PER_S * self.load):
            frame = ctx.allocate(SIZE) if number % 2 else np.empty(SIZE, "u1")
            np.copyto(frame, noise)
            frame.view("u8")[:: SIZE // 80] = number
            yield number, now_ns(), frame, checksum(frame)
            sent.add(number)
        sent.note(ctx)


class Forward(Node):
    """Passes each frame on by reference."""

    into = Input(tuple)
    out = Output(tuple)

    @into.handler
    def handle(self, frame: Frame) -> None:
        """Pass it on."""
        self.out.emit(frame)


class Window(Node):
    """Keeps the last frames and looks at each when it comes and when it goes."""

    into = Input(tuple)
    told = Output(dict)

    def __init__(self) -> None:
        self.kept: deque[Frame] = deque()
        self.seen = Seen("frames")

    @into.handler
    def handle(self, message: Frame) -> None:
        """Check what came, and what has been kept for long enough."""
        self.seen.add(message[0], message[1])
        self.seen.in_order(message[0])
        self.look(message)
        self.kept.append(message)
        if len(self.kept) > KEPT:
            self.look(self.kept.popleft())

    def look(self, message: Frame) -> None:
        """Count a frame that is not what was sent."""
        number, _, frame, expected = message
        self.seen.wrong += int(frame.view("u8")[0]) != number or checksum(frame) != expected

    def on_tick(self, ctx: Context) -> None:
        """Tell."""
        self.told.emit(self.seen.note(ctx))

    def on_end(self, ctx: Context) -> None:
        """Look at what is left, and tell."""
        for message in self.kept:
            self.look(message)
        self.kept.clear()
        self.told.emit(self.seen.note(ctx))


class Viewer(Node):
    """Looks at the newest frame, slowly."""

    into = Input(tuple)

    @into.handler
    def show(self, frame: Frame) -> None:
        """Take longer than a frame lasts."""
        time.sleep(0.12)


def frames_graph(seed: int, load: float = 1.0) -> tuple[Graph, Node]:
    """Return the graph, and the node that collects what its sinks tell."""
    graph, collect = Graph("frames"), Collect()
    camera, forward, window = Camera(seed, load), Forward(), Window().options(tick_s=1.0)
    graph.connect(camera, forward, capacity=16)
    graph.connect(forward, window.into, capacity=16)
    graph.connect(forward, Viewer(), policy=latest())
    graph.connect(window.told, collect)
    return graph, collect


def drive(soak: Conduct) -> None:
    """Run the graph until the soak is over."""
    graph, collect = frames_graph(soak.seed, soak.load)
    with soak.run(graph, collect):
        while soak.wait(1.0):
            pass
