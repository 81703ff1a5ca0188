"""Large parts of a value: put beside the message when it is encoded, found there when decoded.

In a message a buffer is ``[<BUFFER>, number]``. Messages without large parts must not pay for the
question whether they have any, so a codec begins without asking: a large array interrupts packing
(`LargePart`), and bytes, which the packer writes by itself, make a message large. Either way the
message is packed anew by `LargePacker`, as are those that follow, until none of many in a row
had a large part.

It replaces bytes, bytearrays and memoryviews before the packer sees them: `lift` puts a `Lifted`
in the place of each large one, in lists and dicts; what is inside other containers is lifted when
they are taken apart. Keys of dicts and elements of sets stay where they are.

A buffer is frozen when the value is: what is in shared memory already stays where it is, all else
is written there once. Without room only what nobody can change is lent as it is: `bytes`, and what
was received; anything else is copied.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

import msgpack

from dflow.errors import DecodeError, EncodeError
from dflow.wire.buffers import FROZEN, LARGE_BYTES, MAX_BUFFERS, Buffer, Memory, Parcel, Room
from dflow.wire.frames import MAX_MESSAGE_BYTES
from dflow.wire.values import ARRAY, BUFFER, VIEW

if TYPE_CHECKING:
    from dflow.wire.careful import CarefulPacker

__all__ = [
    "KEPT_BUFFER",
    "Beside",
    "LargePacker",
    "LargePart",
    "Lifted",
    "address_of",
    "find_buffer",
    "freeze",
    "is_frozen",
    "is_large",
    "large_readers",
    "lift",
    "may_hold_large",
    "read_view",
    "require_sendable",
]

_BIN32 = b"\xc6"
_NATIVE = frozenset({bytes, bytearray, memoryview})
_SETS = frozenset({set, frozenset})
_KINDS = {"b": "bhiq", "h": "bhiq", "i": "bhiq", "l": "bhiq", "q": "bhiq", "n": "bhiq"}
_KINDS |= {kind.upper(): "BHIQ" for kind in _KINDS} | dict.fromkeys("fd", "fd")
_FORMATS = frozenset("bBhHiIqQfdc?")
_MAX_DIMENSIONS = 64
KEPT_BUFFER = 1 << 20
"""A packer that has packed more than this is replaced: it would keep a buffer of that size."""

_PATIENCE = 64
"""Messages in a row without a large part before a codec stops looking for them."""


class LargePart(Exception):
    """A message that is packed the plain way has a large part."""


class Beside:
    """What travels beside the message being encoded, in ``memory`` if there is one."""

    __slots__ = ("_found", "_memory")

    def __init__(self, memory: Memory | None = None) -> None:
        self._memory = memory
        self._found: list[Buffer] | None = None

    def begin(self) -> list[Buffer]:
        """Return the list that gets the buffers of the message that is now packed."""
        found: list[Buffer] = []
        self._found = found
        return found

    def end(self) -> None:
        """Nothing may be put beside what is packed from now on."""
        self._found = None

    def expect(self) -> None:
        """Raise `LargePart` unless what is packed may have large parts."""
        if self._found is None:
            raise LargePart

    def add(self, buffer: Buffer) -> list[Any]:
        """Put a buffer beside the message; return what stands for it inside."""
        found = self._found
        if found is None:
            raise LargePart
        number = len(found)
        if number >= MAX_BUFFERS:
            raise EncodeError(f"expected at most {MAX_BUFFERS} large parts, got more")
        found.append(buffer)
        return [BUFFER, number.to_bytes(2, "little")]

    def shared(self, address: int, size_bytes: int) -> Buffer | None:
        """Return the memory at ``address`` as a buffer, if it is shared already."""
        memory = self._memory
        return None if memory is None else memory.place_of(address, size_bytes)

    def room_for(self, size_bytes: int) -> Room | None:
        """Return new shared memory to write to, if there is any."""
        memory = self._memory
        return None if memory is None else memory.room_for(size_bytes)

    def put(self, value: Any) -> list[Any]:
        """Put bytes, a bytearray or a C-contiguous memoryview of bytes beside the message."""
        view = memoryview(value)
        known = None
        if type(value) is memoryview and view.readonly:  # a writable one could still be changed
            known = self.shared(address_of(view), view.nbytes)
            if known is not None:
                freeze(view)
        if known is None:
            room = self.room_for(view.nbytes)
            if room is not None:
                room.target[:] = view
                known = room.buffer
        if known is None:
            known = Buffer(view if is_frozen(view) else memoryview(bytes(view)))
        return self.add(known)

    def put_lifted(self, lifted: Lifted) -> list[Any]:
        """Put what `lift` found beside the message."""
        value = lifted.value
        return self.write_view(value) if type(value) is memoryview else self.put(value)

    def write_view(self, value: Any) -> list[Any]:
        """Return what stands for an object with the buffer protocol; it arrives as memoryview."""
        view = memoryview(value)
        if view.nbytes >= LARGE_BYTES:
            self.expect()
        kind, shape = _native(view), list(view.shape or ())
        if not view.c_contiguous:
            view = memoryview(view.tobytes())
        elif view.format != "B" or view.ndim != 1:
            view = view.cast("B") if 0 not in shape else memoryview(b"")
        data: Any = self.put(view) if view.nbytes >= LARGE_BYTES else bytes(view)
        return data if kind == "B" and len(shape) == 1 and type(data) is list else [
            VIEW, kind, shape, data
        ]  # fmt: skip


def freeze(owner: Any) -> None:
    """Make an array read-only, and those it is a view of: others read its memory from now on."""
    while owner is not None:
        if type(owner) is memoryview:
            owner = owner.obj
        elif hasattr(getattr(owner, "flags", None), "writeable"):  # numpy's
            owner.flags.writeable = False
            owner = owner.base
        else:
            return


def is_frozen(owner: Any) -> bool:
    """Whether nobody can change the memory of bytes, or of a view of something received."""
    if type(owner) is memoryview:
        return owner.readonly and type(owner.obj) in FROZEN
    return type(owner) in FROZEN


def _native(view: memoryview) -> str:
    """Return the format of ``view`` as `memoryview.cast` takes it; raises `EncodeError`."""
    kind = (view.format or "B").lstrip("@=<")
    if kind in _KINDS:  # "l" has other sizes elsewhere
        sizes = _KINDS[kind]
        kind = next((k for k in sizes if _size(k) == view.itemsize), "")
    if kind not in _FORMATS or _size(kind) != view.itemsize:
        raise EncodeError(
            f"expected a buffer of plain numbers, got format {view.format!r}; "
            "make it a numpy array, or emit its bytes"
        )
    return kind


def _size(kind: str) -> int:
    return {"h": 2, "i": 4, "q": 8, "f": 4, "d": 8}.get(kind.lower(), 1)


def read_view(parts: list[Any]) -> memoryview:
    """Return the memoryview that ``parts`` describe; raises `DecodeError`."""
    kind, shape, data = parts
    if kind not in _FORMATS or type(data) not in (bytes, memoryview) or type(shape) is not list:
        raise DecodeError("memoryview: expected format, shape and bytes")
    if len(shape) > _MAX_DIMENSIONS or not all(type(n) is int and 0 <= n < 1 << 63 for n in shape):
        raise DecodeError(f"memoryview: expected a shape of ints >= 0, got {len(shape)} others")
    if prod(shape) * _size(kind) != len(data):
        raise DecodeError(
            f"memoryview: expected {prod(shape) * _size(kind)} bytes, got {len(data)}"
        )
    view = memoryview(data)
    # none of these can have an empty dimension but a line
    return view.cast(kind) if 0 in shape or len(shape) == 1 else view.cast(kind, shape)


class Lifted:
    """Stands for a large value that the packer would write into the message."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


