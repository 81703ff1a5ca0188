"""Answers to who cancels a message: where this participant sent it, what became of one it got.

Called with the data plane's lock held: by the pulse thread if it gets the lock at once, which
means that user code is running, else by the main thread between two turns.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from dflow.flow.queue_edge import QueueEdge
from dflow.message import Cancelled, strongest
from dflow.wire import control as c

if TYPE_CHECKING:
    from dflow.worker.plane import DataPlane

__all__ = ["Question", "answer", "withdraw"]

Question = c.Find | c.Cancel


def answer(
    plane: DataPlane, question: Question, *, between_turns: bool
) -> c.Found | c.Outcome | None:
    """Return the answer to a question; None: ask again ``between_turns`` of user code."""
    if isinstance(question, c.Find):
        keeping = [order for order in plane.outbound.orders if order.keeps(question.id)]
        if keeping and not between_turns:
            return None  # it may be leaving at this moment
        found, rows = withdraw(plane.outbound.edges, question.id)
        for order in keeping:
            if order.cancel(question.id):
                found = strongest((found, Cancelled.CANCELLED))
        return c.Found(question.request, found.value, [list(row) for row in rows])
    outcome = plane.canceller.cancel(question.channel, question.sequence)
    return None if outcome is None else c.Outcome(question.request, outcome.value)


def withdraw(edges: Iterable[Any], id: str) -> tuple[Cancelled, list[tuple[int, int]]]:
    """Take out what waits with this id on any of ``edges``.

    Returns the outcome of what is still known here, and (channel, sequence) of each copy that was
    sent and is not done.
    """
    found = [edge.withdraw(id) for edge in edges if isinstance(edge, QueueEdge)]
    return strongest(outcome for outcome, _ in found), [row for _, rows in found for row in rows]
