"""Run one adapter once: ``python -m benchmarks.peers.one ADAPTER WORK COUNT FOLDER``.

The parent (`benchmarks.peers.run`) starts this in a fresh process, in the peers' own environment,
with a time limit, and reads what the sinks left in the folder.
"""

from __future__ import annotations

import importlib
import sys

from benchmarks.peers.work import Job


def main(adapter: str, work: str, count: str, folder: str) -> None:
    """Run the job."""
    importlib.import_module(f"benchmarks.peers.{adapter}").run(Job(work, int(count), folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
