"""dflow with frames that lie in its shared memory from the start: docs/memory.md, ``ctx.allocate``.

As the arrays of the other sources are not painted anew for each message, neither are these: blocks
come round, and what was painted into one is there still. Only the number is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.peers import work
from benchmarks.peers.dflow_graph import FrameSink
from dflow import Context, Graph, source


@source
def allocated(job: work.Job, context: Context) -> Iterator[Any]:
    """Yield the frames of a job."""
    for number in range(job.count):
        frame = context.allocate(work.FRAME_BYTES)
        work.paint(frame)
        work.mark(frame, number)
        yield frame


def run(job: work.Job) -> None:
    """Run the job once."""
    report = Graph("peers", allocated(job) >> FrameSink(job, 0)).run(log_level="WARNING")
    if report.outcome != "finished" or not report.balances:
        raise RuntimeError(f"expected a finished run whose books balance, got\n{report}")
