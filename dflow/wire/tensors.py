"""Tensors of torch on the wire: any dtype, of the CPU. Torch is never imported before one comes.

A large tensor is written once, straight into shared memory, and copied out of it where it arrives,
because torch has no read-only tensors: writing to one that lies in memory mapped for reading would
kill the process. A private writable map of the same pages was measured and rejected: one pass over
it faults in every page, which takes longer than the copy, and a write takes several times as long.
Who wants to read in place emits ``tensor.numpy()``.
"""

from __future__ import annotations

import ctypes
import importlib
import sys
from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

from dflow.errors import DecodeError, EncodeError
from dflow.wire.buffers import LARGE_BYTES, Buffer
from dflow.wire.large import Beside, address_of
from dflow.wire.values import TENSOR

__all__ = ["read_tensor", "tensor_writer"]

_PREFIX = "torch."
_MAX_DIMENSIONS = 64


def tensor_writer(kind: type, beside: Beside) -> Callable[[Any], list[Any]] | None:
    """Return how to write instances of ``kind`` if it is torch's tensor, else None.

    What is large is put ``beside`` the message.
    """
    torch = sys.modules.get("torch")
    if torch is None or kind is not getattr(torch, "Tensor", None):
        return None
    return partial(_write_tensor, beside, torch)


def _write_tensor(beside: Beside, torch: Any, tensor: Any) -> list[Any]:
    if tensor.requires_grad:
        raise EncodeError("expected a tensor without gradient, got one; emit tensor.detach()")
    if tensor.device.type != "cpu" or tensor.layout != torch.strided or tensor.is_quantized:
        raise EncodeError(
            f"expected a dense tensor of the CPU, got device {tensor.device}, {tensor.layout},"
            f" {tensor.dtype}; emit tensor.cpu(), or its parts"
        )
    tensor = tensor.resolve_conj().resolve_neg()
    size_bytes = tensor.numel() * tensor.element_size()
    data: Any
    if size_bytes >= LARGE_BYTES:
        beside.expect()
        data = beside.add(_large(beside, tensor, size_bytes))
    else:
        whole = tensor.contiguous()
        data = ctypes.string_at(whole.data_ptr(), size_bytes) if size_bytes else b""
    return [TENSOR, str(tensor.dtype).removeprefix(_PREFIX), list(tensor.shape), data]


def _large(beside: Beside, tensor: Any, size_bytes: int) -> Buffer:
    whole = tensor.contiguous()
    room = beside.room_for(size_bytes)
    if room is None:
        return Buffer(memoryview(ctypes.string_at(whole.data_ptr(), size_bytes)))
    ctypes.memmove(address_of(room.target), whole.data_ptr(), size_bytes)
    return room.buffer


def read_tensor(parts: list[Any]) -> Any:
    """Return a new tensor with the dtype, shape and bytes of ``parts``; raises `DecodeError`."""
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        raise DecodeError(
            "got a tensor, but torch is not installed here; pip install 'dflow[torch]'"
        ) from None
    name, shape, data = parts
    dtype = getattr(torch, name, None) if type(name) is str else None
    if not isinstance(dtype, torch.dtype):
        raise DecodeError("tensor: expected the name of a dtype of torch")
    if type(data) not in (bytes, memoryview) or type(shape) is not list:
        raise DecodeError("tensor: expected a shape and bytes")
    if len(shape) > _MAX_DIMENSIONS or not all(type(n) is int and 0 <= n < 1 << 63 for n in shape):
        raise DecodeError(f"tensor: expected a shape of ints >= 0, got {len(shape)} others")
    size_bytes = prod(shape) * dtype.itemsize
    if size_bytes != len(data):
        raise DecodeError(f"tensor: expected {size_bytes} bytes, got {len(data)}")
    tensor = torch.empty(shape, dtype=dtype)
    if size_bytes:
        ctypes.memmove(tensor.data_ptr(), address_of(memoryview(data)), size_bytes)
    return tensor
