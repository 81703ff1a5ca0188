"""The two unpackers of `dflow.wire.codec`, and a defence against lies about sizes.

A marked array (`dflow.wire.values`) is unpacked as a list whose first element is a `_Mark`;
the unpacker hands every finished list to a hook, which turns such a list into its value.
The hook costs 45 ns a list, so it is only installed for bytes that may contain a mark.
Every mark must be consumed: one in any other place (a map, the middle of an array) is malformed
and must not reach the user.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgpack

from dflow.errors import DecodeError
from dflow.wire.values import CLASS, MARK_DATA, TUPLE

__all__ = ["TRUSTED_ARRAY", "make_unpackers", "require_whole", "split_batch"]

TRUSTED_ARRAY = 1024
"""Arrays up to this length are allocated before their elements are seen.

The unpacker allocates 8 bytes for each element an array claims. Arrays inside arrays (up to
1,024 of them) could claim many times more than there is: 8 MB at this length. Bytes with a
longer array must pass `require_whole` first.
"""

Unpack = Callable[..., Any]


def require_whole(data: bytes | memoryview) -> None:
    """Raise unless every array and map in ``data`` has the elements it claims."""
    checker = msgpack.Unpacker(max_buffer_size=max(len(data), 1))
    checker.feed(data)
    checker.skip()


def split_batch(data: bytes, count: int) -> list[tuple[int, int]]:
    """Return where each payload of a BATCH body begins and ends, without unpacking it."""
    walker = msgpack.Unpacker(max_buffer_size=max(len(data), 1))
    walker.feed(data)
    ends: list[int] = []
    try:
        good = walker.read_array_header() == count
        begin = walker.tell()
        for _ in range(count if good else 0):
            walker.skip()
            ends.append(walker.tell())
    except Exception as why:  # noqa: BLE001  # the unpacker raises many types
        raise DecodeError(
            f"batch: expected {count} payloads, got malformed bytes ({type(why).__name__})"
        ) from None
    if not good or [begin, *ends][-1] != len(data):
        raise DecodeError(f"batch: expected an array of {count} payloads, got another")
    return list(zip([begin, *ends], ends, strict=False))


class _Mark:
    """What the unpacker puts where a mark was, until its array is complete."""

    __slots__ = ("read",)

    def __init__(self, read: Callable[[list[Any]], Any]) -> None:
        self.read = read


def make_unpackers(
    readers: Mapping[int, Callable[[list[Any]], Any]], read_class: Callable[[list[Any]], Any]
) -> tuple[Unpack, Unpack]:
    """Return what unpacks bytes without marks, and what unpacks any bytes.

    ``readers`` get the elements after the mark, ``read_class`` the whole array. Both
    unpackers raise whatever msgpack and the readers raise.
    """
    marks = {code: _Mark(reader) for code, reader in readers.items()}
    marks[CLASS.code] = class_mark = _Mark(read_class)
    tuple_mark = marks[TUPLE.code]
    open_marks = 0

    def ext_hook(code: int, data: bytes) -> _Mark:
        nonlocal open_marks
        open_marks += 1
        if data == MARK_DATA and code in marks:
            return marks[code]
        raise DecodeError(f"expected a known extension, got code {code}")

    def list_hook(values: list[Any]) -> Any:
        if values and type(values[0]) is _Mark:
            nonlocal open_marks
            open_marks -= 1
            mark = values[0]
            if mark is class_mark:
                return read_class(values)
            del values[0]
            return tuple(values) if mark is tuple_mark else mark.read(values)
        return values

    unpack = partial(
        msgpack.unpackb,
        strict_map_key=False,
        unicode_errors="surrogatepass",
        max_array_len=TRUSTED_ARRAY,
        ext_hook=ext_hook,
    )
    unpack_lists = partial(unpack, list_hook=list_hook)

    def unpack_marked(data: Any, **limits: int) -> Any:
        nonlocal open_marks
        open_marks = 0
        value = unpack_lists(data, **limits)
        if open_marks:
            raise DecodeError("expected marks only at the start of arrays")
        return value

    return unpack, unpack_marked
