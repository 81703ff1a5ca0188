"""Bytewax as a cluster of three processes, with ``redistribute`` between the steps.

https://github.com/bytewax/bytewax/blob/main/docs/guide/concepts/workers-parallelization.md: a
process for each ``python -m bytewax.run FLOW -i ID -a ADDRESSES``; every worker runs all steps.
https://github.com/bytewax/bytewax/blob/main/docs/guide/advanced-concepts/performance.md: for
several processes to take part after a single source, items are exchanged with ``redistribute``,
which sends each to a random worker, so a third of them stays where it is. They are pickled, and
order is lost. That page also advises batches in the source: 1000 here, one for paced messages. Its
own answer where steps are cheap is one worker, without any exchange: `bytewax_alone`.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys

from benchmarks.peers import work


def run(job: work.Job, processes: int = 3) -> None:
    """Run the job once."""
    flow = f"benchmarks.peers.bytewax_flow:flow({job.work!r}, {job.count}, {job.folder!r})"
    command = [sys.executable, "-m", "bytewax.run", flow]
    addresses = ";".join(f"127.0.0.1:{port}" for port in _free_ports(processes))
    exchange = {**os.environ, "DFLOW_PEERS_EXCHANGE": "1" if processes > 1 else ""}
    running = [
        subprocess.Popen(
            [*command, "-i", str(number), "-a", addresses] if processes > 1 else command,
            env=exchange,
        )
        for number in range(processes)
    ]
    codes = [process.wait() for process in running]
    if any(codes):
        raise RuntimeError(f"expected exit codes 0, got {codes}")


def _free_ports(count: int) -> list[int]:
    """Return ports that are free now."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports
