"""Numpy arrays and scalars on the wire. Numpy is never imported before a value needs it.

An array is its dtype, shape, memory order and raw bytes; it arrives as a read-only view of
the received bytes, or of the shared memory a large one lies in: copy it to change it. One
that is in shared memory when it is emitted stays there and becomes read-only here as well.
Only exact ``ndarray`` travels: masked and record arrays would lose what their class adds. Object
dtypes never do: they are pointers, and decoding them would need pickle.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from functools import lru_cache, partial
from math import prod
from operator import index
from typing import Any

from dflow.errors import DecodeError, EncodeError
from dflow.wire.buffers import LARGE_BYTES, Buffer, Memory
from dflow.wire.large import Beside, freeze, is_frozen
from dflow.wire.values import ARRAY, SCALAR

__all__ = ["is_array_type", "new_array", "numpy_writer", "read_array", "read_scalar"]

_MAX_DTYPE_DEPTH = 16
_MAX_DIMENSIONS = 64


def numpy_writer(kind: type, beside: Beside) -> Callable[[Any], list[Any]] | None:
    """Return how to write instances of ``kind`` if it is a type of numpy's, else None.

    What is large is put ``beside`` the message.
    """
    np = sys.modules.get("numpy")
    if np is None:
        return None
    if kind is np.ndarray:
        return partial(_write_array, beside)
    if issubclass(kind, np.generic):
        return _write_scalar
    return None


def is_array_type(kind: type) -> bool:
    """Whether ``kind`` is numpy's array or extends it."""
    np = sys.modules.get("numpy")
    return np is not None and issubclass(kind, np.ndarray)


def new_array(memory: Memory | None, shape: Any, dtype: Any) -> Any:
    """Return a new array in ``memory`` if it is large and there is room, else an ordinary one.

    A large one can only be emitted read-only, wherever it lies: `_large` knows it by its owner.
    """
    try:
        import numpy as np
    except ImportError:
        raise EncodeError("allocate: expected numpy; pip install 'dflow[numpy]'") from None
    kind = np.dtype(dtype)
    if kind.hasobject:
        raise EncodeError(f"allocate: expected a dtype without Python objects, got {kind}")
    try:
        sizes = _sizes(shape)
        size_bytes = prod(sizes) * kind.itemsize
        if size_bytes < LARGE_BYTES:
            return np.empty(sizes, kind)
        if size_bytes > sys.maxsize:
            raise ValueError("too large")
        room = None if memory is None else memory.allocate(size_bytes)
        if room is None:
            room = _ordinary()((size_bytes,), "u1")
        return np.ndarray(sizes, kind, buffer=room)
    except (TypeError, ValueError) as error:
        raise EncodeError(
            f"allocate: expected a shape, an int >= 0 or a tuple of such ints, got {shape!r:.200}"
            f" ({error})"
        ) from None


def _sizes(shape: Any) -> tuple[int, ...]:
    """Return ``shape`` as numpy understands it: an int of any kind, or a sequence of them."""
    try:
        sizes: tuple[int, ...] = (index(shape),)
    except TypeError:
        sizes = tuple([index(size) for size in shape])
    if any(size < 0 for size in sizes):
        raise ValueError("negative dimensions are not allowed")
    return sizes


@lru_cache(maxsize=1)
def _ordinary() -> type:
    """Return the type of the owner of memory that stands in for shared memory."""
    import numpy as np

    class Ordinary(np.ndarray):
        """Memory that was allocated where there was no shared memory."""

    return Ordinary


@lru_cache(maxsize=256)
def _dtype_description(dtype: Any) -> Any:
    import numpy as np

    if dtype.hasobject:
        raise EncodeError(f"expected an array without Python objects, got dtype {dtype}")
    try:
        description = dtype.str if dtype.names is None else dtype.descr
        if np.lib.format.descr_to_dtype(description) == dtype:
            return description
    except (TypeError, ValueError):  # fields overlap or are out of order, or names are odd
        pass
    raise EncodeError(
        f"expected a dtype that numpy itself can describe, got {dtype}; copy the array to one"
    )


def _write_array(beside: Beside, array: Any) -> list[Any]:
    description = _dtype_description(array.dtype)
    flags = array.flags
    order = "F" if flags.f_contiguous and not flags.c_contiguous else "C"
    if array.nbytes >= LARGE_BYTES:
        beside.expect()
        buffer = _large(beside, array, order, whole=flags.forc)
        return [ARRAY, description, order, list(array.shape), beside.add(buffer)]
    if array.nbytes and flags.forc:
        data = memoryview(array.reshape(-1, order=order).view("u1"))
    else:
        data = array.tobytes(order)
    return [ARRAY, description, order, list(array.shape), data]


