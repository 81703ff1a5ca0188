"""The work every peer is given, and the sinks that check what became of it.

Four works, the same functions for every peer:

* ``small``: dicts of three fields, source, map, sink.
* ``paced``: one stamped message a millisecond, source, relay, sink; its age at the sink.
* ``frames``: arrays of 6 MB, source, sink.
* ``fanout``: the dicts of ``small``, one source to `FANOUT` sinks.

A peer's adapter takes `source`, `step` and `sink` from here and brings nothing but the carrier.
Sinks write what they saw to a file; `benchmarks.peers.verdict` judges it. Only the standard
library is imported here, and numpy for frames: this module runs in the peers' own environment.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks import workload

__all__ = [
    "FANOUT",
    "FRAME_BYTES",
    "INTERVAL_S",
    "IN_FLIGHT",
    "WARM_UP",
    "WORKS",
    "FrameSink",
    "Job",
    "PacedSink",
    "Sink",
    "SmallSink",
    "mark",
    "paint",
    "sink",
    "source",
    "step",
]

WORKS = ("small", "paced", "frames", "fanout")
FANOUT = 4
INTERVAL_S = 0.001
WARM_UP = 1000
"""Paced messages left out at the beginning: connections are made, code is warm."""
FRAME_BYTES = 6_000_000
RING = 16
IN_FLIGHT = 8
"""Frames a carrier may hold at most where it does not copy when it is given one.

The source fills a ring of `RING` arrays, as a camera's driver does, and comes back to an array
after the others. A carrier that still refers to it then shows a damaged frame.
"""
STRIDE = 65_536
FULL_CHECK_EVERY = 50


@dataclass(frozen=True, slots=True)
class Job:
    """One measurement: which work, how many messages, where the sinks' files go."""

    work: str
    count: int
    folder: str

    @property
    def sinks(self) -> int:
        """How many sinks there are."""
        return FANOUT if self.work == "fanout" else 1


def source(job: Job) -> Iterator[Any]:
    """Yield the messages of a job."""
    if job.work == "frames":
        return frames(job.count)
    if job.work == "paced":
        return workload.stamped(job.count, INTERVAL_S, False)
    return workload.readings(job.count)


def step(job: Job) -> Callable[[Any], Any] | None:
    """Return the function between source and sink, or None where there is none."""
    return {"small": workload.enrich, "paced": workload.relay}.get(job.work)


class Sink:
    """Counts messages. ``complete``: the job's last message is here, nothing more will come."""

    def __init__(self, job: Job, index: int) -> None:
        self.job = job
        self.index = index
        self.count = 0
        self.first_ns = 0
        self.last_ns = 0

    @property
    def complete(self) -> bool:
        """Whether as many messages arrived as were sent."""
        return self.count >= self.job.count

    def add(self, message: Any) -> None:
        """Look at one message."""
        raise NotImplementedError

    def finish(self) -> None:
        """Write what was seen; the stream has ended."""
        seen = {
            "sink": self.index,
            "count": self.count,
            "first_ns": self.first_ns,
            "last_ns": self.last_ns or time.monotonic_ns(),
            **self.seen(),
        }
        name = f"seen-{self.index}-{os.getpid()}-{time.monotonic_ns()}"
        partial = Path(self.job.folder, f"{name}.partial")
        partial.write_text(json.dumps(seen), encoding="utf-8")
        partial.rename(partial.with_suffix(".json"))

    def seen(self) -> dict[str, Any]:
        """Return what this kind of sink saw, as plain data."""
        raise NotImplementedError


