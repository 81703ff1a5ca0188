"""Virtual time: greenlets that take turns in an order which a seed decides, and nothing else.

Every simulated thread is a greenlet, of the one real thread that called `Kernel.run`. It runs until
it *parks*: until a moment of virtual time, until somebody wakes it, or both. Nothing else passes
time, so code that computes takes none, and the same seed gives the same run.

Threads that hand over to each other were rejected: 44 us for each switch, against 0.4.

Invariants: at most one task runs; time never goes back; whoever is woken continues at least a
microsecond or so later, so that nothing goes on for ever within one moment.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet

__all__ = ["Kernel", "Process", "Task", "current_task", "sleep_virtually"]

_LEAST_NS = 500
_MOST_NS = 5_000
"""How long it takes until a task that was woken goes on."""

_UNWINDINGS = 20
"""How often the code of an ended process is asked to end before it is left as it is."""


class _Fiber(greenlet):  # type: ignore[misc]  # greenlet ships no types
    """A greenlet that knows whose it is."""

    task: Task


def current_task() -> Task | None:
    """Return the simulated thread this code runs in, or None."""
    fiber = getcurrent()
    return fiber.task if isinstance(fiber, _Fiber) else None


def sleep_virtually(seconds: float) -> bool:
    """Let virtual time pass if this is a simulated thread; False, at once, if it is not."""
    task = current_task()
    if task is None:
        return False
    task.process.cpu_ns += max(0, int(seconds * 1e9))
    task.kernel.sleep(seconds)
    return True


class Process:
    """The tasks of one participant, killed and stalled together. ``cpu_ns``: what it spent.

    ``asleep_since``: when user code began to `spend` time, or its coroutines to wait, while they
    do; ``on_waking`` is called when that is over.
    """

    __slots__ = ("alive", "asleep_since", "cpu_ns", "name", "on_waking", "stalled_until", "tasks")

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.stalled_until = 0
        self.asleep_since: int | None = None
        self.on_waking: Callable[[], object] = lambda: None
        self.cpu_ns = 0
        self.tasks: list[Task] = []


class Task:
    """One simulated thread. ``pending`` is raised where it is parked."""

    __slots__ = (
        "_fiber",
        "_run",
        "ended",
        "interruptible",
        "kernel",
        "name",
        "pending",
        "process",
        "sleeping",
        "started",
        "version",
        "waiters",
    )  # fmt: skip

    def __init__(
        self, kernel: Kernel, process: Process, run: Callable[[], object], name: str
    ) -> None:
        self.kernel = kernel
        self.process = process
        self.name = name
        self.version = 0  # of its parking: a wakeup meant for an earlier one is void
        self.ended = False
        self.started = False
        self.sleeping = False
        self.interruptible = False  # a signal would end what it waits for
        self.pending: BaseException | None = None  # raised where it is parked
        self.waiters: list[Task] = []
        self._run = run
        self._fiber = _Fiber(self._live)
        self._fiber.task = self
        process.tasks.append(self)

    def start(self) -> None:
        """Let it begin, soon."""
        self.started = True
        self.kernel.wake(self)

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended."""
        me = self.kernel.current
        if self.ended or me is None:
            return
        self.waiters.append(me)
        self.kernel.park(timeout)

    def interrupt(self, error: BaseException) -> None:
        """Raise ``error`` where the task is parked."""
        self.pending = error
        self.kernel.wake(self)

    def resume(self) -> None:
        """Run it until it parks or ends; the kernel calls this."""
        if not self._fiber:  # not begun: when it ends the hub goes on, not whoever made it
            self._fiber.parent = getcurrent()
        self._fiber.switch()

    def unwind(self) -> None:
        """Let the code of a task that will never go on run its ``finally`` blocks."""
        for _ in range(_UNWINDINGS):
            if self._fiber.dead or not self._fiber:
                break
            self._fiber.throw(GreenletExit)

    def _live(self) -> None:
        try:
            self._run()
        except GreenletExit:
            pass
        finally:
            self.ended = True
            for waiter in self.waiters:
                self.kernel.wake(waiter)


