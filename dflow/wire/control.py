"""Control messages, by direction. The data plane's frames are in `dflow.wire.frames`.

A message is ``[VERSION, code, field, …]`` in msgpack. Fields are plain data (None, bool,
int, float, str, bytes, list, dict): nothing here can carry code. Decoding anything else
raises `ProtocolError` and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import msgpack

from dflow.errors import ProtocolError
from dflow.wire.unpack import require_whole

__all__ = [
    "Abort",
    "AbortRequest",
    "Answer",
    "Assign",
    "Bound",
    "Cancel",
    "CancelReply",
    "CancelRequest",
    "Control",
    "Drain",
    "DrainNode",
    "DrainNodeRequest",
    "DrainRequest",
    "Drained",
    "Exit",
    "Failed",
    "Find",
    "Finished",
    "Found",
    "Heartbeat",
    "Hello",
    "Link",
    "Linked",
    "Locate",
    "Located",
    "Log",
    "Outcome",
    "Pause",
    "PauseRequest",
    "Ping",
    "Process",
    "Refused",
    "Run",
    "Start",
    "Started",
    "Stats",
    "StatusReply",
    "StatusRequest",
    "Stop",
    "Stopped",
    "Turn",
    "TurnOver",
    "decode",
    "encode",
]

VERSION = 1
MAX_CONTROL_BYTES = 16 * 1024 * 1024


class Control:
    """Base of control messages."""

    __slots__ = ()
    code: ClassVar[int]


# --- participant (worker or launching process) -> coordinator ---------------------------


@dataclass(frozen=True, slots=True)
class Hello(Control):
    """First word. ``node`` empty: "assign me any free replica". ``role``: worker | handle."""

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
    """User code raised where that ends the run. ``where``: on_start, handler, source, …"""

    code: ClassVar[int] = 9
    where: str
    error: str
    traceback: str


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
    """Let a node take no more data (``paused`` 1), or go on (0); answered by `Answer`."""

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


# --- coordinator -> participant ----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Assign(Control):
    """You are this replica. ``graph``: import reference for a worker that joined by hand."""

    code: ClassVar[int] = 40
    node: str
    replica: int
    run_id: str
    epoch: int
    graph: str = ""
    fingerprint: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Link(Control):
    """Open your outgoing channels: rows of [channel number, endpoint]."""

    code: ClassVar[int] = 41
    channels: list[Any]


@dataclass(frozen=True, slots=True)
class Start(Control):
    """Call ``on_start``."""

    code: ClassVar[int] = 42


@dataclass(frozen=True, slots=True)
class Run(Control):
    """All nodes are ready: handle messages; sources may emit."""

    code: ClassVar[int] = 43


@dataclass(frozen=True, slots=True)
class Drain(Control):
    """End your source, or your unconnected inputs, and drain."""

    code: ClassVar[int] = 44


@dataclass(frozen=True, slots=True)
class Stop(Control):
    """Everything is drained: call ``on_stop`` and report."""

    code: ClassVar[int] = 45


@dataclass(frozen=True, slots=True)
class Abort(Control):
    """Stop taking messages now, call ``on_stop``, report."""

    code: ClassVar[int] = 46
    reason: str


@dataclass(frozen=True, slots=True)
class Exit(Control):
    """Your report is in the books: close sockets and leave."""

    code: ClassVar[int] = 47


@dataclass(frozen=True, slots=True)
class Ping(Control):
    """The coordinator is alive."""

    code: ClassVar[int] = 48


@dataclass(frozen=True, slots=True)
class Refused(Control):
    """You may not take part; leave. ``reason`` says why and what to do."""

    code: ClassVar[int] = 49
    reason: str


@dataclass(frozen=True, slots=True)
class Pause(Control):
    """Take no more data for ``node`` (``paused`` 1), or go on (0). Control messages go on."""

    code: ClassVar[int] = 50
    node: str
    paused: int


@dataclass(frozen=True, slots=True)
class DrainNode(Control):
    """End the source ``node``, or its inputs if only the outside feeds them."""

    code: ClassVar[int] = 51
    node: str


@dataclass(frozen=True, slots=True)
class Turn(Control):
    """Whether you may compute: ``seconds`` > 0 for that long, 0 until further notice, < 0 not
    before the next `Turn`.
    """

    code: ClassVar[int] = 52
    seconds: float


@dataclass(frozen=True, slots=True)
class Find(Control):
    """Withdraw the message you emitted with ``id``, or say where you sent it: see `Found`."""

    code: ClassVar[int] = 53
    request: int
    id: str


@dataclass(frozen=True, slots=True)
class Cancel(Control):
    """Do not handle message ``sequence`` of ``channel``; answered by `Outcome`."""

    code: ClassVar[int] = 54
    request: int
    channel: int
    sequence: int


# --- coordinator -> launching process ----------------------------------------------------


@dataclass(frozen=True, slots=True)
class Process(Control):
    """The run entered a new phase."""

    code: ClassVar[int] = 60
    phase: str


@dataclass(frozen=True, slots=True)
class StatusReply(Control):
    """Answer to `StatusRequest`: ``status`` is `RunStatus.to_dict()`."""

    code: ClassVar[int] = 61
    request: int
    status: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Located(Control):
    """Answer to `Locate`: rows of [channel number, endpoint]; empty if the node ended."""

    code: ClassVar[int] = 62
    request: int
    channels: list[Any]


@dataclass(frozen=True, slots=True)
class Finished(Control):
    """Last word: the report, and how the run failed, if it did."""

    code: ClassVar[int] = 63
    report: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Answer(Control):
    """A request was obeyed; ``error`` says why not, if it was not."""

    code: ClassVar[int] = 64
    request: int
    error: str


@dataclass(frozen=True, slots=True)
class CancelReply(Control):
    """Answer to `CancelRequest`: ``outcome`` is a `dflow.Cancelled` value."""

    code: ClassVar[int] = 65
    request: int
    outcome: str


def _all_messages() -> dict[int, type[Control]]:
    found: dict[int, type[Control]] = {}
    for kind in Control.__subclasses__():
        # `slots=True` makes dataclass build the class twice; the second one is public.
        if globals().get(kind.__name__) is kind:
            found[kind.code] = kind
    return found


_MESSAGES = _all_messages()
_FIELDS = {kind: tuple(f.name for f in fields(kind)) for kind in _MESSAGES.values()}  # type: ignore[arg-type]  # all are dataclasses


_ODD_TEXT = "backslashreplace"


def encode(message: Control) -> bytes:
    """Return the bytes of one control message."""
    names = _FIELDS[type(message)]
    values = (getattr(message, n) for n in names)
    # A log line or traceback with a lone surrogate must not be what kills a worker.
    packed: bytes = msgpack.packb([VERSION, message.code, *values], unicode_errors=_ODD_TEXT)
    return packed


def _refuse(code: int, data: bytes) -> None:
    raise ProtocolError(f"control message: expected plain data, got an extension ({code})")


def decode(data: bytes) -> Control:
    """Return the message in ``data``; raises `ProtocolError` for anything else."""
    if len(data) > MAX_CONTROL_BYTES:
        raise ProtocolError(
            f"control message: expected at most {MAX_CONTROL_BYTES} bytes, got {len(data)}"
        )
    try:
        require_whole(data)  # it may come from anyone who can reach the coordinator
        version, code, *values = msgpack.unpackb(data, strict_map_key=False, ext_hook=_refuse)
        kind = _MESSAGES[code]
    except Exception as error:  # noqa: BLE001  # msgpack raises many types
        raise ProtocolError(f"control message: malformed ({type(error).__name__})") from None
    if version != VERSION:
        raise ProtocolError(f"control message: expected version {VERSION}, got {version!r}")
    if len(values) != len(_FIELDS[kind]):
        raise ProtocolError(
            f"{kind.__name__}: expected {len(_FIELDS[kind])} fields, got {len(values)}"
        )
    _check(kind, values)
    return kind(*values)


_PLAIN: dict[str, Any] = {"str": str, "int": int, "float": (int, float), "list[Any]": list}


def _check(kind: type[Control], values: list[Any]) -> None:
    for spec, value in zip(fields(kind), values, strict=True):  # type: ignore[arg-type]  # all are dataclasses
        expected = _PLAIN.get(str(spec.type), dict)
        if not isinstance(value, expected) or isinstance(value, bool):
            raise ProtocolError(
                f"{kind.__name__}.{spec.name}: expected {spec.type}, got {type(value).__name__}"
            )
