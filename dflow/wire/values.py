"""Values beyond msgpack's own types: how each is written, and read back.

Every such value is a msgpack array whose first element is a *mark*: a one-byte extension
whose code says what the rest is. ``(1, "a")`` is ``[<TUPLE>, 1, "a"]``. Nested extensions
(an extension whose data is msgpack again) were rejected: each level costs another packer and
unpacker, 650 ns more for a small tuple than a mark, and recursion of C stacks. Marks are
found in the received bytes before decoding: `MARK_BYTE` is a byte that msgpack never uses
and UTF-8 cannot contain, so messages without such values pay one ``memchr`` for them.

Readers get what a peer wrote, of any type and size: they check what could allocate more than
the input's size and leave the rest to constructors of the standard library, whose exceptions
become a `DecodeError`.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from decimal import Decimal
from pathlib import PosixPath, PurePath, PurePosixPath, PureWindowsPath, WindowsPath
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from msgpack import ExtType, Timestamp

from dflow.errors import DecodeError, EncodeError

__all__ = ["LEAVES", "MARK_BYTE", "READERS", "TUPLE", "WRITERS", "mark"]

MARK_BYTE = 0xC1
MARK_DATA = bytes((MARK_BYTE,))


def mark(code: int) -> ExtType:
    """Return the first element of arrays that stand for values of kind ``code``."""
    return ExtType(code, MARK_DATA)


TUPLE = mark(1)
_SET, _FROZENSET, _BIG_INT, _COMPLEX = mark(2), mark(3), mark(5), mark(6)
_DATETIME, _DATE, _TIME, _TIMEDELTA, _TIMEZONE, _ZONE = (mark(n) for n in range(7, 13))
_DECIMAL, _UUID, _PATH, _DEQUE, _ORDERED, _COUNTER = (mark(n) for n in range(13, 19))
CLASS, ARRAY, SCALAR = mark(30), mark(31), mark(32)
BUFFER, VIEW, TABLE, TENSOR = mark(33), mark(34), mark(35), mark(36)

_PATHS: tuple[type[PurePath], ...] = (PosixPath, WindowsPath, PurePosixPath, PureWindowsPath)


def _write_int(value: int) -> list[Any]:
    return [_BIG_INT, value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)]


def _write_datetime(v: dt.datetime) -> list[Any]:
    return [
        _DATETIME,
        v.year,
        v.month,
        v.day,
        v.hour,
        v.minute,
        v.second,
        v.microsecond,
        v.fold,
        v.tzinfo,
    ]


def _write_timezone(value: dt.timezone) -> list[Any]:
    if value is dt.UTC:
        return [_TIMEZONE]
    offset, name = value.utcoffset(None), value.tzname(None)
    if name == dt.timezone(offset).tzname(None):
        return [_TIMEZONE, offset]
    return [_TIMEZONE, offset, name]


def _write_zone(value: ZoneInfo) -> list[Any]:
    if value.key is None:
        raise EncodeError("expected a ZoneInfo with a key, got one read from a file")
    return [_ZONE, value.key]


WRITERS: dict[type, Callable[[Any], list[Any]]] = {
    tuple: lambda v: [TUPLE, *v],
    set: lambda v: [_SET, *v],
    frozenset: lambda v: [_FROZENSET, *v],
    int: _write_int,
    complex: lambda v: [_COMPLEX, v.real, v.imag],
    dt.datetime: _write_datetime,
    dt.date: lambda v: [_DATE, v.toordinal()],
    dt.time: lambda v: [_TIME, v.hour, v.minute, v.second, v.microsecond, v.fold, v.tzinfo],
    dt.timedelta: lambda v: [_TIMEDELTA, v.days, v.seconds, v.microseconds],
    dt.timezone: _write_timezone,
    ZoneInfo: _write_zone,
    Decimal: lambda v: [_DECIMAL, str(v)],
    UUID: lambda v: [_UUID, v.bytes],
    **dict.fromkeys(_PATHS, lambda v: [_PATH, _PATHS.index(type(v)), str(v)]),
    deque: lambda v: [_DEQUE, v.maxlen, *v],
    OrderedDict: lambda v: [_ORDERED, dict(v)],
    Counter: lambda v: [_COUNTER, dict(v)],
}

LEAVES: frozenset[type] = frozenset(
    {
        type(None),
        bool,
        int,
        float,
        str,
        bytes,
        bytearray,
        memoryview,
        complex,
        Decimal,
        UUID,
        *_PATHS,
        dt.datetime,
        dt.date,
        dt.time,
        dt.timedelta,
        dt.timezone,
        ZoneInfo,
        Timestamp,
    }
)
"""Types whose values hold no other values of the user's."""


def _one(parts: list[Any], kind: type) -> Any:
    (value,) = parts
    if type(value) is not kind:
        raise DecodeError(f"expected {kind.__name__}, got {type(value).__name__}")
    return value


def _read_big_int(parts: list[Any]) -> int:
    (data,) = parts
    if type(data) is not bytes and type(data) is not memoryview:  # a large one lies beside
        raise DecodeError(f"expected bytes, got {type(data).__name__}")
    return int.from_bytes(data, "little", signed=True)


def _read_datetime(parts: list[Any]) -> dt.datetime:
    year, month, day, hour, minute, second, microsecond, fold, zone = parts
    return dt.datetime(year, month, day, hour, minute, second, microsecond, zone, fold=fold)


def _read_time(parts: list[Any]) -> dt.time:
    hour, minute, second, microsecond, fold, zone = parts
    return dt.time(hour, minute, second, microsecond, zone, fold=fold)


def _read_path(parts: list[Any]) -> PurePath:
    number, text = parts
    path: PurePath = _PATHS[number](text)
    return path


READERS: dict[int, Callable[[list[Any]], Any]] = {
    TUPLE.code: tuple,
    _SET.code: set,
    _FROZENSET.code: frozenset,
    _BIG_INT.code: _read_big_int,
    _COMPLEX.code: lambda parts: complex(*parts),
    _DATETIME.code: _read_datetime,
    _DATE.code: lambda parts: dt.date.fromordinal(*parts),
    _TIME.code: _read_time,
    _TIMEDELTA.code: lambda parts: dt.timedelta(*parts),
    _TIMEZONE.code: lambda parts: dt.timezone(*parts) if parts else dt.UTC,
    _ZONE.code: lambda parts: ZoneInfo(_one(parts, str)),
    _DECIMAL.code: lambda parts: Decimal(_one(parts, str)),
    _UUID.code: lambda parts: UUID(bytes=_one(parts, bytes)),
    _PATH.code: _read_path,
    _DEQUE.code: lambda parts: deque(parts[1:], parts[0]),
    _ORDERED.code: lambda parts: OrderedDict(_one(parts, dict)),
    _COUNTER.code: lambda parts: Counter(_one(parts, dict)),
}
"""Code of the mark -> what makes the value of the elements after it."""
