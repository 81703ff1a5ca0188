"""Where a worker computes and how willingly it gives way: CPU affinity and niceness.

A CPU that this process may not use is the user's mistake and is said before anything starts;
what the kernel refuses is worth a warning, for the run is right without it. Off Linux both do
nothing but say so.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

from dflow.errors import StartError

__all__ = ["be_nice", "stay_on"]


def stay_on(cpus: Sequence[int], warn: Callable[[str], None]) -> None:
    """Compute on ``cpus`` only, with every thread of this process.

    Raises `StartError` if one of them does not exist for this process.
    """
    if sys.platform != "linux":
        warn("affinity is only kept on Linux")
        return
    allowed = os.sched_getaffinity(0)
    missing = [str(cpu) for cpu in cpus if cpu not in allowed]
    if missing:
        known = ", ".join(map(str, sorted(allowed)))
        raise StartError(
            f"affinity: expected CPUs this process may use ({known}), got {', '.join(missing)}"
        )
    try:
        for thread in os.listdir("/proc/self/task"):  # the pulse and ZeroMQ's are there already
            with suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread), cpus)
    except OSError as error:
        warn(f"affinity {list(cpus)} was refused by the kernel: {error.strerror}")


def be_nice(niceness: int, warn: Callable[[str], None]) -> None:
    """Let processes of a lower niceness go first, with this thread and those it starts.

    Threads that are there already (the pulse, ZeroMQ's) keep theirs: they hardly compute, and
    what they do must not wait.
    """
    if sys.platform != "linux":  # elsewhere it would be all of the process's threads
        warn("niceness is only kept on Linux")
        return
    try:
        os.setpriority(os.PRIO_PROCESS, 0, niceness)
    except OSError as error:
        warn(f"niceness {niceness} was refused by the kernel: {error.strerror}")
