"""What a user emits is what arrives; what cannot travel says where it is; bytes are not trusted."""

from __future__ import annotations

import datetime as dt
import enum
import math
import pickle
import socket
import subprocess
import sys
import tracemalloc
from abc import ABC, abstractmethod
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import msgpack
import pytest

from dflow.errors import DecodeError, EncodeError
from dflow.wire import types
from dflow.wire.buffers import Parcel
from dflow.wire.codec import Codec
from dflow.wire.types import register_type, wire_name


class Point(NamedTuple):
    x: int
    y: tuple[int, ...]


@dataclass
class Box:
    size: int
    tags: list[Any] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Key:
    name: str
    part: int = 0


@dataclass
class Empty:
    pass


@dataclass
class Derived(Box):
    area: int = field(init=False, default=-1)

    def __post_init__(self) -> None:
        self.area = self.size**2


@dataclass(frozen=True)
class Node:
    value: int
    next: Node | None = None


class Colour(enum.Enum):
    RED = 1
    SCARLET = 1  # noqa: PIE796  # an alias, on purpose
    GREEN = (0, 255, 0)


class Level(enum.IntEnum):
    LOW = 1


class Word(enum.StrEnum):
    YES = "yes"


class Access(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()


CLASSES = (Point, Box, Key, Empty, Derived, Node, Colour, Level, Word, Access)
BERLIN = ZoneInfo("Europe/Berlin")


@pytest.fixture
def codec() -> Codec:
    return Codec(CLASSES)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(types, "_REGISTERED", {})
    monkeypatch.setattr(types, "_BY_NAME", {})


def both_ways(codec: Codec, value: Any) -> Any:
    payload = codec.encode(value)
    decoded = codec.decode(payload)
    buffers = [buffer.view for buffer in payload.buffers] if type(payload) is Parcel else ()
    (batched,) = codec.decode_batch(memoryview(b"\x91" + payload), 1, buffers)
    assert repr(batched) == repr(decoded)
    return decoded


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        0,
        -1,
        2**63,
        2**64 - 1,
        2**64,
        -(2**63),
        -(2**63) - 1,
        10**400,
        -(2**64),
        1.5,
        math.inf,
        5e-324,
        "",
        "text",
        "zażółć",
        "\x00",
        "\ud800",
        ["\udcff", 1],
        {"\udcff": "\udcff"},
        b"",
        b"\xc1",
        b"\xc4" * 300,
        [],
        [[]],
        {},
        {"a": {"b": [1]}},
        (),
        (1,),
        ((), ((),)),
        [(1, [2, (3,)])],
        set(),
        {1, (2, 3)},
        frozenset(),
        frozenset({frozenset({1})}),
        {
            1: "a",
            None: "b",
            1.5: "c",
            b"k": "d",
            (1, (2,)): "e",
            frozenset({1}): "f",
            Key("k"): "g",
            Colour.RED: "h",
            2**70: "i",
        },
        1j,
        complex(-0.0, math.inf),
        Decimal("1.500"),
        Decimal("-0E+9"),
        Decimal("Infinity"),
        UUID(int=7),
        Path("/a/b"),
        Path(),
        PurePosixPath("a"),
        PureWindowsPath("C:\\a"),
        Path("bad\udcff"),
        dt.date.min,
        dt.date.max,
        dt.timedelta.min,
        dt.timedelta(microseconds=-1),
        dt.time(1, 2, 3, 4),
        dt.time(1, fold=1, tzinfo=dt.UTC),
        dt.datetime(1, 1, 1),  # noqa: DTZ001  # naive, on purpose
        dt.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=BERLIN),
        dt.datetime(2024, 1, 1, tzinfo=dt.UTC),
        dt.UTC,
        BERLIN,
        dt.timezone(dt.timedelta(hours=-3, seconds=7)),
        dt.timezone(dt.timedelta(0), "GMT"),
        deque([1, (2,)], 5),
        deque(),
        OrderedDict(b=1, a=2),
        Counter("abca"),
        Point(1, (2, 3)),
        Box(1, [b"y", (1,)]),
        Key("k", 2),
        Empty(),
        Derived(3),
        Node(1, Node(2)),
        Colour.RED,
        Colour.SCARLET,
        Colour.GREEN,
        Level.LOW,
        Word.YES,
        Access.READ,
        Access.READ | Access.WRITE,
        Access(0),
        list(range(5000)),
        {"long": [[0.5] * 5000, (1,)]},
        "x" * 70_000,
        b"x" * 60_000,
    ],
    ids=lambda v: repr(v)[:40],
)
def test_a_value_arrives_with_its_type(codec: Codec, value: Any) -> None:
    decoded = both_ways(codec, value)
    assert type(decoded) is type(value)
    assert decoded == value
    # Equality forgives much that repr shows: nested types, -0.0, fold, order, names of zones.
    if not isinstance(value, set | frozenset):
        assert repr(decoded) == repr(value)


