"""All that a participant of a run asks of the operating system, in one value.

`SYSTEM` is the real one. A simulation (`dflow.testing`) has one of its own, by which the same loops
run in one process and in virtual time.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from threading import Condition, Event, Lock, Thread
from typing import TYPE_CHECKING, Any

from dflow.clock import CLOCK, Clock
from dflow.transport.control import ControlRouter
from dflow.transport.endpoint import connect_control
from dflow.transport.link import InLink, OutLink
from dflow.transport.poller import Poller, Wakeup

if TYPE_CHECKING:
    import asyncio

    from dflow.transport.metronome import Metronome

__all__ = ["SYSTEM", "System"]


class System:
    """Makes what waits, sends and tells the time."""

    clock: Clock = CLOCK

    def poller(self) -> Poller:
        """Return what a loop waits with."""
        return Poller()

    def wakeup(self) -> Wakeup:
        """Return what wakes a loop that waits."""
        return Wakeup()

    def metronome(self, wake: Callable[[], None]) -> Metronome:
        """Return what rings while user code runs for long."""
        from dflow.transport.metronome import Metronome  # coordinators have none

        return Metronome(wake)

    def out_link(self, number: int, endpoint: str) -> OutLink:
        """Return the sender's end of a channel, connected."""
        return OutLink(number, endpoint)

    def in_link(self, endpoint: str, hwm: int) -> InLink:
        """Return the receiver's end of the channels of one band, bound."""
        return InLink(endpoint, hwm)

    def control_link(self, endpoint: str, identity: bytes) -> Any:
        """Return a participant's socket to the coordinator; raises `OptionError`."""
        return connect_control(endpoint, identity)

    def control_router(self, endpoint: str) -> ControlRouter:
        """Return the coordinator's socket, bound; raises `OptionError` if it cannot be."""
        return ControlRouter(endpoint)

    def thread(self, run: Callable[[], None], name: str) -> Thread:
        """Return a thread that does not keep the process alive, not yet started."""
        return Thread(target=run, name=name, daemon=True)

    def event(self) -> Event:
        """Return what one thread waits for and another sets."""
        return Event()

    def condition(self, lock: Lock) -> Condition:
        """Return what threads wait for that hold ``lock`` between."""
        return Condition(lock)

    def event_loop(self) -> asyncio.AbstractEventLoop:
        """Return a new asyncio loop."""
        import asyncio  # few nodes need it

        return asyncio.new_event_loop()

    def exit(self, code: int) -> None:
        """End the process here and now."""
        os._exit(code)


SYSTEM = System()
