"""What an Arrow stream claims beyond its bytes is refused, where it is read and where made."""

from __future__ import annotations

import importlib
from typing import Any

import msgpack
import pytest

from dflow.errors import DecodeError, EncodeError
from dflow.wire.arrow_limits import FREE_ROWS
from dflow.wire.codec import Codec

pa: Any = pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'dflow[arrow]'")
pd: Any = pytest.importorskip("pandas", reason="needs pandas: pip install 'dflow[pandas]'")

ROWS = FREE_ROWS * 20


def stream(code: str, table: Any, compression: str | None = None) -> bytes:
    """Return the message of a peer that writes tables as it likes."""
    ipc, sink = importlib.import_module("pyarrow.ipc"), pa.BufferOutputStream()
    options = ipc.IpcWriteOptions(compression=compression)
    with ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write(table)
    data: bytes = sink.getvalue().to_pybytes()
    packed: bytes = msgpack.packb(code) + msgpack.packb(data)
    return b"\x93\xd4\x23\xc1" + packed


@pytest.mark.parametrize("code", ["table", "batch", "frame"])
def test_a_compressed_batch_is_refused_before_it_is_read(code: str) -> None:
    table = pa.table({"a": pa.array([0] * 100_000)})
    with pytest.raises(DecodeError, match="not compressed"):
        Codec().decode(stream(code, table, "zstd"))
    assert Codec().decode(stream(code, table)) is not None


def test_a_compressed_dictionary_is_refused_as_well() -> None:
    table = pa.table({"a": pa.array(["x" * 1000] * 5).dictionary_encode()})
    with pytest.raises(DecodeError, match="not compressed"):
        Codec().decode(stream("table", table, "lz4"))
    assert Codec().decode(stream("table", table)).num_rows == 5


@pytest.mark.parametrize(
    "column",
    [
        pytest.param(lambda: pa.nulls(ROWS), id="nulls"),
        pytest.param(lambda: pa.nulls(ROWS, pa.struct([("x", pa.null())])), id="empty structs"),
        pytest.param(lambda: pa.nulls(ROWS, pa.list_(pa.null(), 3)), id="lists of nulls"),
        pytest.param(lambda: pa.nulls(5, pa.string_view()), id="views"),
        pytest.param(
            lambda: pa.array([["a"]]).cast(pa.list_(pa.dictionary(pa.int32(), pa.string()))),
            id="a dictionary inside",
        ),
    ],
)
def test_rows_that_take_no_bytes_do_not_become_objects(column: Any) -> None:
    with pytest.raises(DecodeError, match="columns that hold what they say"):
        Codec().decode(stream("frame", pa.table({"a": column()})))


def test_who_emits_nothing_but_none_is_told_where_it_does() -> None:
    frame = pd.DataFrame({"a": [None] * (FREE_ROWS + 1000)})
    with pytest.raises(EncodeError, match="columns of nothing but None"):
        Codec().encode(frame)
    kept = frame.head(FREE_ROWS - 1)
    assert Codec().decode(Codec().encode(kept)).equals(kept)
    paid = frame.assign(b=range(len(frame)))
    pd.testing.assert_frame_equal(Codec().decode(Codec().encode(paid)), paid)
