"""The pure decoders: bytes of a peer in, a value or a typed error out."""

from __future__ import annotations

import fcntl
import os
import struct
from collections import deque
from collections.abc import Sequence
from dataclasses import astuple
from typing import Any, Optional

import msgpack

from dflow.broker import books
from dflow.errors import BufferLost, DecodeError, EncodeError, ProtocolError
from dflow.launch import protocol, rundir
from dflow.report import RunReport, RunStatus
from dflow.transport import segments
from dflow.transport.shm import SharedMemory
from dflow.wire import control
from dflow.wire import frames as f
from dflow.wire.buffers import Place
from dflow.wire.codec import Codec
from dflow.wire.notes import pack_notes, parse_notes
from dflow.wire.restoring import restored, restorer
from tests.fuzz import samples
from tests.fuzz.mutations import pack, unpack
from tests.fuzz.promise import TIMES, Target

__all__ = ["DECODERS"]

_HINTS: list[Any] = [
    bytes, bytearray, list[bytes], tuple[bytes, ...], dict[str, bytes], Optional[memoryview],  # noqa: UP045  # the other spelling
    deque[bytearray], tuple[int, bytes], bytes | list[bytearray], Sequence[memoryview],
]  # fmt: skip
_RESTORERS = [restorer(hint) for hint in _HINTS]
_CLAIMED_BYTES = 9 << 20  # arrays up to `TRUSTED_ARRAY`, as deep as they may be


def _frame(data: bytes) -> None:
    plain = f.parse_plain_credit(data)
    frame = f.parse(data)
    if frame.kind in (f.CREDIT, f.CLOSED):
        counters, beyond = f.parse_credit(frame), f.parse_beyond(frame)
        assert len(beyond) <= f.MAX_BEYOND
        assert plain is None or plain == (frame.channel, *counters)
        pack = f.pack_credit if frame.kind == f.CREDIT else f.pack_closed
        again = pack(frame.channel, frame.epoch, *counters, beyond)
        assert f.parse_credit(f.parse(again)) == counters
    elif frame.kind in (f.HELLO, f.REFUSED):
        f.parse_text(frame)
    else:
        assert plain is None


def _notes(data: bytes) -> None:
    messages, packed = (data[0], data[1:]) if data else (0, b"")
    found = parse_notes(packed, messages)
    found.buffer_places()
    assert found.buffer_bytes >= 0
    again = parse_notes(pack_notes(found), messages) if found else found
    assert [[*one] for one in astuple(again)] == [[*one] for one in astuple(found)] or not packed


def _value(data: bytes) -> None:
    codec = Codec(samples.TYPES)
    value = codec.decode(data)
    for restore in _RESTORERS:
        restored(restore, [value])
    value = codec.decode(data)
    try:  # what arrived may be sent on
        codec.decode(codec.encode(value))
    except EncodeError:
        return


def _batch(data: bytes) -> None:
    count, body = int.from_bytes(data[:2], "little"), data[2:]
    codec = Codec(samples.TYPES)
    try:
        whole = codec.decode_batch(memoryview(body), count)
    except DecodeError:
        codec.decode_each(body, count)
        raise
    assert len(whole) == count
    each = codec.decode_each(body, count)
    assert [type(one) for one in each] == [type(one) for one in whole]


def _large(data: bytes) -> None:
    """A message with buffers beside it: how many, and how large, says its first byte."""
    kind, body = (data[0], data[1:]) if data else (0, b"")
    beside: list[Any] = [memoryview(bytes((kind >> 2) * 8)).toreadonly() for _ in range(kind & 3)]
    if kind & 0x80 and beside:
        beside[0] = BufferLost("gone")
    Codec(samples.TYPES).decode_large(body, beside)


def _large_seeds() -> list[bytes]:
    number = bytes((0xD4, 33, 0xC1))
    inside = [
        b"\x92" + number + b"\xc4\x02\x00\x00",
        b"\x95" + bytes((0xD4, 31, 0xC1)) + b"\xa3<u1\xa1C\x91\x08\x92" + number + b"\xc4\x01\x00",
        b"\x94" + bytes((0xD4, 34, 0xC1)) + b"\xa1B\x91\x10\x92" + number + b"\xc4\x01\x01",
        b"\x92" + bytes((0xD4, 5, 0xC1)) + b"\x92" + number + b"\xc4\x01\x00",
    ]
    return [bytes((kind,)) + body for kind in (1, 5, 10, 0x85) for body in inside]


def _table(data: bytes) -> None:
    import pyarrow as pa

    before = pa.total_allocated_bytes()  # which tracemalloc does not see
    value = Codec().decode(data)
    taken = pa.total_allocated_bytes() - before
    assert taken <= TIMES * len(data) + _CLAIMED_BYTES, f"{type(value)} took {taken:,} bytes"


def _table_seeds() -> list[bytes]:
    import pandas as pd
    import pyarrow as pa

    codec = Codec()
    table = pa.table({"a": [1, 2, 3], "b": ["x", None, "z"], "c": [b"1", b"22", b""]})
    categories = pa.table({"d": pa.array(["x", "y", "x"]).dictionary_encode()})
    frame = pd.DataFrame({"n": [1.5, 2.5], "t": ["a", "b"]}, index=[7, 9])
    values = [
        table, table.to_batches()[0], table.slice(0, 0), categories, frame, frame["n"],
        pd.DataFrame({"when": pd.date_range("2026-01-01", periods=3), "none": [None] * 3}),
    ]  # fmt: skip
    return [bytes(codec.encode(value)) for value in values]


