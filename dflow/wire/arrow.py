"""Tables on the wire: those of pyarrow, and frames of pandas by way of them.

What travels is an Arrow stream (IPC format), written straight into shared memory if it is large,
and read in place: the columns of the table that arrives lie in the received bytes. A table that
was received and is emitted again is not written anew. Neither library is imported before a value
needs it. One thread does it all: a worker is a process because it has one core.

A pandas frame becomes a table and back; its numeric columns lie in the received bytes too, so they
are read-only. A column of Python objects travels if Arrow has one type for what is in it and
pandas makes the same of it again: bytes, dates, times, decimals, and text before pandas 3 (which
has a dtype for it).

What a peer wrote is checked in full before anybody sees it: an offset of a column of text that
leads elsewhere would read other memory. That takes no time for columns of numbers.
"""

from __future__ import annotations

import importlib
import sys
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

from dflow.errors import DecodeError, EncodeError
from dflow.wire.arrow_limits import FREE_ROWS, outweighs, require_uncompressed
from dflow.wire.buffers import LARGE_BYTES, Buffer
from dflow.wire.large import Beside
from dflow.wire.values import TABLE

__all__ = ["read_table", "table_writer"]

_FRAMES = {"DataFrame": "frame", "Series": "series"}
_INSTALL = {"table": "arrow", "batch": "arrow", "frame": "pandas", "series": "pandas"}
_SERIES = "series"  # the only column of a Series that travels
_OBJECTS = ("null", "binary", "large_binary", "date", "time", "decimal")
_TEXT = ("string", "large_string")

_received: dict[int, tuple[weakref.ref[Any], memoryview]] = {}
"""The bytes that tables were read from, by the tables' ids: pyarrow's are not hashable."""


def table_writer(kind: type, beside: Beside) -> Callable[[Any], list[Any]] | None:
    """Return how to write instances of ``kind`` if it is a table of pyarrow or pandas, else None.

    What is large is put ``beside`` the message.
    """
    arrow, pandas = sys.modules.get("pyarrow"), sys.modules.get("pandas")
    if arrow is not None and kind is getattr(arrow, "Table", None):
        return partial(_write_table, beside, "table")
    if arrow is not None and kind is getattr(arrow, "RecordBatch", None):
        return partial(_write_table, beside, "batch")
    if pandas is not None:
        for name, code in _FRAMES.items():
            if kind is getattr(pandas, name, None):
                return partial(_write_frame, beside, code)
    return None


def _write_table(beside: Beside, code: str, table: Any) -> list[Any]:
    known = _received.get(id(table))
    if known is not None and known[0]() is table:
        beside.expect()
        return [TABLE, code, beside.put(known[1])]
    ipc = _arrow().ipc
    measured = _arrow().MockOutputStream()
    _write_stream(ipc, measured, table)
    size_bytes = measured.size()
    if size_bytes < LARGE_BYTES:
        small = _arrow().BufferOutputStream()
        _write_stream(ipc, small, table)
        return [TABLE, code, small.getvalue().to_pybytes()]
    beside.expect()
    return [TABLE, code, beside.add(_large(beside, ipc, table, size_bytes))]


def _large(beside: Beside, ipc: Any, table: Any, size_bytes: int) -> Buffer:
    room = beside.room_for(size_bytes)
    target = memoryview(bytearray(size_bytes)) if room is None else room.target
    with _arrow().FixedSizeBufferWriter(_arrow().py_buffer(target)) as sink:
        _write_stream(ipc, sink, table)
    return Buffer(target.toreadonly()) if room is None else room.buffer


def _write_stream(ipc: Any, sink: Any, table: Any) -> None:
    options = ipc.IpcWriteOptions(use_threads=False)
    with ipc.new_stream(sink, table.schema, options=options) as stream:
        if table.num_rows == 0:  # a table would write nothing, not even its categories
            columns = [_whole(column) for column in table.columns]
            table = _arrow().RecordBatch.from_arrays(columns, schema=table.schema)
        stream.write(table)


def _whole(column: Any) -> Any:
    return column.combine_chunks() if hasattr(column, "combine_chunks") else column


