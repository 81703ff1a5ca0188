"""Several nodes in one worker: whose turn it is, and how each of them ends by itself.

To the main loop a crew looks like one node's `Work`. Inside, every node keeps its own handlers,
source, ticks, hooks and counters; it waits only for credit of its own edges, and reaches its end
when its own inputs do. What they share is the thread, so they take turns:

* Messages come first, from one ready queue over the channels of all nodes (weighted bands, in
  turn within a band); a node that waits or is held is passed over, but for control messages.
* What needs no message (a source, a generator that got its credit) is next when there are no
  messages, and after `PATIENCE` turns for each node even if there are: so messages usually run
  through all nodes before a source makes new ones, and still no source starves.
* A tick is called when it is due, after the turn at hand.
* A turn of a node whose results all go to one other may pass through to that one, and on, without
  turns of theirs (`dflow.worker.chain`).
"""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import TYPE_CHECKING

from dflow.worker.chain import find_chains

if TYPE_CHECKING:
    from dflow.flow.in_edge import InChannel
    from dflow.graph.plan import WorkerId
    from dflow.stats import WorkerStats
    from dflow.worker.plane import DataPlane
    from dflow.worker.state import HookRaised
    from dflow.worker.work import Work

__all__ = ["Crew"]

PATIENCE = 8
"""Turns for each node before a source has one although there are messages: the smaller, the more
messages pile up between nodes of unequal cost."""