class Kernel:
    """The scheduler. ``now`` is virtual time in ns since the beginning, ``steps`` what it did.

    ``random`` decides whatever the operating system would.
    """

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now = 0
        self.steps = 0
        self.current: Task | None = None
        self.last: Task | None = None  # who made the last step, if it was a task
        self.observers: list[Callable[[], object]] = []
        self._number = 0
        self._queue: list[tuple[int, int, Any, int]] = []
        self._hub = getcurrent()
        self._chance = self.random.random

    # --- for whoever runs ------------------------------------------------------------------------

    def park(self, timeout_s: float | None) -> None:
        """Let others run until somebody wakes this task, or ``timeout_s`` has passed."""
        until = None
        if timeout_s is not None:  # never 0: or who waits for less than 1 ns would do so for ever
            until = self.now + max(_LEAST_NS, int(timeout_s * 1e9 + 0.5))
        self._park(until)

    def pause(self, least_ns: int = _LEAST_NS, most_ns: int = _MOST_NS) -> None:
        """Let a moment pass, in which others may run."""
        self._park(self.now + least_ns + int(self._chance() * (most_ns - least_ns)))

    def sleep(self, seconds: float) -> None:
        """Let exactly so much time pass, whoever wakes this task meanwhile."""
        task = self.current
        assert task is not None  # only simulated threads sleep in virtual time
        until = self.now + max(0, int(seconds * 1e9 + 0.5))
        task.sleeping = task.interruptible = True
        task.process.asleep_since = self.now
        try:
            while self.now < until or task.process.stalled_until > self.now:
                self._park(max(until, task.process.stalled_until))
        finally:
            task.sleeping = task.interruptible = False
            task.process.asleep_since = None
            task.process.on_waking()

    def _park(self, until: int | None) -> None:
        task = self.current
        assert task is not None  # only simulated threads park
        task.version += 1
        if until is not None:
            self._push(until, task, task.version)
        running = asyncio._get_running_loop()
        if running is None:
            self._hub.switch()
        else:  # of this thread and not of all: the one of another task may run meanwhile
            hooks = sys.get_asyncgen_hooks()
            asyncio._set_running_loop(None)
            sys.set_asyncgen_hooks(None, None)
            try:
                self._hub.switch()
            finally:
                asyncio._set_running_loop(running)
                sys.set_asyncgen_hooks(*hooks)
        if not task.process.alive:
            raise GreenletExit
        if task.pending is not None:
            error, task.pending = task.pending, None
            raise error

    # --- for everybody ---------------------------------------------------------------------------

    def wake(self, task: Task) -> None:
        """Let a parked task go on, soon; nothing happens if it goes on by itself before."""
        delay = _LEAST_NS + int(self._chance() * (_MOST_NS - _LEAST_NS))
        self._push(self.now + delay, task, task.version)

    def at(self, when_ns: int, action: Callable[[], object]) -> None:
        """Call ``action`` at a moment; it may not park."""
        self._push(max(when_ns, self.now), action, 0)

    def between(self, least_ns: int, most_ns: int) -> int:
        """Return a number the seed decides."""
        return least_ns + int(self._chance() * (most_ns - least_ns))

    def _push(self, when_ns: int, what: Any, version: int) -> None:
        self._number += 1
        heappush(self._queue, (when_ns, self._number, what, version))

    # --- the hub ---------------------------------------------------------------------------------

    def run(self, over: Callable[[], bool]) -> bool:
        """Run until ``over``; False if nothing is left that could ever happen."""
        queue, observers = self._queue, self.observers
        self._hub = getcurrent()
        while not over():
            if not queue:
                return False
            when, _, what, version = heappop(queue)
            if not isinstance(what, Task):
                self.now = max(self.now, when)
                self.last = None
                what()
            else:
                process = what.process
                if version != what.version or what.ended or not process.alive:
                    continue
                if process.stalled_until > when:
                    self._push(process.stalled_until, what, version)
                    continue
                self.now = max(self.now, when)
                what.version += 1
                self.current = self.last = what
                what.resume()
                self.current = None
            self.steps += 1
            for observer in observers:
                observer()
        return True

    def unwind(self, processes: list[Process]) -> None:
        """End whatever has not ended by itself; nothing of it can be observed any more."""
        for process in processes:
            process.alive = False
        for process in processes:
            for task in process.tasks:
                self.current = task
                task.unwind()
        self.current = None
        self._queue.clear()
