"""Large parts of a message, which travel beside it instead of in it.

An encoded message that has none is `bytes`; one that has is a `Parcel`: bytes that refer to its
buffers by number. A buffer is read in place at the receiver if it has a *place*, where it lies in
shared memory; else its bytes are sent as a frame of their own.

A parcel weighs what its buffers weigh with it, wherever bytes are counted: ``len`` says so. What
joins or writes bytes takes those of the message alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

__all__ = ["FROZEN", "LARGE_BYTES", "MAX_BUFFERS", "Buffer", "Memory", "Parcel", "Place", "Room"]

LARGE_BYTES = 64 * 1024
"""What is smaller stays in the message."""

FROZEN: set[type] = {bytes}
"""Types of memory that nobody can change; what received something adds the type of that."""

MAX_BUFFERS = 1 << 14
"""Most buffers of a message: so many large ones make a message too large by themselves."""


class Place(NamedTuple):
    """Where a buffer lies: ``size`` bytes from ``offset`` of a block of a segment.

    ``fd`` of process ``pid`` is the segment, a file in memory of ``segment_bytes`` whose header
    holds ``token``; it has blocks of ``block_bytes``. ``generation`` says which use of that block
    is meant: a later one holds other data.
    """

    pid: int
    fd: int
    token: int
    segment_bytes: int
    block_bytes: int
    block: int
    generation: int
    offset: int
    size: int


class Buffer(NamedTuple):
    """Read-only contiguous bytes; a live ``view`` is what keeps them."""

    view: memoryview
    place: Place | None = None


class Room(NamedTuple):
    """New shared memory to be written once: ``target`` to write to, ``buffer`` to be sent."""

    target: memoryview
    buffer: Buffer


class Parcel(bytes):
    """An encoded message with ``buffers`` beside it."""

    # bytes cannot have slots
    buffers: Sequence[Buffer]
    _weight: int

    @classmethod
    def of(cls, data: bytes, buffers: Sequence[Buffer]) -> Parcel:
        """Return ``data``, which refers to ``buffers`` by their position (`dflow.wire.large`)."""
        parcel = cls(data)
        parcel.buffers = buffers
        parcel._weight = len(data) + sum([len(buffer.view) for buffer in buffers])
        return parcel

    def __len__(self) -> int:
        return self._weight


class Memory(Protocol):
    """Shared memory of a host, as a participant uses it (`dflow.transport.shm`)."""

    def allocate(self, size_bytes: int) -> memoryview | None:
        """Return new writable bytes, or None if there is no room.

        They are kept while anything lives that is made of them, here or at a receiver.
        """

    def room_for(self, size_bytes: int) -> Room | None:
        """Do as `allocate`, for what is sent as soon as it is written."""

    def place_of(self, address: int, size_bytes: int) -> Buffer | None:
        """Return the memory at ``address`` as a buffer with its place, if it is shared."""

    def borrow(self, place: Place) -> memoryview:
        """Return what lies at ``place``, read-only; raises `BufferLost` if it no longer does."""
