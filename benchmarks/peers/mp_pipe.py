"""multiprocessing.Pipe: a one-way connection for each edge, one ``send`` for each message.

https://docs.python.org/3/library/multiprocessing.html#pipes-and-queues: ``Pipe(duplex=False)``,
``send`` and ``recv`` objects; the reader sees `EOFError` once all writers are closed. There is
no batching: whoever wants it builds lists. `send` blocks when the kernel's buffer is full.
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
    hops = 1 if step is None else 2
    pipes = [[_spawn.Pipe(duplex=False) for _ in range(hops)] for _ in range(job.sinks)]
    calls: list[tuple[Any, ...]] = [
        (_sink, job, index, one[-1][0]) for index, one in enumerate(pipes)
    ]
    if step is not None:
        calls.append((_map, job, pipes[0][0][0], pipes[0][1][1]))
    calls.append((_source, job, [one[0][1] for one in pipes]))
    run_all(_spawn, calls, opened=[end for one in pipes for pipe in one for end in pipe])


def _source(job: work.Job, outs: list[Any]) -> None:
    if len(outs) == 1:
        send = outs[0].send
        for message in work.source(job):
            send(message)
    else:
        sends = [out.send for out in outs]
        for message in work.source(job):
            for send in sends:
                send(message)
    for out in outs:
        out.close()


def _map(job: work.Job, into: Any, out: Any) -> None:
    step = work.step(job)
    assert step is not None
    receive, send = into.recv, out.send
    try:
        while True:
            send(step(receive()))
    except EOFError:
        out.close()


def _sink(job: work.Job, index: int, into: Any) -> None:
    sink = work.sink(job, index)
    receive, add = into.recv, sink.add
    try:
        while True:
            add(receive())
    except EOFError:
        sink.finish()
