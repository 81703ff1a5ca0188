"""Which block is used next, and when memory is taken and given back."""

from __future__ import annotations

from collections import deque

import pytest

from dflow.flow.slabs import (
    LARGEST_SLAB_BYTES,
    MIN_BLOCK_BYTES,
    OTHERS,
    PROBES,
    SEARCH,
    Block,
    Slab,
    Slabs,
    size_class,
)

HEADER = 4096
LARGE = 1 << 30
KB64, KB80 = 64 * 1024, 80 * 1024


class Readers:
    """Who still reads what: the probe of the tests."""

    def __init__(self) -> None:
        self.reading: set[Block] = set()
        self.asked = 0

    def __call__(self, block: Block) -> bool:
        self.asked += 1
        return block not in self.reading


def lent(slabs: Slabs, block_bytes: int, readers: Readers) -> Block:
    """Lend a block as the owner of the memory does: a new slab where there is none."""
    block = slabs.take(block_bytes, readers)
    if block is None:
        growth = slabs.growth(block_bytes, readers)
        assert growth is not None
        for slab in growth.retire:
            slabs.remove(slab)
        slabs.add(growth.block_bytes, growth.blocks)
        block = slabs.take(block_bytes, readers)
    assert block is not None
    return block


@pytest.mark.parametrize(
    ("size_bytes", "block_bytes"),
    [
        (0, KB64),
        (1, KB64),
        (KB64, KB64),
        (KB64 + 1, KB80),
        (KB80, KB80),
        (KB80 + 1, 96 * 1024),
        (6_000_000, 6 << 20),
        (100_000_000, 96 << 20),
    ],
)
def test_a_block_holds_its_size(size_bytes: int, block_bytes: int) -> None:
    assert size_class(size_bytes) == block_bytes


