"""Any value that can be emitted arrives as it was; any bytes are a value or a typed error."""

from __future__ import annotations

import contextlib
import datetime as dt
import enum
import math
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, fields, is_dataclass
from decimal import Decimal
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dflow.errors import DecodeError, ProtocolError
from dflow.wire import frames
from dflow.wire.codec import Codec


class Pair(NamedTuple):
    left: Any
    right: Any


@dataclass
class Open:
    one: Any
    two: Any


@dataclass(frozen=True, slots=True)
class Closed:
    only: Any


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


class Access(enum.IntFlag):
    READ = 1
    WRITE = 2


CODEC = Codec([Pair, Open, Closed, Colour, Access])


def same(a: Any, b: Any) -> bool:
    """Equal in value and type all the way down; NaN equals NaN, -0.0 does not equal 0.0."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        signs = math.copysign(1, a) == math.copysign(1, b)
        return math.isnan(b) if math.isnan(a) else bool(a == b) and signs
    if isinstance(a, complex):
        return same(a.real, b.real) and same(a.imag, b.imag)
    if isinstance(a, Decimal):
        return bool(a.as_tuple() == b.as_tuple())
    if isinstance(a, list | tuple | deque):
        pairs = len(a) == len(b) and all(map(same, a, b))
        return pairs and getattr(a, "maxlen", None) == getattr(b, "maxlen", None)
    if isinstance(a, Counter):
        return bool(a == b)
    if isinstance(a, dict):
        return same(list(a), list(b)) and same(list(a.values()), list(b.values()))
    if isinstance(a, set | frozenset):
        return len(a) == len(b) and all(any(same(x, y) for y in b) for x in a)
    if is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    if isinstance(a, dt.datetime | dt.time):
        zones = (same(a.tzinfo, b.tzinfo), a.fold == b.fold)
        return all(zones) and bool(a.replace(tzinfo=None) == b.replace(tzinfo=None))
    if isinstance(a, dt.timezone):
        return bool(a == b) and a.tzname(None) == b.tzname(None)
    return bool(a == b)


anything_text = st.text(st.characters(exclude_categories=()))
fixed_zones = st.builds(
    dt.timezone, st.timedeltas(dt.timedelta(hours=-23), dt.timedelta(hours=23))
) | st.builds(dt.timezone, st.just(dt.timedelta(hours=1)), anything_text)
zones = st.none() | st.just(dt.UTC) | fixed_zones | st.timezones()
hashable_leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**80), 2**80),
    anything_text,
    st.floats(allow_nan=False),
    st.binary(),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.complex_numbers(allow_nan=False),
    st.dates(),
    st.timedeltas(),
    st.times(timezones=zones),
    st.datetimes(timezones=zones, allow_imaginary=True),
    st.sampled_from(Colour),
    st.sampled_from([Access(n) for n in range(4)]),
    st.builds(PurePosixPath, st.text(max_size=5)),
    st.builds(PureWindowsPath, st.text(max_size=5)),
    st.builds(Path, st.text("ab/.", max_size=5)),
)
leaves = hashable_leaves | st.one_of(
    st.floats(),
    st.complex_numbers(),
    st.decimals(),
    st.binary(min_size=250, max_size=300),
)
keys = st.recursive(
    hashable_leaves,
    lambda inner: (
        st.lists(inner, max_size=3).map(tuple)
        | st.frozensets(inner, max_size=3)
        | st.builds(Pair, inner, inner)
        | st.builds(Closed, inner)
    ),
    max_leaves=4,
)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner),
        st.lists(inner).map(tuple),
        st.dictionaries(keys, inner, max_size=4),
        st.sets(keys, max_size=4),
        st.frozensets(keys, max_size=4),
        st.builds(Pair, inner, inner),
        st.builds(Open, inner, inner),
        st.builds(Closed, inner),
        st.builds(deque, st.lists(inner), st.none() | st.integers(0, 5)),
        st.dictionaries(keys, inner, max_size=3).map(OrderedDict),
        st.lists(keys, max_size=4).map(Counter),
    ),
    max_leaves=25,
)


@given(values)
@example([b"x", {"k": (bytes(300),)}, "\ud800"])
def test_what_is_decoded_is_what_was_encoded(value: Any) -> None:
    assert same(CODEC.decode(CODEC.encode(value)), value)


@given(st.lists(values, min_size=1, max_size=20), st.integers(0, 2**64 - 1))
def test_a_batch_travels_whole(batch: list[Any], sequence: int) -> None:
    payloads = [CODEC.encode(value) for value in batch]
    frame = frames.parse(frames.pack_batch(3, 1, sequence, payloads, 5))
    assert (frame.count, frame.sequence) == (len(batch), sequence)
    assert len(frame.body) - frames.array_header_size(frame.count) == sum(map(len, payloads))
    assert same(CODEC.decode_batch(frame.body, frame.count), batch)


@given(values, st.data())
def test_a_payload_with_changed_bytes_is_a_value_or_a_decode_error(
    value: Any, data: st.DataObject
) -> None:
    payload = bytearray(CODEC.encode((value,)))
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    _decoded_or_refused(bytes(payload))


# Marks, and the codes of everything msgpack knows, far more often than chance would have it.
structured_bytes = st.lists(
    st.builds(lambda code: bytes((0xD4, code, 0xC1)), st.integers(1, 33))
    | st.integers(0x90, 0x99).map(lambda n: bytes((n,)))
    | st.sampled_from(
        [
            b"\x80",
            b"\x81",
            b"\xc0",
            b"\x01",
            b"\xa1x",
            b"\xc4\x02ab",
            b"\xdc\x00\x02",
            b"\xa3<f8",
            b"\xa1C",
            b"\xdd\x00\x00\x00\x01",
            b"\xd5\xff\x00\x00",
        ]
    )
    | st.binary(max_size=4)
).map(b"".join)


@given(st.binary() | structured_bytes)
def test_any_bytes_are_a_value_or_a_decode_error(data: bytes) -> None:
    _decoded_or_refused(data)


def _decoded_or_refused(data: bytes) -> None:
    try:
        value = CODEC.decode(data)
    except DecodeError:
        with pytest.raises(DecodeError):
            CODEC.decode_batch(b"\x91" + data, 1)
    else:
        assert "_Mark" not in repr(value)


@given(st.binary(), st.integers(0, 2**32))
def test_any_batch_is_its_count_of_values_or_a_decode_error(body: bytes, count: int) -> None:
    with contextlib.suppress(DecodeError):
        assert len(CODEC.decode_batch(body, count)) == count


headers = st.builds(
    lambda magic, version, kind, flags, rest: magic + bytes((version, kind)) + flags + rest,
    st.sampled_from([b"df", b"dg"]),
    st.integers(0, 2),
    st.integers(0, 8),
    st.sampled_from([b"\0\0", b"\1\0"]),
    st.binary(min_size=28, max_size=28),
)


@given(st.binary() | st.builds(bytes.__add__, headers, st.binary(max_size=40)))
def test_any_bytes_are_a_frame_or_a_protocol_error(data: bytes) -> None:
    try:
        frame = frames.parse(data)
    except ProtocolError:
        return
    if frame.kind in (frames.CREDIT, frames.CLOSED):
        assert min(frames.parse_credit(frame)) >= 0
    elif frame.kind in (frames.HELLO, frames.REFUSED):
        frames.parse_text(frame)


@given(st.data())
def test_any_array_arrives_as_it_was(data: st.DataObject) -> None:
    np = pytest.importorskip("numpy")
    from hypothesis.extra import numpy as nps

    array = data.draw(nps.arrays(nps.scalar_dtypes() | nps.array_dtypes(), nps.array_shapes()))
    array = array.T if data.draw(st.booleans()) else array[::-1]
    decoded = CODEC.decode(CODEC.encode(array))
    assert (type(decoded), decoded.dtype, decoded.shape) == (np.ndarray, array.dtype, array.shape)
    assert decoded.tobytes() == array.tobytes()
