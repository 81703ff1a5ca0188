"""Large parts of a value travel beside the message, frozen, copied once or not at all."""

from __future__ import annotations

import array
import ctypes
import mmap
import pickle
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest

from dflow.errors import BufferLost, DecodeError, EncodeError, OptionError
from dflow.flow.out_edge import key_bytes
from dflow.wire import large
from dflow.wire.arrays import new_array
from dflow.wire.buffers import LARGE_BYTES, Parcel
from dflow.wire.codec import Codec
from tests.fake_memory import FakeMemory

np = pytest.importorskip("numpy")

LARGE = b"x" * LARGE_BYTES


@dataclass
class Frame:
    data: Any
    meta: dict[str, Any]


class Pair(NamedTuple):
    left: Any
    right: Any


def codec(memory: FakeMemory | None = None) -> Codec:
    return Codec([Frame, Pair], memory)


def sent(encoder: Codec, value: Any) -> tuple[Any, Parcel]:
    """Return what arrives, and the message."""
    payload = encoder.encode(value)
    assert type(payload) is Parcel
    views = [buffer.view for buffer in payload.buffers]
    (arrived,) = codec().decode_batch(memoryview(b"\x91" + payload), 1, views)
    return arrived, payload


WRAPS: list[Callable[[Any], Any]] = [
    lambda b: b,
    lambda b: [b],
    lambda b: {"k": b, "n": 1},
    lambda b: (b,),
    lambda b: ([{"k": (b, b)}], bytearray(b"small")),
    lambda b: deque([b], 3),
    lambda b: Pair(1, b),
    lambda b: Frame(b, {"more": [b, {3, 4}]}),
    lambda b: OrderedDict(k=b),
    lambda b: [b"same", b, 2**70, "\ud800"],
]


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda b: memoryview(bytearray(b))])
@pytest.mark.parametrize("memory", [FakeMemory, lambda: None, lambda: FakeMemory(0)])
def test_large_bytes_arrive_as_memoryviews_wherever_they_are(
    wrap: Any, kind: Any, memory: Any
) -> None:
    encoder = codec(memory())
    arrived, payload = sent(encoder, wrap(kind(LARGE)))
    expected = wrap(memoryview(LARGE))
    assert plain(arrived) == plain(expected)
    assert bytes(payload).count(b"xxxx") == 0
    again, _ = sent(encoder, wrap(kind(LARGE)))
    assert plain(again) == plain(expected)


def plain(value: Any) -> Any:
    """Return ``value`` in a form that tells views from bytes, but not bytearrays."""
    if isinstance(value, memoryview):
        assert value.readonly
        return "view", value.format, value.shape, value.tobytes()
    if isinstance(value, bytearray):
        return bytes(value)
    if isinstance(value, dict):
        return type(value), [(key, plain(part)) for key, part in value.items()]
    if isinstance(value, (list, tuple, deque)):
        return type(value), [plain(part) for part in value]
    if isinstance(value, Frame):
        return Frame, plain(value.data), plain(value.meta)
    return value


def test_keys_and_elements_of_sets_stay_what_they_are() -> None:
    value = [{LARGE: 1}, {LARGE}, frozenset([LARGE])]
    payload = codec().encode(value)
    assert type(payload) is bytes
    assert codec().decode(payload) == value
    assert type(codec().encode([*value, bytearray(LARGE)])) is Parcel
    arrived, _ = sent(codec(), [*value, LARGE, 2**70, "\ud800"])
    assert arrived[:3] == value


def test_small_parts_stay_in_the_message() -> None:
    encoder = codec(FakeMemory())
    for value in (bytes(LARGE_BYTES - 1), np.zeros(LARGE_BYTES - 1, "u1"), [b"x"] * 50_000):
        assert type(encoder.encode(value)) is bytes
        assert type(encoder.encode([LARGE])) is Parcel


def test_a_codec_stops_looking_for_large_parts_that_no_longer_come() -> None:
    encoder = codec()
    quick = encoder.pack
    encoder.encode([LARGE])
    assert "Packer" in repr(quick)
    assert "LargePacker" in repr(encoder.pack)
    for _ in range(100):
        assert encoder.encode([1, b"x"]) == Codec().encode([1, b"x"])
    assert "LargePacker" not in repr(encoder.pack)
    arrived, _ = sent(encoder, [LARGE])
    assert arrived == [LARGE]