def _control(data: bytes) -> None:
    message = control.decode(data)
    again = control.encode(message)
    del message
    assert control.encode(control.decode(again)) == again


def _stats(data: bytes) -> None:
    try:
        raw = msgpack.unpackb(data, strict_map_key=False)
    except Exception:  # noqa: BLE001  # `control.decode` has refused that
        return
    if isinstance(raw, list):
        stats = books.parse_stats(raw, "a[0]")
        msgpack.packb(stats.to_wire())


def _status(data: bytes) -> None:
    raw = _mapping(data)
    if raw is not None:
        status = RunStatus.from_dict(raw)
        repr(status)
        assert RunStatus.from_dict(status.to_dict()).nodes == status.nodes


def _report(data: bytes) -> None:
    raw = _mapping(data)
    if raw is not None:
        report = RunReport.from_dict(raw)
        str(report)
        report.to_json()


def _mapping(data: bytes) -> dict[Any, Any] | None:
    """Return what a control message would hold; anything else does not come that far."""
    try:
        raw = msgpack.unpackb(data, strict_map_key=False)
    except Exception:  # noqa: BLE001  # `control.decode` has refused that
        return None
    return raw if isinstance(raw, dict) else None


def _pipe(data: bytes) -> None:
    """Messages with their right length in front, or, of an odd actor, bytes as they are."""
    frames = protocol.Frames()
    for actor, body in unpack(data):
        stream = body if actor & 1 else protocol.LENGTH.pack(len(body)) + body
        step = max(1, len(stream) // 3)
        for at in range(0, len(stream), step):
            for message in frames.feed(stream[at : at + step]):
                protocol.parse_event(message)


def _pipe_seeds() -> list[bytes]:
    bodies = [message[protocol.LENGTH.size :] for message in samples.pipe_messages()]
    whole = b"".join(samples.pipe_messages())
    return [*(pack([(0, body)]) for body in bodies), pack([(1, whole)])]


def _run_note(data: bytes) -> None:
    rundir.parse_note(data, "/tmp/dflow-x")


_PLACE = struct.Struct("<9Q")
_SEGMENT_BYTES = segments.HEADER_BYTES + 4096


def _place(data: bytes) -> None:
    """A memfd of a peer with any header, and any place in it; its owner is this process."""
    numbers = list(_PLACE.unpack(data[: _PLACE.size].ljust(_PLACE.size, b"\0")))
    header = data[_PLACE.size :][:4096]
    fd = os.memfd_create("dflow", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    memory = SharedMemory(1 << 20, warn=lambda text: None)
    try:
        os.truncate(fd, _SEGMENT_BYTES)
        os.posix_fallocate(fd, 0, _SEGMENT_BYTES)
        os.pwrite(fd, header, 0)
        fcntl.fcntl(fd, segments._F_ADD_SEALS, segments._SEALS)
        numbers[0] = os.getpid() if numbers[0] == 1 else numbers[0]
        numbers[1] = fd if numbers[1] == 1 else numbers[1]
        view = memory.borrow(Place(*numbers))
        assert view.readonly
        assert len(view) == numbers[8]
        sum(view)  # every byte of it is there
        view.release()
    finally:
        memory.close()
        os.close(fd)


def _place_seeds() -> list[bytes]:
    header = struct.pack("=6Q", segments._MAGIC, 99, 1024, 0, 1, 1)
    places = [(0, 1, 0, 1024), (3, 0, 5, 100), (1, 1, 1000, 24), (2, 7, 0, 1)]
    return [
        _PLACE.pack(1, 1, 99, _SEGMENT_BYTES, 1024, block, generation, offset, size) + header
        for block, generation, offset, size in places
    ]


_TABLES = Target(
    "table", _table, _table_seeds, (DecodeError,), _CLAIMED_BYTES, values=True,
    needs=("pyarrow", "pandas"),
)  # fmt: skip

DECODERS = [
    Target("frame", _frame, samples.frames, (ProtocolError,)),
    Target("notes", _notes, samples.notes, (ProtocolError,), _CLAIMED_BYTES),
    Target("value", _value, samples.values, (DecodeError,), _CLAIMED_BYTES, values=True),
    Target("batch", _batch, samples.batches, (DecodeError,), _CLAIMED_BYTES, values=True),
    Target("large", _large, _large_seeds, (DecodeError,), _CLAIMED_BYTES, values=True),
    _TABLES,
    Target("control", _control, samples.controls, (ProtocolError,), 1 << 20, values=True),
    Target("stats", _stats, samples.stats, (ProtocolError,), _CLAIMED_BYTES, values=True),
    Target("status", _status, samples.statuses, (TypeError,), _CLAIMED_BYTES, values=True),
    Target("report", _report, samples.reports, (TypeError,), _CLAIMED_BYTES, values=True),
    Target("pipe", _pipe, _pipe_seeds, (ProtocolError,), values=True, script=True),
    Target("run_note", _run_note, samples.run_notes, (), values=True),
    Target("place", _place, _place_seeds, (BufferLost,)),
]
