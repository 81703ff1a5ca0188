"""The dataflow that `bytewax_cluster` and `bytewax_alone` run."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.outputs import DynamicSink, StatelessSinkPartition

from benchmarks.peers import work

BATCH = 1000


def flow(kind: str, count: int, folder: str) -> Dataflow:
    """Return the dataflow of a job."""
    job = work.Job(kind, count, folder)
    exchange = bool(os.environ.get("DFLOW_PEERS_EXCHANGE"))
    made = Dataflow("peers")
    stream = op.input("source", made, Source(job))
    step = work.step(job)
    if step is not None:
        if exchange:
            stream = op.redistribute("to-map", stream)
        stream = op.map("map", stream, step)
    for index in range(job.sinks):
        into = op.redistribute(f"to-sink{index}", stream) if exchange else stream
        op.output(f"sink{index}", into, Sink(job, index))
    return made


class Source(FixedPartitionedSource[Any, None]):
    """One partition: only one worker reads it."""

    def __init__(self, job: work.Job) -> None:
        self.job = job

    def list_parts(self) -> list[str]:
        """Return the only one."""
        return ["all"]

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> Partition:
        """Return the partition."""
        return Paced(self.job) if self.job.work == "paced" else Partition(self.job)


class Partition(StatefulSourcePartition[Any, None]):
    """Hands out batches."""

    def __init__(self, job: work.Job) -> None:
        self.batch = 1 if job.work == "frames" else BATCH
        self.messages: Iterator[Any] = work.source(job)

    def next_batch(self) -> list[Any]:
        """Return the next messages."""
        batch = list(islice(self.messages, self.batch))
        if not batch:
            raise StopIteration
        return batch

    def snapshot(self) -> None:
        """Nothing is kept."""


class Paced(Partition):
    """Hands out one message when it is due, and says when that is, as the interface asks."""

    def __init__(self, job: work.Job) -> None:
        super().__init__(job)
        self.job = job
        self.number = 0
        self.begin = time.monotonic() + 0.05

    def next_batch(self) -> list[Any]:
        """Return a message if it is time."""
        if self.number == self.job.count:
            raise StopIteration
        if self._wait_s() > 0:
            return []
        self.number += 1
        return [{"id": self.number - 1, "sent_ns": time.monotonic_ns()}]

    def next_awake(self) -> datetime:
        """Return when the next message is due."""
        return datetime.now(UTC) + timedelta(seconds=max(0.0, self._wait_s()))

    def _wait_s(self) -> float:
        return self.begin + self.number * work.INTERVAL_S - time.monotonic()


class Sink(DynamicSink[Any]):
    """Each worker has a part of it."""

    def __init__(self, job: work.Job, index: int) -> None:
        self.job = job
        self.index = index

    def build(self, step_id: str, worker_index: int, worker_count: int) -> SinkPart:
        """Return this worker's part."""
        return SinkPart(work.sink(self.job, self.index))


class SinkPart(StatelessSinkPartition[Any]):
    """Looks at what arrives at one worker."""

    def __init__(self, sink: work.Sink) -> None:
        self.sink = sink

    def write_batch(self, items: list[Any]) -> None:
        """Look at some messages."""
        add = self.sink.add
        for item in items:
            add(item)

    def close(self) -> None:
        """Write what was seen."""
        self.sink.finish()
