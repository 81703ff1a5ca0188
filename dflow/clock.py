"""The clocks. Pure code takes ``now`` as a parameter; only loops call these.

``monotonic_ns`` never jumps; ``wall_ns`` and ``wall_s`` are Unix time, for people and for
comparing hosts. ``cpu_ns`` is the processor time this process has used, of all its threads;
``delayed_ns`` the time its main thread was ready to run and had no processor, ``preempted`` how
often the processor was taken from the thread that asks.
"""

from __future__ import annotations

import resource
from contextlib import suppress
from time import monotonic_ns
from time import process_time_ns as cpu_ns
from time import time as wall_s
from time import time_ns as wall_ns

__all__ = ["cpu_ns", "delayed_ns", "monotonic_ns", "preempted", "wall_ns", "wall_s"]


def delayed_ns() -> int:
    """Return how long the main thread has waited for a processor; 0 where nobody knows."""
    with suppress(OSError, ValueError, IndexError), open("/proc/self/schedstat") as told:
        return int(told.read().split()[1])
    return 0


_THREAD = getattr(resource, "RUSAGE_THREAD", None)


def preempted() -> int:
    """Return how often this thread lost its processor to another; 0 where nobody counts."""
    return 0 if _THREAD is None else resource.getrusage(_THREAD).ru_nivcsw
