"""dflow with default options: a function for each node, a process for each.

docs/tutorial.md. Batches, credit, order, and the books, which must balance, are dflow's own doing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks import workload
from benchmarks.peers import work
from dflow import Graph, Input, Node, node, source

messages = source(work.source)
enrich = node(workload.enrich)
relay = node(workload.relay)


class SmallSink(work.SmallSink, Node):
    """The others' sink: its method is the handler."""

    into = Input(dict[str, Any])
    add = into.handler(work.SmallSink.add)
    on_end = work.SmallSink.finish


class PacedSink(work.PacedSink, Node):
    """The others' sink: its method is the handler."""

    into = Input(dict[str, Any])
    add = into.handler(work.PacedSink.add)
    on_end = work.PacedSink.finish


class FrameSink(work.FrameSink, Node):
    """The others' sink: its method is the handler."""

    into = Input(np.ndarray)
    add = into.handler(work.FrameSink.add)
    on_end = work.FrameSink.finish


SINKS = {"small": SmallSink, "paced": PacedSink, "frames": FrameSink, "fanout": SmallSink}


def run(job: work.Job) -> None:
    """Run the job once."""
    chain: Any = messages(job)
    if work.step(job) is not None:
        chain = chain >> (enrich() if job.work == "small" else relay())
    graph = Graph("peers", chain >> [SINKS[job.work](job, index) for index in range(job.sinks)])
    report = graph.run(log_level="WARNING")
    if report.outcome != "finished" or not report.balances:
        raise RuntimeError(f"expected a finished run whose books balance, got\n{report}")
