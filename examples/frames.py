"""Camera frames of 6 MB to three readers, without copying one of them.

    python examples/frames.py [--frames N]

The camera writes into memory that `ctx.allocate` gives it, where every reader sees it. The cropper
passes part of each frame on: the same memory once more. The recorder keeps the last hundred
frames as they are. Nobody copies, and memory is used again when the last view of it is gone. Each
reader checks what it sees; at the end it says how much memory all of that took.
"""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Iterator

import numpy as np

from dflow import Context, Graph, Input, Node, node, sink, source

SHAPE = (2000, 3000)
KEPT = 100


@source
def camera(frames: int, ctx: Context) -> Iterator[np.ndarray]:
    """Yield frames, each of one brightness all over."""
    for number in range(frames):
        frame = ctx.allocate(SHAPE, "u1")
        frame[:] = number % 256
        yield frame


@node
def crop(frame: np.ndarray) -> np.ndarray:
    """Pass on the upper half, which is the same memory."""
    return frame[: SHAPE[0] // 2]


@sink
def check(half: np.ndarray, ctx: Context) -> None:
    """Look at every pixel, and say when one is wrong."""
    if half.min() != half.max() or half.flags.writeable:
        ctx.metrics.count("wrong")


class Recorder(Node):
    """Keeps the last frames; what it kept must not change under its hands."""

    frames = Input(np.ndarray)

    def __init__(self) -> None:
        self.kept: deque[tuple[int, np.ndarray]] = deque(maxlen=KEPT)

    @frames.handler
    def keep(self, frame: np.ndarray, ctx: Context) -> None:
        """Keep a frame, and look at the oldest once more."""
        self.kept.append((int(frame[0, 0]), frame))
        value, oldest = self.kept[0]
        if oldest[-1, -1] != value:
            ctx.metrics.count("wrong")


def main() -> None:
    """Run the graph, and check what the readers found."""
    parser = argparse.ArgumentParser(description="Large frames without copies.")
    parser.add_argument("--frames", type=int, default=500)
    frames = parser.parse_args().frames
    taken = camera(frames)
    graph = Graph("frames", taken >> [crop() >> check(), Recorder()])
    report = graph.run(shm_bytes="2GB")
    print(report)
    wrong = sum(each.metrics.get("wrong", 0) for each in report.nodes)
    metrics = report.node("camera").metrics
    moved = frames * SHAPE[0] * SHAPE[1]
    peak, copied = metrics["dflow.shm_peak_bytes"], metrics.get("dflow.copied_buffers", 0)
    print(f"{wrong:.0f} pixels were wrong, {copied:.0f} frames were copied")
    print(f"{moved / 1e6:,.0f} MB of frames took {peak / 1e6:,.0f} MB of memory")
    if wrong or copied:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
