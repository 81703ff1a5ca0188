"""The words every layer shares: priority bands and the header a handler may look at."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

__all__ = ["EXTERNAL", "Headers", "Priority"]

EXTERNAL = "run"
"""Name of the pseudo-node that stands for the launching process (its edges: ``run->a.in``)."""


class Priority(IntEnum):
    """The band of an edge; lower numbers are served first."""

    CONTROL = 0
    HIGH = 1
    NORMAL = 2
    LOW = 3


@dataclass(frozen=True, slots=True)
class Headers:
    """Where the batch of the message at hand came from.

    ``edge`` is the edge id, ``sequence`` the channel-wide number of the batch's first
    message (from 0), ``sent_ns`` the sender's wall clock in nanoseconds when it was sent.
    """

    edge: str
    sequence: int
    sent_ns: int