def test_an_array_is_written_once_and_arrives_in_place() -> None:
    memory = FakeMemory()
    encoder, value = codec(memory), np.arange(20_000.0).reshape(100, 200)
    arrived, payload = sent(encoder, {"a": value, "b": [value.T, value[::2]]})
    assert memory.writes == 3
    assert [len(buffer.view) for buffer in payload.buffers] == [160_000, 160_000, 80_000]
    assert all(buffer.place is not None for buffer in payload.buffers)
    assert np.array_equal(arrived["a"], value)
    assert np.array_equal(arrived["b"][0], value.T)
    assert arrived["b"][0].flags.f_contiguous
    assert np.array_equal(arrived["b"][1], value[::2])
    assert not arrived["a"].flags.writeable
    address = large.address_of(memory.blocks[0])
    assert arrived["a"].__array_interface__["data"][0] == address
    value[:] = 0  # what was sent is frozen
    assert arrived["a"][1, 1] == 201


@pytest.mark.parametrize("size", [LARGE_BYTES - 1, LARGE_BYTES, LARGE_BYTES + 9])
@pytest.mark.parametrize("wrap", [lambda v: v, lambda v: [{"k": (v,)}]])
def test_scalars_of_any_size_arrive_as_they_are(size: int, wrap: Any) -> None:
    fields = np.dtype([("a", "i4"), ("b", "u1", (size,))])
    record = np.zeros((), fields)[()]
    record["a"] = 7
    values = [
        np.bytes_(b"x" * size),
        np.void(b"y" * size),
        record,
        np.str_("z" * size),
        1 << 8 * size,
        -(1 << 8 * size),
    ]
    for value in values:
        encoder = codec(FakeMemory())
        for _ in range(2):
            payload = encoder.encode(wrap(value))
            views = [b.view for b in payload.buffers] if type(payload) is Parcel else []
            (arrived,) = codec().decode_batch(memoryview(b"\x91" + payload), 1, views)
            if type(arrived) is list:
                (arrived,) = arrived[0]["k"]
            assert type(arrived) is type(value)
            same = arrived.tobytes() == value.tobytes() if type(value) is np.void else None
            assert arrived == value if same is None else same
            assert getattr(arrived, "dtype", None) == getattr(value, "dtype", None)


def test_what_is_in_shared_memory_is_not_copied_again() -> None:
    memory = FakeMemory()
    encoder = codec(memory)
    room = memory.allocate(1 << 20)
    assert room is not None
    mine = np.ndarray((1024, 128), "f8", buffer=room)
    mine[:] = 7
    arrived, payload = sent(encoder, [mine[512:], mine])
    assert memory.writes == 1
    assert [buffer.place.offset for buffer in payload.buffers if buffer.place] == [1 << 19, 0]
    assert not mine.flags.writeable  # it is read elsewhere from now on
    forwarded, payload = sent(encoder, arrived)
    assert memory.writes == 1
    assert np.array_equal(forwarded[1], mine)
    with pytest.raises(ValueError, match="WRITEABLE"):
        forwarded[1].flags.writeable = True
    view = memoryview(room)[: 1 << 17]
    sent(encoder, view)  # nobody can be kept from writing to it: copied
    assert memory.writes == 2
    sent(encoder, view.toreadonly())
    assert memory.writes == 2


@pytest.mark.parametrize(
    "view_of",
    [
        lambda mine: memoryview(mine).toreadonly(),
        lambda mine: memoryview(mine).toreadonly().cast("B").cast("i"),
        lambda mine: np.frombuffer(memoryview(mine).toreadonly()),
        lambda mine: mine[1:].reshape(-1),
    ],
)
def test_an_array_is_read_only_once_a_view_of_it_was_sent_from_where_it_is(
    view_of: Callable[[Any], Any],
) -> None:
    memory = FakeMemory()
    room = memory.allocate(1 << 20)
    assert room is not None
    mine = np.ndarray((1 << 17,), "f8", buffer=room)
    sent(codec(memory), view_of(mine))
    assert memory.writes == 1
    assert not mine.flags.writeable


SHAPES = [100_000, np.int64(100_000), (300, 400), [300, 400], (np.int64(300), np.uint8(200)), 0, ()]


@pytest.mark.parametrize("memory", [FakeMemory, lambda: FakeMemory(0), lambda: None])
@pytest.mark.parametrize("shape", SHAPES, ids=repr)
@pytest.mark.parametrize("dtype", ["u1", "<f8", [("a", "i4"), ("b", "u1")]], ids=str)
def test_an_array_is_allocated_in_any_shape_that_numpy_takes(
    memory: Any, shape: Any, dtype: Any
) -> None:
    made, usual = new_array(memory(), shape, dtype), np.empty(shape, dtype)
    assert (type(made), made.shape, made.dtype) == (np.ndarray, usual.shape, usual.dtype)
    made[...] = np.zeros((), dtype)
    assert made.flags.writeable
    assert made.flags.c_contiguous


