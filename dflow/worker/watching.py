"""What one node of a worker is doing at this moment, seen from the pulse thread.

Nothing is written down for this while messages are handled: what is here is read off what the
dispatcher, the edges and the tasks know anyway, once a report. *Since when* follows from
comparing: as long as nothing has moved since the last look, it is the same as then. So a time may
be too short by one report, and never too long.

All this is read while the main thread goes on, without its lock: user code may hold that for
hours. What cannot be read in the middle of a change is left as it was at the last look.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from dflow.stats import Doing
from dflow.worker.faults import is_dflows

if TYPE_CHECKING:
    from dflow.flow.in_edge import InChannel
    from dflow.worker.aio import AsyncRunner
    from dflow.worker.chain import Station
    from dflow.worker.handling import Handling
    from dflow.worker.outbound import Edge
    from dflow.worker.plane import DataPlane
    from dflow.worker.pulse import Pulse
    from dflow.worker.user_code import UserCode

__all__ = ["Watch", "place_in"]

SLOW_NS = 1_000_000_000
"""After this long at the same place in user code it is worth looking up which place that is."""

_MOST_CHANNELS = 16
_INSTALLED = tuple({sysconfig.get_path(name) + os.sep for name in ("purelib", "platlib")})
_STDLIB = (sysconfig.get_path("stdlib") + os.sep,)

_Seen = tuple[Doing, object, int | None]
"""What it does; a mark that changes whenever anything moves; since when, if that is known."""


class Watch:
    """Looks at one node; made, and then looked after, by different threads."""

    __slots__ = (
        "_at", "_busy_ns", "_code", "_cpu_ns", "_looked_ns", "_mark", "_plane", "_pulse", "_said",
        "_since_ns", "_tasks", "_tasks_seen", "_thread",
    )  # fmt: skip

    def __init__(
        self,
        at: Station,
        code: UserCode,
        tasks: Callable[[], AsyncRunner | None],
        plane: DataPlane,
        pulse: Pulse,
    ) -> None:
        self._at = at
        self._code = code
        self._tasks = tasks
        self._plane = plane
        self._pulse = pulse
        self._thread = threading.get_ident()  # the one that runs user code
        self._mark: object = None
        self._since_ns = self._looked_ns = plane.clock.monotonic_ns()
        self._busy_ns = self._cpu_ns = 0
        self._said = Doing()
        self._tasks_seen: dict[Handling, int] = {}

    def look(self, busy_ns: int) -> Doing:
        """Return what the node does now; ``busy_ns``: time spent in its own code so far."""
        now = self._plane.clock.monotonic_ns()
        try:
            doing, mark, known_ns = self._see(now)
        except (RuntimeError, LookupError, AttributeError, TypeError):  # caught in a change
            return self._said
        if mark != self._mark:
            self._mark, self._since_ns = mark, now
        since_ns = self._since_ns if known_ns is None else min(known_ns, self._since_ns)
        inside = doing.what in ("handler", "source", "tasks") or doing.what == self._code.hook_name
        place = doing.place
        if inside and now - since_ns >= SLOW_NS and self._in_code():
            place = place_in(self._frame())
        self._said = Doing(
            doing.what, max(0, now - since_ns) / 1e9, self._busy(now, busy_ns, doing, since_ns),
            place, doing.tasks, doing.number, doing.edges, doing.channels,
        )  # fmt: skip
        return self._said

    def _busy(self, now: int, busy_ns: int, doing: Doing, since_ns: int) -> float:
        """Return the part of the time since the last look that was spent in its own code.

        Who waits inside of it, for a source's next value or in coroutines, is as busy as its
        process.
        """
        elapsed_ns = max(1, now - self._looked_ns)
        cpu_ns = self._plane.clock.cpu_ns()
        share, cpu = (busy_ns - self._busy_ns) / elapsed_ns, (cpu_ns - self._cpu_ns) / elapsed_ns
        if doing.what in ("handler", "on_tick"):
            share = max(share, (now - max(since_ns, self._looked_ns)) / elapsed_ns)
        elif doing.what in ("source", "tasks"):
            share = cpu
        elif self._at.feed is not None or self._tasks() is not None:
            share = min(share, cpu)
        self._looked_ns, self._busy_ns, self._cpu_ns = now, busy_ns, cpu_ns
        return max(0.0, min(1.0, share))

    # --- what it does ----------------------------------------------------------------------------

    def _see(self, now: int) -> _Seen:
        at, tasks = self._at, self._tasks()
        if self._code.hook_name:
            name = self._code.hook_name
            return Doing(name), (name, self._code.began_ns), self._code.began_ns
        if self._in_code():
            seen = self._inside(tasks)
            if seen is not None:
                return seen
        if at.inputs.ended:
            return Doing("ended"), "ended", None
        if "paused" in at.holds:
            return Doing("paused"), "paused", None
        if full := [edge for edge in at.outputs.edges if edge.full]:
            return self._credit(full)
        if tasks is not None and tasks.active:
            return self._coroutines(tasks, now)
        if "turn" in at.holds:
            return Doing("turn"), "turn", None
        return self._waiting()

    def _inside(self, tasks: AsyncRunner | None) -> _Seen | None:
        """It is in its handler, or at its source; None: its coroutines may be under way."""
        way = self._plane.running.way
        at = 0 if way is None else way.position(self._frame())
        if way is not None and at:
            edges = self._indexes(way.entry(at).edge_id)
            return Doing("handler", edges=edges), ("way", way.begun, self._emitted), None
        dispatch = self._at.dispatch
        handling = dispatch.handling
        if handling is not None:
            mark = ("handler", handling.channel.number, handling.sequence)
            began_ns = dispatch.began_ns if handling.begun == 1 else None
            return Doing("handler", edges=self._indexes(handling.channel.edge_id)), mark, began_ns
        if self._at.feed is not None and (tasks is None or not tasks.active):
            return Doing("source"), ("source", self._emitted, way and way.begun), None
        return None

    def _coroutines(self, tasks: AsyncRunner, now: int) -> _Seen:
        running = list(tasks.handling)
        seen = self._tasks_seen
        self._tasks_seen = {one: seen.get(one, now) for one in running}
        if not running:  # a source's
            return Doing("source", tasks=tasks.count), ("source", self._emitted), None
        oldest = min(running, key=lambda one: self._tasks_seen[one])
        edges = self._indexes(oldest.channel.edge_id)
        return Doing("tasks", tasks=tasks.count, edges=edges), oldest, self._tasks_seen[oldest]

    def _credit(self, edges: list[Edge]) -> _Seen:
        channels = [
            number
            for edge in edges
            for number, window in zip(edge.channels, edge.windows, strict=True)
            if window.room <= 0 or window.room_bytes <= 0
        ]
        indexes = tuple(edge.index for edge in edges)
        doing = Doing("credit", edges=indexes, channels=tuple(channels[:_MOST_CHANNELS]))
        return doing, (*indexes, self._emitted, self._at.outputs.waiting), None

    def _waiting(self) -> _Seen:
        """It has nothing to do: for want of messages, or of that one which must come next."""
        at = self._at
        unsent = [edge for edge in at.outputs.edges if edge.waiting]
        filled = [channel for channel in at.inputs.channels if channel.inbox]
        if unsent and not filled:
            return self._credit(unsent)
        if filled and not any(channel.deliverable for channel in filled):
            return self._order(filled[0])
        if self._pulse.in_user_code and (filled or at.feed is not None):  # another node's code
            return Doing("thread"), ("thread", at.dispatch.handled, self._emitted), None
        if at.feed is not None:
            return Doing("source"), ("source", self._emitted), None
        return Doing("idle"), ("idle", at.dispatch.handled), None

    def _order(self, channel: InChannel) -> _Seen:
        if channel.merge is None:
            return Doing("idle"), ("idle", self._at.dispatch.handled), None
        number, places = channel.merge.awaited
        channels = [channel.siblings[place].number for place in places]
        edges = self._indexes(channel.edge_id)
        return Doing("order", number=number, edges=edges, channels=tuple(channels)), number, None

    # --- where -----------------------------------------------------------------------------------

    def _in_code(self) -> bool:
        """Whether the user code that runs now is this node's."""
        if not self._pulse.in_user_code:
            return False
        running = self._plane.running
        if running.way is None:
            return running is self._at.outputs
        return running.way.node(running.way.position(self._frame())) == self._at.ctx.node

    def _frame(self) -> FrameType | None:
        """Return what the main thread executes; None if that is the one that asks."""
        if threading.get_ident() == self._thread:
            return None
        return sys._current_frames().get(self._thread)

    @property
    def _emitted(self) -> int:
        return sum([edge.emitted for edge in self._at.outputs.edges])

    def _indexes(self, edge_id: str) -> tuple[int, ...]:
        plan = self._plane.plan
        for edge in (*plan.in_edges(self._at.ctx.node), *plan.external_edges):
            if edge.id == edge_id:
                return (edge.index,)
        return ()


def place_in(frame: FrameType | None) -> str:
    """Return "app.py:17 in parse", the user's own line that ``frame`` is in; "" if there is none.

    Of what it calls in libraries, the line that called it; of code that is installed as one, the
    outermost.
    """
    installed = ""
    while frame is not None and not is_dflows(frame.f_code.co_filename):
        path = frame.f_code.co_filename
        if not path.startswith((*_STDLIB, "<frozen ")) or path.startswith(_INSTALLED):
            text = f"{Path(path).name}:{frame.f_lineno} in {frame.f_code.co_name}"
            if not path.startswith(_INSTALLED):
                return text
            installed = text
        frame = frame.f_back
    if not installed and frame is not None and frame.f_back is not None:
        return _above(frame.f_back)
    return installed


def _above(frame: FrameType | None) -> str:
    """Return the line that called dflow's own code, if dflow's own code called that."""
    while frame is not None and is_dflows(frame.f_code.co_filename):
        frame = frame.f_back
    outer = frame
    while outer is not None and not is_dflows(outer.f_code.co_filename):
        outer = outer.f_back
    return "" if outer is None else place_in(frame)
