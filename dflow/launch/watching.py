"""What the launching process is doing, as far as others may have to wait for it.

It may leave results unread, or wait in `Run.send` for room. *Since when* follows from comparing
two looks, as in a worker (`dflow.worker.watching`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dflow.stats import Doing

if TYPE_CHECKING:
    from dflow.launch.sending import Sending
    from dflow.worker.plane import DataPlane

__all__ = ["LauncherWatch"]


class LauncherWatch:
    """Looks at the launching process's ends of channels; the plane's lock is held."""

    __slots__ = ("_mark", "_plane", "_sending", "_since_ns")

    def __init__(self, plane: DataPlane, sending: Sending) -> None:
        self._plane = plane
        self._sending = sending
        self._mark: object = None
        self._since_ns = plane.clock.monotonic_ns()

    def look(self) -> Doing:
        """Return what it does now."""
        now = self._plane.clock.monotonic_ns()
        doing, mark = self._see()
        if mark != self._mark:
            self._mark, self._since_ns = mark, now
        return Doing(doing.what, (now - self._since_ns) / 1e9, edges=doing.edges)

    def _see(self) -> tuple[Doing, object]:
        arrived = list(self._plane.inbound.channels.values())
        unread = [channel for channel in arrived if channel.deliverable]
        if unread:
            ids = {channel.edge_id for channel in unread}
            indexes = tuple(edge.index for edge in self._plane.plan.edges if edge.id in ids)
            return Doing("results", edges=indexes), (indexes, sum(c.window.taken for c in arrived))
        waiting = self._sending.waiting
        full = tuple(dict.fromkeys(edge.index for edge in waiting))
        if full:
            return Doing("send", edges=full), (full, sum(edge.offered for edge in waiting))
        return Doing("idle"), "idle"
