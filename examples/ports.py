"""A node with several inputs and outputs: a detector of outliers with a setting and a reject.

    python examples/ports.py

`Detector` learns the usual size of values and reports the unusual ones. It takes samples on
one port and settings on another, which overtakes the samples; it emits detections on one
port and what it cannot judge on a second. Each detection goes to two replicas of `Ledger`,
where ``key=`` sends all detections of one machine to the same replica, and from there on.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

from dflow import Context, Graph, Input, Node, Output, Priority, sink, source


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of one machine."""

    machine: str
    value: float


@dataclass(frozen=True, slots=True)
class Detection:
    """A value ``sigmas`` standard deviations away from its machine's mean."""

    machine: str
    value: float
    sigmas: float


@dataclass(frozen=True, slots=True)
class Settings:
    """How many standard deviations are unusual."""

    sigmas: float


@source
def machines(count: int, seed: int) -> Iterator[Sample]:
    """Yield samples of five machines: bell-shaped, with rare spikes and a few broken values."""
    chance = random.Random(seed)
    for number in range(count):
        machine = f"machine-{number % 5}"
        value = math.nan if number % 997 == 996 else chance.gauss(100, 5)
        yield Sample(machine, value + (60 if number % 1499 == 1498 else 0))


@source
def operator_panel(sigmas: float) -> Iterator[Settings]:
    """Yield one setting."""
    yield Settings(sigmas)


class Detector(Node):
    """Learns mean and variance of each machine (Welford, 1962) and reports outliers."""

    samples = Input(Sample)
    settings = Input(Settings, priority=Priority.CONTROL)
    detections = Output(Detection, required=True)
    rejected = Output(Sample)

    def __init__(self, sigmas: float, warm_up: int = 50) -> None:
        # Light: it also runs in the process that builds the graph.
        self.sigmas = sigmas
        self.warm_up = warm_up

    def on_start(self, ctx: Context) -> None:
        """Prepare, in the worker, what is heavy or cannot travel."""
        self.learned: dict[str, tuple[int, float, float]] = {}
        ctx.log.info("ready, reporting from {} sigmas", self.sigmas)

    @samples.handler
    def look(self, sample: Sample) -> None:
        """Judge one sample, then learn from it."""
        if math.isnan(sample.value):
            self.rejected.emit(sample)
            return
        count, mean, squares = self.learned.get(sample.machine, (0, 0.0, 0.0))
        if count >= self.warm_up:
            sigmas = abs(sample.value - mean) / math.sqrt(squares / count)
            if sigmas > self.sigmas:
                self.detections.emit(Detection(sample.machine, sample.value, sigmas))
                return
        distance = sample.value - mean
        mean += distance / (count + 1)
        squares += distance * (sample.value - mean)
        self.learned[sample.machine] = (count + 1, mean, squares)

    @settings.handler
    def change(self, settings: Settings) -> None:
        """Take a new setting."""
        self.sigmas = settings.sigmas

    def on_end(self, ctx: Context) -> None:
        """Say what was learned."""
        for machine, (count, mean, _) in sorted(self.learned.items()):
            ctx.log.info("{}: {} usual values, mean {:.1f}", machine, count, mean)


class Ledger(Node):
    """Numbers the detections of each machine; needs all of one machine in one place."""

    detections = Input(Detection)
    lines = Output(str)

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}

    @detections.handler
    def enter(self, found: Detection) -> str:
        """Return the next line of this machine; with one output, a value returned is emitted."""
        self.seen[found.machine] = number = self.seen.get(found.machine, 0) + 1
        return f"{found.machine} #{number}: {found.value:.1f} ({found.sigmas:.1f} sigmas)"


@sink
def alarm(line: str) -> None:
    """Print a detection."""
    print(line, flush=True)


@sink
def reject_bin(sample: Sample) -> None:
    """Print what could not be judged."""
    print(f"{sample.machine}: rejected {sample.value}", flush=True)


detector = Detector(sigmas=8.0)
ledger = Ledger().options(replicas=2)
graph = Graph("detector")
graph.connect(machines(10_000, seed=7), detector.samples)
graph.connect(operator_panel(6.0), detector.settings)
graph.connect(detector.detections, ledger, key="machine")
graph.connect(ledger, alarm())
graph.connect(detector.rejected, reject_bin())

if __name__ == "__main__":
    print(graph.run())
