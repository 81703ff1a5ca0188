"""What wakes the pulse thread when user code runs for long, and leaves it asleep otherwise.

The main thread sets a timer before it calls user code, and sets it anew before the next call: as
long as turns are short it never rings. A thread that wakes up only to see that all is well was
rejected: it takes the interpreter from the main thread and gives it back, at best 30 us of a
processor and two switches, a thousand times a second in each worker
(docs/decisions/0004-flush-by-turn-and-beat.md).

The timer is a file descriptor (Linux). The C library is called without giving up the interpreter;
one call takes 2 to 3 us, so a timer set a moment ago is left as it is. Elsewhere the pulse thread
looks at the clock by itself, as long as it hears that there is work.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from contextlib import suppress

from dflow.clock import monotonic_ns

__all__ = ["BEAT_S", "Metronome"]

FIRST_NS = 1_800_000
"""After this long in user code the pulse looks; 2 ms is what an emitted message may wait."""

RENEW_NS = 900_000
"""A timer set less than this ago is good enough. One that rings before is, too, but only if it
would have to be set on a message's way."""

BEAT_S = 0.001
"""How often the pulse looks after that, while user code runs."""

IDLE_BEATS = 30
"""Without a timer: beats without user code after which the pulse waits to be woken."""

_MONOTONIC, _NONBLOCK, _CLOEXEC = 1, os.O_NONBLOCK, os.O_CLOEXEC


class _Times(ctypes.Structure):
    """``struct itimerspec``: interval and value, in seconds and nanoseconds."""

    _fields_ = [(name, ctypes.c_long) for name in ("every_s", "every_ns", "in_s", "in_ns")]


class Metronome:
    """Rings for one thread (``fd`` is readable, -1: none) while another is in user code for long.

    Without a timer ``wake`` is called when there is work again; see `timeout_s`.
    """

    __slots__ = ("_again", "_first", "_handle", "_idle", "_set", "_set_ns", "_wake", "fd")

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._set_ns = 0
        self._idle = IDLE_BEATS
        self.fd = -1
        if sys.platform == "linux":
            library = ctypes.PyDLL(None)
            self.fd = library.timerfd_create(_MONOTONIC, _NONBLOCK | _CLOEXEC)
            self._handle = ctypes.c_int(self.fd)
            self._set = library.timerfd_settime
            self._first = ctypes.byref(_Times(0, 0, 0, FIRST_NS))
            self._again = ctypes.byref(_Times(0, 0, 0, int(BEAT_S * 1e9)))

    def begin(self) -> None:
        """User code is about to be called."""
        now = monotonic_ns()
        if now - self._set_ns >= (FIRST_NS if self.fd >= 0 else RENEW_NS):
            self._ring(now)

    def renew(self, now: int) -> None:
        """Set the timer anew, if it still runs, so that `begin` need not.

        For when nobody waits: setting it costs a message 10 us where caches are cold.
        """
        if self.fd >= 0 and RENEW_NS <= now - self._set_ns < FIRST_NS:
            self._ring(now)

    def _ring(self, now: int) -> None:
        self._set_ns = now
        if self.fd >= 0:
            self._set(self._handle, 0, self._first, None)
        elif self._idle >= IDLE_BEATS:
            self._idle = 0
            self._wake()

    def beat(self, busy: Callable[[], bool]) -> None:
        """Ring again soon if user code still runs (``busy``); the listening thread calls this."""
        if self.fd < 0:
            self._idle = 0 if busy() else self._idle + 1
            return
        if not busy():
            with suppress(BlockingIOError):  # set anew meanwhile
                os.read(self.fd, 8)
            if not busy():
                return
            # it has begun meanwhile, and what was read may have rung for that
        self._set(self._handle, 0, self._again, None)

    @property
    def timeout_s(self) -> float | None:
        """How long the listening thread may wait before it beats by itself; None: for ever."""
        return None if self.fd >= 0 or self._idle >= IDLE_BEATS else BEAT_S

    def close(self) -> None:
        """Close the timer; idempotent, and `begin` stays safe to call."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            self._handle = ctypes.c_int(-1)
            os.close(fd)
