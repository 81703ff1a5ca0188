"""How long the kernel lets a thread compute before it looks for another: short, in a worker.

With more workers that compute than cores, a thread that wakes up waits for the slice of whoever
computes, up to 3 ms by default. On a message's way that is ZeroMQ's thread at both ends, and the
node itself. Since Linux 6.12 a thread may ask for slices of its own, and one with a shorter slice
goes first when it wakes up. Elsewhere, and where the kernel does not know it, nothing happens.

What it does to a control message beside two burning nodes on two cores is in
docs/decisions/0023-short-slices.md; `python -m benchmarks.control` measures it.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from contextlib import suppress
from struct import Struct

__all__ = ["be_prompt"]

MAIN_NS = 500_000
"""Slice of the thread that runs the node."""

OTHERS_NS = 100_000
"""Slice of ZeroMQ's threads and the pulse, the shortest there is: they have little to do."""

_NUMBERS = {"x86_64": 314, "aarch64": 274}
"""Of the system call sched_setattr(2), for which the C library has no function."""

_ATTRIBUTES = Struct("<IIQiIQQQ")  # size, policy, flags, nice, priority, runtime, deadline, period
_SCHED_OTHER = 0


def be_prompt() -> None:
    """Ask for short slices for every thread of this process that is there; never raises."""
    number = _NUMBERS.get(platform.machine())
    if sys.platform != "linux" or number is None:
        return
    call = ctypes.CDLL(None).syscall
    with suppress(OSError):
        for name in os.listdir("/proc/self/task"):
            thread = int(name)
            slice_ns = MAIN_NS if thread == os.getpid() else OTHERS_NS
            with suppress(ProcessLookupError):
                if os.sched_getscheduler(thread) != _SCHED_OTHER:
                    continue  # the user's choice (chrt), which has no slices or other ones
                nice = os.getpriority(os.PRIO_PROCESS, thread)  # set with the rest: keep it
                wanted = _ATTRIBUTES.pack(
                    _ATTRIBUTES.size, _SCHED_OTHER, 0, nice, 0, slice_ns, 0, 0
                )
                call(number, thread, wanted, 0)