class SmallSink(Sink):
    """For dicts: counts them and adds up their numbers, like the other benchmarks' sinks.

    The first and the last to arrive are compared whole with what was sent.
    """

    def __init__(self, job: Job, index: int) -> None:
        super().__init__(job, index)
        self.id_sum = 0
        self.damaged = 0
        self._total = job.count

    def add(self, message: dict[str, Any]) -> None:
        """Count one message."""
        if not self.count:
            self.first_ns = time.monotonic_ns()
            self._compare(message)
        self.count += 1
        self.id_sum += message["id"]
        if self.count == self._total:
            self.last_ns = time.monotonic_ns()
            self._compare(message)

    def seen(self) -> dict[str, Any]:
        """Return the sum of the numbers, and how many of two were not as they were sent."""
        return {"id_sum": self.id_sum, "damaged": self.damaged}

    def _compare(self, message: dict[str, Any]) -> None:
        number = message["id"]
        expected = {"id": number, "sensor": "boiler-17", "value": number * 0.5}
        change = step(self.job)
        self.damaged += message != (change(expected) if change else expected)


class PacedSink(Sink):
    """For paced messages: keeps number and age of each, in the order they came."""

    def __init__(self, job: Job, index: int) -> None:
        super().__init__(job, index)
        self.ages_ns: list[tuple[int, int]] = []

    def add(self, message: dict[str, Any]) -> None:
        """Note how old one message is."""
        now_ns = time.monotonic_ns()
        self.ages_ns.append((message["id"], now_ns - message["sent_ns"]))
        self.first_ns = self.first_ns or now_ns
        self.last_ns = now_ns
        self.count += 1

    def seen(self) -> dict[str, Any]:
        """Return the ages."""
        return {"ages_ns": self.ages_ns}


class FrameSink(Sink):
    """For frames: both ends and a strided sum of each, all of every `FULL_CHECK_EVERY`-th."""

    def __init__(self, job: Job, index: int) -> None:
        super().__init__(job, index)
        self.id_sum = 0
        self.damaged = 0

    def add(self, message: Any) -> None:
        """Look at one frame."""
        strided, full = _sums()
        if not self.count:
            self.first_ns = time.monotonic_ns()
        frame = message
        number = int(frame[:8].view("<u8")[0])
        whole = number == int(frame[-8:].view("<u8")[0]) and _strided(frame) == strided
        if whole and self.count % FULL_CHECK_EVERY == 0:
            whole = _full(frame) == full
        self.damaged += not whole
        self.count += 1
        self.id_sum += number
        if self.count == self.job.count:
            self.last_ns = time.monotonic_ns()

    def seen(self) -> dict[str, Any]:
        """Return the sum of the numbers and how many frames were not as they were sent."""
        return {"id_sum": self.id_sum, "damaged": self.damaged}


def sink(job: Job, index: int = 0) -> Sink:
    """Return the sink number ``index`` of a job."""
    kinds = {"frames": FrameSink, "paced": PacedSink}
    return kinds.get(job.work, SmallSink)(job, index)


def frames(count: int) -> Iterator[Any]:
    """Yield ``count`` arrays out of a ring, each with its number at both ends."""
    ring = [_pattern().copy() for _ in range(min(RING, count))]
    for number in range(count):
        frame = ring[number % len(ring)]
        mark(frame, number)
        yield frame


def mark(frame: Any, number: int) -> None:
    """Write the number of a frame at both of its ends."""
    frame[:8].view("<u8")[0] = number
    frame[-8:].view("<u8")[0] = number


def paint(frame: Any) -> None:
    """Write what is to be seen in a frame, unless it is there already."""
    if _strided(frame) != _sums()[0]:
        frame[:] = _pattern()


@cache
def _pattern() -> Any:
    import numpy as np

    return np.random.default_rng(1).integers(0, 256, FRAME_BYTES, dtype=np.uint8)


@cache
def _sums() -> tuple[int, int]:
    pattern = _pattern()
    return _strided(pattern), _full(pattern)


def _strided(frame: Any) -> int:
    return int(frame[8:-8:STRIDE].sum(dtype="u8"))


def _full(frame: Any) -> int:
    return int(frame[8:-8].view("<u8").sum(dtype="u8"))
