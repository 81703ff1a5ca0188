"""What an Arrow stream may claim: no more than its bytes can hold.

Two parts of the format stand for more than they are. *Compressed* buffers: 5 KB of zeros
become 150 MB. Nothing here ever compresses, so such a batch is refused, by its metadata, before it
is read. And columns in which a row takes *no bytes* (nulls above all), which pandas
makes objects of, eight bytes and more a row: there may only be as many of them as other columns
pay for. Columns whose rows may share bytes (views, unions, dictionaries inside of others) would
multiply in the same way, and none comes from a frame.

The metadata are a flatbuffer (flatbuffers.dev, "internals"): a table begins with the distance back
to its vtable, which has an offset, two bytes each from the fourth on, for every field, 0 if it is
absent. Field numbers are those of Message.fbs of Arrow's format, version 1.
"""

from __future__ import annotations

import struct
from typing import Any

from dflow.errors import DecodeError

__all__ = ["FREE_ROWS", "outweighs", "require_uncompressed"]

FREE_ROWS = 1 << 17
"""Rows of columns without bytes that are free: a megabyte of pointers."""

_HEADER, _BATCH_OF_DICTIONARY, _COMPRESSION = 2, 1, 3
_SHARING = ("view", "union", "run_end_encoded")
_Table = tuple[bytes, int]


def require_uncompressed(ipc: Any, stream: Any) -> None:
    """Raise `DecodeError` if a batch of ``stream``, a buffer of pyarrow's, is compressed."""
    for message in ipc.MessageReader.open_stream(stream):
        if message.type == "schema":
            continue
        try:
            header = _field((metadata := bytes(message.metadata), _to(metadata, 0)), _HEADER)
            if message.type == "dictionary" and header is not None:
                header = _field(header, _BATCH_OF_DICTIONARY)
            compressed = header is None or _field(header, _COMPRESSION) is not None
        except struct.error:
            compressed = True
        if compressed:
            raise DecodeError("table: expected batches that are not compressed")


def _to(data: bytes, at: int) -> int:
    """Return where the offset at ``at`` leads."""
    return at + int(struct.unpack_from("<I", data, at)[0])


def _field(table: _Table, number: int) -> _Table | None:
    """Return the table that a field of ``table`` is, or None if it is absent."""
    data, at = table
    vtable = at - struct.unpack_from("<i", data, at)[0]
    if vtable < 0:
        raise struct.error("a vtable before the beginning")
    size = struct.unpack_from("<H", data, vtable)[0]
    place = 4 + 2 * number
    offset = struct.unpack_from("<H", data, vtable + place)[0] if place + 2 <= size else 0
    return (data, _to(data, at + offset)) if offset else None


def outweighs(types: Any, table: Any, size_bytes: int) -> bool:
    """Whether pandas would make more of ``table`` than ``size_bytes`` can hold.

    ``types``: the module pyarrow.types.
    """
    free = 0
    for field in table.schema:
        kind = field.type
        if any(word in str(kind) for word in _SHARING) or _holds_dictionary(types, kind):
            return True
        free += _is_free(types, kind)
    return free * int(table.num_rows) > size_bytes + FREE_ROWS


def _holds_dictionary(types: Any, kind: Any) -> bool:
    """Whether a dictionary is inside of another type: its values would be repeated."""
    return not types.is_dictionary(kind) and "dictionary<" in str(kind)


def _is_free(types: Any, kind: Any) -> bool:
    """Whether a row of such a column may take no bytes."""
    if types.is_null(kind):
        return True
    if types.is_fixed_size_binary(kind):
        return bool(kind.byte_width == 0)
    if types.is_fixed_size_list(kind):
        return kind.list_size == 0 or _is_free(types, kind.value_type)
    if types.is_struct(kind):
        return all(_is_free(types, kind.field(at).type) for at in range(kind.num_fields))
    return False
