"""ezmsg: a Unit for each node, each in a process of its own.

https://ezmsg.readthedocs.io/en/latest/explanations/ezmsg-design.html: publishers are async
generators that yield ``(stream, message)``, subscribers are methods; ``process_components`` puts
units into processes of their own; ``ez.NormalTermination`` ends the run (as in ezmsg's own
``ezmsg.util.perf``). Messages travel one by one, pickled into shared memory, with backpressure by
the publisher's ``num_buffers`` (32 by default, kept). There is no batching of messages.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any

import ezmsg.core as ez

from benchmarks import workload
from benchmarks.peers import work


class Settings(ez.Settings):
    """What a unit has to know."""

    job: work.Job
    index: int = 0


class Source(ez.Unit):
    """Publishes the messages of the job."""

    SETTINGS = Settings
    OUT = ez.OutputStream(Any)

    @ez.publisher(OUT)
    async def publish(self) -> AsyncGenerator[Any, None]:
        """Yield every message; paced ones wait in the loop, not in the thread."""
        job = self.SETTINGS.job
        if job.work == "paced":
            begin = time.monotonic() + 0.05
            for number in range(job.count):
                await asyncio.sleep(max(0.0, begin + number * work.INTERVAL_S - time.monotonic()))
                yield self.OUT, {"id": number, "sent_ns": time.monotonic_ns()}
        else:
            for message in work.source(job):
                yield self.OUT, message


class Map(ez.Unit):
    """Applies the job's step."""

    SETTINGS = Settings
    INTO = ez.InputStream(Any)
    OUT = ez.OutputStream(Any)

    async def initialize(self) -> None:
        """Find the step, in the unit's process."""
        self.step = work.step(self.SETTINGS.job) or workload.relay

    @ez.subscriber(INTO)
    @ez.publisher(OUT)
    async def handle(self, message: Any) -> AsyncGenerator[Any, None]:
        """Pass on one message."""
        yield self.OUT, self.step(message)


class Sink(ez.Unit):
    """Checks what arrives."""

    SETTINGS = Settings
    INTO = ez.InputStream(Any)

    async def initialize(self) -> None:
        """Make the sink, in the unit's process."""
        self.sink = work.sink(self.SETTINGS.job, self.SETTINGS.index)

    @ez.subscriber(INTO)
    async def handle(self, message: Any) -> None:
        """Take one message; all that was sent has come: this unit is done."""
        self.sink.add(message)
        if self.sink.complete:
            self.sink.finish()
            raise ez.NormalTermination


def run(job: work.Job) -> None:
    """Run the job once."""
    source = Source(Settings(job))
    sinks = {f"SINK{index}": Sink(Settings(job, index)) for index in range(job.sinks)}
    units: dict[str, Any] = {"SOURCE": source, **sinks}
    out = source.OUT
    edges = []
    if work.step(job) is not None:
        units["MAP"] = Map(Settings(job))
        edges.append((out, units["MAP"].INTO))
        out = units["MAP"].OUT
    edges += [(out, sink.INTO) for sink in sinks.values()]
    ez.run(components=units, connections=edges, process_components=list(units.values()))
