"""The clocks. Pure code takes ``now`` as a parameter; only loops call these.

A participant of a run reads the `Clock` it was given: `CLOCK`, which is real, or a simulation's.

``monotonic_ns`` never jumps; ``wall_ns`` and ``wall_s`` are Unix time, for people and for
comparing hosts. ``cpu_ns`` is the processor time this process has used, of all its threads;
``delayed_ns`` the time its main thread was ready to run and had no processor, ``preempted`` how
often the processor was taken from the thread that asks.
"""

from __future__ import annotations

import resource
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic_ns
from time import process_time_ns as cpu_ns
from time import time as wall_s
from time import time_ns as wall_ns

__all__ = [
    "CLOCK", "Clock", "cpu_ns", "delayed_ns", "monotonic_ns", "preempted", "wall_ns", "wall_s",
]  # fmt: skip


def delayed_ns() -> int:
    """Return how long the main thread has waited for a processor; 0 where nobody knows."""
    with suppress(OSError, ValueError, IndexError), open("/proc/self/schedstat") as told:
        return int(told.read().split()[1])
    return 0


_THREAD = getattr(resource, "RUSAGE_THREAD", None)


def preempted() -> int:
    """Return how often this thread lost its processor to another; 0 where nobody counts."""
    return 0 if _THREAD is None else resource.getrusage(_THREAD).ru_nivcsw


@dataclass(frozen=True, slots=True)
class Clock:
    """The functions of this module as one value, so that all of them are changed together."""

    monotonic_ns: Callable[[], int] = monotonic_ns
    wall_ns: Callable[[], int] = wall_ns
    cpu_ns: Callable[[], int] = cpu_ns
    delayed_ns: Callable[[], int] = delayed_ns
    preempted: Callable[[], int] = preempted

    def monotonic_s(self) -> float:
        """Return the monotonic clock in seconds."""
        return self.monotonic_ns() / 1e9

    def wall_s(self) -> float:
        """Return Unix time in seconds."""
        return self.wall_ns() / 1e9


CLOCK = Clock()
