"""What of a backlog the coordinator need not read: counters that newer ones have replaced.

Counters are cumulative, so of each sender only the newest matter. A coordinator that gets too
little of a processor, or has thousands of workers, would else fall further behind the longer it
works: to decode and enter counters is most of what it does.
"""

from __future__ import annotations

from collections.abc import Sequence

from dflow.wire import control as c

__all__ = ["Arrived", "newest"]

Arrived = tuple[bytes, Sequence[bytes]]
"""Who sent it, and its frames."""

_STATS = c.encode(c.Stats([]))[:-1]
"""How a message with counters begins: all but its one field."""


def newest(arrived: Sequence[Arrived]) -> list[Arrived]:
    """Return what is worth reading of ``arrived``, in order."""
    heard: set[bytes] = set()
    found = []
    for key, frames in reversed(arrived):
        if len(frames) == 1 and frames[0].startswith(_STATS):
            if key in heard:
                continue
            heard.add(key)
        found.append((key, frames))
    found.reverse()
    return found
