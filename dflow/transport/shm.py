"""Shared memory of one participant: blocks of its own to write to, and others' to read in place.

`SharedMemory` puts together what decides (`dflow.flow.slabs`) and what the kernel does
(`dflow.transport.segments`), and keeps the *leases*: one for each block that somebody in this
process uses. Everything that is made of a block, a memoryview or an array over it, keeps the
block's *token* alive; when the token dies, the lease ends. A lease of one's own block makes it
LENT; a lease of another's is a read lock.

The token is a code object, of all things: it can be referred to weakly and the garbage collector
does not track it. The callback of a weak reference to a tracked object comes *before* the
finalizers of the garbage that it is part of; one of those could still read memory that has
been given to somebody else.

A token may die at any time: in any thread, in the middle of any method here. So its callback only
appends to `_ended`, and works that off if nobody holds the lock; if somebody does, they do it when
they let go of it. No callback ever waits. A finalizer of the user's that runs within a method here
and wants memory gets none.

After a fork the child has the maps but no say: locks belong to both, so it releases nothing,
allocates nothing and borrows nothing.
"""

from __future__ import annotations

import os
import threading
import weakref
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import CodeType
from typing import Any

from dflow.errors import BufferLost
from dflow.flow.slabs import Block, Slab, Slabs, size_class
from dflow.transport.segments import (
    HEADER_BYTES,
    Segment,
    create_segment,
    is_supported,
    open_segment,
)
from dflow.wire.buffers import Buffer, Place, Room

__all__ = ["SharedMemory", "SharedStats"]

_TOKEN = (lambda: None).__code__

_open: set[SharedMemory] = set()
"""Those that have something mapped: a view must find its lease's end, whoever forgot the rest."""


@dataclass(frozen=True, slots=True)
class SharedStats:
    """What a participant's shared memory does, in bytes; ``copied`` counts buffers without room.

    ``allocated_bytes`` is taken from the system, ``in_use_bytes`` are blocks that somebody holds or
    that nobody has wanted since, ``peak_bytes`` is the most that was ever in use.
    """

    allocated_bytes: int
    in_use_bytes: int
    peak_bytes: int
    copied: int


class _End(weakref.ref[CodeType]):
    """The end of a lease: a weak reference to its token that knows which block it was."""

    __slots__ = ("block", "held", "shown")

    held: _Held
    block: int
    shown: bool


class _Held:
    """A segment in use, its leases, and its slab if it is this participant's own."""

    __slots__ = ("idle_sweeps", "leases", "segment", "slab")

    def __init__(self, segment: Segment, slab: Slab | None) -> None:
        self.segment = segment
        self.slab = slab
        self.leases: dict[int, _End] = {}
        self.idle_sweeps = 0


