"""Inputs made of valid ones: what a plain fuzzer would need days to stumble on.

Two formats. Most inputs are bytes in which lengths, claims and numbers are replaced, parts cut,
doubled and moved. A *script* is a list of chunks, each for one actor of a whole participant; its
chunks are dropped, doubled and swapped as well, so that every one may still be a valid message in
the wrong place. `mutated` is a function of its `random.Random` alone: a seed replays it.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

__all__ = ["Chunk", "bombs", "mutated", "pack", "unpack"]

Chunk = tuple[int, bytes]

_CLAIMS = [
    b"\xdd\xff\xff\xff\xff", b"\xdd\x00\x10\x00\x00", b"\xdc\xff\xff", b"\xdc\x04\x00",
    b"\xdf\xff\xff\xff\xff", b"\xdf\x00\x10\x00\x00", b"\xde\xff\xff",
    b"\xc6\xff\xff\xff\xff", b"\xc6\x00\x01\x00\x00", b"\xc5\xff\xff", b"\xdb\xff\xff\xff\xff",
    b"\xda\xff\xff", b"\xc9\xff\xff\xff\xff\x01", b"\xc7\xff\x01",
]  # fmt: skip
_NUMBERS = [
    b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff", b"\xcf\x7f\xff\xff\xff\xff\xff\xff\xff",
    b"\xd3\x80\x00\x00\x00\x00\x00\x00\x00", b"\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00",
    b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00", b"\xcb\x7f\xef\xff\xff\xff\xff\xff\xff",
    b"\xce\xff\xff\xff\xff", b"\xff", b"\x00", b"\xc0", b"\xc2", b"\xc3", b"\x90", b"\x80",
    b"\xa0", b"\xc4\x00",
]  # fmt: skip
_MARKS = [bytes((0xD4, code, 0xC1)) for code in (*range(1, 20), *range(30, 38), 255)]
_WORDS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)
_MOST_BYTES = 1 << 16


def pack(chunks: Sequence[Chunk]) -> bytes:
    """Return a script: of each chunk its actor (a byte), its size (2 bytes) and its bytes."""
    return b"".join(
        bytes((actor & 0xFF,)) + len(data).to_bytes(2, "little") + data for actor, data in chunks
    )


def unpack(script: bytes) -> list[Chunk]:
    """Return the chunks of any bytes: the last one may be cut off."""
    chunks: list[Chunk] = []
    at = 0
    while at + 3 <= len(script):
        size = int.from_bytes(script[at + 1 : at + 3], "little")
        chunks.append((script[at], script[at + 3 : at + 3 + size]))
        at += 3 + size
    return chunks


def bombs() -> list[bytes]:
    """Return small inputs that claim, nest or repeat as much as their format lets them."""
    deep = [start * 1500 for start in (b"\x91", b"\x81\xc0", b"\x92\xd4\x01\xc1", b"\x81\x91")]
    wide = [claim * count for claim in _CLAIMS for count in (1, 3, 600)]
    closed = [b"\x91" * n + b"\xc0" for n in (100, 511, 512, 513, 1023, 1024, 1025)]
    many = [b"\xdc\x03\xff" + b"\x90" * 1023, b"\xdd\x00\x00\x20\x00" + b"\x80" * 8192]
    marks = [b"\x91" + mark for mark in _MARKS] + [b"\x92" + mark + b"\x90" for mark in _MARKS]
    return [b"", b"\x00", b"\xff" * 64, b"\x00" * 64, *deep, *wide, *closed, *many, *marks]


def mutated(seeds: Sequence[bytes], rng: Random, *, script: bool = False) -> bytes:
    """Return an input made of one or two of the ``seeds``."""
    data = rng.choice(seeds)
    if script:
        return _mutated_script(data, seeds, rng)
    for _ in range(rng.randint(1, 4)):
        data = _changed(data, seeds, rng)
    return data[:_MOST_BYTES]


def _mutated_script(data: bytes, seeds: Sequence[bytes], rng: Random) -> bytes:
    chunks = unpack(data)
    for _ in range(rng.randint(1, 5)):
        at = rng.randrange(len(chunks) + 1)
        chosen = chunks[at : at + 1]
        match rng.randrange(7):
            case 0:
                del chunks[at : at + 1]
            case 1:
                chunks[at:at] = chosen
            case 2 if chosen:
                other = rng.randrange(len(chunks))
                chunks[at], chunks[other] = chunks[other], chunks[at]
            case 3 if chosen:
                chunks[at] = (rng.randrange(256), chosen[0][1])
            case 4:
                part = unpack(rng.choice(seeds))
                begin = rng.randrange(len(part) + 1)
                chunks[at:at] = part[begin : begin + rng.randint(1, 4)]
            case _ if chosen:
                actor, message = chosen[0]
                chunks[at] = (actor, _changed(message, [one for _, one in chunks], rng)[:0xFFFF])
    return pack(chunks)[:_MOST_BYTES]


def _changed(data: bytes, seeds: Sequence[bytes], rng: Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    end = min(len(data), at + rng.choice((1, 1, 2, 4, 8, 16, 64)))
    match rng.randrange(11):
        case 0 if data:
            bit = rng.randrange(len(data) * 8)
            return _with(data, bit // 8, bytes((data[bit // 8] ^ 1 << bit % 8,)))
        case 1:
            return _with(data, at, bytes((rng.randrange(256),)))
        case 2:
            return data[:at] + data[end:]
        case 3:
            return data[:end] + data[at:]
        case 4:
            return data[:at]
        case 5:
            other = rng.choice(seeds)
            begin = rng.randrange(len(other) + 1)
            return data[:at] + other[begin : begin + rng.choice((1, 8, 64, len(other) + 1))]
        case 6:
            return data[:at] + rng.choice(_CLAIMS) + data[rng.choice((at, end)) :]
        case 7:
            return data[:at] + rng.choice(_NUMBERS) + data[rng.choice((at, end)) :]
        case 8:
            return data[:at] + rng.choice(_MARKS) + data[rng.choice((at, end)) :]
        case 9:
            size, order = rng.choice((1, 2, 4, 8)), rng.choice(("little", "big"))
            word = rng.choice(_WORDS) & (1 << 8 * size) - 1
            return _with(data, at, word.to_bytes(size, order))  # type: ignore[arg-type]  # is one
        case _:
            part = data[at:end] or b"\x91"
            return data[:at] + part * rng.choice((2, 16, 300)) + data[end:]


def _with(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]
