"""Large parts come back from wherever they were; what a peer writes is a value or a typed error."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dflow.errors import BufferLost, DecodeError, ProtocolError
from dflow.flow.batch import Lane
from dflow.flow.credit import SendWindow
from dflow.flow.in_edge import InChannel
from dflow.message import Priority
from dflow.wire import frames as f
from dflow.wire.buffers import LARGE_BYTES, Buffer, Parcel
from dflow.wire.codec import Codec
from dflow.wire.notes import Notes, pack_notes
from dflow.wire.values import ARRAY, BUFFER, VIEW
from tests.fake_memory import FakeMemory

EPOCH = 3

sizes = st.sampled_from([0, 1, LARGE_BYTES - 1, LARGE_BYTES, LARGE_BYTES + 7])
blobs = st.builds(
    lambda kind, size, fill: kind(bytes([fill]) * size),
    st.sampled_from([bytes, bytearray, memoryview]),
    sizes,
    st.integers(0, 255),
)
plain = st.none() | st.integers() | st.text(max_size=5) | st.floats(allow_nan=False)
nested = st.recursive(
    plain | blobs,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        | st.lists(inner, max_size=3).map(deque)
    ),
    max_leaves=8,
)


def arrived(value: Any) -> Any:
    """Return what is to arrive of ``value``."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        large = len(value) >= LARGE_BYTES
        return ("view" if large else "bytes", bytes(value))
    if isinstance(value, dict):
        return {key: arrived(part) for key, part in value.items()}
    if isinstance(value, (list, tuple, deque)):
        return type(value)(arrived(part) for part in value)
    return value


def as_it_came(value: Any) -> Any:
    """Return the same of what did arrive."""
    if isinstance(value, (bytes, memoryview)):
        return ("view" if type(value) is memoryview else "bytes", bytes(value))
    if isinstance(value, dict):
        return {key: as_it_came(part) for key, part in value.items()}
    if isinstance(value, (list, tuple, deque)):
        return type(value)(as_it_came(part) for part in value)
    return value


@given(st.lists(nested, max_size=4), st.sampled_from([None, 0, 3 * LARGE_BYTES, 1 << 30]))
def test_any_large_parts_arrive_as_views_and_small_ones_as_bytes(
    values: list[Any], room: int | None
) -> None:
    memory = None if room is None else FakeMemory(room)
    sender, receiver = Codec((), memory), Codec()
    for value in values:
        payload = sender.encode(value)
        views = [b.view for b in payload.buffers] if type(payload) is Parcel else []
        (got,) = receiver.decode_batch(memoryview(b"\x91" + payload), 1, views)
        assert as_it_came(got) == arrived(value)
        assert len(payload) == len(bytes(payload)) + sum(map(len, views))
        quick = Codec().pack(value) if payload_is_plain(value) else None
        if quick is not None:  # packed by a loop in C, which does not look for large parts
            (got,) = receiver.decode_batch(memoryview(b"\x91" + quick), 1)
            assert as_it_came(got) == arrived(value)


def payload_is_plain(value: Any) -> bool:
    """Whether the packer takes the value as it is."""
    with suppress(Exception):
        Codec().pack(value)
        return True
    return False


payloads = st.one_of(
    st.integers(1, 300).map(lambda size: b"x" * size),
    st.integers(LARGE_BYTES, 3 * LARGE_BYTES).map(
        lambda size: Parcel.of(b"abc", [Buffer(memoryview(bytes(size)))])
    ),
)


@given(
    st.lists(payloads, max_size=30),
    st.integers(1, 40),
    st.integers(1, 4 * LARGE_BYTES),
    st.integers(1, 3),
)
def test_a_message_with_buffers_is_alone_in_its_batch_and_weighs_the_same_at_both_ends(
    sent: list[bytes], capacity: int, max_bytes: int, receivers: int
) -> None:
    windows = [SendWindow(capacity, max_bytes) for _ in range(receivers)]
    ends = [channel(capacity, max_bytes) for _ in windows]
    lane = Lane(windows)
    for payload in sent:
        lane.push(payload)
    left = len(sent)
    while left:
        batches = lane.cut()
        for index, batch, first in batches:
            large = [p for p in batch if type(p) is Parcel]
            assert not large or len(batch) == 1
            buffers = [b.view for p in large for b in p.buffers]
            frame = f.parse(f.pack_batch(1, EPOCH, first, batch, 0))
            ends[index].accept(frame, buffers)
            left -= len(batch)
        for window, end in zip(windows, ends, strict=True):
            assert end.window.received_bytes == window.sent_bytes
            while end.inbox:
                count = end.inbox[0].count
                end.take(count)
                end.finish(count)
            window.report(*end.window.report()[:3])
        lane.update()