def test_nan_and_the_sign_of_zero_survive(codec: Codec) -> None:
    nan, zero = codec.decode(codec.encode([math.nan, -0.0]))
    assert math.isnan(nan)
    assert math.copysign(1, zero) == -1


@pytest.mark.parametrize("kind", [1, bytes(1), None])
def test_utc_arrives_as_the_singleton_and_fold_is_kept(codec: Codec, kind: object) -> None:
    moment = dt.datetime(2024, 10, 27, 2, tzinfo=dt.UTC, fold=1)
    decoded = codec.decode(codec.encode((kind, moment)))[1]
    assert decoded.tzinfo is dt.UTC
    assert decoded.fold == 1


@pytest.mark.parametrize(
    "wrap",
    [
        lambda b: b,
        lambda b: [b],
        lambda b: {"k": b},
        lambda b: (b,),
        lambda b: ([{"k": (b,)}],),
        lambda b: deque([b]),
        lambda b: Point(1, (b,)),
        lambda b: Box(1, [b]),
        lambda b: OrderedDict(k=b),
        lambda b: [b"same", b],
        lambda b: [0.1] * 1000 + [b],
    ],
)
@pytest.mark.parametrize("size", [0, 1, 255, 256, 65535])
def test_a_bytearray_arrives_as_bytes(codec: Codec, wrap: Callable[[Any], Any], size: int) -> None:
    arrived = both_ways(codec, wrap(bytearray(size)))
    assert pickle.dumps(arrived) == pickle.dumps(wrap(bytes(size)))


def test_a_memoryview_arrives_as_bytes(codec: Codec) -> None:
    assert codec.decode(codec.encode(memoryview(b"abc"))) == b"abc"
    assert codec.decode(codec.encode([memoryview(b"abcdef")[::2]])) == [b"ace"]


def test_a_large_message_leaves_no_large_buffer_behind(codec: Codec) -> None:
    value = {"frame": b"\xc4" * 20_000_000}
    tracemalloc.start()
    try:
        arrived = codec.decode(codec.encode(value)) == value
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert arrived
    assert kept < 1_000_000


# --- what cannot travel ------------------------------------------------------------------


class Text(str):
    __slots__ = ()


class Stranger(NamedTuple):
    x: int


class Weather(enum.Enum):
    SUN = 1


class OddZone(dt.tzinfo):
    utcoffset = dst = tzname = lambda self, moment: None


@pytest.mark.parametrize(
    ("make", "path", "says"),
    [
        (lambda bad: bad, "payload", "expected plain data"),
        (lambda bad: {"user": [1, 2, 3, bad]}, 'payload["user"][3]', "got object"),
        (lambda bad: {"a": ({1: [bad]},)}, 'payload["a"][0][1][0]', "got object"),
        (lambda bad: {(1, 2): bad}, "payload[<tuple>]", "got object"),
        (lambda bad: {(bad,): 1}, "payload.keys()[0][0]", "got object"),
        (lambda bad: [{1, bad}], "payload[0]{…}", "got object"),
        (lambda bad: Box(1, [bad]), "payload.tags[0]", "got object"),
        (lambda bad: [Point(1, (bad,))], "payload[0].y[0]", "got object"),
        (lambda bad: deque([1, bad]), "payload[1]", "got object"),
        (lambda bad: OrderedDict(k=bad), 'payload["k"]', "got object"),
        (lambda bad: Text("x"), "payload", "got its subclass Text; emit str(...)"),
        (lambda bad: [defaultdict(list)], "payload[0]", "emit dict(...)"),
        (lambda bad: [Stranger(1)], "payload[0]", "@dflow.register_type"),
        (lambda bad: {"w": Weather.SUN}, 'payload["w"]', "test_codec:Weather"),
        (lambda bad: dt.time(1, tzinfo=OddZone()), "payload.tzinfo", "got OddZone"),
        (lambda bad: [len], "payload[0]", "got builtin_function_or_method"),
    ],
)
def test_what_cannot_travel_is_named_with_its_place(
    codec: Codec, make: Callable[[Any], Any], path: str, says: str
) -> None:
    with pytest.raises(EncodeError) as caught:
        codec.encode(make(object()))
    assert caught.value.path == path
    assert str(caught.value).startswith(f"{path}: expected ")
    assert says in str(caught.value)
    assert codec.decode(codec.encode([1, (2,)])) == [1, (2,)]  # as good as new