def is_large(value: Any) -> bool:
    """Whether ``value`` is bytes, a bytearray or a memoryview to be lifted."""
    kind = type(value)
    if kind is memoryview:
        return bool(value.nbytes >= LARGE_BYTES)
    return (kind is bytes or kind is bytearray) and len(value) >= LARGE_BYTES


def lift(value: Any) -> Any:
    """Return ``value`` with its large parts lifted; itself if it is neither a list nor a dict."""
    kind = type(value)
    if kind is dict:
        return {key: lift(part) for key, part in value.items()}
    if kind is list:
        return [lift(part) for part in value]
    if kind in _NATIVE and is_large(value):
        return Lifted(value)
    return value


class LargePacker:
    """Packs messages that may have large parts.

    ``default`` takes apart what the packer does not know, ``careful`` packs what it can't.
    ``give_up`` is called when such messages have stopped coming.
    """

    def __init__(
        self,
        beside: Beside,
        default: Callable[[Any], list[Any]],
        careful: CarefulPacker,
        give_up: Callable[[], None],
    ) -> None:
        self._beside = beside
        self._careful = careful
        self._give_up = give_up
        self._in_vain = 0

        def take_apart_and_lift(value: Any) -> list[Any]:
            parts = default(value)
            if parts[0] is ARRAY or type(value) is Lifted or type(value) in _SETS:
                return parts  # nothing in there is to be lifted
            return [lift(part) for part in parts]

        self._new = partial(msgpack.Packer, strict_types=True, default=take_apart_and_lift)
        self._pack = self._new().pack

    def pack(self, value: Any) -> bytes:
        """Return the message, a `Parcel` if it has large parts; raises `EncodeError`."""
        found = self._beside.begin()
        try:
            try:
                data: bytes = self._pack(lift(value))
            except Exception:  # noqa: BLE001  # raised again there, with the place
                del found[:]
                data = self._careful.pack(value)
        finally:
            self._beside.end()
        if len(data) > KEPT_BUFFER:
            self._pack = self._new().pack
        if found:
            self._in_vain = 0
            data = _parcel(data, found)
        else:
            self._in_vain += 1
            if self._in_vain >= _PATIENCE:
                self._give_up()
        return data

    def pack_carefully(self, value: Any) -> bytes:
        """Do the same, as exactly as possible."""
        found = self._beside.begin()
        try:
            data = self._careful.pack(value)
        finally:
            self._beside.end()
        return _parcel(data, found) if found else data


