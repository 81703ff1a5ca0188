"""One camera, two readers: a viewer that wants the newest frame, a recorder that wants all.

    python examples/camera_latest.py

The camera takes a thousand frames a second. The viewer needs a tenth of a second for each, so its
edge has the policy "latest": whenever it is ready it gets the newest frame there is, and those in
between are dropped and counted. The recorder's edge blocks, as edges do by themselves: it misses
none. Neither of the two changes what the other gets.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

from dflow import Graph, Input, Node, edge, latest, sink, source

FRAME_S = 0.001
LOOK_S = 0.1


class Frame(NamedTuple):
    """A picture, with its number and when it was taken, by the wall clock."""

    number: int
    taken_s: float
    pixels: bytes


@source
def camera(seconds: float) -> Iterator[Frame]:
    """Yield a frame every millisecond."""
    begun = time.monotonic()
    for number in range(round(seconds / FRAME_S)):
        time.sleep(max(0.0, begun + number * FRAME_S - time.monotonic()))
        yield Frame(number, time.time(), bytes(10_000))


class Viewer(Node):
    """Looks at one frame at a time, slowly."""

    frames = Input(Frame)

    def __init__(self) -> None:
        self.last = -1

    @frames.handler
    def look(self, frame: Frame) -> None:
        """Print which frame it is, and how old."""
        age_ms = (time.time() - frame.taken_s) * 1000
        passed = frame.number - self.last - 1
        print(f"frame {frame.number:4d}, {age_ms:5.1f} ms old, {passed:3d} passed over", flush=True)
        self.last = frame.number
        time.sleep(LOOK_S)


@sink
def recorder(frame: Frame) -> None:
    """Keep every frame (here: do nothing with it)."""


eye = camera(1.5)
graph = Graph("camera", eye >> edge(policy=latest()) >> Viewer(), eye >> recorder())


if __name__ == "__main__":
    report = graph.run()
    print(f"\nrecorded {report.node('recorder').handled} frames\n\n{report}")
