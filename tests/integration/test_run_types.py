"""What a user emits is what arrives: value and type, through real edges."""

from __future__ import annotations

import datetime as dt
import enum
import math
import socket
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from dflow import EncodeError, Graph, Input, Node, Output, node, register_type, source
from tests.integration.flows import Inlet, collect, count, keep

pytestmark = pytest.mark.timeout(30)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1


class Word(enum.StrEnum):
    YES = "yes"


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    y: float


@dataclass
class Record:
    name: str
    points: list[Point]
    colour: Colour = Colour.RED
    notes: dict[int, set[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Frozen:
    value: Any


@register_type
@dataclass
class Registered:
    value: Any


PLAIN: list[Any] = [
    0, -1, 2**63, -(2**63), 2**64, 10**100, -(10**100), True, False, 1.5, math.inf, -0.0,
    "", "text", "é\u4e2d\U0001f600", b"", b"bytes", complex(1, -2),
    (), (1,), (1, "a", (None, b"x")), [], [1, [2]], {}, {"a": 1}, {1: "x", (1, 2): [3], None: 0},
    set(), {1, "a"}, frozenset({(1, 2)}), deque([1, 2]), OrderedDict(b=1, a=2), Counter("aab"),
    Decimal("1.10"), UUID(int=7), Path("/tmp/x"), PurePosixPath("a/b"),
    dt.date(2024, 2, 29), dt.time(1, 2, 3, 4), dt.timedelta(days=-1, microseconds=5),
    dt.datetime(2024, 1, 2, 3, 4, 5, 6),  # noqa: DTZ001 - naive on purpose
    dt.datetime(2024, 1, 2, tzinfo=dt.UTC),
    dt.datetime(2024, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=5, minutes=30))),
    dt.datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
    {"deep": [({"set": {frozenset({1})}}, b"q")]},
]  # fmt: skip

OWN: list[Any] = [
    Colour.BLUE, Level.LOW, Word.YES, Rights.READ | Rights.WRITE, Point(1, 2.5),
    Record("r", [Point(0, 0.0)], Colour.BLUE, {1: {"a"}}), Frozen((1, {2})),
    [Frozen(Colour.RED)], {Colour.RED: Point(1, 1.0)},
]  # fmt: skip

Own = Colour | Level | Word | Rights | Point | Record | Frozen


def shape(value: Any) -> Any:
    """Return the types in ``value``, all the way down."""
    if isinstance(value, dict):
        return type(value), [(shape(k), shape(v)) for k, v in value.items()]
    if isinstance(value, (list, tuple, deque)):
        return type(value), [shape(v) for v in value]
    if isinstance(value, (set, frozenset)):
        return type(value), sorted(str(shape(v)) for v in value)
    if hasattr(value, "__dataclass_fields__"):
        return type(value), [shape(getattr(value, name)) for name in value.__dataclass_fields__]
    if isinstance(value, dt.datetime):
        return type(value), type(value.tzinfo), value.fold
    return type(value)


@source
def plain() -> Iterator[Any]:
    yield from PLAIN


@source
def own() -> Iterator[Own]:
    yield from OWN


def test_values_of_the_standard_library_arrive_equal_and_of_the_same_type() -> None:
    last = keep()
    values, _ = collect(Graph("plain", plain() >> keep() >> last), last)
    assert values == PLAIN
    assert [shape(v) for v in values] == [shape(v) for v in PLAIN]
    (zero,) = (v for v in values if type(v) is float and v == 0)
    assert math.copysign(1, zero) == -1


def test_classes_that_an_annotation_names_arrive_as_instances() -> None:
    last = keep()
    values, _ = collect(Graph("own", own() >> keep() >> last), last)
    assert values == OWN
    assert [shape(v) for v in values] == [shape(v) for v in OWN]


def test_registered_class_needs_no_annotation() -> None:
    @node
    def wrap(x: int) -> Any:
        return Registered((x, {x}))

    last = keep()
    values, _ = collect(Graph("registered", count(3) >> wrap() >> last), last)
    assert values == [Registered((n, {n})) for n in range(3)]


def test_class_of_the_handlers_input_annotation_is_enough() -> None:
    class Reader(Node):
        records = Input(Record)
        names = Output(str)

        @records.handler
        def read(self, record: Record) -> str:
            return record.name

    @source
    def untyped() -> Iterator[Any]:
        yield Record("a", [])

    reader = Reader()
    values, _ = collect(Graph("input", untyped() >> reader.records), reader)
    assert values == ["a"]