def _write_frame(beside: Beside, code: str, frame: Any) -> list[Any]:
    arrow = _arrow("emitting pandas frames")
    name = frame.name if code == "series" else None
    if code == "series":
        if name is not None and type(name) not in (str, int):
            raise EncodeError(f"expected a Series named by text or a number, got {name!r:.80}")
        frame = frame.to_frame(_SERIES)
    try:
        table = arrow.Table.from_pandas(frame, nthreads=1)
    except (ValueError, TypeError, NotImplementedError) as error:  # Arrow's own are among them
        raise EncodeError(
            f"expected a pandas {'Series' if code == 'series' else 'DataFrame'} that Arrow can"
            f" hold, got: {str(error).splitlines()[0]:.200}"
        ) from None
    _require_plain(frame, table)
    written = _write_table(beside, code, table)
    return [*written, name] if code == "series" else written


def _require_plain(frame: Any, table: Any) -> None:
    """Raise `EncodeError` for a column of objects that would arrive as something else."""
    index = [name for name in table.schema.pandas_metadata["index_columns"] if type(name) is str]
    levels = [frame.index.get_level_values(number).dtype for number in range(frame.index.nlevels)]
    text_is_object = int(sys.modules["pandas"].__version__.partition(".")[0]) < 3
    objects = _OBJECTS + _TEXT if text_is_object else _OBJECTS
    kinds = [*zip(frame.columns, frame.dtypes, strict=True), *zip(index, levels, strict=False)]
    for field, (name, dtype) in zip(table.schema, kinds, strict=False):
        kind = str(field.type)
        if str(dtype) == "object" and not kind.startswith(objects):
            raise EncodeError(
                f"column {name!r:.80}: expected bytes, dates, times or decimals in a column of"
                f" Python objects, got what Arrow calls {kind:.80}; give the column a dtype"
            )
    if outweighs(_arrow().types, table, table.nbytes):
        raise EncodeError(
            f"expected at most {FREE_ROWS:,} rows of columns of nothing but None, beyond one for"
            f" each byte of other columns, got {table.num_rows:,} rows; give the columns a dtype"
        )


def read_table(parts: list[Any]) -> Any:
    """Return the table or frame that ``parts`` describe; its columns lie in what was received."""
    code, data, *name = parts
    if code not in _INSTALL or type(data) not in (bytes, memoryview):
        raise DecodeError("table: expected its kind and bytes")
    arrow = _arrow_to_read(code)
    try:
        options, buffer = arrow.ipc.IpcReadOptions(use_threads=False), arrow.py_buffer(data)
        require_uncompressed(arrow.ipc, buffer)
        with arrow.ipc.open_stream(buffer, options=options) as stream:
            table = stream.read_all()
        table.validate(full=True)
        if code == "table":
            return _noted(table, data)
        if code == "batch":
            return _noted(_only_batch(arrow, table), data)
        if outweighs(arrow.types, table, len(data)):
            raise DecodeError("frame: expected columns that hold what they say")
        frame = table.to_pandas(split_blocks=True, use_threads=False)
        return frame if code == "frame" else _series(frame, name)
    except arrow.ArrowException as error:
        raise DecodeError(
            f"table: expected an Arrow stream, got a malformed one ({type(error).__name__})"
        ) from None


def _only_batch(arrow: Any, table: Any) -> Any:
    batches = table.to_batches()
    if len(batches) > 1:
        raise DecodeError(f"record batch: expected one, got {len(batches)}")
    return batches[0] if batches else arrow.RecordBatch.from_pylist([], schema=table.schema)


def _series(frame: Any, name: list[Any]) -> Any:
    if list(frame.columns) != [_SERIES] or len(name) != 1:
        raise DecodeError("series: expected one column and a name")
    return frame[_SERIES].rename(name[0])


def _noted(table: Any, data: Any) -> Any:
    """Remember what a large table was read from, for as long as it lives."""
    if type(data) is memoryview:
        number = id(table)

        def forget(gone: weakref.ref[Any]) -> None:
            if _received.get(number, (None,))[0] is gone:
                del _received[number]

        _received[number] = weakref.ref(table, forget), data
    return table


def _arrow(purpose: str = "emitting tables") -> Any:
    try:
        return importlib.import_module("pyarrow")
    except ImportError:
        raise EncodeError(
            f"expected pyarrow for {purpose}, got none; pip install 'dflow[pandas]'"
        ) from None


def _arrow_to_read(code: str) -> Any:
    try:
        arrow = importlib.import_module("pyarrow")
        importlib.import_module("pyarrow.ipc")
        importlib.import_module("pyarrow.types")
        if _INSTALL[code] == "pandas":
            importlib.import_module("pandas")
    except ImportError:
        extra = _INSTALL[code]
        what = "a pandas value" if extra == "pandas" else "a table of pyarrow"
        raise DecodeError(
            f"got {what}, but what reads it is not installed here; pip install 'dflow[{extra}]'"
        ) from None
    return arrow
