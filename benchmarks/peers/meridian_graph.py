"""Meridian Runtime: a graph in one process and one thread; messages are handed over as they are.

https://ghostweasellabs.github.io/meridian-runtime-docs/concepts/patterns/: nodes with ports, a
source that emits at its ticks, ``policy=block()`` (named, because edges made without a policy
replace the newest message when they are full). A blocked ``emit`` raises, and the message is lost
unless the node keeps it; so no edge may fill. The scheduler serves the first node that is ready,
in the order they were added: with the sinks first and the source last, a burst is worked off
before the next. ``tick_interval_ms=1``, the least, and ``idle_sleep_ms=0`` are the settings for
speed.
There are no other processes, no copies and no encoding in these figures.
"""

from __future__ import annotations

import time
from itertools import islice
from typing import Any

from meridian.core import Message, MessageType, Node, Scheduler, SchedulerConfig, Subgraph
from meridian.core.policies import block
from meridian.core.ports import Port, PortDirection, PortSpec
from meridian.observability.config import ObservabilityConfig, configure_observability

from benchmarks import workload
from benchmarks.peers import work

BURST = 64
INTO = Port("into", PortDirection.INPUT, spec=PortSpec("into"))
OUT = Port("out", PortDirection.OUTPUT, spec=PortSpec("out"))


class Source(Node):
    """Emits a burst at every tick."""

    def __init__(self, job: work.Job) -> None:
        super().__init__("source", inputs=[], outputs=[OUT])
        self.job = job
        self.messages = work.source(job)
        self.burst = work.IN_FLIGHT if job.work == "frames" else BURST
        self.number = 0
        self.begin = time.monotonic() + 0.05

    def _handle_tick(self) -> None:
        if self.job.work == "paced":
            while self.number < self.job.count and time.monotonic() >= self._due():
                message = {"id": self.number, "sent_ns": time.monotonic_ns()}
                self.number += 1
                self.emit("out", Message(MessageType.DATA, message))
        else:
            for message in islice(self.messages, self.burst):
                self.emit("out", Message(MessageType.DATA, message))

    def _due(self) -> float:
        return self.begin + self.number * work.INTERVAL_S


class Map(Node):
    """Applies the job's step."""

    def __init__(self, job: work.Job) -> None:
        super().__init__("map", inputs=[INTO], outputs=[OUT])
        self.step = work.step(job) or workload.relay

    def _handle_message(self, port: str, msg: Message) -> None:
        self.emit("out", Message(MessageType.DATA, self.step(msg.payload)))


class Sink(Node):
    """Checks what arrives; the last of all stops the scheduler."""

    def __init__(self, job: work.Job, index: int, sinks: list[work.Sink], end: Any) -> None:
        super().__init__(f"sink{index}", inputs=[INTO], outputs=[])
        self.sink = work.sink(job, index)
        self.sinks = sinks
        self.end = end
        sinks.append(self.sink)

    def _handle_message(self, port: str, msg: Message) -> None:
        self.sink.add(msg.payload)
        if self.sink.complete:
            self.sink.finish()
            if all(sink.complete for sink in self.sinks):
                self.end()


def run(job: work.Job) -> None:
    """Run the job once."""
    configure_observability(ObservabilityConfig(log_level="ERROR"))
    settings = SchedulerConfig(tick_interval_ms=1, idle_sleep_ms=0, shutdown_timeout_s=3600)
    scheduler = Scheduler(settings)
    sinks: list[work.Sink] = []
    ends = [Sink(job, index, sinks, scheduler.shutdown) for index in range(job.sinks)]
    maps = [Map(job)] if work.step(job) is not None else []
    graph = Subgraph.from_nodes("peers", [*ends, *maps, Source(job)])
    last = "source"
    for node in maps:
        graph.connect((last, "out"), (node.name, "into"), capacity=1024, policy=block())
        last = node.name
    for end in ends:
        graph.connect((last, "out"), (end.name, "into"), capacity=1024, policy=block())
    scheduler.register(graph)
    scheduler.run()
