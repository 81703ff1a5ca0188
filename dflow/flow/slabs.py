"""Which block of shared memory is used next, and when memory is taken and given back.

A *slab* is a run of equal blocks; its blocks are of one size class. A block is FRESH (never
used), LENT (somebody in this process holds it), LINGERING (nobody here does; readers in other
processes may) or FREE. Nobody tells when the last reader lets go: whoever owns the memory asks,
by a *probe* that takes the block back if it can. So every lingering block costs a question, and
questions are bounded: one when a block is given back, `PROBES` when one is wanted, `SEARCH` when
memory has run out.

Free blocks are used last in, first out, because they are warm in the cache and their pages are
mapped; what never was used comes last of all. Of the lingering blocks the oldest are asked for
each time, because who keeps a window of frames lets go of the oldest, and some of the others in
turn, because somebody may keep the oldest for ever. To move those that are still held to the end
was tried: a reader that is a little late then has its next releases noticed a whole round later,
and memory grows.

Slabs of a class grow as the class does, so that a few buffers take little memory and many take few
slabs. When there is no room for a slab, slabs of other classes with no block in use are retired.
Rejected: one size of slab for all (16 MiB for the first buffer of 64 KiB), coalescing blocks of
different sizes in one slab (fragmentation has no bound worth having, and a block's lock has to
mean the same bytes for ever).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["MIN_BLOCK_BYTES", "PROBES", "SEARCH", "Block", "Growth", "Slab", "Slabs", "size_class"]

MIN_BLOCK_BYTES = 64 * 1024
"""The smallest block; every block is a multiple of a quarter of it."""

OLDEST = 2
OTHERS = 2
PROBES = OLDEST + OTHERS
"""Lingering blocks that are asked for when one is wanted: the oldest, and others in turn."""

SEARCH = 64
"""Lingering blocks that are asked for, at most, to find a slab to retire."""

FIRST_SLAB_BYTES = 1 << 20
LARGEST_SLAB_BYTES = 16 << 20
LARGEST_SHARE = 32  # a slab has at most this part of all memory, if that is more than the above

_FREE, _LENT, _LINGERING = range(3)

Probe = Callable[["Block"], bool]


def size_class(size_bytes: int) -> int:
    """Return the size of the blocks that hold ``size_bytes``: four classes a power of two."""
    if size_bytes <= MIN_BLOCK_BYTES:
        return MIN_BLOCK_BYTES
    step = 1 << ((size_bytes - 1).bit_length() - 3)
    return -(-size_bytes // step) * step


@dataclass(eq=False, slots=True)
class Slab:
    """``count`` blocks of ``block_bytes``; ``total_bytes`` is what they take with their header."""

    block_bytes: int
    count: int
    total_bytes: int
    lent: int = 0
    states: bytearray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.states = bytearray(self.count)


class Block(NamedTuple):
    """A block of a slab, by its number."""

    slab: Slab
    number: int


class Growth(NamedTuple):
    """A slab that is to be made of ``blocks`` blocks, after the slabs of ``retire`` are gone."""

    block_bytes: int
    blocks: int
    retire: tuple[Slab, ...]


class _Class:
    """The blocks of one size that are not lent."""

    __slots__ = ("blocks", "free", "fresh", "lingering", "turn")

    def __init__(self) -> None:
        self.blocks = 0
        self.free: list[Block] = []
        self.fresh: list[Block] = []
        self.lingering: deque[Block] = deque()  # oldest first
        self.turn = 0  # who of them is asked next


class Slabs:
    """The slabs of one owner, ``limit_bytes`` at most, each with a header of ``header_bytes``."""

    def __init__(self, limit_bytes: int, header_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._header_bytes = header_bytes
        self._classes: dict[int, _Class] = {}
        self._slabs: list[Slab] = []
        self.total_bytes = 0
        self.in_use_bytes = 0
        self.peak_bytes = 0

    @property
    def slabs(self) -> tuple[Slab, ...]:
        """The slabs there are, the oldest first."""
        return tuple(self._slabs)

    def take(self, block_bytes: int, probe: Probe) -> Block | None:
        """Lend a block of this class, or return None if none of those there are is known free."""
        blocks = self._classes.get(block_bytes)
        if blocks is None:
            return None
        if not blocks.free:
            self._ask(blocks, probe)
        if blocks.free:
            block = blocks.free.pop()
        elif blocks.fresh:
            block = blocks.fresh.pop()
        else:
            return None
        block.slab.states[block.number] = _LENT
        block.slab.lent += 1
        self.in_use_bytes += block_bytes
        self.peak_bytes = max(self.peak_bytes, self.in_use_bytes)
        return block

    def give_back(self, block: Block, shown: bool, probe: Probe) -> None:
        """Take back a lent block; ``shown`` says that others were told where it lies."""
        slab = block.slab
        slab.lent -= 1
        blocks = self._classes[slab.block_bytes]
        if shown and not probe(block):
            slab.states[block.number] = _LINGERING
            blocks.lingering.append(block)
        else:
            self._free(blocks, block)

    def revive(self, block: Block) -> None:
        """Lend a lingering block again, to whom its owner was handed it by a reader."""
        self._classes[block.slab.block_bytes].lingering.remove(block)
        block.slab.states[block.number] = _LENT
        block.slab.lent += 1

    def is_lingering(self, block: Block) -> bool:
        """Return whether the block was given back while a reader still had it."""
        return block.slab.states[block.number] == _LINGERING

    def review(self, probe: Probe) -> None:
        """Ask for some lingering blocks, so that what is said to be in use is."""
        budget = SEARCH
        for blocks in self._classes.values():
            for _ in range(min(budget, len(blocks.lingering))):
                budget -= 1
                self._ask_next(blocks, 0, probe)

    def growth(self, block_bytes: int, probe: Probe) -> Growth | None:
        """Return how to get more blocks of this class, or None: there is no room, nor will be."""
        header = self._header_bytes
        if header + block_bytes > self._limit_bytes:
            return None
        room = self._limit_bytes - self.total_bytes
        retire: list[Slab] = []
        budget = SEARCH
        for slab in self._slabs:
            if header + block_bytes <= room or budget <= 0:
                break
            if slab.block_bytes != block_bytes and slab.lent == 0:
                budget, empty = self._emptied(slab, probe, budget)
                if empty:
                    retire.append(slab)
                    room += slab.total_bytes
        if header + block_bytes > room:
            return None
        there = self._classes[block_bytes].blocks if block_bytes in self._classes else 0
        largest = max(LARGEST_SLAB_BYTES, self._limit_bytes // LARGEST_SHARE)
        wanted = min(max(there, FIRST_SLAB_BYTES // block_bytes), largest // block_bytes)
        count = max(1, min(wanted, (room - header) // block_bytes))
        return Growth(block_bytes, count, tuple(retire))

    def add(self, block_bytes: int, count: int) -> Slab:
        """Return a new slab; its blocks are fresh."""
        slab = Slab(block_bytes, count, self._header_bytes + count * block_bytes)
        blocks = self._classes.setdefault(block_bytes, _Class())
        blocks.blocks += count
        blocks.fresh.extend(Block(slab, number) for number in reversed(range(count)))
        self._slabs.append(slab)
        self.total_bytes += slab.total_bytes
        return slab

    def remove(self, slab: Slab) -> None:
        """Forget a slab of which no block is lent; readers may still have some."""
        self._slabs.remove(slab)
        self.total_bytes -= slab.total_bytes
        blocks = self._classes[slab.block_bytes]
        blocks.blocks -= slab.count
        self.in_use_bytes -= slab.block_bytes * slab.states.count(_LINGERING)
        blocks.lingering = deque(block for block in blocks.lingering if block.slab is not slab)
        blocks.free = [block for block in blocks.free if block.slab is not slab]
        blocks.fresh = [block for block in blocks.fresh if block.slab is not slab]
        if not blocks.blocks:
            del self._classes[slab.block_bytes]

    def _free(self, blocks: _Class, block: Block) -> None:
        block.slab.states[block.number] = _FREE
        blocks.free.append(block)
        self.in_use_bytes -= block.slab.block_bytes

    def _ask(self, blocks: _Class, probe: Probe) -> None:
        """Ask for a few lingering blocks until one is free."""
        for position in range(min(OLDEST, len(blocks.lingering))):
            if self._ask_for(blocks, position, probe):
                return
        for _ in range(min(OTHERS, len(blocks.lingering) - OLDEST)):
            if self._ask_next(blocks, OLDEST, probe):
                return

    def _ask_next(self, blocks: _Class, first: int, probe: Probe) -> bool:
        """Ask for the lingering block whose turn it is, not one of the ``first``."""
        if not first <= blocks.turn < len(blocks.lingering):
            blocks.turn = first
        if self._ask_for(blocks, blocks.turn, probe):
            return True
        blocks.turn += 1
        return False

    def _ask_for(self, blocks: _Class, position: int, probe: Probe) -> bool:
        block = blocks.lingering[position]
        if not probe(block):
            return False
        del blocks.lingering[position]
        self._free(blocks, block)
        return True

    def _emptied(self, slab: Slab, probe: Probe, budget: int) -> tuple[int, bool]:
        """Ask for the lingering blocks of a slab; return what is left to ask, and if it is empty.

        What was freed stays so: the next search goes on from there.
        """
        blocks = self._classes[slab.block_bytes]
        for block in [block for block in blocks.lingering if block.slab is slab]:
            if budget <= 0:
                return 0, False
            budget -= 1
            if not probe(block):
                return budget, False
            blocks.lingering.remove(block)
            self._free(blocks, block)
        return budget, True
