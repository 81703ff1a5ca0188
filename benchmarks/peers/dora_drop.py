"""dora with the queue policy it has by default: what finds no room replaces the oldest.

Only this one uses dora's shared memory for frames: inputs with ``queue_policy: backpressure`` make
it send everything through the daemon. See `dora_flow`.
"""

from __future__ import annotations

from benchmarks.peers import dora_flow, work


def run(job: work.Job) -> None:
    """Run the job once."""
    dora_flow.run(job, policy="drop_oldest")
