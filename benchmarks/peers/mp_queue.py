"""multiprocessing.Queue: a queue for each edge, one ``put`` for each message.

https://docs.python.org/3/library/multiprocessing.html#exchanging-objects-between-processes:
``put`` and ``get``; a thread of each process pickles what was put. Bounded by ``maxsize``, since
an unbounded one grows without end behind a slow reader. The end is a ``None``. There is no
batching: whoever wants it builds lists.
"""

from __future__ import annotations

import multiprocessing
from typing import Any

from benchmarks.peers import work
from benchmarks.peers.processes import run_all

_spawn = multiprocessing.get_context("spawn")


def run(job: work.Job) -> None:
    """Run the job once."""
    step = work.step(job)
    maxsize = work.IN_FLIGHT if job.work == "frames" else 10_000
    hops = 1 if step is None else 2
    queues = [[_spawn.Queue(maxsize) for _ in range(hops)] for _ in range(job.sinks)]
    calls: list[tuple[Any, ...]] = [
        (_sink, job, index, one[-1]) for index, one in enumerate(queues)
    ]
    if step is not None:
        calls.append((_map, job, *queues[0]))
    calls.append((_source, job, [one[0] for one in queues]))
    run_all(_spawn, calls)


def _source(job: work.Job, outs: list[Any]) -> None:
    puts = [out.put for out in outs]
    for message in work.source(job):
        for put in puts:
            put(message)
    for put in puts:
        put(None)


def _map(job: work.Job, into: Any, out: Any) -> None:
    step = work.step(job)
    assert step is not None
    get, put = into.get, out.put
    while (message := get()) is not None:
        put(step(message))
    put(None)


def _sink(job: work.Job, index: int, into: Any) -> None:
    sink = work.sink(job, index)
    get, add = into.get, sink.add
    while (message := get()) is not None:
        add(message)
    sink.finish()