@pytest.mark.parametrize("size", [0, 1, 2, 4, 8, 16, 3, 255, 256, 65535, 65536])
@pytest.mark.parametrize(
    ("wrap", "path"),
    [
        (lambda ext: ext, "payload"),
        (lambda ext: [1, {"k": ext}], 'payload[1]["k"]'),
        (lambda ext: (1, ext), "payload[1]"),
        (lambda ext: {ext: 1}, "payload.keys()[0]"),
        (lambda ext: Box(1, [ext]), "payload.tags[0]"),
        (lambda ext: [b"same", bytearray(1), ext], "payload[2]"),
    ],
)
def test_an_extension_of_the_users_is_refused_where_it_is(
    codec: Codec, wrap: Callable[[Any], Any], path: str, size: int
) -> None:
    with pytest.raises(EncodeError, match=r"got msgpack\.ExtType") as caught:
        codec.encode(wrap(msgpack.ExtType(99, bytes(size))))
    assert caught.value.path == path


def test_an_extension_that_looks_like_a_mark_of_dflows_is_refused(codec: Codec) -> None:
    for forged in (msgpack.ExtType(1, b"\xc1"), msgpack.unpackb(b"\xd4\x1e\xc1")):
        with pytest.raises(EncodeError, match=r"payload\[0\]: .*got msgpack\.ExtType"):
            codec.encode([forged, 1, 2])


def test_making_an_extension_works_as_ever() -> None:
    made = msgpack.ExtType(code=5, data=b"x")
    assert (made, type(made)) == ((5, b"x"), msgpack.ExtType)
    assert msgpack.unpackb(msgpack.packb(made)) == made
    assert pickle.loads(pickle.dumps(made)) == made
    with pytest.raises(TypeError, match="code must be int"):
        msgpack.ExtType("5", b"x")


def test_a_timestamp_travels_in_any_company(codec: Codec) -> None:
    value = [msgpack.Timestamp(5, 7), b"bytes", msgpack.Timestamp(2**40)]
    assert pickle.dumps(both_ways(codec, value)) == pickle.dumps(value)


def test_a_socket_is_called_a_socket(codec: Codec) -> None:
    with socket.socket() as bad, pytest.raises(EncodeError, match=r'payload\["s"\].*got socket'):
        codec.encode({"s": bad})


def test_a_value_inside_itself_is_an_error(codec: Codec) -> None:
    loop: list[Any] = []
    loop.append({"again": (loop,)})
    with pytest.raises(EncodeError, match="nested deeper or in itself"):
        codec.encode(loop)


def test_500_levels_travel_in_a_batch(codec: Codec) -> None:
    value: Any = 1
    for level in range(500):
        value = (value,) if level % 2 else [value]
    assert repr(both_ways(codec, value)) == repr(value)


def test_a_field_that_was_never_set_is_an_error_at_its_object(codec: Codec) -> None:
    broken = Box.__new__(Box)
    with pytest.raises(EncodeError, match=r"payload\[1\]: .*no attribute 'size'"):
        codec.encode([1, broken])


def test_an_instance_is_rebuilt_without_its_constructor(codec: Codec) -> None:
    value = Derived(3)
    value.area = 7
    decoded = codec.decode(codec.encode(value))
    assert (decoded.size, decoded.area) == (3, 7)


# --- registration ------------------------------------------------------------------------


