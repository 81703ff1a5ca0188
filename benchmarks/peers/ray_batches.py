"""Ray actors with batches made by hand: a list of messages a call.

https://docs.ray.io/en/latest/ray-core/patterns/too-fine-grained-tasks.html: small tasks are
to be grouped. Source, map and sink of `ray_actors` then deal with lists, and a message waits for
its batch: so this is for throughput only, of small messages.
"""

from __future__ import annotations

from benchmarks.peers import ray_actors, work

BATCH = 512


def run(job: work.Job) -> None:
    """Run the job once."""
    ray_actors.run(job, BATCH)
