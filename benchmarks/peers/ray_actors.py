"""Ray: an actor for each node after the source, which is the driver; a call for each message.

https://docs.ray.io/en/latest/ray-core/actors.html: ``actor.method.remote(x)`` returns a reference,
which is handed to the next actor as it is, so the value goes from actor to actor.
https://docs.ray.io/en/latest/ray-core/patterns/limit-pending-tasks.html: `ray.wait` bounds what is
under way. Frames are put into the object store with `ray.put`, and read in place. Ray's own advice
against calls this small is batches: `ray_batches`.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import ray

from benchmarks import workload
from benchmarks.peers import work

PENDING = 1000
"""Calls under way at most, as in Ray's example."""


@contextmanager
def ray_here() -> Iterator[None]:
    """Run Ray on this machine only, with nothing reported to anybody, and stop it."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # else Ray keeps one in the home directory
    ray.init(
        num_cpus=8,  # actors that wait for a core would wait for ever on a small machine
        include_dashboard=False,
        configure_logging=False,
        log_to_driver=False,
        object_store_memory=1_000_000_000,
        _node_ip_address="127.0.0.1",
        _temp_dir=tempfile.gettempdir(),
    )
    try:
        yield
    finally:
        ray.shutdown()


class _Map:
    """Applies the job's step."""

    def __init__(self, job: work.Job) -> None:
        self.step = work.step(job) or workload.relay

    def handle(self, message: Any) -> Any:
        """Return what becomes of one message."""
        return self.step(message)

    def handle_all(self, messages: list[Any]) -> list[Any]:
        """Return what becomes of a batch."""
        step = self.step
        return [step(message) for message in messages]


class _Sink:
    """Checks what arrives."""

    def __init__(self, job: work.Job, index: int) -> None:
        self.sink = work.sink(job, index)

    def handle(self, message: Any) -> None:
        """Take one message."""
        self.sink.add(message)

    def handle_all(self, messages: list[Any]) -> None:
        """Take a batch."""
        add = self.sink.add
        for message in messages:
            add(message)

    def finish(self) -> None:
        """Write what was seen; called before the first message, it proves that the actor runs."""
        if self.sink.count:
            self.sink.finish()


Map: Any = ray.remote(_Map)
Sink: Any = ray.remote(_Sink)


def run(job: work.Job, batch: int = 1) -> None:
    """Run the job once, with a call for each message or for each ``batch`` of them."""
    name = "handle" if batch == 1 else "handle_all"
    limit = work.IN_FLIGHT if job.work == "frames" else max(8, PENDING // batch)
    with ray_here():
        maps = [Map.remote(job)] if work.step(job) is not None else []
        sinks = [Sink.remote(job, index) for index in range(job.sinks)]
        ray.get([sink.finish.remote() for sink in sinks])
        pending: list[Any] = []
        for message in _batches(work.source(job), batch):
            if len(pending) >= limit:
                _, pending = ray.wait(pending, num_returns=limit // 2)
            value = ray.put(message) if job.work == "frames" else message
            for stage in maps:
                value = getattr(stage, name).remote(value)
            pending += [getattr(sink, name).remote(value) for sink in sinks]
        ray.get(pending)
        ray.get([sink.finish.remote() for sink in sinks])


def _batches(messages: Iterator[Any], size: int) -> Iterator[Any]:
    """Return the messages, as lists of ``size`` if that is more than one."""
    return messages if size == 1 else iter(lambda: list(islice(messages, size)), [])
