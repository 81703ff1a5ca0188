"""Shared memory for tests of what uses it: ordinary memory that knows where it is."""

from __future__ import annotations

from dflow.errors import BufferLost
from dflow.wire.buffers import Buffer, Place, Room
from dflow.wire.large import address_of


class FakeMemory:
    """Room for ``limit_bytes``, never given back. ``writes``: how often memory was asked for."""

    def __init__(self, limit_bytes: int = 1 << 30) -> None:
        self.left_bytes = limit_bytes
        self.blocks: list[memoryview] = []
        self.writes = 0

    def allocate(self, size_bytes: int) -> memoryview | None:
        self.writes += 1
        if size_bytes > self.left_bytes:
            return None
        self.left_bytes -= size_bytes
        view = memoryview(bytearray(size_bytes))
        self.blocks.append(view)
        return view

    def room_for(self, size_bytes: int) -> Room | None:
        target = self.allocate(size_bytes)
        if target is None:
            return None
        buffer = self.place_of(address_of(target), size_bytes)
        assert buffer is not None
        return Room(target, buffer)

    def place_of(self, address: int, size_bytes: int) -> Buffer | None:
        for number, block in enumerate(self.blocks):
            offset = address - address_of(block)
            if 0 <= offset <= len(block) - size_bytes:
                view = block[offset : offset + size_bytes].toreadonly()
                return Buffer(view, Place(1, 2, 3, 0, len(block), number, 0, offset, size_bytes))
        return None

    def borrow(self, place: Place) -> memoryview:
        if place.block >= len(self.blocks):
            raise BufferLost("expected a block")
        return self.blocks[place.block][place.offset : place.offset + place.size].toreadonly()
