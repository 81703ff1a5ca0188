"""The words every layer shares: priority bands and the header a handler may look at."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, IntEnum

__all__ = ["EXTERNAL", "Cancelled", "Headers", "Priority", "strongest"]

EXTERNAL = "run"
"""Name of the pseudo-node that stands for the launching process (its edges: ``run->a.in``)."""


class Priority(IntEnum):
    """The band of an edge; lower numbers are served first."""

    CONTROL = 0
    HIGH = 1
    NORMAL = 2
    LOW = 3


class Cancelled(Enum):
    """What became of a request to cancel a message (`Run.cancel`)."""

    CANCELLED = "cancelled"
    """It was queued: no handler will see it."""

    HANDLING = "handling"
    """A handler has it: ``ctx.cancelled`` is true there now."""

    DONE = "done"
    """It was handled, or dropped, before the request came."""

    UNKNOWN = "unknown"
    """No message of this run has that id, or it was done long ago."""


_STRENGTH = (Cancelled.UNKNOWN, Cancelled.DONE, Cancelled.CANCELLED, Cancelled.HANDLING)


def strongest(outcomes: Iterable[Cancelled]) -> Cancelled:
    """Return the outcome of a message whose copies had ``outcomes``; of none: unknown.

    That is HANDLING if any of them is, else CANCELLED, else DONE.
    """
    return max(outcomes, key=_STRENGTH.index, default=Cancelled.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Headers:
    """Where the batch of the message at hand came from.

    ``edge`` is the edge id, ``sequence`` the channel-wide number of the batch's first
    message (from 0), ``sent_ns`` the sender's wall clock in nanoseconds when it was sent.
    """

    edge: str
    sequence: int
    sent_ns: int