def test_no_more_than_a_quarter_of_a_block_is_waste() -> None:
    for size in range(KB64, 1 << 22, 4099):
        block = size_class(size)
        assert size <= block <= size * 1.25
        assert block % (MIN_BLOCK_BYTES // 4) == 0


def test_what_was_given_back_last_is_used_first() -> None:
    slabs, readers = Slabs(LARGE, HEADER), Readers()
    one, two = lent(slabs, KB64, readers), lent(slabs, KB64, readers)
    slabs.give_back(one, False, readers)
    slabs.give_back(two, False, readers)
    assert lent(slabs, KB64, readers) == two
    assert lent(slabs, KB64, readers) == one
    assert readers.asked == 0  # nobody had been told where they lie


def test_a_block_that_a_reader_still_has_is_not_used() -> None:
    slabs, readers = Slabs(LARGE, HEADER), Readers()
    block = lent(slabs, KB64, readers)
    readers.reading.add(block)
    slabs.give_back(block, True, readers)
    assert slabs.is_lingering(block)
    assert lent(slabs, KB64, readers) != block
    readers.reading.clear()
    assert lent(slabs, KB64, readers) == block


def test_what_readers_let_go_of_is_used_before_what_never_was() -> None:
    slabs, readers = Slabs(LARGE, HEADER), Readers()
    used = [lent(slabs, KB64, readers) for _ in range(3)]
    readers.reading.update(used)
    for block in used:
        slabs.give_back(block, True, readers)
    readers.reading.clear()
    assert [lent(slabs, KB64, readers) for _ in range(3)] == used  # the oldest first


def test_few_lingering_blocks_are_asked_for() -> None:
    slabs, readers = Slabs(LARGE, HEADER), Readers()
    used = [lent(slabs, KB64, readers) for _ in range(50)]
    readers.reading.update(used)
    for block in used:
        slabs.give_back(block, True, readers)
    readers.asked = 0
    assert lent(slabs, KB64, readers) not in used
    assert readers.asked <= PROBES


def test_every_lingering_block_has_its_turn() -> None:
    slabs, readers = Slabs(LARGE, HEADER), Readers()
    used = [lent(slabs, KB64, readers) for _ in range(50)]
    readers.reading.update(used)
    for block in used:
        slabs.give_back(block, True, readers)
    readers.reading.discard(used[-1])
    tries = [lent(slabs, KB64, readers) for _ in range(50 // OTHERS + 1)]
    assert used[-1] in tries


def test_a_window_that_is_a_little_late_takes_no_more_memory() -> None:
    slabs, readers = Slabs(LARGE, HEADER), Readers()
    window: deque[Block] = deque()
    for number in range(2_000):
        block = lent(slabs, KB64, readers)
        window.append(block)
        readers.reading.add(block)
        slabs.give_back(block, True, readers)
        late = number // 7 % 2  # lets go of two at once, or of none
        while len(window) > 100 + 6 * late:
            readers.reading.remove(window.popleft())
    assert slabs.peak_bytes <= 112 * KB64


def test_a_block_of_its_own_that_comes_back_is_lent_again() -> None:
    slabs, readers = Slabs(LARGE, HEADER), Readers()
    block = lent(slabs, KB64, readers)
    readers.reading.add(block)
    slabs.give_back(block, True, readers)
    slabs.revive(block)
    readers.reading.clear()
    assert not slabs.is_lingering(block)
    assert lent(slabs, KB64, readers) != block
    slabs.give_back(block, True, readers)
    assert slabs.in_use_bytes == KB64


def test_slabs_of_a_class_grow_with_it_up_to_a_size() -> None:
    slabs, readers = Slabs(LARGE, HEADER), Readers()
    while slabs.total_bytes < LARGE // 4:
        lent(slabs, KB64, readers)
    sizes = [slab.count * slab.block_bytes for slab in slabs.slabs]
    assert sizes[0] == 1 << 20
    assert sizes == sorted(sizes)
    assert sizes[-1] == max(LARGEST_SLAB_BYTES, LARGE // 32)
    assert len(sizes) < 20  # each is a descriptor in every reader


def test_a_block_larger_than_any_slab_has_one_of_its_own() -> None:
    slabs, readers = Slabs(LARGE, HEADER), Readers()
    block = lent(slabs, 96 << 20, readers)
    assert block.slab.count == 1
    assert slabs.total_bytes == HEADER + (96 << 20)


def test_all_memory_is_at_most_the_limit() -> None:
    limit = 10 * KB64
    slabs, readers = Slabs(limit, HEADER), Readers()
    blocks = []
    while (growth := slabs.growth(KB64, readers)) is not None:
        slabs.add(growth.block_bytes, growth.blocks)
        while block := slabs.take(KB64, readers):
            blocks.append(block)
    assert len(blocks) == 9
    assert slabs.total_bytes <= limit


def test_a_block_that_can_never_have_room_retires_nothing() -> None:
    slabs, readers = Slabs(10 * KB64, HEADER), Readers()
    slabs.give_back(lent(slabs, KB64, readers), False, readers)
    assert slabs.growth(10 * KB64, readers) is None
    assert len(slabs.slabs) == 1


def test_an_empty_slab_of_another_class_makes_room() -> None:
    slabs, readers = Slabs(HEADER + 4 * KB64, HEADER), Readers()
    used = [lent(slabs, KB64, readers) for _ in range(4)]
    for block in used:
        slabs.give_back(block, True, readers)
    growth = slabs.growth(3 * KB64, readers)
    assert growth is not None
    assert growth.retire == slabs.slabs
    assert growth.blocks == 1


@pytest.mark.parametrize("holder", ["lent", "read"])
def test_a_slab_with_a_block_in_use_is_not_retired(holder: str) -> None:
    slabs, readers = Slabs(HEADER + 4 * KB64, HEADER), Readers()
    used = [lent(slabs, KB64, readers) for _ in range(4)]
    kept = used.pop()
    if holder == "read":
        readers.reading.add(kept)
        slabs.give_back(kept, True, readers)
    for block in used:
        slabs.give_back(block, True, readers)
    assert slabs.growth(3 * KB64, readers) is None
    readers.reading.clear()
    if holder == "lent":
        slabs.give_back(kept, True, readers)
    assert slabs.growth(3 * KB64, readers) is not None


def test_a_search_for_room_asks_for_a_bounded_number_and_goes_on_where_it_was() -> None:
    slabs, readers = Slabs(HEADER + 256 * KB64, HEADER), Readers()
    slabs.add(KB64, 256)
    used = [lent(slabs, KB64, readers) for _ in range(256)]
    readers.reading.update(used)
    for block in used:
        slabs.give_back(block, True, readers)
    readers.reading.clear()
    tries = 0
    found = None
    while found is None:
        readers.asked = 0
        found = slabs.growth(100 * KB64, readers)
        tries += 1
        assert readers.asked <= SEARCH
    assert tries == 256 // SEARCH


def test_removing_a_slab_that_readers_hold_forgets_them() -> None:
    slabs, readers = Slabs(LARGE, HEADER), Readers()
    block = lent(slabs, KB64, readers)
    readers.reading.add(block)
    slabs.give_back(block, True, readers)
    slab: Slab = block.slab
    slabs.remove(slab)
    assert (slabs.total_bytes, slabs.in_use_bytes) == (0, 0)
    assert slabs.take(KB64, readers) is None
