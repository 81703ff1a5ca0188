"""Tables of pyarrow and frames of pandas arrive as they were, where they were written to."""

from __future__ import annotations

import datetime as dt
import decimal
import importlib.util
import random
import sys
from typing import Any

import pytest

from dflow.errors import DecodeError, EncodeError
from dflow.transport.segments import is_supported
from dflow.transport.shm import SharedMemory
from dflow.wire.buffers import Parcel
from dflow.wire.codec import Codec
from dflow.wire.large import address_of

pa: Any = pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'dflow[arrow]'")
np: Any = pytest.importorskip("numpy", reason="needs numpy")
pd: Any = importlib.import_module("pandas") if importlib.util.find_spec("pandas") else None

ROWS = 100_000
needs_pandas = pytest.mark.skipif(pd is None, reason="needs pandas: pip install 'dflow[pandas]'")


class Ends:
    """A sender and a receiver, with shared memory where there is any."""

    def __init__(self, limit_bytes: int) -> None:
        self.memory = SharedMemory(limit_bytes, lambda text: None)
        self.reader = SharedMemory(0, lambda text: None)
        self.sender = Codec((), self.memory)
        self.receiver = Codec((), self.reader)

    def encode(self, value: Any) -> bytes:
        return self.sender.encode(value)

    def decode(self, message: bytes) -> Any:
        if type(message) is not Parcel:
            return self.receiver.decode(message)
        views = [self.reader.borrow(b.place) if b.place else b.view for b in message.buffers]
        return self.receiver.decode_large(bytes(message), views)

    def pass_on(self, value: Any) -> Any:
        return self.decode(self.encode(value))


@pytest.fixture(params=["shared", "not shared"])
def ends(request: pytest.FixtureRequest) -> Any:
    if request.param == "shared" and not is_supported():
        pytest.skip("needs memfd")
    made = Ends(64 << 20 if request.param == "shared" else 0)
    yield made
    made.memory.close()
    made.reader.close()


def table(rows: int) -> Any:
    return pa.table({"n": np.arange(rows), "text": [f"row {row}" for row in range(rows)]})


@pytest.mark.parametrize("rows", [0, 10, ROWS])
def test_tables_and_batches_arrive_as_they_were(ends: Ends, rows: int) -> None:
    sent = table(rows)
    got = ends.pass_on({"in": [sent]})["in"][0]
    assert type(got) is pa.Table
    assert got.equals(sent)
    batch = pa.RecordBatch.from_arrays([sent["n"].combine_chunks()], names=["n"])
    got = ends.pass_on(batch)
    assert type(got) is pa.RecordBatch
    assert got.equals(batch)


def test_a_table_without_columns_and_one_of_many_chunks_arrive(ends: Ends) -> None:
    for sent in (pa.table({}), pa.concat_tables([table(1000)] * 30), table(ROWS)[7:9000:1]):
        got = ends.pass_on(sent)
        assert got.equals(sent)
        assert got.schema.equals(sent.schema, check_metadata=True)


def test_a_large_table_travels_beside_the_message_and_is_read_where_it_lies() -> None:
    ends = Ends(64 << 20)
    message = ends.encode(table(ROWS))
    assert type(message) is Parcel
    (buffer,) = message.buffers
    assert (buffer.place is not None) == is_supported()
    view = memoryview(buffer.view)
    got = ends.sender.decode_large(bytes(message), [view])
    begin = address_of(view)
    column = got["n"].chunk(0).buffers()[1]
    assert begin <= column.address < begin + len(view)
    # emitted again it is not written again
    again = ends.encode([got])
    assert type(again) is Parcel
    assert again.buffers[0].place == buffer.place
    del got, again, column, view, buffer, message
    ends.memory.sweep()
    assert ends.memory.stats.in_use_bytes == 0
    ends.memory.close()


def frames() -> dict[str, Any]:
    if pd is None:
        return {}
    numbers = pd.DataFrame({"f": np.linspace(0, 1, ROWS), "i": np.arange(ROWS)})
    mixed = pd.DataFrame(
        {
            "text": pd.Series(["a", "b", "c"], dtype="str" if pd.__version__ >= "3" else object),
            "kind": pd.Categorical(["x", "y", "x"]),
            "at": pd.date_range("2026-01-01", periods=3, tz="UTC"),
            "maybe": pd.array([1, None, 3], dtype="Int64"),
            "took": pd.to_timedelta([1, 2, 3], unit="s"),
        }
    )
    objects = pd.DataFrame(
        {
            "day": pd.Series([dt.date(2026, 1, 1), None], dtype=object),
            "raw": pd.Series([b"1", b"2"], dtype=object),
            "sum": pd.Series([decimal.Decimal("1.50"), decimal.Decimal("2.25")], dtype=object),
        }
    )
    return {
        "numbers": numbers,
        "mixed": mixed,
        "objects": objects,
        "index": mixed.set_index(["at", "kind"]),
        "columns": pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)])),
        "numbered": pd.DataFrame([[1, 2.5]], index=[7]),
        "empty": pd.DataFrame(),
        "no rows": mixed[:0],
    }


