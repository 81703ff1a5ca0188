"""Segments: files in memory that one process writes and others read in place, with their locks.

A segment is a memfd: it has no name, so nothing is left of it when its last user is gone, however
that one ended, and the size of /dev/shm does not matter. It gets all of its pages when it is made
and is sealed against shrinking and growing, so that no access can ever find a page missing
(SIGBUS); a reader refuses one that is not. Others open it by ``/proc/<pid>/fd/<n>``. That gives
them an *open file description* of their own, and its locks (F_OFD_SETLK) are the leases: a reader
holds a read lock on byte n while it uses block n, the owner needs the write lock to use the block
for something else, and the kernel drops the locks of whoever dies. Byte n is a name, the bytes of
the file are not affected.

Where the kernel can, the pages of a segment are put together into *huge* ones (MADV_COLLAPSE, Linux
6.1), and every map begins where such a page may: with one page table entry for 2 MiB,
to write 6 MB takes a fifth to a third less, and the first write no page faults. Where it cannot,
nothing else changes.

The first page is the header, written by the owner only: magic, token, block size, whether the
segment is retired, and the *generation* of each block, which tells one use of it from the next.
Docs: fcntl_locking(2), memfd_create(2).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import resource
import secrets
import stat
import struct
import sys
from functools import cache, lru_cache
from typing import Any

from dflow.errors import BufferLost
from dflow.wire.buffers import Place

__all__ = [
    "HEADER_BYTES",
    "Segment",
    "create_segment",
    "is_supported",
    "may_be_opened",
    "open_segment",
]

HEADER_BYTES = max(4096, mmap.PAGESIZE)

MOST_OF_AVAILABLE = 0.5
"""Larger parts of the memory that is left are not taken: the kernel would kill somebody for it."""

SPARE_FILES = 32
"""Descriptors that are left for others: who cannot open a file any more can do nothing else."""

_NAME = "dflow"
_MAGIC = 0x31_6D_68_73_77_6F_6C_66  # "flowshm1"
_MAGIC_AT, _TOKEN_AT, _BLOCK_BYTES_AT, _RETIRED_AT, _GENERATIONS_AT = range(5)
_MAX_BLOCKS = HEADER_BYTES // 8 - _GENERATIONS_AT

# linux/fcntl.h; the fcntl module only has them from Python 3.12 on, or not at all off Linux
_F_ADD_SEALS, _F_GET_SEALS = 1033, 1034
_SEALS = 0x1 | 0x2 | 0x4  # F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW
_OFD_SETLK = 37
_FLOCK = struct.Struct("hhqqi4x")  # struct flock of 64-bit Linux
_HUGE_BYTES = 2 << 20
_COLLAPSE = 25  # MADV_COLLAPSE
_RESERVED = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000  # MAP_NORESERVE
_MAP_FAILED = ctypes.c_void_p(-1).value


def is_supported() -> bool:
    """Return whether this system has what segments are made of."""
    return sys.platform == "linux" and sys.maxsize > 2**32 and hasattr(os, "memfd_create")


def may_be_opened() -> bool:
    """Return whether processes like this one may open what others have open.

    The parent's files stand for all: whoever forked the workers has the rights they have. Sandboxes
    and hardened kernels may hide them.
    """
    try:
        os.listdir(f"/proc/{os.getppid()}/fd")
    except OSError:
        return False
    return True


@cache
def _libc() -> Any:
    """Return libc with mmap and munmap declared.

    The mmap module keeps a descriptor for each map and unmaps when it likes; a lease must decide.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    size, number = ctypes.c_size_t, ctypes.c_int
    libc.mmap.argtypes = [ctypes.c_void_p, size, number, number, number, ctypes.c_long]
    libc.mmap.restype = ctypes.c_void_p
    libc.munmap.argtypes = [ctypes.c_void_p, size]
    libc.madvise.argtypes = [ctypes.c_void_p, size, number]
    return libc