@pytest.mark.parametrize(
    "shape",
    [None, "ab", 3.0, (3, 2.0), -1, (-2, -50_000), [70_000, -1], (10**30,), (1,) * 99, {"a": 1}],
    ids=repr,
)
def test_a_shape_that_numpy_refuses_is_a_clear_error(shape: Any) -> None:
    with pytest.raises(EncodeError, match="allocate: expected a shape, an int >= 0 or a tuple"):
        new_array(FakeMemory(), shape, "u1")


@pytest.mark.parametrize("memory", [FakeMemory, lambda: FakeMemory(0), lambda: None])
@pytest.mark.parametrize(
    "part", [lambda a: a, lambda a: a[100:], lambda a: a.T, lambda a: a[10:][10:].reshape(-1)]
)
def test_an_allocated_array_is_read_only_once_it_was_sent_wherever_it_lies(
    memory: Any, part: Callable[[Any], Any]
) -> None:
    room = memory()
    array = new_array(room, (400, 300), "u1")
    array[:] = 7
    arrived, _ = sent(codec(room), [part(array)])
    assert (arrived[0] == 7).all()
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    ordinary = np.zeros((400, 300), "u1")
    sent(codec(room), part(ordinary))
    ordinary[0] = 1


def test_without_room_only_bytes_are_lent() -> None:
    memory = FakeMemory(0)
    mutable, fixed = bytearray(LARGE), bytes(LARGE)
    arrived, payload = sent(codec(memory), [mutable, fixed])
    assert all(buffer.place is None for buffer in payload.buffers)
    mutable[0] = 0
    assert arrived == [LARGE, LARGE]
    assert large.address_of(payload.buffers[1].view) == large.address_of(memoryview(fixed))
    assert memory.writes == 2


def test_without_shared_memory_what_was_received_is_passed_on_as_it_is() -> None:
    first, _ = sent(codec(), [np.arange(20_000.0).reshape(100, 200), LARGE])
    arrived, payload = sent(codec(), [first[0][10:], first[0].T, first[1], first[0][:, ::2]])
    address = first[0].__array_interface__["data"][0]
    lent = [large.address_of(buffer.view) for buffer in payload.buffers]
    assert lent[:2] == [address + 16_000, address]
    assert lent[2] == large.address_of(first[1])
    assert [part.tobytes() for part in arrived[:2]] == [
        first[0][10:].tobytes(),
        first[0].T.tobytes(),
    ]
    writable = np.frombuffer(bytearray(LARGE), "u1")
    view = np.frombuffer(memoryview(bytearray(LARGE)).toreadonly(), "u1")
    for mutable in (writable, writable[:], view):
        _, payload = sent(codec(), mutable)
        assert large.address_of(payload.buffers[0].view) != mutable.__array_interface__["data"][0]


@pytest.mark.parametrize(
    "dtype", ["?", "i1", ">u2", "f4", "c16", "M8[us]", "S3", "U2", "V5", "i4,(2,2)f8,U3", "f2"]
)
@pytest.mark.parametrize("order", ["C", "F", "strided"])
@pytest.mark.parametrize("memory", [FakeMemory, lambda: None])
def test_large_arrays_of_any_dtype_and_order(dtype: str, order: str, memory: Any) -> None:
    raw = np.frombuffer(bytes(range(256)) * 4096, "u1")
    kind = np.dtype(dtype)
    count = len(raw) // kind.itemsize // 8 * 8
    if dtype in ("?", "U2") or "U3" in dtype:
        value = np.ones(count, kind).reshape(8, -1)
    else:
        value = raw[: count * kind.itemsize].view(kind).reshape(8, -1)
    value = {"C": value, "F": np.asfortranarray(value), "strided": value[::2, ::-1]}[order]
    arrived, _ = sent(codec(memory()), (value,))
    assert arrived[0].dtype == value.dtype
    assert arrived[0].shape == value.shape
    assert arrived[0].tobytes() == value.tobytes()
    assert not arrived[0].flags.writeable