class Crew:
    """The nodes of one worker, in topological order. ``commands``: those not obeyed yet."""

    def __init__(
        self, works: Sequence[Work], me: WorkerId, plane: DataPlane, commands: Sized
    ) -> None:
        self._works = tuple(works)
        self._commands = commands
        self._plane = plane
        self._running = list(works)  # have not reached their end
        self._ending: list[Work] = []  # on_end was called; what they emitted is not all sent
        self._started: list[Work] = []
        self._drivers = list(works)  # whoever needs no message, in turn
        self._turns = 0  # of messages since one that needed none
        self._interruptible: list[Work] = []
        self._failed: HookRaised | None = None
        by_name = {work.name: work for work in works}
        plan = plane.plan
        self._of: dict[int, Work] = {
            channel.number: by_name[channel.receiver.node]
            for channel in (*plan.channels, *plan.external_channels)
            if plan.host(channel.receiver) == me
        }
        for name, way_through in find_chains([work.station() for work in works], plane).items():
            by_name[name].way_through = way_through

    # --- what the loop asks ----------------------------------------------------------------------

    @property
    def raised(self) -> HookRaised | None:
        """The error that must end the run, if there was one."""
        if self._failed is not None:
            return self._failed
        for work in self._works:
            if work.raised is not None:
                return work.raised
        return None

    @property
    def paused(self) -> bool:
        """Whether a generator of any node waits for credit."""
        return any(work.paused for work in self._works)

    @property
    def active(self) -> bool:
        """Whether any coroutine is under way."""
        return any(work.active for work in self._works)

    @property
    def held(self) -> bool:
        """Whether every node is held."""
        return all(work.held for work in self._works)

    def ready(self) -> bool:
        """Whether `step` would do something now."""
        if self.drivable():
            return True
        if self._plane.inbound.ready.waiting(allowed=self._allowed):
            return True
        return any(work.flushed for work in self._ending) or any(
            work.at_end() for work in self._running
        )

    def drivable(self) -> bool:
        """Whether any node would do something now that needs no message."""
        return any(work.drivable() for work in self._works)

    def _allowed(self, channel: InChannel) -> bool:
        """Whether a message may be handled: one from outside may come when its node has ended."""
        work = self._of[channel.number]
        return work in self._running and work.takes(channel)

    def at_end(self) -> bool:
        """Whether every node has ended, and all it emitted has left."""
        return not self._running and not self._ending

    def until_tick_s(self) -> float | None:
        """Return the seconds until the next tick of any node is due, or None."""
        ticks = [work.until_tick_s() for work in self._running]
        return min((tick for tick in ticks if tick is not None), default=None)

    # --- what the loop says ----------------------------------------------------------------------

    def begin(self) -> None:
        """Begin to tick."""
        for work in self._works:
            work.begin()

    def hold(self, reason: str, on: bool, node: str = "") -> None:
        """Hold a node, or all of them, for ``reason``; see `Work.hold`."""
        for work in self._named(node):
            work.hold(reason, on)

    def _named(self, node: str) -> list[Work]:
        return [work for work in self._works if node in ("", work.name)]

    def step(self) -> None:
        """Run user code for about one turn, whoever's turn it is; then ticks, and what has ended.

        What passes between the nodes needs no look at the sockets: so nodes follow each other
        until a turn's time is over, or there is a command.
        """
        for work in self._running:
            work.look_at_credit()
        until_ns = self._plane.clock.monotonic_ns() + self._works[0].turn_ns
        while self._turn() and not self._commands and self._plane.clock.monotonic_ns() < until_ns:
            self._plane.flush()
            if self.raised is not None:
                break
        for work in self._running:
            work.tick()
        self._end_who_is_done()

    def _turn(self) -> bool:
        """Let the next node do something; return whether there was anything to do."""
        if self._turns < PATIENCE * len(self._works) and self._message():
            return True
        return self._drive() or self._message()

    def _message(self) -> bool:
        """Give the next channel its turn; return whether there was one."""
        channel = self._plane.inbound.ready.pop(allowed=self._allowed)
        if channel is None:
            return False
        self._turns += 1
        self._of[channel.number].take(channel)
        return True

    def _drive(self) -> bool:
        """Let the next node that needs no message do what it can; return whether one did."""
        self._turns = 0
        for work in self._drivers:
            if work.drivable():
                self._drivers.remove(work)
                self._drivers.append(work)
                return work.drive()
        return False

    def resume(self) -> bool:
        """Go on with generators that waited for credit."""
        resumed = [work.resume() for work in self._works]
        return any(resumed)

    def _end_who_is_done(self) -> None:
        """Call ``on_end`` of nodes that have reached their end, and send END for those flushed."""
        for work in [work for work in self._running if work.at_end()]:
            self._running.remove(work)
            self._ending.append(work)
            self._failed = self._failed or work.hook("on_end")
            self._plane.flush()
        for work in [work for work in self._ending if work.flushed]:
            self._ending.remove(work)
            work.end()

    def told_to_end(self, node: str = "") -> bool:
        """Tell user code that the run drains; return whether it may be interrupted for that."""
        told = [work for work in self._told(node) if work.told_to_end()]
        self._interruptible += told
        return bool(told)

    def interruptible(self) -> bool:
        """Whether the code that runs now may be interrupted for a drain: not that of others."""
        return any(work.running for work in self._interruptible)

    def close_inputs(self, node: str = "") -> None:
        """End the source ``node``, or its inputs if only the outside feeds them; "": of all."""
        for work in self._told(node):
            work.close_inputs()

    def _told(self, node: str) -> list[Work]:
        """Return whom a drain means: nodes that no edge will end."""
        return [work for work in self._named(node) if not work.fed]

    def stop(self) -> None:
        """Take nothing more; what is queued or under way is abandoned."""
        for work in self._works:
            work.stop()
        if len(self._started) < len(self._works):  # nobody else will call their `on_stop`
            self.hook("on_stop")

    def end(self) -> None:
        """Each node has sent its END."""

    def conclude(self) -> None:
        """Say what was left unsaid, after the last message."""
        for work in self._works:
            work.conclude()

    def close(self) -> None:
        """Release the event loop."""
        for work in self._works:
            work.close()

    # --- user code -------------------------------------------------------------------------------

    def wait(self, timeout_s: float | None) -> None:
        """Let tasks of all nodes run until something happens."""
        active = [work for work in self._works if work.active]
        began = self._plane.clock.monotonic_ns()
        for work in active[1:]:
            work.refresh()
        active[0].wait(timeout_s)
        for work in active[1:]:
            work.waited(self._plane.clock.monotonic_ns() - began)

    def hook(self, name: str) -> HookRaised | None:
        """Call a hook of every node, ``on_stop`` in reverse; return what must end the run."""
        if name == "on_start":
            for work in self._works:
                raised = work.hook(name)
                if raised is not None:
                    return raised
                self._started.append(work)
        elif name == "on_stop":
            while self._started:
                self._started.pop().hook(name)
        return None  # `on_end` was called for each when it ended

    # --- counters --------------------------------------------------------------------------------

    def stats(self) -> WorkerStats:
        """Return every counter; exact when called by the main thread."""
        first, *others = self._works
        fused = {work.name: work.node_stats() for work in others}
        return self._plane.stats(first.node_stats(), fused)
