"""What one node of a worker has counted, and what it is doing: asked for by the pulse thread.

Any thread may ask at any moment, without a lock: counters are read one by one, so they may be
a message apart. Asked by the main thread between turns they are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dflow.stats import NodeStats
from dflow.worker.watching import Watch

if TYPE_CHECKING:
    from dflow.worker.aio import AsyncRunner
    from dflow.worker.chain import Station
    from dflow.worker.context import Unconsumed
    from dflow.worker.plane import DataPlane
    from dflow.worker.pulse import Pulse
    from dflow.worker.ticks import Ticks
    from dflow.worker.user_code import UserCode

__all__ = ["Account"]


class Account:
    """The counters of the node at ``at``. ``tasks``: what runs its coroutines, if it has any yet.

    ``unconsumed`` count what it emits on outputs without an edge.
    """

    __slots__ = ("_at", "_code", "_plane", "_tasks", "_ticks", "_unconsumed", "_watch")

    def __init__(
        self,
        at: Station,
        code: UserCode,
        tasks: Callable[[], AsyncRunner | None],
        ticks: Ticks,
        unconsumed: Sequence[Unconsumed],
        plane: DataPlane,
        pulse: Pulse,
    ) -> None:
        self._at = at
        self._code = code
        self._tasks = tasks
        self._ticks = ticks
        self._unconsumed = unconsumed
        self._plane = plane
        self._watch = Watch(at, code, tasks, plane, pulse)

    def node_stats(self) -> NodeStats:
        """Return what this node has counted, and what it does."""
        at, code = self._at, self._code
        parts = [p for p in (at.dispatch, at.feed, self._tasks()) if p is not None]
        emitted: dict[str, int] = {}
        for edge in at.outputs.edges:
            emitted[self._plane.plan.edges[edge.index].output] = edge.emitted
        unconsumed = sum(count.count for count in self._unconsumed)
        refused = 0 if at.order is None else at.order.errors
        busy_ns = code.busy_ns + sum(part.busy_ns for part in parts)
        return NodeStats(
            handled=at.dispatch.handled,
            emitted=sum(emitted.values()) + unconsumed,
            errors=code.errors + refused + sum(part.errors for part in parts),
            ticks=self._ticks.called,
            busy_ns=busy_ns,
            metrics=dict(at.ctx.metrics.values),
            skipped=self._ticks.skipped,
            doing=self._watch.look(busy_ns),
        )