@pytest.mark.usefixtures("registry")
def test_a_class_registered_after_the_codec_was_made_travels() -> None:
    sender, receiver = Codec(), Codec()
    with pytest.raises(EncodeError):
        sender.encode(Stranger(1))
    assert register_type(Stranger) is Stranger
    assert receiver.decode(sender.encode([Stranger(1)])) == [Stranger(1)]
    assert types.registered_types() == (Stranger,)


def test_a_class_the_receiver_does_not_know_is_not_looked_up(codec: Codec) -> None:
    payload = codec.encode(Key("k"))
    with pytest.raises(DecodeError, match=r"registered class, got '.*:Key'"):
        Codec().decode(payload)


@pytest.mark.parametrize("cls", [int, object, ValueError, "text", type("Plain", (), {})])
def test_only_classes_with_fields_can_be_registered(cls: Any) -> None:
    with pytest.raises(EncodeError, match="expected a dataclass, an Enum or a NamedTuple"):
        register_type(cls)


@dataclass
class Shape(ABC):
    @abstractmethod
    def area(self) -> int: ...


@dataclass
class Table(dict[str, int]):
    name: str = ""


def test_a_dataclass_that_is_more_than_its_fields_cannot_travel() -> None:
    with pytest.raises(EncodeError, match="whose fields are all there is to it"):
        register_type(Table)
    with pytest.raises(EncodeError, match=r"payload\[0\]: .*whose fields are all there is"):
        Codec().encode([Table()])


def test_an_abstract_class_in_an_annotation_is_left_out() -> None:
    assert Codec([Shape, Key]).decode(Codec([Key]).encode(Key("k"))) == Key("k")


def test_the_main_module_has_one_name_in_every_process() -> None:
    cls = type("Reading", (), {"__module__": "__dflow_main__"})
    assert wire_name(cls) == "__main__:Reading"
    assert wire_name(Key) == f"{__name__}:Key"


@pytest.mark.parametrize(
    ("sent", "known"),
    [
        (dataclass(type("T", (), {"__annotations__": {"a": int}})), dataclass(type("T", (), {}))),
        (NamedTuple("T", [("a", int)]), NamedTuple("T", [("a", int), ("b", int)])),
        (enum.Enum("T", ["A"]), enum.Enum("T", ["B"])),
        (enum.Enum("T", ["A"]), enum.Flag("T", ["A"])),
    ],
)
def test_another_version_of_a_class_is_a_decode_error(sent: Any, known: Any) -> None:
    for cls in (sent, known):
        cls.__module__, cls.__qualname__ = "m", "T"
    value = next(iter(sent)) if issubclass(sent, enum.Enum) else sent(1)
    with pytest.raises(DecodeError, match=r"m:T: expected .*; do all workers run the same code"):
        Codec([known]).decode(Codec([sent]).encode(value))


# --- bytes are not trusted ---------------------------------------------------------------


def marked(code: int, *parts: Any) -> bytes:
    packed: bytes = msgpack.packb([msgpack.ExtType(code, b"\xc1"), *parts])
    return packed


