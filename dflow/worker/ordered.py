"""What an ordered node emits leaves in the order its inputs came, however they were handled.

Each input stands in a line from when it is taken until its results have left. What the first in
line emits leaves at once; what the others emit is encoded, so that it is frozen and a mistake
raises where it was made, and kept until their turn comes. A synchronous handler is always the
first; asynchronous ones overtake each other.

With replicas, results carry the number of their input (`dflow.flow.order`), and the edges are
told which inputs are complete. What is emitted outside any input (hooks, ticks, control messages)
neither waits nor carries a number.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from dflow.errors import EdgeFull
from dflow.flow.order import Origin

if TYPE_CHECKING:
    from dflow.flow.queue_edge import QueueEdge
    from dflow.worker.offering import Offering, Prepared

__all__ = ["MAX_KEPT", "InOrder", "Order", "Slot"]

MAX_KEPT = 512
"""Results kept for one input before its asynchronous generator has to wait for its turn."""

_slot: ContextVar[Slot | None] = ContextVar("slot", default=None)
"""Of the input at hand; each asyncio task has its own."""


class Kept:
    """A result that waits for its turn. ``cancelled``: nobody is to see it."""

    __slots__ = ("cancelled", "id", "offering", "prepared")

    def __init__(self, offering: Offering, prepared: Prepared, id: str | None) -> None:
        self.offering = offering
        self.prepared = prepared
        self.id = id
        self.cancelled = False


class Slot:
    """One input in the line. ``origin`` numbers its results, ``kept`` are those not let out yet."""

    __slots__ = ("ended", "finished", "kept", "origin")

    def __init__(self, number: int | None, finished: Callable[[], None] | None) -> None:
        self.origin = Origin(number)
        self.kept: list[Kept] = []
        self.ended = False
        self.finished = finished

    @property
    def crowded(self) -> bool:
        """Whether so much is kept that no more should be emitted before its turn comes."""
        return len(self.kept) >= MAX_KEPT


class Order:
    """The line of one replica. ``on_error`` hears of results refused when their turn came.

    ``errors`` counts those.
    """

    __slots__ = ("_completed", "_edges", "_line", "_on_error", "errors")

    def __init__(
        self, edges: Sequence[QueueEdge], on_error: Callable[[BaseException, str], None]
    ) -> None:
        self._edges = tuple(edge for edge in edges if edge.plan.tagged)
        self._on_error = on_error
        self.errors = 0
        self._line: deque[Slot] = deque()
        self._completed: deque[int] = deque()

    def enter(self, number: int | None, finished: Callable[[], None] | None = None) -> Slot:
        """Put an input at the end of the line; ``finished`` is called when it has left it."""
        slot = Slot(number, finished)
        self._line.append(slot)
        return slot

    def begin(self, slot: Slot | None) -> None:
        """What is emitted here from now on belongs to ``slot``."""
        _slot.set(slot)

    def leave(self, slot: Slot) -> None:
        """Everything of ``slot`` was emitted: let out what its turn has come for."""
        slot.ended = True
        line = self._line
        while line:
            first = line[0]
            for kept in first.kept:
                self._let_out(first, kept)
            first.kept = []  # not before: `keeps` is asked by another thread
            if not first.ended:
                return
            line.popleft()
            if first.origin.number is not None:
                self._completed.append(first.origin.number)
            if first.finished is not None:
                first.finished()

    def emit(self, offering: Offering, prepared: Prepared, id: str | None) -> None:
        """Let out a result of the input at hand, or keep it until its turn comes."""
        slot = _slot.get()
        if slot is None or slot.ended:
            offering.commit(prepared, id=id)
        elif slot is self._line[0]:
            offering.commit(prepared, id=id, tag=slot.origin.tag(offering.output))
        else:
            slot.kept.append(Kept(offering, prepared, id))

    def _let_out(self, slot: Slot, kept: Kept) -> None:
        offering = kept.offering
        tag = slot.origin.tag(offering.output)
        try:
            offering.commit(kept.prepared, id=kept.id, tag=tag, cancelled=kept.cancelled)
        except EdgeFull as error:
            self.errors += 1
            self._on_error(error, "handler")

    def keeps(self, id: str) -> bool:
        """Whether a result with this id may be waiting for its turn; from any thread."""
        return any(kept.id == id for slot in list(self._line) for kept in list(slot.kept))

    def cancel(self, id: str) -> bool:
        """Cancel results with this id that wait for their turn; return whether any does.

        Only between turns of user code.
        """
        found = [kept for slot in self._line for kept in slot.kept if kept.id == id]
        for kept in found:
            kept.cancelled = True
        return bool(found)

    @property
    def news(self) -> bool:
        """Whether the edges are to be told something."""
        return bool(self._completed)

    def tell(self) -> None:
        """Tell the edges which inputs are complete; the lock of the data plane is held."""
        while self._completed:  # the main thread may be adding to them
            number = self._completed.popleft()
            for edge in self._edges:
                edge.complete(number)


class InOrder:
    """Emits on one output of an ordered node."""

    __slots__ = ("_offering", "_order")

    def __init__(self, order: Order, offering: Offering) -> None:
        self._order = order
        self._offering = offering

    def __call__(self, value: Any, *, id: str | None = None) -> None:
        """Emit ``value`` as a result of the input at hand; raises what `Offering` does."""
        self._order.emit(self._offering, self._offering.prepare(value, id), id)
