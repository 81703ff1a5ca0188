"""A process that shares memory and does as it is told, a line of JSON at a time.

    python -m tests.integration.memory_peer            obeys commands, see `Peer`
    python -m tests.integration.memory_peer stream     writes frames to stdout until it is killed
    python -m tests.integration.memory_peer relay      passes on what stdin describes
    python -m tests.integration.memory_peer check      counts what of stdin is right, lost and wrong

A frame on the pipes is the words of its place and the CRC of its bytes.
"""

from __future__ import annotations

import json
import os
import random
import struct
import sys
import zlib
from collections import deque
from typing import Any

import numpy as np

from dflow.errors import BufferLost
from dflow.transport.shm import SharedMemory
from dflow.wire.buffers import Place

FRAME = struct.Struct("=10Q")
WINDOW = 8  # frames that each process keeps


def place_of(memory: SharedMemory, view: memoryview) -> Place:
    """Return where a view of shared memory lies."""
    address = np.frombuffer(view, "u1").__array_interface__["data"][0]
    buffer = memory.place_of(address, len(view))
    if buffer is None or buffer.place is None:
        raise LookupError("expected shared memory, got other")
    return buffer.place


class Peer:
    """One participant; its methods are the commands."""

    def __init__(self, limit_bytes: int) -> None:
        self.memory = SharedMemory(limit_bytes, lambda text: None)
        self.views: dict[str, memoryview] = {}

    def write(self, name: str, size: int, value: int) -> Any:
        """Write a buffer and keep it; return its place, or None if there is no room."""
        view = self.memory.allocate(size)
        if view is None:
            return None
        view[:] = bytes([value]) * size
        self.views[name] = view
        return self.show(name)

    def show(self, name: str) -> Any:
        """Return the place of what it has."""
        return place_of(self.memory, self.views[name])

    def borrow(self, name: str, place: list[int]) -> Any:
        """Borrow a buffer and keep it; return its first and last byte, or "lost"."""
        try:
            self.views[name] = self.memory.borrow(Place(*place))
        except BufferLost:
            return "lost"
        return self.look(name)

    def look(self, name: str) -> Any:
        """Return the first and last byte of what it has, if all are equal."""
        values = np.unique(np.frombuffer(self.views[name], "u1"))
        return int(values[0]) if len(values) == 1 else "torn"

    def drop(self, name: str) -> None:
        """Forget a buffer."""
        del self.views[name]

    def sweep(self) -> None:
        """Look for what is idle."""
        self.memory.sweep()

    def used(self) -> int:
        """Return the bytes in use."""
        self.memory.sweep()
        return self.memory.stats.in_use_bytes

    def files(self) -> int:
        """Return how many segments are open here."""
        links = (os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
                 if os.path.islink(f"/proc/self/fd/{fd}"))  # fmt: skip
        return sum(link.startswith("/memfd:dflow") for link in links)

    def close(self) -> None:
        """Close the participant."""
        self.memory.close()


def obey(limit_bytes: int) -> None:
    """Do what each line says, and answer with a line."""
    peer = Peer(limit_bytes)
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        print(json.dumps(getattr(peer, command)(*arguments)), flush=True)


def stream(seed: int) -> None:
    """Write frames of random sizes for ever."""
    memory, chance = SharedMemory(32 << 20, lambda text: None), random.Random(seed)
    noise = np.random.default_rng(seed).integers(0, 256, 1 << 20, "u1")
    kept: deque[Any] = deque(maxlen=WINDOW)
    while True:
        size = chance.choice([70_000, 300_000, 1_000_000])
        view = memory.allocate(size)
        if view is None:
            continue
        shift = chance.randrange(1 << 20)
        np.frombuffer(view, "u1")[:] = np.roll(noise, shift)[:size]
        kept.append(view)
        os.write(1, FRAME.pack(*place_of(memory, view), zlib.crc32(view)))


def received(memory: SharedMemory) -> Any:
    """Yield (view or None if lost, CRC) of the frames that stdin describes."""
    # one at a time: another process goes on reading when this one is killed
    while len(record := os.read(0, FRAME.size)) == FRAME.size:
        *words, crc = FRAME.unpack(record)
        try:
            yield memory.borrow(Place(*words)), crc
        except BufferLost:
            yield None, crc


def relay() -> None:
    """Pass on what arrives, by reference."""
    memory = SharedMemory(0, lambda text: None)
    kept: deque[Any] = deque(maxlen=WINDOW)
    for view, crc in received(memory):
        if view is not None:
            kept.append(view)
            os.write(1, FRAME.pack(*place_of(memory, view), crc))


def check() -> None:
    """Check every frame when it arrives and when it goes; print the counts as they grow."""
    memory = SharedMemory(0, lambda text: None)
    counts = {"right": 0, "lost": 0, "wrong": 0}
    kept: deque[Any] = deque()

    def look(view: memoryview, crc: int) -> None:
        counts["right" if zlib.crc32(view) == crc else "wrong"] += 1

    for view, crc in received(memory):
        if view is None:
            counts["lost"] += 1
            continue
        look(view, crc)
        kept.append((view, crc))
        if len(kept) > WINDOW:
            look(*kept.popleft())
        print(json.dumps(counts), flush=True)
    for pair in kept:
        look(*pair)
    print(json.dumps(counts), flush=True)


if __name__ == "__main__":
    role, *rest = sys.argv[1:] or ["obey", str(16 << 20)]
    if role == "obey":
        obey(int(rest[0]) if rest else 16 << 20)
    elif role == "stream":
        stream(int(rest[0]))
    else:
        {"relay": relay, "check": check}[role]()
