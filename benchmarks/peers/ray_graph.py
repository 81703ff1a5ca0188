"""Ray compiled graph: the actors' methods bound once, then executed for each message.

https://docs.ray.io/en/latest/ray-core/compiled-graph/quickstart.html: ``InputNode``, ``bind``,
``experimental_compile``; ``execute`` returns a reference, to be read in order.
https://docs.ray.io/en/latest/ray-core/compiled-graph/troubleshooting.html: only so many executions
may be under way, ten by default (kept), so results are read while more are submitted. Made for a
few large steps on accelerators; there is no batching of messages.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import ray
from ray.dag import InputNode, MultiOutputNode

from benchmarks.peers import work
from benchmarks.peers.ray_actors import Map, Sink, ray_here

UNDER_WAY = 8


def run(job: work.Job) -> None:
    """Run the job once."""
    with ray_here():
        sinks = [Sink.remote(job, index) for index in range(job.sinks)]
        with InputNode() as message:
            value = message
            if work.step(job) is not None:
                value = Map.remote(job).handle.bind(value)
            ends = [sink.handle.bind(value) for sink in sinks]
            graph = MultiOutputNode(ends)
        compiled = graph.experimental_compile(_buffer_size_bytes=2 * work.FRAME_BYTES)
        pending: deque[Any] = deque()
        for message in work.source(job):
            if len(pending) >= UNDER_WAY:
                ray.get(pending.popleft())
            pending.append(compiled.execute(message))
        for one in pending:
            ray.get(one)
        compiled.teardown()
        ray.get([sink.finish.remote() for sink in sinks])
