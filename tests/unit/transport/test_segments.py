"""Segments: what a reader believes, and whose lock keeps whom away."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import gc
import mmap
import os
import resource
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from dflow.errors import BufferLost
from dflow.transport import segments
from dflow.transport.segments import (
    HEADER_BYTES,
    SPARE_FILES,
    Segment,
    create_segment,
    is_supported,
    may_be_opened,
    open_segment,
)
from dflow.wire.buffers import Place

pytestmark = pytest.mark.skipif(not is_supported(), reason="needs memfd and locks of Linux")

BLOCK = 64 * 1024
ADD_SEALS, SHRINK, GROW, SEAL = 1033, 2, 4, 1


def place_in(segment: Segment, **other: int) -> Place:
    """Return where the first block of a segment is, with what ``other`` says instead."""
    place = Place(os.getpid(), segment.fd, segment.token, segment.size_bytes, BLOCK, 0, 1, 0, BLOCK)
    return place._replace(**other)


@pytest.fixture
def segment() -> Iterator[Segment]:
    made = create_segment(BLOCK, 4)
    yield made
    with suppress(OSError):
        made.close()


@pytest.fixture
def reader(segment: Segment) -> Iterator[Segment]:
    opened = open_segment(place_in(segment))
    yield opened
    opened.close()


def test_mapping_a_segment_again_and_again_leaves_nothing_for_the_cycle_collector(
    segment: Segment,
) -> None:
    open_segment(place_in(segment)).close()
    was = gc.isenabled()
    gc.disable()
    try:
        before = len(gc.get_objects())
        for _ in range(50):
            open_segment(place_in(segment)).close()
        assert len(gc.get_objects()) - before < 50  # a class each time made it hundreds
    finally:
        if was:
            gc.enable()


def test_what_the_owner_writes_the_reader_reads(segment: Segment, reader: Segment) -> None:
    ctypes.memset(segment.address_of(3), 7, BLOCK)
    assert ctypes.string_at(reader.address_of(3), BLOCK) == b"\7" * BLOCK
    assert reader.fd != segment.fd
    assert (reader.token, reader.count, reader.block_bytes) == (segment.token, 4, BLOCK)


def test_a_block_with_a_reader_is_not_reclaimed(segment: Segment, reader: Segment) -> None:
    assert reader.share(2)
    assert not segment.reclaim(2)
    assert segment.reclaim(1)
    reader.release(2)
    assert segment.reclaim(2)
    assert [reader.generation(block) for block in range(4)] == [1, 2, 2, 1]


def test_every_reader_counts(segment: Segment, reader: Segment) -> None:
    other = open_segment(place_in(segment))
    assert reader.share(0)
    assert other.share(0)
    reader.release(0)
    assert not segment.reclaim(0)
    other.close()  # as the kernel does for who dies
    assert segment.reclaim(0)


def test_a_segment_opened_by_way_of_a_reader_is_the_same(segment: Segment, reader: Segment) -> None:
    other = open_segment(place_in(reader))
    assert other.share(1)
    assert not segment.reclaim(1)
    other.close()


def test_readers_see_that_a_segment_is_retired(segment: Segment, reader: Segment) -> None:
    assert not reader.retired
    segment.retire()
    assert reader.retired


def test_a_reader_outlives_the_owner(segment: Segment, reader: Segment) -> None:
    ctypes.memset(segment.address_of(1), 9, BLOCK)
    assert reader.share(1)
    segment.close()
    assert ctypes.string_at(reader.address_of(1), BLOCK) == b"\x09" * BLOCK


def test_its_size_is_sealed(segment: Segment) -> None:
    for size in (0, HEADER_BYTES, segment.size_bytes + 1):
        with pytest.raises(PermissionError):
            os.ftruncate(segment.fd, size)
    with pytest.raises(PermissionError):
        fcntl.fcntl(segment.fd, ADD_SEALS, 8)


def test_it_has_all_of_its_pages_at_once(segment: Segment) -> None:
    assert os.fstat(segment.fd).st_blocks * 512 >= segment.size_bytes


@pytest.mark.parametrize("refused", [False, True])
def test_large_segments_work_with_and_without_huge_pages(
    refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if refused:
        monkeypatch.setattr(segments, "_COLLAPSE", 255)  # what no kernel knows
        monkeypatch.setattr(segments, "_place_for_huge_pages", lambda size_bytes: None)
    made = create_segment(3 << 20, 2)
    try:
        place = Place(os.getpid(), made.fd, made.token, made.size_bytes, 3 << 20, 0, 1, 0, 3 << 20)
        opened = open_segment(place)
        try:
            ctypes.memset(made.address_of(1), 7, 3 << 20)
            assert ctypes.string_at(opened.address_of(1), 3 << 20) == b"\7" * (3 << 20)
            assert ctypes.string_at(opened.address_of(0), 3 << 20) == bytes(3 << 20)
            assert (opened.token, opened.generation(1)) == (made.token, 1)
        finally:
            opened.close()
    finally:
        made.close()


def test_a_large_segment_is_mapped_where_huge_pages_may_be() -> None:
    addresses = []
    for _ in range(8):
        made = create_segment(3 << 20, 1)
        addresses.append(made.address)
        made.close()
    # another thread may have taken an address first
    assert any(address % (2 << 20) == 0 for address in addresses)


def test_memory_that_there_is_not_is_an_os_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match="100000"):
        create_segment(BLOCK, 100_000)
    with pytest.raises(OSError, match="not enough memory"):
        create_segment(1 << 50, 4)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space"):
        create_segment(BLOCK, 4)
    assert os.listdir("/proc/self/fd") == before


def test_no_segment_takes_the_last_descriptors(segment: Segment) -> None:
    before = os.listdir("/proc/self/fd")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (segment.fd + SPARE_FILES, limits[1]))
    try:
        with pytest.raises(OSError, match="too many open files"):
            create_segment(BLOCK, 4)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert os.listdir("/proc/self/fd") == before


def memfd(name: str, size: int, seals: int, data: bytes = b"") -> int:
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    os.pwrite(fd, data, 0)
    fcntl.fcntl(fd, ADD_SEALS, seals)
    return fd


def imitation(segment: Segment, size: int, seals: int, sparse: bool = False) -> int:
    header = os.pread(segment.fd, HEADER_BYTES, 0)
    data = header if sparse else header.ljust(size, b"\0")
    return memfd("dflow", size, seals, data)


def crowd(segment: Segment) -> int:
    header = list(struct.unpack("=3Q", os.pread(segment.fd, 24, 0)))
    header[2] = 1  # byte a block: the header has no place for so many generations
    return memfd(
        "dflow",
        segment.size_bytes,
        SEALED,
        struct.pack("=3Q", *header).ljust(segment.size_bytes, b"\0"),
    )


def a_file(segment: Segment) -> int:
    fd, path = tempfile.mkstemp()
    os.unlink(path)
    os.pwrite(fd, os.pread(segment.fd, segment.size_bytes, 0), 0)
    return fd


SEALED = SHRINK | GROW | SEAL
IMPOSTORS: dict[str, Callable[[Segment], int]] = {
    "no seals": lambda s: imitation(s, s.size_bytes, 0),
    "may shrink": lambda s: imitation(s, s.size_bytes, GROW | SEAL),
    "may grow": lambda s: imitation(s, s.size_bytes, SHRINK | SEAL),
    "short": lambda s: imitation(s, s.size_bytes - mmap.PAGESIZE, SEALED),
    "long": lambda s: imitation(s, s.size_bytes + mmap.PAGESIZE, SEALED),
    "holes": lambda s: imitation(s, s.size_bytes, SEALED, sparse=True),
    "nothing": lambda s: memfd("dflow", 0, SEALED),
    "zeros": lambda s: memfd("dflow", s.size_bytes, SEALED, bytes(s.size_bytes)),
    "another name": lambda s: memfd("other", s.size_bytes, SEALED, bytes(s.size_bytes)),
    "a file": a_file,
    "a device": lambda s: os.open("/dev/zero", os.O_RDONLY),
    "a pipe": lambda s: os.pipe()[0],
    "an event": lambda s: os.eventfd(0),
    "a directory": lambda s: os.open("/", os.O_RDONLY),
}


@pytest.mark.parametrize("kind", IMPOSTORS)
def test_a_reader_refuses_what_is_not_the_segment(segment: Segment, kind: str) -> None:
    fd = IMPOSTORS[kind](segment)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(BufferLost):
        open_segment(place_in(segment, fd=fd))
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(fd)
    if kind == "a pipe":
        os.close(fd + 1)


@pytest.mark.parametrize(
    "other",
    [
        {"token": 1},
        {"segment_bytes": HEADER_BYTES + 3 * BLOCK},
        {"segment_bytes": HEADER_BYTES},
        {"segment_bytes": -1},
        {"segment_bytes": 1 << 70},
        {"block_bytes": 2 * BLOCK},
        {"block_bytes": 0},
        {"block_bytes": -BLOCK},
        {"fd": -1},
        {"fd": 1 << 70},
        {"pid": 0},
        {"pid": -1},
        {"pid": 1 << 40},
    ],
    ids=str,
)
def test_a_reader_refuses_a_description_that_does_not_fit(
    segment: Segment, other: dict[str, int]
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(BufferLost):
        open_segment(place_in(segment, **other))
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_reader_refuses_more_blocks_than_a_header_has_room_for(segment: Segment) -> None:
    fd = crowd(segment)
    with pytest.raises(BufferLost, match="blocks that fit"):
        open_segment(place_in(segment, fd=fd, block_bytes=1))
    os.close(fd)


def test_a_descriptor_that_was_closed_is_lost(segment: Segment) -> None:
    place = place_in(segment)
    segment.close()
    with pytest.raises(BufferLost, match="ENOENT"):
        open_segment(place)


def test_a_reader_that_has_too_many_files_open_says_so(
    segment: Segment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(BufferLost, match="ulimit -n"):
        open_segment(place_in(segment))


def test_a_sandbox_that_hides_the_files_of_others_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert may_be_opened()

    def hidden(path: str) -> list[str]:
        raise PermissionError(errno.EACCES, "hidden", path)

    monkeypatch.setattr(os, "listdir", hidden)
    assert not may_be_opened()
