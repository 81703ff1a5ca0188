"""The allocator against a model: who holds what is a set, and no two hold the same."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from dflow.flow.slabs import PROBES, SEARCH, Block, Slab, Slabs, size_class

HEADER = 4096
LIMIT = 3 << 20


class Allocator(RuleBasedStateMachine):
    """An owner that lends blocks, and readers that hold them for as long as they like."""

    lent_blocks = Bundle("lent")
    read_blocks = Bundle("read")

    def __init__(self) -> None:
        super().__init__()
        self.slabs = Slabs(LIMIT, HEADER)
        self.lent: set[Block] = set()
        self.shown: set[Block] = set()
        self.readers: dict[Block, int] = {}
        self.lingering: set[Block] = set()
        self.retired: set[Slab] = set()
        self.asked = 0

    def probe(self, block: Block) -> bool:
        """Answer as the kernel would; nobody asks for what is in use here, or not in doubt."""
        assert block not in self.lent
        assert block.slab not in self.retired
        self.asked += 1
        free = not self.readers.get(block)
        if free:
            self.lingering.discard(block)
        return free

    @rule(target=lent_blocks, size=st.integers(0, 1 << 20))
    def allocate(self, size: int) -> Any:
        """Lend a block, of a new slab if need be; if there is no room there really is none."""
        block_bytes = size_class(size)
        self.asked = 0
        block = self.slabs.take(block_bytes, self.probe)
        assert self.asked <= PROBES
        if block is None:
            growth = self.slabs.growth(block_bytes, self.probe)
            assert self.asked <= PROBES + SEARCH
            if growth is None:
                return multiple()
            for slab in growth.retire:
                assert not any(held.slab is slab for held in [*self.lent, *self.reading()])
                self.retired.add(slab)
                self.slabs.remove(slab)
            self.slabs.add(growth.block_bytes, growth.blocks)
            block = self.slabs.take(block_bytes, self.probe)
        assert block is not None
        assert block.slab.block_bytes >= size
        assert block.number < block.slab.count
        assert block not in self.lent
        assert not self.readers.get(block)
        assert block.slab not in self.retired
        self.lent.add(block)
        self.shown.discard(block)
        return block

    @rule(target=read_blocks, block=lent_blocks)
    def read(self, block: Block) -> Any:
        """A reader takes a block that it was told of: only what is held can be told of."""
        if block not in self.lent:
            return multiple()
        self.shown.add(block)
        self.readers[block] = self.readers.get(block, 0) + 1
        return block

    @rule(target=read_blocks, block=read_blocks)
    def forward(self, block: Block) -> Any:
        """A reader hands it on."""
        if not self.readers.get(block):
            return multiple()
        self.readers[block] += 1
        return block

    @rule(block=read_blocks)
    def let_go(self, block: Block) -> None:
        """A reader is done, or dead."""
        if self.readers.get(block):
            self.readers[block] -= 1

    @rule(block=lent_blocks)
    def give_back(self, block: Block) -> None:
        """The owner's own last view is gone."""
        if block not in self.lent:
            return
        self.lent.discard(block)
        self.asked = 0
        if self.readers.get(block):
            self.lingering.add(block)
        self.slabs.give_back(block, block in self.shown, self.probe)
        assert self.asked == (block in self.shown)

    @rule(block=read_blocks)
    def come_back(self, block: Block) -> None:
        """A reader sends it to its owner."""
        if self.readers.get(block) and block not in self.lent:
            assert self.slabs.is_lingering(block)
            self.slabs.revive(block)
            self.lent.add(block)
            self.lingering.discard(block)

    @rule()
    def review(self) -> None:
        """What is let go of is found."""
        self.asked = 0
        self.slabs.review(self.probe)
        assert self.asked <= SEARCH

    def reading(self) -> list[Block]:
        """Return what readers hold."""
        return [block for block, count in self.readers.items() if count]

    @invariant()
    def the_books_balance(self) -> None:
        """What is in use is what somebody holds or nobody has asked for, within the limit."""
        slabs = self.slabs
        assert slabs.total_bytes == sum(slab.total_bytes for slab in slabs.slabs) <= LIMIT
        in_use = self.lent | self.lingering
        assert slabs.in_use_bytes == sum(block.slab.block_bytes for block in in_use)
        assert slabs.in_use_bytes <= slabs.peak_bytes <= LIMIT
        assert not any(slabs.is_lingering(block) for block in self.lent)
        assert all(slabs.is_lingering(block) for block in self.lingering)
        for slab in slabs.slabs:
            assert slab.lent == sum(block.slab is slab for block in self.lent)

    def teardown(self) -> None:
        """Everything comes back: then all of the memory can be one block."""
        for block in list(self.lent):
            self.give_back(block)
        self.readers.clear()
        largest = size_class((LIMIT - HEADER) // 5 * 4)
        for _ in range(LIMIT // (64 * 1024)):
            self.slabs.review(self.probe)
        assert self.slabs.in_use_bytes == 0
        growth = self.slabs.growth(largest, self.probe)
        assert growth is not None or any(slab.block_bytes == largest for slab in self.slabs.slabs)


TestAllocator = Allocator.TestCase
TestAllocator.settings = settings(max_examples=80, stateful_step_count=60)
