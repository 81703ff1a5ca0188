"""What a simulated participant gets instead of the operating system (`dflow.transport.system`)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container
from typing import Any

from dflow.clock import Clock
from dflow.testing.aio import VirtualLoop
from dflow.testing.kernel import Process, Task
from dflow.testing.meeting import Condition, Event
from dflow.testing.network import ControlLink, ControlRouter, InLink, Network, OutLink, Source
from dflow.transport.metronome import BEAT_S
from dflow.transport.metronome import FIRST_NS as FIRST_BEAT_NS
from dflow.transport.system import System

__all__ = ["WALL_NS", "SimulatedSystem"]

WALL_NS = 1_700_000_000_000_000_000
"""Unix time at the beginning of every simulation."""

_BEAT_NS = int(BEAT_S * 1e9)
_RAREST_BEAT_NS = 50_000_000

_INTERRUPTED = 0.1
"""How often the other threads of a process get a moment before user code goes on."""


class SimulatedSystem(System):
    """That of one process in a simulation."""

    def __init__(self, network: Network, process: Process) -> None:
        kernel = network.kernel
        self._kernel = kernel
        self._network = network
        self._process = process
        self.clock = Clock(
            lambda: kernel.now,
            lambda: WALL_NS + kernel.now,
            lambda: process.cpu_ns,
            lambda: 0,
            lambda: 0,
        )
        self.exited: Callable[[int], object] = lambda code: None

    def poller(self) -> Any:
        """Return what a loop waits with."""
        return Poller(self._network)

    def wakeup(self) -> Any:
        """Return what wakes a loop that waits."""
        return Wakeup(self._network)

    def metronome(self, wake: Callable[[], None]) -> Any:
        """Return what rings while user code runs for long."""
        return Metronome(self._network, self._process)

    def out_link(self, number: int, endpoint: str) -> Any:
        """Return the sender's end of a channel, connected."""
        return OutLink(self._network, self._process, number, endpoint)

    def in_link(self, endpoint: str, hwm: int) -> Any:
        """Return the receiver's end of the channels of one band, bound."""
        return InLink(self._network, self._process, endpoint)

    def control_link(self, endpoint: str, identity: bytes) -> Any:
        """Return a participant's socket to the coordinator."""
        return ControlLink(self._network, self._process, endpoint, identity)

    def control_router(self, endpoint: str) -> Any:
        """Return the coordinator's socket, bound."""
        return ControlRouter(self._network, self._process, endpoint)

    def thread(self, run: Callable[[], None], name: str) -> Any:
        """Return a simulated thread, not yet started."""
        return Task(self._kernel, self._process, run, f"{self._process.name} {name}")

    def event(self) -> Any:
        """Return what one thread waits for and another sets."""
        return Event(self._kernel)

    def condition(self, lock: Any) -> Any:
        """Return what threads wait for that hold ``lock`` between."""
        return Condition(self._kernel, lock)

    def event_loop(self) -> asyncio.AbstractEventLoop:
        """Return a new asyncio loop, in virtual time."""
        return VirtualLoop(self._network)

    def exit(self, code: int) -> None:
        """End the process here and now."""
        self.exited(code)


class Poller:
    """Which of the registered sources can be read (`dflow.transport.poller.Poller`)."""

    __slots__ = ("_kernel", "_network", "_sources", "_task", "descriptors")

    def __init__(self, network: Network) -> None:
        self._network = network
        self._kernel = network.kernel
        self._sources: list[tuple[Source, Any]] = []
        self._task: Task | None = None
        self.descriptors: list[int] = []

    def add(self, source: Any, tag: Any = None) -> None:
        """Watch a source, or what stands for its descriptor."""
        found = self._network.sources[source] if isinstance(source, int) else source
        self._sources.append((found, source if tag is None else tag))
        self.descriptors.append(found.number)
        found.listeners.append(self._news)

    def _news(self) -> None:
        task = self._task
        if task is not None:
            self._task = None
            self._kernel.wake(task)

    def wait(self, timeout_s: float | None) -> list[Any]:
        """Return the tags of what can be read; a little time passes in any case."""
        kernel = self._kernel
        if timeout_s == 0 or any(source.readable for source, _ in self._sources):
            kernel.pause()
        else:
            self._task = kernel.current
            try:
                kernel.park(timeout_s)
            finally:
                self._task = None
        found = [tag for source, tag in self._sources if source.readable]
        if len(found) > 1:
            kernel.random.shuffle(found)
        return found


class Wakeup:
    """Wakes a loop that waits (`dflow.transport.poller.Wakeup`)."""

    __slots__ = ("_source", "fd")

    def __init__(self, network: Network) -> None:
        self._source = Source(network)
        self.fd = self._source.number

    def set(self) -> None:
        """Wake the waiter, now or when it next waits."""
        self._source.news()

    def clear(self, ready: Container[Any] | None = None) -> None:
        """Forget wakeups so far; with ``ready``, only if it is among what can be read."""
        if ready is None or self.fd in ready:
            self._source.readable = False

    def close(self) -> None:
        """Nothing is left behind."""


class Metronome:
    """Rings while user code runs for long (`dflow.transport.metronome.Metronome`).

    It also is where the seed lets other threads have a moment before user code goes on. While user
    code sleeps, or waits for its coroutines, it rings less and less often: nothing is new, and an
    hour has many milliseconds.
    """

    __slots__ = ("_armed", "_kernel", "_process", "_rings_ns", "_set_ns", "_source", "fd")

    timeout_s: float | None = None

    def __init__(self, network: Network, process: Process) -> None:
        self._kernel = network.kernel
        self._process = process
        self._source = Source(network)
        self._set_ns = -FIRST_BEAT_NS
        self._armed = 0
        self._rings_ns = 0
        self.fd = self._source.number
        process.on_waking = self._hurry

    def begin(self) -> None:
        """User code is about to be called."""
        if self._kernel.now - self._set_ns >= FIRST_BEAT_NS:
            self._ring(FIRST_BEAT_NS)
        if self._kernel.random.random() < _INTERRUPTED:
            self._kernel.pause(1_000, 200_000)

    def renew(self, now: int) -> None:
        """Set the timer anew if it still runs."""
        if FIRST_BEAT_NS // 2 <= now - self._set_ns < FIRST_BEAT_NS:
            self._ring(FIRST_BEAT_NS)

    def beat(self, busy: Callable[[], bool]) -> None:
        """Ring again soon if user code still runs."""
        self._source.readable = False
        if busy():
            since = self._process.asleep_since
            asleep_ns = 0 if since is None else self._kernel.now - since
            self._ring(max(_BEAT_NS, min(asleep_ns, _RAREST_BEAT_NS)))

    def _hurry(self) -> None:
        """User code goes on: what it emits waits no longer than without its sleep."""
        if self._rings_ns > self._kernel.now + _BEAT_NS:
            self._ring(_BEAT_NS)

    def _ring(self, after_ns: int) -> None:
        self._set_ns = self._kernel.now
        self._rings_ns = self._set_ns + after_ns
        self._armed += 1
        armed = self._armed

        def rings() -> None:
            if armed == self._armed:
                self._source.news()

        self._kernel.at(self._rings_ns, rings)

    def close(self) -> None:
        """Ring no more."""
        self._armed += 1
        self._rings_ns = 0
