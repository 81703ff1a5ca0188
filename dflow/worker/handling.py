"""What is in the hands of user code: the messages of a turn, of a paused generator, of a task.

It answers two questions at any moment and from any thread: which message is being handled, and
has somebody asked to cancel it? A turn pays for that once, not for each message: how far it has
come is read off the iterator the messages come from.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import ContextVar
from operator import length_hint
from typing import TYPE_CHECKING, Any

from dflow.flow.in_edge import InChannel

if TYPE_CHECKING:
    from dflow.worker.ordered import Slot

__all__ = ["Handling", "current_task"]

_NOTHING: Iterator[Any] = iter(())


class Handling:
    """``count`` messages of ``channel`` from number ``first``, handled one after the other.

    ``cancelled`` are the sequences somebody asked to cancel after their handler had begun.
    ``slot`` is the place of the message at hand in the line of an ordered node.
    """

    __slots__ = ("_left", "cancelled", "channel", "count", "first", "slot")

    def __init__(
        self, channel: InChannel, first: int, count: int = 1, left: Iterator[Any] = _NOTHING
    ) -> None:
        self.channel = channel
        self.first = first
        self.count = count
        self.cancelled: frozenset[int] = frozenset()
        self.slot: Slot | None = None
        self._left = left

    @property
    def begun(self) -> int:
        """How many of the messages were handed to the handler, the one at hand included."""
        return self.count - length_hint(self._left)

    @property
    def sequence(self) -> int:
        """The message at hand."""
        return self.first + self.begun - 1

    def has(self, sequence: int) -> bool:
        """Whether message ``sequence`` of the channel is one of these."""
        return self.first <= sequence < self.first + self.count

    @property
    def is_cancelled(self) -> bool:
        """Whether somebody asked to cancel the message at hand."""
        return bool(self.cancelled) and self.sequence in self.cancelled

    def cancel(self, sequence: int) -> None:
        """Let the handler of message ``sequence`` see that it is no longer wanted."""
        self.cancelled |= {sequence}

    def alone(self) -> Handling:
        """Return the message at hand by itself, for what goes on after the turn."""
        alone = Handling(self.channel, self.sequence)
        alone.cancelled, alone.slot = self.cancelled, self.slot
        return alone


current_task: ContextVar[Handling | None] = ContextVar("current_task", default=None)
"""What the asyncio task at hand handles; None outside of one."""