def zeros(size: int) -> memoryview:
    """Return a view of so many bytes."""
    return memoryview(bytes(size))


def channel(capacity: int = 100, max_bytes: int = 1 << 30) -> InChannel:
    """Return the receiving end of a channel from this host."""
    made = InChannel(1, "a.out->b.in", "in", Priority.NORMAL, capacity, max_bytes, EPOCH)
    made.shares = True
    return made


buffers: st.SearchStrategy[list[Any]] = st.lists(
    st.integers(0, 2 * LARGE_BYTES).map(zeros)
    | st.just(BufferLost("gone")),
    max_size=4,
)  # fmt: skip
small = st.integers(-(2**63), 2**64 - 1)
numbers = st.integers(0, 5).map(lambda n: n.to_bytes(2, "little")) | st.binary() | small
references = st.lists(numbers, max_size=3).map(lambda parts: [BUFFER, *parts])
shapes = st.lists(st.integers(-1, LARGE_BYTES), max_size=3) | st.none()
descriptions = st.one_of(
    references,
    st.tuples(
        st.just(VIEW), st.sampled_from("bBiIdfc?xP") | st.text(), shapes, references | st.binary()
    ),
    st.tuples(
        st.just(ARRAY),
        st.sampled_from(["<f8", "|u1", "O", "|V0", ""]),
        st.sampled_from("CFA"),
        shapes,
        references | st.binary(),
    ),
).map(lambda parts: list(parts))
messages = st.recursive(
    descriptions | small, lambda inner: st.lists(inner, max_size=3), max_leaves=6
)


@given(messages, buffers)
@example([BUFFER, b"\x00\x00"], [BufferLost("gone")])
def test_whatever_refers_to_buffers_is_a_value_or_a_decode_error(
    message: Any, received: list[Any]
) -> None:
    codec = Codec()
    data = msgpack.packb(message)
    with suppress(DecodeError):
        codec.decode_large(data, received)
    with suppress(DecodeError):
        codec.decode_batch(b"\x91" + data, 1, received)
    for value in codec.decode_each(b"\x91" + data, 1, received):
        assert value is not codec
    assert codec.decode(b"\x91\x01") == [1]  # as good as new
    with pytest.raises(DecodeError):
        codec.decode(msgpack.packb([BUFFER, b"\x00\x00"]))  # nothing is kept


views = st.lists(st.integers(0, 2 * LARGE_BYTES).map(zeros), max_size=3)
places = st.lists(
    st.integers(0, 2**64 - 1) | st.just(LARGE_BYTES) | st.just(2 * LARGE_BYTES), max_size=20
)


@given(views, places, st.integers(0, 3), st.booleans())
def test_frames_with_any_buffers_are_queued_as_a_whole_or_a_protocol_error(
    received: list[memoryview], flat: list[int], count: int, shares: bool
) -> None:
    end = channel(capacity=2, max_bytes=8 * LARGE_BYTES)
    end.shares = shares
    notes = pack_notes(Notes(buffers=flat))
    body = [b"\x01"] * count
    if not notes and not count:
        return
    packed = (
        f.pack_noted(1, EPOCH, 0, body, 0, notes) if notes else f.pack_batch(1, EPOCH, 0, body, 0)
    )
    before = (end.window.received, end.window.received_bytes)
    try:
        batch = end.accept(f.parse(packed), received)
    except ProtocolError:
        assert not end.inbox
        assert (end.window.received, end.window.received_bytes) == before
        return
    assert batch is not None
    assert not (received and flat)
    assert not flat or shares
    if received or flat:
        assert count == 1
        weight = sum(map(len, received)) + sum(flat[8::9])
        assert batch.size_bytes == weight + 1
