"""When the sender of a channel asks its receiver how it stands.

Reports are cumulative, so that a lost one does no harm: the next says the same and more. But after
the last report there is no next one, and a connection that broke while both sides waited is noticed
by neither. So a sender that has heard nothing for a second of what it has sent asks, and again, at
growing intervals. One that has said END repeats it in the same way, for as long as it lives.

The answer is a report. A receiver that has not got all that was sent knows it from the question,
and one that the question reaches over a new connection refuses it: either way the run fails by
name.

Rejected: receivers that repeat their last report. They do not know whether it has arrived, so they
would repeat it for ever, and a broken connection would stay unnoticed.
"""

from __future__ import annotations

from dflow.flow.credit import SendWindow

__all__ = ["FIRST_NS", "MOST_NS", "Doubt"]

FIRST_NS = 1_000_000_000
"""How long nothing is heard of what was sent before the first question."""

MOST_NS = 60_000_000_000
"""The most between two questions; each interval is twice the one before."""


class Doubt:
    """Whether the receiver of one channel should be asked; one thread calls `due` now and then."""

    __slots__ = ("_after_ns", "_due_ns", "_known", "_window")

    def __init__(self, window: SendWindow) -> None:
        self._window = window
        self._known: tuple[int, int, int, bool] | None = None
        self._after_ns = FIRST_NS
        self._due_ns = 0

    def due(self, now: int, *, ended: bool) -> bool:
        """Return whether to ask now; ``ended``: END was sent. ``now`` is the monotonic clock."""
        window = self._window
        known = (window.sent, window.taken, window.done, ended)
        if known != self._known or (window.done >= window.sent and not ended):
            self._known = known
            self._after_ns = FIRST_NS
            self._due_ns = now + FIRST_NS
            return False
        if now < self._due_ns:
            return False
        self._after_ns = min(2 * self._after_ns, MOST_NS)
        self._due_ns = now + self._after_ns
        return True
