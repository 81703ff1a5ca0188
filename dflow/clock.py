"""The clocks. Pure code takes ``now`` as a parameter; only loops call these.

``monotonic_ns`` never jumps; ``wall_ns`` and ``wall_s`` are Unix time, for people and for
comparing hosts. ``cpu_ns`` is the processor time this process has used, of all its threads;
``delayed_ns`` the time its main thread was ready to run and had no processor.
"""

from __future__ import annotations

from contextlib import suppress
from time import monotonic_ns
from time import process_time_ns as cpu_ns
from time import time as wall_s
from time import time_ns as wall_ns

__all__ = ["cpu_ns", "delayed_ns", "monotonic_ns", "wall_ns", "wall_s"]


def delayed_ns() -> int:
    """Return how long the main thread has waited for a processor; 0 where nobody knows."""
    with suppress(OSError, ValueError, IndexError), open("/proc/self/schedstat") as told:
        return int(told.read().split()[1])
    return 0
