"""Numpy arrays and scalars on the wire. Numpy is never imported before a value needs it.

An array is its dtype, shape, memory order and raw bytes; it arrives as a read-only view of
the received bytes (as every array will that travels through shared memory): copy it to
change it. Only exact ``ndarray`` travels: masked and record arrays would lose what their
class adds. Object dtypes never do: they are pointers, and decoding them would need pickle.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from functools import lru_cache
from math import prod
from typing import Any

from dflow.errors import DecodeError, EncodeError
from dflow.wire.values import ARRAY, SCALAR

__all__ = ["numpy_writer", "read_array", "read_scalar"]

_MAX_DTYPE_DEPTH = 16


def numpy_writer(kind: type) -> Callable[[Any], list[Any]] | None:
    """Return how to write instances of ``kind`` if it is a type of numpy's, else None."""
    np = sys.modules.get("numpy")
    if np is None:
        return None
    if kind is np.ndarray:
        return _write_array
    if issubclass(kind, np.generic):
        return _write_scalar
    return None


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


def _write_array(array: Any) -> list[Any]:
    description = _dtype_description(array.dtype)
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    if array.nbytes and array.flags.forc:
        data = memoryview(array.reshape(-1, order=order).view("u1"))
    else:
        data = array.tobytes(order)
    return [ARRAY, description, order, list(array.shape), data]


def _write_scalar(scalar: Any) -> list[Any]:
    # Text and bytes lose trailing NULs in an array of one, so they travel as themselves.
    if isinstance(scalar, str | bytes):
        if isinstance(scalar, str):
            return [SCALAR, "str_", str.__str__(scalar)]
        return [SCALAR, "bytes_", bytes.__getitem__(scalar, slice(None))]
    return [SCALAR, _dtype_description(scalar.dtype), scalar.tobytes()]


def _numpy() -> Any:
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
    if type(data) is not bytes or type(shape) is not list or order not in ("C", "F"):
        raise DecodeError("numpy array: expected order, shape and bytes")
    if not all(type(n) is int and n >= 0 for n in shape):
        raise DecodeError(f"numpy array: expected a shape of ints >= 0, got {len(shape)} others")
    if prod(shape) * dtype.itemsize != len(data):
        raise DecodeError(
            f"numpy array: expected {prod(shape) * dtype.itemsize} bytes, got {len(data)}"
        )
    return np.ndarray(tuple(shape), dtype, buffer=data, order=order)


def read_scalar(parts: list[Any]) -> Any:
    """Return the numpy scalar that ``parts`` describe."""
    np = _numpy()

    description, data = parts
    if description == "str_" and type(data) is str:
        return np.str_(data)
    if type(data) is not bytes:
        raise DecodeError(f"numpy scalar: expected bytes, got {type(data).__name__}")
    if description == "bytes_":
        return np.bytes_(data)
    dtype = _read_dtype(description, np)
    if dtype.itemsize != len(data):
        raise DecodeError(f"numpy scalar: expected {dtype.itemsize} bytes, got {len(data)}")
    return np.ndarray((), dtype, buffer=data)[()]


def _read_dtype(description: Any, np: Any) -> Any:
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