@lru_cache(maxsize=1024)
def _lock(kind: int, block: int) -> bytes:
    return _FLOCK.pack(kind, os.SEEK_SET, block, 1, 0)


@cache
def _block_type(block_bytes: int) -> Any:
    """Return the class of blocks of that size; there are a few dozen sizes.

    A class takes 2 KB and is freed by the cycle collector, which in a worker may not run for
    hours, and a reader maps the segments of its writers again and again.
    """
    return type("Block", (ctypes.c_char * block_bytes,), {})


class Segment:
    """A mapped segment: ``count`` blocks, block n at ``address + HEADER_BYTES + n * block_bytes``.

    Whoever made it may write to it. `close` unmaps it: nobody may use its memory after that.
    """

    __slots__ = ("_header", "address", "block_bytes", "block_type", "count", "fd", "size_bytes",
                 "token")  # fmt: skip

    def __init__(self, fd: int, size_bytes: int, block_bytes: int, protection: int) -> None:
        hint = _place_for_huge_pages(size_bytes)
        address = _libc().mmap(hint, size_bytes, protection, mmap.MAP_SHARED, fd, 0)
        if address == _MAP_FAILED:
            raise OSError(ctypes.get_errno(), "mmap")
        self.fd = fd
        self.size_bytes = size_bytes
        self.block_bytes = block_bytes
        self.count = (size_bytes - HEADER_BYTES) // block_bytes
        self.address: int = address
        self._header = (ctypes.c_uint64 * (HEADER_BYTES // 8)).from_address(address)
        self.token = self._header[_TOKEN_AT]
        self.block_type = _block_type(block_bytes)

    @property
    def retired(self) -> bool:
        """Whether its owner has given it up: no block of it will be used again."""
        return bool(self._header[_RETIRED_AT])

    def retire(self) -> None:
        """Tell readers that this segment is given up. For its owner."""
        self._header[_RETIRED_AT] = 1

    def generation(self, block: int) -> int:
        """Return which use of the block this is."""
        return self._header[_GENERATIONS_AT + block]

    def address_of(self, block: int) -> int:
        """Return where the block begins."""
        return self.address + HEADER_BYTES + block * self.block_bytes

    def share(self, block: int) -> bool:
        """Lock the block for reading; False if its owner is taking it back at this moment."""
        return self._set(fcntl.F_RDLCK, block)

    def release(self, block: int) -> None:
        """Drop this reader's lock of the block."""
        self._set(fcntl.F_UNLCK, block)

    def reclaim(self, block: int) -> bool:
        """Begin another use of the block, unless a reader holds it. For its owner."""
        if not self._set(fcntl.F_WRLCK, block):
            return False
        self._header[_GENERATIONS_AT + block] += 1
        self._set(fcntl.F_UNLCK, block)
        return True

    def close(self) -> None:
        """Unmap and close; once."""
        _libc().munmap(self.address, self.size_bytes)
        os.close(self.fd)

    def _set(self, kind: int, block: int) -> bool:
        try:
            fcntl.fcntl(self.fd, _OFD_SETLK, _lock(kind, block))
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        return True


def create_segment(block_bytes: int, count: int) -> Segment:
    """Return a new segment, mapped for writing; raises OSError if there is no memory for it."""
    if not 0 < count <= _MAX_BLOCKS:
        raise OSError(errno.EINVAL, f"expected 1 to {_MAX_BLOCKS} blocks, got {count}")
    size_bytes = HEADER_BYTES + count * block_bytes
    if size_bytes > _available_bytes() * MOST_OF_AVAILABLE:
        raise OSError(errno.ENOMEM, "not enough memory")
    fd = os.memfd_create(_NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        if fd >= _most_files() - SPARE_FILES:
            raise OSError(errno.EMFILE, "too many open files")
        os.ftruncate(fd, size_bytes)
        os.posix_fallocate(fd, 0, size_bytes)
        words = [0] * (_GENERATIONS_AT + count)
        words[_MAGIC_AT], words[_TOKEN_AT] = _MAGIC, secrets.randbits(64)
        words[_BLOCK_BYTES_AT] = block_bytes
        words[_GENERATIONS_AT:] = [1] * count
        os.pwrite(fd, struct.pack(f"={len(words)}Q", *words), 0)
        fcntl.fcntl(fd, _F_ADD_SEALS, _SEALS)
        segment = Segment(fd, size_bytes, block_bytes, mmap.PROT_READ | mmap.PROT_WRITE)
    except BaseException:
        os.close(fd)
        raise
    huge_bytes = size_bytes // _HUGE_BYTES * _HUGE_BYTES
    if huge_bytes:  # it may refuse
        _libc().madvise(segment.address, huge_bytes, _COLLAPSE)
    return segment


def _place_for_huge_pages(size_bytes: int) -> int | None:
    """Return an address to ask for so many bytes at; None if it does not matter."""
    if size_bytes < _HUGE_BYTES:
        return None
    libc, room_bytes = _libc(), size_bytes + _HUGE_BYTES
    address: int = libc.mmap(None, room_bytes, 0, _RESERVED, -1, 0)
    if address == _MAP_FAILED:
        return None
    libc.munmap(address, room_bytes)  # whoever takes it meanwhile: the address is only a wish
    return -(-address // _HUGE_BYTES) * _HUGE_BYTES


def _most_files() -> int:
    soft: int = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def _available_bytes() -> int:
    with open("/proc/meminfo", "rb") as file:
        for line in file:
            if line.startswith(b"MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 1 << 62


def open_segment(place: Place) -> Segment:
    """Map the segment of ``place`` for reading; raises `BufferLost` unless it is the one meant.

    Its owner may be gone and its process number somebody else's, so nothing is believed.
    """
    fd = _open(place.pid, place.fd)
    try:
        problem = _problem(fd, place)
        if problem:
            raise BufferLost(
                f"shared memory: expected {problem}; its owner has ended or retired it"
            )
        return Segment(fd, place.segment_bytes, place.block_bytes, mmap.PROT_READ)
    except OSError as error:
        os.close(fd)
        raise BufferLost(f"shared memory: expected to map a segment, got {error}") from None
    except BaseException:
        os.close(fd)
        raise


def _open(pid: int, fd: int) -> int:
    path = f"/proc/{pid}/fd/{fd}"
    try:
        # Looked at first, because to open some things (a tty, a FIFO) is to change them.
        if os.readlink(path).startswith(f"/memfd:{_NAME}"):
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        got = errno.errorcode.get(error.errno or 0, "an error")
        hint = "that process has ended, or is another user's"
        if error.errno in (errno.EMFILE, errno.ENFILE):
            hint = "raise the limit of open files (ulimit -n)"
        raise BufferLost(
            f"shared memory: expected to open a segment of process {pid}, got {got}; {hint}"
        ) from None
    raise BufferLost(f"shared memory: expected a segment of process {pid}, got another file")


def _problem(fd: int, place: Place) -> str | None:
    """Return what is wrong with the file, as what was expected and what was got, or None."""
    try:
        seals = fcntl.fcntl(fd, _F_GET_SEALS)
    except OSError:
        return "a sealed file in memory, got another kind"
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or seals & _SEALS != _SEALS:
        return f"seals {_SEALS}, got {seals}"
    if status.st_size != place.segment_bytes or status.st_size <= HEADER_BYTES:
        return f"{place.segment_bytes:,} bytes, got {status.st_size:,}"
    if status.st_blocks * 512 < status.st_size:
        return "a file with all of its pages, got one with holes"
    words = struct.unpack("=3Q", os.pread(fd, 24, 0))
    if words != (_MAGIC, place.token, place.block_bytes):
        return "the segment that was described, got another"
    room = place.segment_bytes - HEADER_BYTES
    if not 0 < place.block_bytes <= room or room // place.block_bytes > _MAX_BLOCKS:
        return "blocks that fit the segment and its header, got others"
    return None