MALFORMED = {
    "nothing": b"",
    "cut": b"\x92\x01",
    "never used byte": b"\xc1",
    "two values": b"\x01\x02",
    "text that is not UTF-8": b"\xa1\xff",
    "cut text": b"\xdb\xff\xff\xff\xff",
    "cut bytes": b"\xc6\xff\xff\xff\xff",
    "cut array": b"\xdd\xff\xff\xff\xff",
    "cut map": b"\xdf\xff\xff\xff\xff",
    "list as a key": b"\x81\x90\x01",
    "unknown extension": msgpack.packb(msgpack.ExtType(99, b"x")),
    "unknown mark": marked(99),
    "mark with other data": msgpack.packb([msgpack.ExtType(1, b"\x00"), b"\xc1"]),
    "bare mark": msgpack.packb(msgpack.ExtType(1, b"\xc1")),
    "mark that is not first": msgpack.packb([1, msgpack.ExtType(1, b"\xc1")]),
    "mark in a map": msgpack.packb({"a": msgpack.ExtType(1, b"\xc1")}),
    "two marks": marked(1, msgpack.ExtType(1, b"\xc1")),
    "a mark nobody has": marked(4, 10**12),
    "big int of text": marked(5, "1"),
    "set of lists": marked(2, []),
    "class without a name": marked(30),
    "class with a list for a name": marked(30, []),
    "datetime from a pickle's state": marked(7, bytes(10), 0, None),
    "month 13": marked(7, 2024, 13, 1, 0, 0, 0, 0, 0, None),
    "day 0": marked(8, 0),
    "zone outside the database": marked(12, "../../etc/passwd"),
    "zone nobody has": marked(12, "Mars/Olympus"),
    "decimal of words": marked(13, "many"),
    "short uuid": marked(14, b"1"),
    "path of another kind": marked(15, 9, "x"),
    "deque without length": marked(16),
    "counter of a list": marked(18, [1]),
    "array of objects": marked(31, "|O", "C", [1], bytes(8)),
    "array of nothing known": marked(31, "nonsense", "C", [1], bytes(8)),
    "array larger than its bytes": marked(31, "<f8", "C", [10**9], bytes(8)),
    "array of a negative shape": marked(31, "<f8", "C", [-1, -1], bytes(8)),
    "array of too many dimensions": marked(31, "<f8", "C", [1] * 100, bytes(8)),
    "array in a strange order": marked(31, "<f8", "K", [1], bytes(8)),
    "array with a dtype of dtypes": marked(31, [[1]], "C", [1], bytes(8)),
    "scalar of the wrong size": marked(32, "<f8", bytes(4)),
    "scalar of text": marked(32, "<f8", "text"),
    "deeper than any sender packs": b"\x91" * 100_000,
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_bytes_are_a_decode_error(codec: Codec, name: str) -> None:
    data = MALFORMED[name]
    with pytest.raises(DecodeError):
        codec.decode(data)
    with pytest.raises(DecodeError):
        codec.decode_batch(b"\x91" + data, 1)
    assert codec.decode(codec.encode((1,))) == (1,)  # nothing of it stays behind


@pytest.mark.parametrize(
    ("body", "count"),
    [
        (b"\x92\x01\x02", 1),
        (b"\x92\x01\x02", 3),
        (b"\x01", 1),
        (b"\x81\x01\x02", 1),
        (marked(1, 5), 2),
        (b"\x91\x01\x01", 1),
        (b"", 0),
    ],
)
def test_a_batch_is_an_array_of_exactly_its_count(codec: Codec, body: bytes, count: int) -> None:
    with pytest.raises(DecodeError):
        codec.decode_batch(body, count)


def test_each_good_message_of_a_bad_batch_can_be_had(codec: Codec) -> None:
    bad = MALFORMED["unknown extension"]
    body = b"\x94" + codec.encode([1, (2,)]) + bad + codec.encode({"k": b"v"}) + bad
    values = codec.decode_each(memoryview(body), 4)
    assert [v for v in values if not isinstance(v, DecodeError)] == [[1, (2,)], {"k": b"v"}]
    assert [isinstance(v, DecodeError) for v in values].count(True) == 2


@pytest.mark.parametrize(
    ("body", "count"),
    [
        (b"", 0),
        (b"\x92\x01", 2),
        (b"\x92\x01\x02\x03", 2),
        (b"\x92\x01\x02", 3),
        (b"\x93\x01\xc1\x02", 3),
        (b"\x92\x01\xdd\xff\xff\xff\xff", 2),
        (b"\x80", 0),
        (b"\xdd\xff\xff\xff\xff", 0xFFFFFFFF),
    ],
)
def test_a_batch_that_cannot_be_split_is_a_decode_error(
    codec: Codec, body: bytes, count: int
) -> None:
    with pytest.raises(DecodeError, match="batch: expected"):
        codec.decode_each(body, count)


def test_the_error_tells_nothing_of_the_payload(codec: Codec) -> None:
    with pytest.raises(DecodeError) as caught:
        codec.decode(marked(13, "secret"))
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("level", [b"\xdd\x00\x00\x40\x00", b"\xdc\x40\x00"])
def test_arrays_that_claim_more_than_there_is_allocate_little(codec: Codec, level: bytes) -> None:
    # 1,000 levels that each claim 16,384 elements: 131 MB if the unpacker believed them.
    data = level * 1000 + bytes(20_000)
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError):
            codec.decode(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


# --- numpy -------------------------------------------------------------------------------


def _arrays() -> list[Any]:
    np = pytest.importorskip("numpy")
    grid = np.arange(12, dtype="i4").reshape(3, 4)
    return [
        grid,
        grid.T,
        grid[::2, ::-1],
        np.asfortranarray(grid),
        np.array(5),
        np.array([]),
        np.zeros((0, 3)),
        np.zeros((2, 0, 3), order="F"),
        np.array([True, False]),
        np.array(["ab", ""]),
        np.array([b"ab", b""]),
        np.zeros(3, "U0"),
        np.zeros(2, ">f8"),
        np.array(["2020-01-01", "NaT"], "M8[D]"),
        np.array([1], "m8[ns]"),
        np.array([1 + 2j]),
        np.array([(1, 2.5, ("x",))], [("a", "i4"), ("b", "f8", (2,)), ("c", [("d", "U3")])]),
        np.zeros(2, np.dtype([("a", "i1"), ("b", "f8")], align=True)),
        np.zeros(2, "V5"),
        np.float16([1, math.inf]),
        np.longdouble([1.5]),
        np.broadcast_to(np.int8(3), (2, 2)),
        np.zeros(100_000)[::2],
    ]


@pytest.mark.parametrize("index", range(23))
def test_an_array_arrives_with_dtype_shape_and_values(codec: Codec, index: int) -> None:
    array = _arrays()[index]
    for decoded in (both_ways(codec, array), both_ways(codec, [{"a": (array,)}])[0]["a"][0]):
        assert type(decoded) is type(array)
        assert (decoded.dtype, decoded.shape) == (array.dtype, array.shape)
        assert decoded.tobytes() == array.tobytes()
        assert not decoded.flags.writeable


def test_numpy_scalars_arrive_as_numpy_scalars(codec: Codec) -> None:
    np = pytest.importorskip("numpy")
    record = np.array([(1, 2.5)], [("a", "i4"), ("b", "f8")])[0]
    for scalar in [
        np.float64(1.5),
        np.int8(-3),
        np.bool_(True),
        np.str_("zażółć"),
        np.str_(""),
        np.bytes_(b"x\x00"),
        np.datetime64("2020-01-01T00:00", "m"),
        np.timedelta64(5, "s"),
        np.complex64(1j),
        np.longdouble(2.5),
        record,
    ]:
        decoded = both_ways(codec, scalar)
        assert type(decoded) is type(scalar)
        assert decoded == scalar
        assert decoded.dtype == scalar.dtype


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda np: np.array([object()]), "without Python objects"),
        (lambda np: np.zeros(1, [("a", object)]), "without Python objects"),
        (lambda np: np.ma.array([1], mask=[True]), "got MaskedArray"),
        (
            lambda np: np.zeros(
                1, {"names": ["a", "b"], "formats": ["i4", "i4"], "offsets": [4, 0]}
            ),
            "dtype that numpy itself can describe",
        ),
    ],
)
def test_arrays_that_would_lose_something_are_refused(
    codec: Codec, make: Callable[[Any], Any], says: str
) -> None:
    np = pytest.importorskip("numpy")
    with pytest.raises(EncodeError, match=r'payload\["a"\]: ') as caught:
        codec.encode({"a": make(np)})
    assert says in str(caught.value)


def test_numpy_is_not_imported_for_values_that_do_not_need_it() -> None:
    code = (
        "import sys; from dflow.wire.codec import Codec; c = Codec(); "
        "c.decode(c.encode([(1,), {2}])); print('numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("code", [31, 34])
def test_a_shape_is_checked_before_it_is_multiplied(codec: Codec, code: int) -> None:
    pytest.importorskip("numpy")
    many = b"\xdd" + (60_000).to_bytes(4, "big") + (b"\xcf" + b"\xff" * 8) * 60_000
    long = b"\x92\xd4\x05\xc1\xc6\x00\x01\x00\x00" + b"\x7f" * 65536
    for shape in (many, b"\xdc\x00\x40" + long * 64):
        kind = b"\xa3<u1\xa1C" if code == 31 else b"\xa1B"
        head = bytes((0x93 + (code == 31) + 1, 0xD4, code, 0xC1))
        with pytest.raises(DecodeError, match="a shape of ints"):
            codec.decode(head + kind + shape + b"\xc4\x00")
