"""A stream that never ends by itself: sensors, a window kept by a tick, settings from outside.

    python examples/sensor_stream.py [--seconds S]

Three sensors are sampled a hundred times a second each. `Smoother` keeps the samples of the
last while and, on every tick, emits the mean of each sensor. While the stream runs, this
process changes the alarm limit with ``run.send`` and at the end asks it to drain: the last,
unfinished window is still emitted (``on_end``), and not one sample is lost.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

from dflow import Context, Graph, Input, Node, Output, Priority, sink, source

SENSORS = ("boiler", "pump", "turbine")
SAMPLE_S = 0.01


@dataclass(frozen=True, slots=True)
class Sample:
    """One reading in degrees Celsius."""

    sensor: str
    celsius: float


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean of ``count`` readings of one sensor; ``alarm`` if it is above the limit."""

    sensor: str
    celsius: float
    count: int
    alarm: bool


@dataclass(frozen=True, slots=True)
class Limit:
    """A setting: means above it raise an alarm."""

    celsius: float


@source
def sensors(ctx: Context) -> Iterator[Sample]:
    """Yield a sample of each sensor every 10 ms, on an absolute schedule, until asked to stop."""
    begin = time.monotonic()
    step = 0
    while not ctx.stopping:
        for place, name in enumerate(SENSORS):
            yield Sample(name, 60 + 10 * place + 5 * math.sin(step / 50 + place))
        step += 1
        time.sleep(max(0.0, begin + step * SAMPLE_S - time.monotonic()))


class Smoother(Node):
    """Emits a mean of every sensor on each tick."""

    samples = Input(Sample)
    limits = Input(Limit, priority=Priority.CONTROL)
    means = Output(Mean)

    def __init__(self, limit_celsius: float) -> None:
        self.limit_celsius = limit_celsius
        self.seen: dict[str, list[float]] = {}

    @samples.handler
    def keep(self, sample: Sample) -> None:
        """Keep one sample until the next tick."""
        self.seen.setdefault(sample.sensor, []).append(sample.celsius)

    @limits.handler
    def change(self, limit: Limit) -> None:
        """Take the new limit; control messages overtake waiting samples."""
        self.limit_celsius = limit.celsius

    def on_tick(self, ctx: Context) -> None:
        """Emit the window and begin a new one."""
        for sensor, values in sorted(self.seen.items()):
            mean = sum(values) / len(values)
            self.means.emit(Mean(sensor, mean, len(values), mean > self.limit_celsius))
        ctx.metrics.count("windows")
        self.seen.clear()

    def on_end(self, ctx: Context) -> None:
        """Emit what the last tick did not."""
        self.on_tick(ctx)


@sink
def display(mean: Mean) -> None:
    """Print a line."""
    alarm = "  ALARM" if mean.alarm else ""
    print(f"{mean.sensor:<8} {mean.celsius:6.2f} °C  ({mean.count} samples){alarm}", flush=True)


smoother = Smoother(limit_celsius=80.0)
graph = Graph("sensors", sensors() >> smoother.samples)
graph.connect(smoother.means, display())
smoother.options(tick_s=0.25)


def main(arguments: list[str] | None = None) -> int:
    """Let the stream run for a while, lower the limit half-way, then drain it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="how long it runs")
    half_s = parser.parse_args(arguments).seconds / 2
    with graph.start() as run:
        time.sleep(half_s)
        print("-- limit is now 70 °C --", flush=True)
        run.send(smoother.limits, Limit(70.0))
        time.sleep(half_s)
        run.stop()
        report = run.wait(timeout_s=30)
    print(f"\n{report}")
    return 0 if report.balances else 1


if __name__ == "__main__":
    raise SystemExit(main())