class SharedMemory:
    """Shared memory of this process: at most ``limit_bytes`` of its own, and what others lend.

    Makes nothing until it is used. Any thread may call any method. ``warn`` is called once, with a
    text for the user, when there is no room.
    """

    def __init__(self, limit_bytes: int, warn: Callable[[str], None]) -> None:
        self._limit_bytes = limit_bytes if is_supported() else 0
        self._warn: Callable[[str], None] | None = warn
        self._slabs = Slabs(self._limit_bytes, HEADER_BYTES)
        self._lock = threading.Lock()
        self._holder = 0  # the thread that has the lock
        self._ended: deque[_End] = deque()
        self._by_token: dict[int, _Held] = {}
        self._by_slab: dict[Slab, _Held] = {}
        self._addresses: list[int] = []  # of all segments, ascending; _mapped is in step
        self._mapped: list[_Held] = []
        self._pid = os.getpid()
        self._closed = False
        self._copied = 0

    @property
    def stats(self) -> SharedStats:
        """What there is now; cheap."""
        slabs = self._slabs
        return SharedStats(slabs.total_bytes, slabs.in_use_bytes, slabs.peak_bytes, self._copied)

    @property
    def busy(self) -> bool:
        """Whether a thread is in the middle of a method; a signal handler must not raise then."""
        return self._lock.locked()

    def allocate(self, size_bytes: int) -> memoryview | None:
        """Return new writable bytes, or None if there is no room (warned of once).

        They are kept while anything lives that is made of them, here or at a reader. What is in
        them is what was there before.
        """
        room = self._room(size_bytes, shown=False)
        return None if room is None else room[2]

    def room_for(self, size_bytes: int) -> Room | None:
        """Do as `allocate` and `place_of` at once, for what is now sent.

        Without room that is copied, and counted: only here, as what is written to other memory
        than `allocate` has for it comes here as well.
        """
        room = self._room(size_bytes, shown=True)
        if room is None:
            return None
        held, block, target = room
        place = self._place(held.segment, block, 0, size_bytes)
        return Room(target, Buffer(target.toreadonly(), place))

    def _room(self, size_bytes: int, *, shown: bool) -> tuple[_Held, int, memoryview] | None:
        if not self._limit_bytes or self._closed or not self._enter():
            return None
        try:
            self._end_leases()
            block = self._take(size_class(size_bytes))
            if block is not None:
                held = self._by_slab[block.slab]
                return held, block.number, self._lend(held, block.number, shown)[:size_bytes]
        finally:
            self._leave()
        self._copied += shown
        self._no_room(size_bytes)
        return None

    def place_of(self, address: int, size_bytes: int) -> Buffer | None:
        """Return the memory at ``address`` as a buffer with its place, if it is shared."""
        if not self._enter():
            return None
        try:
            return self._find(address, size_bytes)
        finally:
            self._leave()

    def borrow(self, place: Place) -> memoryview:
        """Return what lies at ``place``, read-only; raises `BufferLost` if it no longer does.

        It stays as it is while anything lives that is made of the returned view.
        """
        if self._closed or not is_supported() or not self._enter():
            raise BufferLost("shared memory: expected to borrow a buffer, got nobody who may")
        try:
            self._end_leases()
            held = self._by_token.get(place.token) or self._open_segment(place)
            _require_within(held.segment, place)
            view = self._borrow(held, place)
            return view[place.offset : place.offset + place.size].toreadonly()
        finally:
            self._leave()

    def sweep(self) -> None:
        """Look for what is not in use any more, and unmap it; call it about once a second."""
        if not self._enter():
            return
        try:
            self._end_leases()
            self._slabs.review(self._probe)
            for held in [held for held in self._mapped if held.slab is None and not held.leases]:
                held.idle_sweeps += 1
                if held.idle_sweeps > 1 or held.segment.retired:
                    self._unmap(held)
        finally:
            self._leave()

    def close(self) -> None:
        """Give up what is not in use; views that are alive stay readable. Idempotent."""
        if not self._enter():
            return
        try:
            self._closed = True
            self._end_leases()
            for held in list(self._mapped):
                if held.slab is not None:
                    held.segment.retire()
                if not held.leases:
                    self._unmap(held)
        finally:
            self._leave()

    def _enter(self) -> bool:
        """Take the lock; False in a forked child, and within another method of this thread."""
        if self._pid != os.getpid():
            return False
        if not self._lock.acquire(blocking=False):
            if self._holder == threading.get_ident():
                return False
            self._lock.acquire()
        self._holder = threading.get_ident()
        return True

    def _leave(self) -> None:
        self._holder = 0
        self._lock.release()
        if self._ended:
            self._settle()

    def _take(self, block_bytes: int) -> Block | None:
        """Lend a block of this size, of a new segment if there is room for one."""
        block = self._slabs.take(block_bytes, self._probe)
        if block is None:
            growth = self._slabs.growth(block_bytes, self._probe)
            if growth is None:
                return None
            for slab in growth.retire:
                held = self._by_slab[slab]
                held.segment.retire()
                self._unmap(held)
            try:
                segment = create_segment(block_bytes, growth.blocks)
            except OSError:  # no memory, or too many open files
                return None
            slab = self._slabs.add(block_bytes, growth.blocks)
            self._map(_Held(segment, slab))
            block = self._slabs.take(block_bytes, self._probe)
        return block

    def _probe(self, block: Block) -> bool:
        return self._by_slab[block.slab].segment.reclaim(block.number)

    def _lend(self, held: _Held, block: int, shown: bool) -> memoryview:
        """Return all of a block, under a lease that there is or a new one."""
        end = held.leases.get(block)
        token = end() if end is not None else None
        if token is None:
            token = _TOKEN.replace(co_firstlineno=1)
            end = _End(token, self._token_died)
            end.held, end.block, end.shown = held, block, shown
            held.leases[block] = end
            held.idle_sweeps = 0
        segment = held.segment
        exporter: Any = segment.block_type.from_address(segment.address_of(block))
        exporter.token = token
        return memoryview(exporter).cast("B")

    def _find(self, address: int, size_bytes: int) -> Buffer | None:
        position = bisect_right(self._addresses, address) - 1
        if position < 0:
            return None
        held = self._mapped[position]
        segment = held.segment
        block, offset = divmod(address - segment.address - HEADER_BYTES, segment.block_bytes)
        end = held.leases.get(block)
        if end is None or end() is None or offset + size_bytes > segment.block_bytes:
            return None
        end.shown = True
        view = self._lend(held, block, shown=True)[offset : offset + size_bytes].toreadonly()
        return Buffer(view, self._place(segment, block, offset, size_bytes))

    def _place(self, segment: Segment, block: int, offset: int, size_bytes: int) -> Place:
        return Place(
            self._pid,
            segment.fd,
            segment.token,
            segment.size_bytes,
            segment.block_bytes,
            block,
            segment.generation(block),
            offset,
            size_bytes,
        )

    def _borrow(self, held: _Held, place: Place) -> memoryview:
        """Return all of the block that ``place`` is in; under the lock."""
        segment, number = held.segment, place.block
        leased = number in held.leases
        if held.slab is not None:
            # Nobody but this thread can take the block back now: no lock needed.
            block = Block(held.slab, number)
            if segment.generation(number) != place.generation:
                raise BufferLost(_REUSED)
            if not leased:
                if not self._slabs.is_lingering(block):
                    raise BufferLost(_REUSED)
                self._slabs.revive(block)
        else:
            if not leased and not segment.share(number):
                raise BufferLost(_REUSED)
            if segment.generation(number) != place.generation:
                if not leased:
                    segment.release(number)
                raise BufferLost(_REUSED)
        return self._lend(held, number, shown=True)

    def _open_segment(self, place: Place) -> _Held:
        for held in [held for held in self._mapped if held.slab is None and not held.leases]:
            if held.segment.retired:
                self._unmap(held)
        held = _Held(open_segment(place), None)
        self._map(held)
        return held

    def _map(self, held: _Held) -> None:
        position = bisect_right(self._addresses, held.segment.address)
        self._addresses.insert(position, held.segment.address)
        self._mapped.insert(position, held)
        self._by_token[held.segment.token] = held
        if held.slab is not None:
            self._by_slab[held.slab] = held
        _open.add(self)

    def _unmap(self, held: _Held) -> None:
        position = self._mapped.index(held)
        del self._mapped[position], self._addresses[position]
        del self._by_token[held.segment.token]
        if held.slab is not None:
            del self._by_slab[held.slab]
            self._slabs.remove(held.slab)
        held.segment.close()
        if not self._mapped:
            _open.discard(self)

    def _token_died(self, end: weakref.ref[CodeType]) -> None:
        """Note the end of a lease. Called anywhere, also within any method of this object."""
        assert isinstance(end, _End)
        self._ended.append(end)
        self._settle()

    def _settle(self) -> None:
        """End what has ended, unless somebody holds the lock: they will do it then."""
        while self._ended and self._pid == os.getpid() and self._lock.acquire(blocking=False):
            self._holder = threading.get_ident()
            try:
                self._end_leases()
            finally:
                self._holder = 0
                self._lock.release()

    def _end_leases(self) -> None:
        ended = self._ended
        while ended:
            end = ended.popleft()
            held, number = end.held, end.block
            if held.leases.get(number) is not end:  # lent again before this was seen
                continue
            del held.leases[number]
            if held.slab is None:
                held.segment.release(number)
            else:
                self._slabs.give_back(Block(held.slab, number), end.shown, self._probe)
            if self._closed and not held.leases:
                self._unmap(held)

    def _no_room(self, size_bytes: int) -> None:
        warn, self._warn = self._warn, None
        if warn is not None:
            needed, in_use = size_class(size_bytes), self._slabs.in_use_bytes
            warn(
                f"shared memory: expected room for {size_bytes:,} bytes (a block of {needed:,}),"
                f" got {in_use:,} in use of {self._limit_bytes:,}; copying instead. Raise"
                " shm_bytes, or keep fewer received buffers"
            )


_REUSED = "shared memory: expected the buffer that was described, got one used for another since"


def _require_within(segment: Segment, place: Place) -> None:
    if not (
        segment.block_bytes == place.block_bytes
        and 0 <= place.block < segment.count
        and place.offset >= 0
        and 0 <= place.size <= segment.block_bytes - place.offset
    ):
        raise BufferLost("shared memory: expected a place within a block, got one outside")
