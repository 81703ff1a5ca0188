"""Nodes that the graph tests share, at module level so that they travel by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from dflow.graph import Graph, Input, Node, Output, node, sink, source
from dflow.message import Priority


class Context:
    """Stands in for the worker's context: it carries the same mark."""

    __dflow_context__: ClassVar[bool] = True


@source
def numbers(n: int = 10) -> Iterator[int]:
    """Count up."""
    yield from range(n)


@node
def square(x: int) -> int:
    """Square."""
    return x * x


@node(outputs={"rejected": str})
def check(x: int, limit: int = 3) -> int | None:
    """Pass on small numbers."""
    return x if x < limit else None


@sink
def show(x: int) -> None:
    """Swallow."""


@sink
def keep(x: Any) -> None:
    """Swallow anything."""


@dataclass
class Settings:
    """What a detector is told."""

    threshold: float


class Camera(Node):
    """A source with hooks."""

    frames = Output(bytes)

    def produce(self, ctx: Context) -> Iterator[bytes]:
        """Yield a frame."""
        yield b"frame"


class Detector(Node):
    """Several inputs and outputs."""

    frames = Input(bytes)
    settings = Input(Settings, priority=Priority.CONTROL)
    boxes = Output(list)
    rejected = Output(bytes)

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.seen: list[bytes] = []

    def on_start(self, ctx: Context) -> Context:
        """Take the context."""
        return ctx

    def on_end(self) -> str:
        """Take nothing."""
        return "ended"

    @frames.handler
    def detect(self, frame: bytes) -> None:
        """Emit the frame with the threshold."""
        self.boxes.emit([frame, self.threshold])

    @settings.handler
    async def change(self, settings: Settings, ctx: Context) -> Context:
        """Take a message and the context."""
        self.threshold = settings.threshold
        return ctx


def squares() -> Graph:
    """Return the graph of the first page."""
    return Graph("squares", numbers(10) >> square().options(replicas=2) >> show())


def vision() -> Graph:
    """Return a graph of classes."""
    graph = Graph("vision")
    detector = Detector(0.5)
    graph.connect(Camera(), detector.frames, capacity=2, max_bytes="64MB")
    graph.connect(detector.boxes, keep())
    return graph
