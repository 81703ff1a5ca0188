"""Control messages, by direction. The data plane's frames are in `dflow.wire.frames`.

A message is ``[VERSION, code, field, …]`` in msgpack. Fields are plain data (None, bool,
int, float, str, bytes, list, dict): nothing here can carry code. Decoding anything else
raises `ProtocolError` and changes nothing.

`said` holds what the coordinator hears, `told` what it says; this module has them all.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import msgpack

from dflow.errors import ProtocolError
from dflow.wire.control import said, told
from dflow.wire.control.base import Control
from dflow.wire.control.said import (
    AbortRequest,
    Bound,
    CancelRequest,
    Drained,
    DrainNodeRequest,
    DrainRequest,
    Dumped,
    DumpRequest,
    Failed,
    Found,
    Heartbeat,
    Held,
    Hello,
    Linked,
    Locate,
    Log,
    Outcome,
    PauseRequest,
    Started,
    Stats,
    StatusRequest,
    Stopped,
    TurnOver,
)
from dflow.wire.control.told import (
    Abort,
    Answer,
    Assign,
    Bundled,
    Cancel,
    CancelReply,
    Drain,
    DrainNode,
    Dump,
    Exit,
    Find,
    Finished,
    Link,
    Located,
    Pause,
    Ping,
    Process,
    Refused,
    Run,
    Start,
    StatusReply,
    Stop,
    Turn,
)
from dflow.wire.unpack import require_whole

__all__ = [
    "MAX_CONTROL_BYTES",
    "MAX_STRANGER_BYTES",
    "VERSION",
    "Abort",
    "AbortRequest",
    "Answer",
    "Assign",
    "Bound",
    "Bundled",
    "Cancel",
    "CancelReply",
    "CancelRequest",
    "Control",
    "Drain",
    "DrainNode",
    "DrainNodeRequest",
    "DrainRequest",
    "Drained",
    "Dump",
    "DumpRequest",
    "Dumped",
    "Exit",
    "Failed",
    "Find",
    "Finished",
    "Found",
    "Heartbeat",
    "Held",
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
MAX_DEPTH = 64
"""Most lists and dicts inside of each other; what dflow says itself has eight."""
MAX_STRANGER_BYTES = 64 * 1024
"""Largest message of who has not shown the run's token: what lists cost Python is 60 times that."""

_KINDS: tuple[type[Control], ...] = tuple(
    getattr(module, name) for module in (said, told) for name in module.__all__
)
_MESSAGES = {kind.code: kind for kind in _KINDS}
_FIELDS = {kind: tuple(f.name for f in fields(kind)) for kind in _KINDS}  # type: ignore[arg-type]  # all are dataclasses
_ODD_TEXT = "backslashreplace"


def encode(message: Control) -> bytes:
    """Return the bytes of one control message."""
    names = _FIELDS[type(message)]
    values = (getattr(message, n) for n in names)
    # A log line or traceback with a lone surrogate must not be what kills a worker.
    packed: bytes = msgpack.packb(
        [VERSION, message.code, *values], unicode_errors=_ODD_TEXT, default=_within_64_bits
    )
    return packed


def _within_64_bits(value: Any) -> int:
    """Return the nearest number that can be sent: a sum of what peers count may be beyond."""
    if type(value) is not int:
        raise TypeError(f"control message: expected plain data, got {type(value).__name__}")
    return max(-(1 << 63), min(value, (1 << 64) - 1))


def _refuse(code: int, data: bytes) -> None:
    raise ProtocolError(f"control message: expected plain data, got an extension ({code})")


def decode(data: bytes, most_bytes: int = MAX_CONTROL_BYTES) -> Control:
    """Return the message in ``data``; raises `ProtocolError` for anything else."""
    if len(data) > most_bytes:
        raise ProtocolError(
            f"control message: expected at most {most_bytes} bytes, got {len(data)}"
        )
    try:
        require_whole(data)  # it may come from anyone who can reach the coordinator
        version, code, *values = msgpack.unpackb(data, strict_map_key=False, ext_hook=_refuse)
        kind = _MESSAGES[code]
        if type(version) is not int:
            raise TypeError("version")
    except Exception as error:  # noqa: BLE001  # msgpack raises many types
        raise ProtocolError(f"control message: malformed ({type(error).__name__})") from None
    if len(data) > MAX_DEPTH and _is_deep(values):
        raise ProtocolError(f"control message: expected at most {MAX_DEPTH} levels, got more")
    if version != VERSION:
        raise ProtocolError(f"control message: expected version {VERSION}, got {version!r:.40}")
    if len(values) != len(_FIELDS[kind]):
        raise ProtocolError(
            f"{kind.__name__}: expected {len(_FIELDS[kind])} fields, got {len(values)}"
        )
    _check(kind, values)
    return kind(*values)


def _is_deep(values: list[Any]) -> bool:
    """Whether something is nested so deep that whoever shows or copies it may run out of stack."""
    for _ in range(MAX_DEPTH):
        inside = [value for value in values if type(value) is list or type(value) is dict]
        if not inside:
            return False
        parts = [one.values() if isinstance(one, dict) else one for one in inside]
        values = [value for one in parts for value in one]
    return True


_NUMBERS = (int, float)
_MOST_SECONDS = 1e15
_PLAIN: dict[str, Any] = {"str": str, "int": int, "float": _NUMBERS, "list[Any]": list}


def _check(kind: type[Control], values: list[Any]) -> None:
    for spec, value in zip(fields(kind), values, strict=True):  # type: ignore[arg-type]  # all are dataclasses
        expected = _PLAIN.get(str(spec.type), dict)
        if not isinstance(value, expected) or isinstance(value, bool):
            raise ProtocolError(
                f"{kind.__name__}.{spec.name}: expected {spec.type}, got {type(value).__name__}"
            )
        if expected is _NUMBERS and not -_MOST_SECONDS <= value <= _MOST_SECONDS:  # nor NaN
            raise ProtocolError(f"{kind.__name__}.{spec.name}: expected a time, got {value}")
