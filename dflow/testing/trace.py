"""What happened in a simulation, one line an event; the same seed gives the same bytes.

Lines are put together when somebody reads them: noting an event costs one tuple. There are no
payloads in a trace, no addresses, and nothing of the real clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from dflow.errors import ProtocolError
from dflow.wire import control as c
from dflow.wire import frames as f

__all__ = ["Event", "Trace"]

_TOLD: dict[type[c.Control], tuple[str, ...]] = {
    c.Assign: ("node", "replica"),
    c.Process: ("phase",),
    c.Failed: ("where", "node"),
    c.Refused: (),
    c.Pause: ("node",),
    c.DrainNode: ("node",),
    c.PauseRequest: ("node", "paused"),
    c.DrainNodeRequest: ("node",),
    c.Locate: ("node", "port"),
}
"""Fields of control messages that say something; the others are left out."""


class Event(NamedTuple):
    """One event: when (ns), where, what, and what more there is to say; see `Trace`."""

    now_ns: int
    place: str
    what: str
    detail: Any = ""

    def __str__(self) -> str:
        """Return the line of the event."""
        detail = _told(self.what, self.detail)
        return f"{self.now_ns / 1e9:14.9f}  {self.place:<24} {self.what:<8} {detail}".rstrip()


class Trace:
    """The events of a simulation, oldest first.

    What there is: ``phase`` (of the run), ``control`` (a message has arrived), ``data`` and
    ``report`` (a frame has arrived), ``error`` (of user code, as logged), ``exit``, ``fault``.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []

    def note(self, now_ns: int, place: str, what: str, detail: Any = "") -> None:
        """Add an event; ``detail`` is a text, or the frame it is about."""
        self.events.append(Event(now_ns, place, what, detail))

    def lines(self) -> Iterator[str]:
        """Yield a line for each event."""
        return map(str, self.events)

    def __len__(self) -> int:
        return len(self.events)

    def __str__(self) -> str:
        """Return all lines."""
        return "\n".join(self.lines())


def _told(what: str, detail: Any) -> str:
    if isinstance(detail, str):
        return detail
    try:
        return _control(detail) if what == "control" else _frame(detail)
    except ProtocolError as error:
        return f"malformed ({error})"


def _control(data: bytes) -> str:
    message = c.decode(data)
    fields = [f"{name}={getattr(message, name)}" for name in _TOLD.get(type(message), ())]
    return " ".join([type(message).__name__, *fields])


def _frame(data: bytes) -> str:
    frame = f.parse(data)
    said = f"channel {frame.channel} {f.KIND_NAMES[frame.kind]}"
    if frame.kind == f.BATCH:
        return f"{said} {frame.sequence}+{frame.count}"
    if frame.kind == f.END:
        return f"{said} {frame.sequence}"
    if frame.kind in (f.CREDIT, f.CLOSED):
        taken, _, done = f.parse_credit(frame)
        beyond = len(f.parse_beyond(frame))
        return f"{said} taken={taken} done={done}" + (f"+{beyond}" if beyond else "")
    return said