def _parcel(data: bytes, found: Sequence[Buffer]) -> Parcel:
    parcel = Parcel.of(data, found)
    require_sendable(parcel, "with its buffers")
    return parcel


def require_sendable(payload: bytes, how: str) -> None:
    """Raise `EncodeError` if a payload is too large for a message; ``how`` it was counted."""
    if len(payload) > MAX_MESSAGE_BYTES:
        raise EncodeError(
            f"payload: expected at most {MAX_MESSAGE_BYTES:,} bytes {how}, "
            f"got {len(payload):,}; send it in parts"
        )


def may_hold_large(data: bytes) -> bool:
    """Whether packed ``data`` may have large bytes inside: whether it looks like it somewhere."""
    at = data.find(_BIN32)
    last = len(data) - LARGE_BYTES - 5
    while 0 <= at <= last:
        size = int.from_bytes(data[at + 1 : at + 5], "big")
        if LARGE_BYTES <= size <= len(data) - at - 5:
            return True
        at = data.find(_BIN32, at + 1)
    return False


def find_buffer(parts: list[Any], buffers: Sequence[Any]) -> memoryview:
    """Return the buffer that ``parts`` name; raises `DecodeError` if it is not there."""
    (number,) = parts
    if type(number) is not bytes or int.from_bytes(number, "little") >= len(buffers):
        raise DecodeError(f"expected the number of one of {len(buffers)} buffers")
    buffer = buffers[int.from_bytes(number, "little")]
    if isinstance(buffer, DecodeError):  # it was gone when it should have been borrowed
        raise buffer
    view: memoryview = buffer
    return view


def large_readers(
    received: Callable[[], Sequence[Any]],
) -> dict[int, Callable[[list[Any]], Any]]:
    """Return what reads large parts: code of the mark -> reader of the elements after it.

    ``received`` returns the buffers of the message at hand.
    """
    return {BUFFER.code: lambda parts: find_buffer(parts, received()), VIEW.code: read_view}


class _PyBuffer(ctypes.Structure):
    """CPython's ``Py_buffer``."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


_get_buffer = ctypes.PYFUNCTYPE(
    ctypes.c_int, ctypes.py_object, ctypes.POINTER(_PyBuffer), ctypes.c_int
)(("PyObject_GetBuffer", ctypes.pythonapi))
_release_buffer = ctypes.PYFUNCTYPE(None, ctypes.POINTER(_PyBuffer))(
    ("PyBuffer_Release", ctypes.pythonapi)
)


def address_of(view: memoryview) -> int:
    """Return where the bytes of a C-contiguous view are; the only way to a read-only one's."""
    buffer = _PyBuffer()
    _get_buffer(view, ctypes.byref(buffer), 0)
    try:
        return buffer.buf or 0
    finally:
        _release_buffer(ctypes.byref(buffer))