def test_other_objects_with_the_buffer_protocol_arrive_as_memoryviews_of_any_size() -> None:
    anonymous = mmap.mmap(-1, LARGE_BYTES)
    anonymous[:3] = b"abc"
    cases: list[tuple[Any, str, tuple[int, ...]]] = [
        (array.array("d", [1.5, 2.5]), "d", (2,)),
        (array.array("B", b"xyz"), "B", (3,)),
        (array.array("l", range(100_000)), "q", (100_000,)),
        ((ctypes.c_int32 * 3 * 2)(), "i", (2, 3)),
        ((ctypes.c_long * 20_000)(), "q", (20_000,)),
        (ctypes.c_double(2.5), "d", ()),
        (anonymous, "B", (LARGE_BYTES,)),
        (array.array("f"), "f", (0,)),
        (pickle.PickleBuffer(b"abc"), "B", (3,)),
    ]
    for value, kind, shape in cases:
        for memory in (FakeMemory(), None):
            encoder = codec(memory)
            payload = encoder.encode([value])
            arrived = codec().decode(payload)[0]
            assert (arrived.format, arrived.shape, arrived.readonly) == (kind, shape, True)
            assert arrived.tobytes() == memoryview(value).tobytes()


def test_a_large_memoryview_keeps_format_and_shape() -> None:
    grid = np.arange(60_000, dtype="i4").reshape(200, 300)
    for view in (memoryview(grid), memoryview(grid.T), memoryview(grid)[::2]):
        arrived, _ = sent(codec(FakeMemory()), view)
        assert (arrived.format, arrived.shape) == ("i", view.shape)
        assert arrived.tobytes() == view.tobytes()


class Odd(ctypes.Structure):
    _fields_ = (("a", ctypes.c_int), ("b", ctypes.c_double))


@pytest.mark.parametrize(
    "value",
    [
        Odd(),
        (Odd * 10_000)(),
        array.array("u", "text"),
        memoryview(np.zeros(30_000, ">i4")),
        memoryview(np.zeros(30_000, "i4,f8")),
    ],
)
def test_a_buffer_that_no_memoryview_can_describe_is_refused_with_its_path(value: Any) -> None:
    encoder = codec()
    with pytest.raises(EncodeError, match=r"payload\[1\]: expected a buffer of plain numbers"):
        encoder.encode([0, value])
    assert encoder.encode([0]) == b"\x91\x00"


def test_a_class_of_ones_own_is_not_sent_as_what_it_extends() -> None:
    class Mine(bytearray):
        pass

    for value in (Mine(LARGE), np.ma.array([1], mask=[True]), np.recarray(3, [("a", "i4")])):
        with pytest.raises(EncodeError):
            codec().encode(value)


def test_a_message_larger_than_the_limit_with_its_buffers_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(large, "MAX_MESSAGE_BYTES", 3 * LARGE_BYTES)
    encoder = codec()
    with pytest.raises(EncodeError, match="with its buffers"):
        encoder.encode([LARGE] * 3)
    assert sent(encoder, [LARGE] * 2)[0] == [LARGE] * 2


def test_a_key_cannot_be_large() -> None:
    for key in (LARGE, np.zeros(LARGE_BYTES)):
        with pytest.raises(OptionError, match="expected a small value"):
            key_bytes(key, codec().encode)


@pytest.mark.parametrize(
    "parts",
    [[], [1], [b"\x01"], [b"\x00", 1], ["0"], [b"\xff" * 9], [None]],
)
def test_a_reference_to_no_buffer_is_a_decode_error(parts: list[Any]) -> None:
    import msgpack

    from dflow.wire.values import BUFFER

    data = msgpack.packb([BUFFER, *parts])
    with pytest.raises(DecodeError):
        codec().decode_large(data, [memoryview(LARGE)])
    assert codec().decode_large(msgpack.packb([BUFFER, b""]), [memoryview(b"x")]) == b"x"


def test_a_buffer_that_was_lost_is_an_error_for_those_who_need_it() -> None:
    payload = codec().encode([LARGE])
    lost = BufferLost("gone")
    with pytest.raises(BufferLost, match="gone"):
        codec().decode_large(bytes(payload), [lost])
    (error,) = codec().decode_each(b"\x91" + payload, 1, [lost])
    assert error is lost


def test_large_bytes_that_a_loop_packed_are_taken_out_and_the_next_are_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dflow.wire.codec.ext_types_made", [])  # other tests may have made some
    encoder = codec()
    inline = encoder.pack([LARGE, b"small"])
    assert type(inline) is bytes
    (got,) = codec().decode_batch(b"\x91" + inline, 1)
    assert [type(part) for part in got] == [memoryview, bytes]
    before = encoder.wary
    encoder.expect_large()
    assert (before, encoder.wary) == (False, True)
    assert type(encoder.pack([LARGE, b"small"])) is Parcel
