"""What the coordinator is told and asked: by every participant, and by whoever looks on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from dflow.wire.control.base import Control

__all__ = [
    "AbortRequest",
    "Bound",
    "CancelRequest",
    "DrainNodeRequest",
    "DrainRequest",
    "Drained",
    "DumpRequest",
    "Dumped",
    "Failed",
    "Found",
    "Heartbeat",
    "Held",
    "Hello",
    "Linked",
    "Locate",
    "Log",
    "Outcome",
    "PauseRequest",
    "Started",
    "Stats",
    "StatusRequest",
    "Stopped",
    "TurnOver",
]


# --- participant (worker or launching process) -> coordinator ---------------------------


@dataclass(frozen=True, slots=True)
class Hello(Control):
    """First word. ``node`` empty: "assign me any free replica".

    ``role``: worker | handle | observer.
    """

    code: ClassVar[int] = 1
    role: str
    token: str
    pid: int
    host: str
    node: str = ""
    replica: int = 0
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Bound(Control):
    """Data sockets are bound: band number -> endpoint."""

    code: ClassVar[int] = 2
    endpoints: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class Linked(Control):
    """Every outgoing channel was opened and welcomed by its receiver."""

    code: ClassVar[int] = 3


@dataclass(frozen=True, slots=True)
class Started(Control):
    """``on_start`` returned."""

    code: ClassVar[int] = 4


@dataclass(frozen=True, slots=True)
class Drained(Control):
    """Inputs exhausted, ``on_end`` returned, everything emitted is on the wire."""

    code: ClassVar[int] = 5


@dataclass(frozen=True, slots=True)
class Stopped(Control):
    """``on_stop`` returned (or was skipped by an abort); ``stats`` are final."""

    code: ClassVar[int] = 6
    stats: list[Any]


@dataclass(frozen=True, slots=True)
class Stats(Control):
    """Periodic counters; also a sign of life."""

    code: ClassVar[int] = 7
    stats: list[Any]


@dataclass(frozen=True, slots=True)
class Heartbeat(Control):
    """A sign of life when there is nothing else to say."""

    code: ClassVar[int] = 8


@dataclass(frozen=True, slots=True)
class Failed(Control):
    """User code raised where that ends the run. ``where``: on_start, handler, source, …

    ``node``: whose code, in a worker of several nodes; empty: the worker's own.
    """

    code: ClassVar[int] = 9
    where: str
    error: str
    traceback: str
    node: str = ""


@dataclass(frozen=True, slots=True)
class Log(Control):
    """One log record of a worker. ``time_s``: wall clock; ``extra``: bound context."""

    code: ClassVar[int] = 10
    level: str
    time_s: float
    message: str
    name: str
    line: int
    extra: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TurnOver(Control):
    """I gave my turn back, or have none. ``wanting``: 1 if there is something to do, else 0."""

    code: ClassVar[int] = 11
    wanting: int


@dataclass(frozen=True, slots=True)
class Found(Control):
    """Answer to `Find`: ``outcome`` is a `dflow.Cancelled` value.

    ``rows`` of [channel, sequence]: where copies of the message were sent and may not be done.
    """

    code: ClassVar[int] = 12
    request: int
    outcome: str
    rows: list[Any]


@dataclass(frozen=True, slots=True)
class Outcome(Control):
    """Answer to `Cancel`: ``outcome`` is a `dflow.Cancelled` value."""

    code: ClassVar[int] = 13
    request: int
    outcome: str


@dataclass(frozen=True, slots=True)
class Held(Control):
    """Answer to `Pause`: I take no more data for that node."""

    code: ClassVar[int] = 14
    request: int


@dataclass(frozen=True, slots=True)
class Dumped(Control):
    """Answer to `Dump`: what this participant knows of itself, as JSON text."""

    code: ClassVar[int] = 15
    request: int
    text: str


# --- launching process -> coordinator ----------------------------------------------------


@dataclass(frozen=True, slots=True)
class DrainRequest(Control):
    """Stop the sources and let everything in flight finish; then end."""

    code: ClassVar[int] = 20
    timeout_s: float


@dataclass(frozen=True, slots=True)
class AbortRequest(Control):
    """End now; what is in flight is abandoned and counted."""

    code: ClassVar[int] = 21
    reason: str


@dataclass(frozen=True, slots=True)
class StatusRequest(Control):
    """Ask for a `StatusReply`."""

    code: ClassVar[int] = 22
    request: int


@dataclass(frozen=True, slots=True)
class Locate(Control):
    """Ask where the input port of a node is bound (for `run.send`)."""

    code: ClassVar[int] = 23
    request: int
    node: str
    port: str


@dataclass(frozen=True, slots=True)
class PauseRequest(Control):
    """Let a node take no more data (``paused`` 1), or go on (0); answered by `Answer`.

    With ``paused`` 0 and no ``node``, every node goes on.
    """

    code: ClassVar[int] = 24
    request: int
    node: str
    paused: int


@dataclass(frozen=True, slots=True)
class DrainNodeRequest(Control):
    """End one node in order: the sources that lead to it first; answered by `Answer`."""

    code: ClassVar[int] = 25
    request: int
    node: str


@dataclass(frozen=True, slots=True)
class CancelRequest(Control):
    """Cancel a message, answered by `CancelReply`.

    By its ``id`` (``rows`` empty), or where the launching process sent its copies:
    ``rows`` of [channel, sequence].
    """

    code: ClassVar[int] = 26
    request: int
    id: str
    rows: list[Any]


@dataclass(frozen=True, slots=True)
class DumpRequest(Control):
    """Ask for a failure bundle of the run as it is; answered by `Bundled`. Observers may, too."""

    code: ClassVar[int] = 27
    request: int
