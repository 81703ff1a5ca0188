"""Cancelling a message at its receiver: is it queued, in somebody's hands, or done?

`cancel` may be called by the pulse thread while user code runs, so that even a handler that blocks
hears of it: then the turn at hand is read from outside. Three messages of it are told apart: the
one in hand; those beyond the very next, which will not be handed out because the gate is shut
first and stays shut; and the very next itself, which the main thread may or may not be taking at
this moment. Only for that one must the caller ask again, once the turn is over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dflow.message import Cancelled

if TYPE_CHECKING:
    from dflow.worker.aio import AsyncRunner
    from dflow.worker.dispatch import Dispatcher
    from dflow.worker.handling import Handling
    from dflow.worker.inbound import Inbound
    from dflow.worker.plane import Gate

__all__ = ["Canceller"]


class Canceller:
    """Of one participant; knows who handles what through those it was told to `watch`."""

    __slots__ = ("_dispatchers", "_gate", "_inbound", "_runners")

    def __init__(self, inbound: Inbound, gate: Gate) -> None:
        self._inbound = inbound
        self._gate = gate
        self._dispatchers: list[Dispatcher] = []
        self._runners: list[AsyncRunner] = []

    def watch(self, who: Dispatcher | None = None, *, tasks: AsyncRunner | None = None) -> None:
        """Look at these, too, for messages being handled."""
        if who is not None:
            self._dispatchers.append(who)
        if tasks is not None:
            self._runners.append(tasks)

    def cancel(self, channel: int, sequence: int) -> Cancelled | None:
        """Cancel a message if it is still queued; say what became of it.

        None: ask again when the turn of user code is over. The data plane's lock is held.
        """
        found = self._inbound.find(channel)
        if found is None:
            return Cancelled.UNKNOWN
        for dispatcher in self._dispatchers:
            turn = dispatcher.handling
            if dispatcher.choosing:
                return None
            if turn is not None and turn.channel is found and turn.has(sequence):
                return self._in_turn(turn, sequence)
            for _, paused in list(dispatcher.paused):
                if paused is not None and paused.channel is found and paused.has(sequence):
                    paused.cancel(sequence)
                    return Cancelled.HANDLING
        for runner in self._runners:
            for task in list(runner.handling):
                if task.channel is found and task.has(sequence):
                    task.cancel(sequence)
                    return Cancelled.HANDLING
        if sequence < found.window.taken:
            return Cancelled.DONE
        found.cancel(sequence)
        return Cancelled.CANCELLED

    def _in_turn(self, turn: Handling, sequence: int) -> Cancelled | None:
        self._gate.hold()  # first: what is beyond the next message now stays there
        ahead = sequence - turn.sequence
        if ahead > 1:
            turn.channel.cancel(sequence)
            return Cancelled.CANCELLED
        if ahead == 1:
            return None
        if ahead < 0:
            return Cancelled.DONE
        turn.cancel(sequence)
        return Cancelled.HANDLING
