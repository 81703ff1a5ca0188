"""Tensors of torch arrive as they were, as memory of the receiver's own."""

from __future__ import annotations

import sys
from typing import Any

import msgpack
import pytest

from dflow.errors import DecodeError, EncodeError
from dflow.transport.segments import is_supported
from dflow.transport.shm import SharedMemory
from dflow.wire.buffers import Parcel
from dflow.wire.codec import Codec
from dflow.wire.values import TENSOR

torch: Any = pytest.importorskip("torch", reason="needs torch: pip install 'dflow[torch]'")

LARGE = (300, 400)
DTYPES = [
    "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32",
    "float64", "complex64", "complex128", "float8_e4m3fn", "uint16",
]  # fmt: skip


def pass_on(value: Any, limit_bytes: int = 64 << 20) -> Any:
    """Return what arrives of a value, through shared memory where there is any."""
    memory, reader = SharedMemory(limit_bytes, print), SharedMemory(0, print)
    message = Codec((), memory).encode(value)
    if type(message) is Parcel:
        assert all((b.place is not None) == memory_used(limit_bytes) for b in message.buffers)
        views = [reader.borrow(b.place) if b.place else b.view for b in message.buffers]
        got = Codec().decode_large(bytes(message), views)
        del views
    else:
        got = Codec().decode(message)
    del message
    memory.sweep()
    assert memory.stats.in_use_bytes == 0  # nothing of it is kept
    memory.close()
    reader.close()
    return got


def memory_used(limit_bytes: int) -> bool:
    return is_supported() and limit_bytes > 0


@pytest.mark.parametrize("limit_bytes", [64 << 20, 0], ids=["shared", "not shared"])
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3), LARGE], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_arrive_as_they_were(dtype: str, shape: tuple[int, ...], limit_bytes: int) -> None:
    kind = getattr(torch, dtype)
    size_bytes = kind.itemsize
    for n in shape:
        size_bytes *= n
    raw = torch.arange(size_bytes).remainder(2).to(torch.uint8)
    sent = raw.view(kind).reshape(shape) if size_bytes else torch.empty(shape, dtype=kind)
    got = pass_on({"in": (sent,)}, limit_bytes)["in"][0]
    assert type(got) is torch.Tensor
    assert (got.dtype, got.shape, got.device.type) == (kind, sent.shape, "cpu")
    if size_bytes:
        assert torch.equal(got.reshape(-1).view(torch.uint8), raw)


def test_a_tensor_that_arrived_may_be_written_to() -> None:
    got = pass_on(torch.ones(LARGE))
    got += 1
    assert got.sum() == 2 * got.numel()


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.T,
        lambda t: t[::3, 5:],
        lambda t: t.expand(3, *t.shape),
        lambda t: torch.complex(t, t).conj(),
        lambda t: torch.complex(t, t).conj().imag,  # a lazy negation
    ],
)
def test_views_arrive_as_what_they_show(change: Any) -> None:
    sent = change(torch.rand(LARGE))
    got = pass_on(sent)
    assert torch.equal(got, sent)
    assert got.is_contiguous()


def test_a_tensor_is_frozen_when_it_is_emitted() -> None:
    memory = SharedMemory(0, print)
    tensor = torch.zeros(LARGE)
    message = Codec((), memory).encode(tensor)
    tensor += 1
    assert Codec().decode(message).sum() == 0


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: torch.ones(3, requires_grad=True), "detach"),
        (lambda: torch.ones(3, device="meta"), "device meta"),
        (lambda: torch.eye(3).to_sparse(), "sparse"),
        (lambda: torch.nn.Parameter(torch.ones(3)), "Parameter"),
    ],
)
def test_what_is_no_plain_tensor_is_refused(make: Any, match: str) -> None:
    with pytest.raises(EncodeError, match=match) as caught:
        Codec().encode([make()])
    assert caught.value.path == "payload[0]"


@pytest.mark.parametrize(
    "parts",
    [
        ["float33", [1], b"1234"],
        ["save", [1], b"1234"],
        [5, [1], b"1234"],
        ["float32", [2], b"1234"],
        ["float32", [-1, -1], b"1234"],
        ["float32", ["1"], b"1234"],
        ["float32", 1, b"1234"],
        ["float32", [1], "1234"],
        ["float32", [0, 1 << 62, 1 << 62], b""],
        ["float32", [1] * 65, b"1234"],
        ["float32", [1]],
    ],
)
def test_what_is_no_tensor_is_a_decode_error(parts: list[Any]) -> None:
    with pytest.raises(DecodeError):
        Codec().decode(msgpack.packb([TENSOR, *parts]))


def test_who_has_no_torch_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    message = Codec().encode(torch.ones(3))
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(DecodeError, match=r"dflow\[torch\]"):
        Codec().decode(message)