def test_numpy_arrays_and_scalars_arrive_with_dtype_shape_and_values() -> None:
    np = pytest.importorskip("numpy")

    @source
    def arrays() -> Iterator[Any]:
        import numpy as np

        yield np.arange(12, dtype=np.int16).reshape(3, 4)
        yield np.arange(12).reshape(3, 4)[:, ::2]
        yield np.array(1.5)
        yield np.zeros((0, 3))
        yield np.array(["2024-01-01"], dtype="datetime64[D]")
        yield np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")])
        yield np.float32(0.1)
        yield {"image": np.ones((640, 480, 3), np.uint8)}

    last = keep()
    values, _ = collect(Graph("numpy", arrays() >> keep() >> last), last)
    sent = list(arrays.function())
    for got, expected in zip(values[:6], sent[:6], strict=True):
        assert got.dtype == expected.dtype
        assert got.shape == expected.shape
        assert np.array_equal(got, expected)
    assert type(values[6]) is np.float32
    assert values[6] == np.float32(0.1)
    assert np.array_equal(values[7]["image"], sent[7]["image"])


def test_mutating_a_value_after_emit_does_not_change_what_was_sent() -> None:
    class Reuses(Node):
        inp = Input(int)
        out = Output(list)

        @inp.handler
        def handle(self, x: int) -> None:
            buffer: list[Any] = [x]
            self.out.emit(buffer)
            buffer.append("changed")
            self.out.emit(buffer)

    reuses = Reuses()
    values, _ = collect(Graph("frozen", count(2) >> reuses.inp), reuses)
    assert values == [[0], [0, "changed"], [1], [1, "changed"]]


# --- what cannot travel -------------------------------------------------------------------


class Catches(Node):
    """Emits what cannot travel, and notes what it was told."""

    inp = Input(int)
    out = Output()

    @inp.handler
    def handle(self, x: int) -> None:
        with socket.socket() as connection:
            try:
                self.out.emit({"user": [1, 2, 3, connection]})
            except EncodeError as error:
                self.out.emit([error.path, str(error)])


def test_value_that_cannot_travel_raises_at_the_emitting_line_with_its_path() -> None:
    catches = Catches()
    values, report = collect(Graph("catches", count(1) >> catches.inp), catches)
    ((path, text),) = values
    assert path == 'payload["user"][3]'
    assert path in text
    assert "socket" in text
    assert report.node("catches").errors == 0


def test_value_that_cannot_travel_is_counted_and_skipped_when_returned(
    capfd: pytest.CaptureFixture[str],
) -> None:
    @node
    def odd_ones_cannot(x: int) -> Any:
        return {"lock": [object()]} if x % 2 else x

    last = odd_ones_cannot()
    values, report = collect(Graph("returned", count(6) >> last), last)
    assert values == [0, 2, 4]
    assert report.node("odd_ones_cannot").errors == 3
    assert 'payload["lock"][0]' in capfd.readouterr().err


def test_instance_of_an_unknown_class_is_refused_and_the_error_says_what_to_do(
    capfd: pytest.CaptureFixture[str],
) -> None:
    @dataclass
    class Unknown:
        x: int

    @node
    def make(x: int) -> Any:
        return Unknown(x)

    last = make()
    values, report = collect(Graph("unknown", count(1) >> last), last)
    assert values == []
    assert report.node("make").errors == 1
    assert "register_type" in capfd.readouterr().err


def test_value_that_cannot_travel_ends_its_source_and_is_counted(
    capfd: pytest.CaptureFixture[str],
) -> None:
    @source
    def bad() -> Iterator[Any]:
        yield 1
        yield object()

    last = keep()
    values, report = collect(Graph("bad_source", bad() >> last), last)
    assert values == [1]
    assert report.node("bad").errors == 1
    assert "object" in capfd.readouterr().err


def test_sending_what_cannot_travel_raises_in_the_caller() -> None:
    inlet = Inlet()
    with Graph("send", inlet).start(results=inlet) as run:
        with pytest.raises(EncodeError, match=r"payload\[0\]"):
            run.send(inlet.data, [object()])
        run.send(inlet.data, [1])
        run.stop()
        assert list(run.results()) == [[1]]
        assert run.wait(20).balances