def _large(beside: Beside, array: Any, order: str, *, whole: bool) -> Buffer:
    """Return the bytes of an array: where they are, if that is in shared memory, or copied."""
    if whole and array.base is not None:  # numpy's own memory is not shared
        known = beside.shared(_address(array), array.nbytes)
        if known is not None:
            freeze(array)
            return known
        if type(_owner(array)) is _ordinary():
            freeze(array)  # it is copied, but could not be written to again elsewhere
    room = beside.room_for(array.nbytes)
    if room is None and whole and is_frozen(_owner(array)):
        return Buffer(memoryview(array.reshape(-1, order=order).view("u1")))
    if room is None:
        return Buffer(memoryview(array.tobytes(order)))
    np = _numpy()
    if not whole:
        target = np.ndarray(array.shape, array.dtype, buffer=room.target, order=order)
    else:
        target = np.frombuffer(room.target, "u1")
        if array.ndim != 1 or array.dtype != target.dtype:
            array = array.reshape(-1, order=order).view("u1")
    np.copyto(target, array)
    return room.buffer


def _owner(array: Any) -> Any:
    """Return whose memory an array looks at."""
    owner = array
    while is_array_type(type(owner)) and owner.base is not None:
        owner = owner.base
    return owner


def _address(array: Any) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def _write_scalar(scalar: Any) -> list[Any]:
    # Text and bytes lose trailing NULs in an array of one, so they travel as themselves.
    if isinstance(scalar, str | bytes):
        if isinstance(scalar, str):
            return [SCALAR, "str_", str.__str__(scalar)]
        return [SCALAR, "bytes_", bytes.__getitem__(scalar, slice(None))]
    return [SCALAR, _dtype_description(scalar.dtype), scalar.tobytes()]


def _numpy() -> Any:
    known = sys.modules.get("numpy")
    if known is not None:
        return known
    try:
        return importlib.import_module("numpy")
    except ImportError:
        raise DecodeError(
            "got a numpy value, but numpy is not installed here; pip install 'dflow[numpy]'"
        ) from None


def read_array(parts: list[Any]) -> Any:
    """Return the read-only array that ``parts`` describe."""
    np = _numpy()

    description, order, shape, data = parts
    dtype = _read_dtype(description, np)
    good = type(data) is bytes or type(data) is memoryview  # what `BUFFER` stood for
    if not good or type(shape) is not list or order not in ("C", "F"):
        raise DecodeError("numpy array: expected order, shape and bytes")
    # before they are multiplied: a product of long numbers takes for ever
    if len(shape) > _MAX_DIMENSIONS or not all(type(n) is int and 0 <= n < 1 << 63 for n in shape):
        raise DecodeError(f"numpy array: expected a shape of ints >= 0, got {len(shape)} others")
    if prod(shape) * dtype.itemsize != len(data):
        raise DecodeError(
            f"numpy array: expected {prod(shape) * dtype.itemsize} bytes, got {len(data)}"
        )
    if type(data) is memoryview:  # laid over that itself, it could be made writable
        data = np.frombuffer(data, "u1")
    return np.ndarray(tuple(shape), dtype, buffer=data, order=order)


def read_scalar(parts: list[Any]) -> Any:
    """Return the numpy scalar that ``parts`` describe."""
    np = _numpy()

    description, data = parts
    if description == "str_" and type(data) is str:
        return np.str_(data)
    if type(data) is memoryview:  # a large one travels beside the message
        data = bytes(data)
    if type(data) is not bytes:
        raise DecodeError(f"numpy scalar: expected bytes, got {type(data).__name__}")
    if description == "bytes_":
        return np.bytes_(data)
    dtype = _read_dtype(description, np)
    if dtype.itemsize != len(data):
        raise DecodeError(f"numpy scalar: expected {dtype.itemsize} bytes, got {len(data)}")
    return np.ndarray((), dtype, buffer=data)[()]


def _read_dtype(description: Any, np: Any) -> Any:
    if type(description) is str:
        return _named_dtype(description)
    return _new_dtype(description, np)


@lru_cache(maxsize=256)
def _named_dtype(description: str) -> Any:
    return _new_dtype(description, _numpy())


def _new_dtype(description: Any, np: Any) -> Any:
    _check_description(description, 0)
    dtype = np.lib.format.descr_to_dtype(description)
    if dtype.hasobject:
        raise DecodeError("numpy: expected a dtype without Python objects")
    return dtype


def _check_description(description: Any, depth: int) -> None:
    """Let only text and lists of (name, description[, shape]) reach numpy's parser."""
    if type(description) is str and len(description) < 64:
        return
    if type(description) is list and depth < _MAX_DTYPE_DEPTH:
        for field in description:
            if type(field) is not tuple or not 2 <= len(field) <= 3:
                break
            _check_description(field[1], depth + 1)
        else:
            return
    raise DecodeError("numpy: expected the description of a dtype")
