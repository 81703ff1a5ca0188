"""Bytewax with one worker: all steps in one thread, nothing is sent anywhere.

https://github.com/bytewax/bytewax/blob/main/docs/guide/concepts/workers-parallelization.md: what it
does by default, and its own advice while steps are cheap. See `bytewax_cluster`.
"""

from __future__ import annotations

from benchmarks.peers import bytewax_cluster, work


def run(job: work.Job) -> None:
    """Run the job once."""
    bytewax_cluster.run(job, processes=1)