@needs_pandas
@pytest.mark.parametrize("name", frames())
def test_frames_arrive_as_they_were(ends: Ends, name: str) -> None:
    sent = frames()[name]
    sent.attrs["origin"] = "here"
    got = ends.pass_on(sent)
    assert type(got) is pd.DataFrame
    pd.testing.assert_frame_equal(got, sent, check_freq=False)
    assert got.attrs == sent.attrs


@needs_pandas
@pytest.mark.parametrize("name", [None, "speed", 3])
def test_series_arrive_as_they_were(ends: Ends, name: Any) -> None:
    for sent in (pd.Series(np.arange(ROWS), name=name), pd.Series([1.5], [b"k"], name=name)):
        got = ends.pass_on(sent)
        assert type(got) is pd.Series
        pd.testing.assert_series_equal(got, sent)


@needs_pandas
def test_numbers_of_a_frame_lie_in_what_was_received_and_are_read_only(ends: Ends) -> None:
    got = ends.pass_on(frames()["numbers"])
    column = got["f"].to_numpy()
    assert not column.flags.owndata
    assert not column.flags.writeable
    got["f"] = got["f"] + 1  # a new column, not a change of the old one
    assert got["f"][0] == 1


@needs_pandas
@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: pd.DataFrame({"o": [1, "a"]}), "Arrow can hold"),
        (lambda: pd.DataFrame({"o": [object()]}), "Arrow can hold"),
        (lambda: pd.DataFrame([[1, 2]], columns=["a", "a"]), "Duplicate"),
        (lambda: pd.DataFrame({"o": pd.Series([1, 2], dtype=object)}), "'o'.*int64"),
        (lambda: pd.DataFrame({"o": [[1], [2]]}), "'o'.*list"),
        (lambda: pd.DataFrame({"o": [1]}, index=pd.Index([1], dtype=object)), "int64"),
        (lambda: pd.Series([1], name=("a", 1)), "named by text"),
    ],
)
def test_what_would_arrive_as_something_else_is_refused(make: Any, match: str) -> None:
    with pytest.raises(EncodeError, match=match) as caught:
        Codec().encode({"x": make()})
    assert caught.value.path == 'payload["x"]'


def test_subclasses_do_not_travel() -> None:
    if pd is None:
        pytest.skip("needs pandas")
    kind = type("Mine", (pd.DataFrame,), {})
    with pytest.raises(EncodeError, match="Mine"):
        Codec().encode(kind({"a": [1]}))


def test_who_has_no_pyarrow_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    message = Codec().encode(table(3))
    framed = Codec().encode(pd.DataFrame({"a": [1]})) if pd is not None else message
    frame = pd.DataFrame({"a": [1]}) if pd is not None else None
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DecodeError, match=r"dflow\[arrow\]"):
        Codec().decode(message)
    if frame is not None:
        with pytest.raises(DecodeError, match=r"dflow\[pandas\]"):
            Codec().decode(framed)
        with pytest.raises(EncodeError, match=r"dflow\[pandas\]"):
            Codec().encode(frame)


def test_mangled_tables_are_decode_errors_and_nothing_worse() -> None:
    codec, chance = Codec(), random.Random(1)
    message = codec.encode(pa.table({"text": ["abc", "d"] * 100, "n": list(range(200))}))
    refused = 0
    for _ in range(500):
        mangled = bytearray(message)
        mangled[chance.randrange(8, len(mangled))] ^= 1 << chance.randrange(8)
        try:
            value = codec.decode(bytes(mangled))
            if isinstance(value, pa.Table):
                value.to_pylist()
        except (DecodeError, pa.ArrowInvalid):  # the second for what only looks like a number
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("parts", [["table", 5], ["what", b""], ["table", b"no stream"]])
def test_what_is_no_table_is_a_decode_error(parts: list[Any]) -> None:
    import msgpack

    from dflow.wire.values import TABLE

    with pytest.raises(DecodeError):
        Codec().decode(msgpack.packb([TABLE, *parts]))
