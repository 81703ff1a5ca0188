"""One node of dora's dataflow: ``dora_node.py NAME WORK COUNT FOLDER``; see `dora_flow`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from dora import Node

from benchmarks.peers import work


def main(name: str, kind: str, count: str, folder: str) -> None:
    """Be the node called ``name``."""
    job = work.Job(kind, int(count), folder)
    node = Node()
    if name == "source":
        for message in work.source(job):
            node.send_output("out", _packed(job, message))
    elif name == "map":
        step = work.step(job)
        assert step is not None
        for message in _received(job, node):
            node.send_output("out", _packed(job, step(message)))
    else:
        _sink(job, int(name.removeprefix("sink")), node)


def _sink(job: work.Job, index: int, node: Any) -> None:
    sink = work.sink(job, index)
    for message in _received(job, node):
        sink.add(message)
        if sink.complete:
            break
    sink.finish()


def _packed(job: work.Job, message: Any) -> Any:
    return pa.array(message) if job.work == "frames" else pa.array([message])


def _received(job: work.Job, node: Any) -> Iterator[Any]:
    """Yield messages until the stream ends.

    ``INPUT_CLOSED`` and ``STOP`` come before what still waits in the queue, so they end nothing.
    """
    arrays = job.work == "frames"
    for event in node:
        if event["type"] == "INPUT":
            value = event["value"]
            yield value.to_numpy() if arrays else value.to_pylist()[0]


if __name__ == "__main__":
    main(*sys.argv[1:])
