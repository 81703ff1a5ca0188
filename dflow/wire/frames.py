"""Data frames: what travels on a channel, one ZeroMQ frame each.

A frame is a 34-byte little-endian header and a body::

    offset  0  2s  magic ``df``
            2  B   version
            3  B   kind
            4  H   flags (none defined: any set bit is refused, so that a later version
                   can give them a meaning an old receiver would not silently ignore)
            6  I   epoch
           10  I   channel
           14  I   count of payloads (BATCH and NOTED, else 0)
           18  Q   sequence: BATCH the number of its first message, END the number of all, ASK
                   of those so far
           26  Q   sender's wall clock, nanoseconds (BATCH and END, else 0)
           34      body

The header is a fixed struct and not msgpack, because a receiver must be able to reject,
route and count a frame without decoding what a peer wrote into it. The body of a BATCH is
one msgpack array, so that a whole batch is decoded by one call. A NOTED frame is a BATCH whose
body begins with notes (`dflow.wire.notes`): their size in 4 bytes, then they themselves. It is
parsed as a BATCH, and may hold notes alone. ASK has no body: its sender has not heard of what it
sent for long (`dflow.flow.asking`); it is answered by a CREDIT. The body of CREDIT and CLOSED is
three counters of 8 bytes, then the numbers of messages that are done before their turn, 8 bytes
each.

`parse` accepts exactly what the ``pack_*`` functions produce and raises `ProtocolError` for
anything else; the payloads of a BATCH are `dflow.wire.codec`'s to judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import NamedTuple

from dflow.errors import ProtocolError

__all__ = [
    "ASK",
    "BATCH",
    "CLOSED",
    "CREDIT",
    "END",
    "HEADER_BYTES",
    "HELLO",
    "MAX_BEYOND",
    "MAX_FRAME_BYTES",
    "MAX_MESSAGE_BYTES",
    "MAX_TEXT_BYTES",
    "NOTED",
    "REFUSED",
    "VERSION",
    "Frame",
    "array_header_size",
    "pack_ask",
    "pack_batch",
    "pack_closed",
    "pack_credit",
    "pack_end",
    "pack_hello",
    "pack_noted",
    "pack_refused",
    "parse",
    "parse_beyond",
    "parse_credit",
    "parse_plain_credit",
    "parse_text",
]

MAGIC = b"df"
VERSION = 1
HELLO, BATCH, END, CREDIT, CLOSED, REFUSED, NOTED, ASK = 1, 2, 3, 4, 5, 6, 7, 8
KIND_NAMES = {
    HELLO: "HELLO",
    BATCH: "BATCH",
    END: "END",
    CREDIT: "CREDIT",
    CLOSED: "CLOSED",
    REFUSED: "REFUSED",
    NOTED: "NOTED",
    ASK: "ASK",
}
MAX_TEXT_BYTES = 4096
MAX_FRAME_BYTES = 1 << 30
"""Largest frame either side accepts; libzmq drops the connection of who sends more."""
MAX_BEYOND = 4096
"""Most messages a report may name as done out of order: more than are handled at once."""
MAX_MESSAGE_BYTES = MAX_FRAME_BYTES - 1024
"""Largest encoded message; checked where it is encoded, since what is too large vanishes."""

# Magic, version, kind and flags are one constant for each kind: fewer fields to pack.
_HEADER = Struct("<6sIIIQQ")
_START = Struct("<2sBBH")
_COUNTERS = Struct("<QQQ")
_PLAIN_CREDIT = Struct("<6sIIIQQQQQ")
_NOTES_SIZE = Struct("<I")
_STARTS = {kind: _START.pack(MAGIC, VERSION, kind, 0) for kind in KIND_NAMES}
_KINDS = {start: kind for kind, start in _STARTS.items()}
_BATCH_START = _STARTS[BATCH]
HEADER_BYTES = _HEADER.size


class Frame(NamedTuple):
    """One parsed frame; ``body`` is a view into the received bytes, not a copy.

    A named tuple and not a frozen dataclass: it is built once a batch, five times cheaper.
    """

    kind: int
    epoch: int
    channel: int
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs here
    sequence: int
    sent_ns: int
    body: memoryview
    notes: memoryview | bytes = b""


def array_header_size(count: int) -> int:
    """Return how many bytes of a BATCH body precede its ``count`` payloads."""
    return 1 if count < 16 else 3 if count < 65536 else 5


def _array_header(count: int) -> bytes:
    if count < 16:
        return bytes((0x90 | count,))
    if count < 65536:
        return b"\xdc" + count.to_bytes(2, "big")
    return b"\xdd" + count.to_bytes(4, "big")


def pack_batch(
    channel: int, epoch: int, sequence: int, payloads: Sequence[bytes], sent_ns: int
) -> bytes:
    """Return a BATCH of encoded ``payloads`` (at least one), copied once."""
    count = len(payloads)
    header = _HEADER.pack(_BATCH_START, epoch, channel, count, sequence, sent_ns)
    return b"".join((header, _array_header(count), *payloads))


def pack_noted(
    channel: int,
    epoch: int,
    sequence: int,
    payloads: Sequence[bytes],
    sent_ns: int,
    notes: bytes,
) -> bytes:
    """Return a BATCH of ``payloads`` (none is fine) with packed ``notes`` (not empty)."""
    count = len(payloads)
    header = _HEADER.pack(_STARTS[NOTED], epoch, channel, count, sequence, sent_ns)
    size = _NOTES_SIZE.pack(len(notes))
    return b"".join((header, size, notes, _array_header(count), *payloads))


def pack_hello(channel: int, epoch: int, token: str) -> bytes:
    """Return the sender's first word on a channel; ``token`` proves it belongs to the run."""
    return _HEADER.pack(_STARTS[HELLO], epoch, channel, 0, 0, 0) + _text(token, HELLO)


def pack_end(channel: int, epoch: int, sequence: int, sent_ns: int) -> bytes:
    """Return the sender's last word; ``sequence`` is the number of messages it ever sent."""
    return _HEADER.pack(_STARTS[END], epoch, channel, 0, sequence, sent_ns)


def pack_ask(channel: int, epoch: int, sequence: int) -> bytes:
    """Return a sender's question how the receiver stands; ``sequence``: messages sent so far."""
    return _HEADER.pack(_STARTS[ASK], epoch, channel, 0, sequence, 0)


def pack_credit(
    channel: int,
    epoch: int,
    taken: int,
    taken_bytes: int,
    done: int,
    beyond: Sequence[int] = (),
) -> bytes:
    """Return a receiver's cumulative counters since the channel opened (zeros: a welcome).

    ``beyond``: numbers of messages that are done though an earlier one is not, at most
    `MAX_BEYOND`.
    """
    return _report(CREDIT, channel, epoch, taken, taken_bytes, done, beyond)


def pack_closed(
    channel: int,
    epoch: int,
    taken: int,
    taken_bytes: int,
    done: int,
    beyond: Sequence[int] = (),
) -> bytes:
    """Return the receiver's last counters: it takes no more."""
    return _report(CLOSED, channel, epoch, taken, taken_bytes, done, beyond)


def _report(
    kind: int,
    channel: int,
    epoch: int,
    taken: int,
    taken_bytes: int,
    done: int,
    beyond: Sequence[int],
) -> bytes:
    frame = _HEADER.pack(_STARTS[kind], epoch, channel, 0, 0, 0) + _COUNTERS.pack(
        taken, taken_bytes, done
    )
    if beyond:
        frame += Struct(f"<{len(beyond)}Q").pack(*beyond)
    return frame


def pack_refused(channel: int, epoch: int, reason: str) -> bytes:
    """Return a receiver's refusal to open the channel; a long ``reason`` is cut."""
    cut = reason.encode("utf-8", "replace")[:MAX_TEXT_BYTES].decode("utf-8", "ignore")
    return _HEADER.pack(_STARTS[REFUSED], epoch, channel, 0, 0, 0) + _text(cut, REFUSED)


def parse(data: bytes | memoryview) -> Frame:
    """Return the frame in ``data``; raises `ProtocolError` for anything malformed."""
    size = len(data)
    if size < HEADER_BYTES:
        raise ProtocolError(f"frame: expected at least {HEADER_BYTES} bytes, got {size}")
    start, epoch, channel, count, sequence, sent_ns = _HEADER.unpack_from(data)
    body = memoryview(data)[HEADER_BYTES:]
    if start == _BATCH_START:
        if not 0 < count <= size - HEADER_BYTES - array_header_size(count):
            raise ProtocolError(
                f"BATCH on channel {channel}: expected 1 or more payloads, each of 1 byte or "
                f"more, got count {count} and a body of {len(body)} bytes"
            )
        return Frame(BATCH, epoch, channel, count, sequence, sent_ns, body)
    if start == _STARTS[NOTED]:
        notes, body = _split_notes(channel, count, body)
        return Frame(BATCH, epoch, channel, count, sequence, sent_ns, body, notes)
    frame = Frame(_kind(start), epoch, channel, count, sequence, sent_ns, body)
    _check_small(frame)
    return frame


def parse_credit(frame: Frame) -> tuple[int, int, int]:
    """Return (taken, taken_bytes, done) of a CREDIT or CLOSED frame."""
    if frame.kind not in (CREDIT, CLOSED):
        raise ProtocolError(f"expected CREDIT or CLOSED, got {KIND_NAMES[frame.kind]}")
    taken, taken_bytes, done = _COUNTERS.unpack_from(frame.body)
    return taken, taken_bytes, done


def parse_plain_credit(data: bytes) -> tuple[int, int, int, int] | None:
    """Return (channel, taken, taken_bytes, done) of a CREDIT frame without numbers out of order.

    None for any other frame, and for what `parse` would refuse.
    """
    if len(data) != _PLAIN_CREDIT.size:
        return None
    start, _, channel, count, _, _, taken, taken_bytes, done = _PLAIN_CREDIT.unpack(data)
    if start != _STARTS[CREDIT] or count:
        return None
    return channel, taken, taken_bytes, done


def parse_beyond(frame: Frame) -> tuple[int, ...]:
    """Return the numbers of messages a CREDIT or CLOSED frame says are done out of order."""
    more = len(frame.body) - _COUNTERS.size
    return Struct(f"<{more // 8}Q").unpack_from(frame.body, _COUNTERS.size) if more > 0 else ()


def parse_text(frame: Frame) -> str:
    """Return the token of a HELLO or the reason of a REFUSED frame."""
    if frame.kind not in (HELLO, REFUSED):
        raise ProtocolError(f"expected HELLO or REFUSED, got {KIND_NAMES[frame.kind]}")
    try:
        return str(frame.body, "utf-8")
    except UnicodeDecodeError:
        raise ProtocolError(f"{KIND_NAMES[frame.kind]}: expected UTF-8 text") from None


def _text(text: str, kind: int) -> bytes:
    body = text.encode()
    if len(body) > MAX_TEXT_BYTES:
        raise ProtocolError(
            f"{KIND_NAMES[kind]}: expected at most {MAX_TEXT_BYTES} bytes, got {len(body)}"
        )
    return body


def _split_notes(channel: int, count: int, body: memoryview) -> tuple[memoryview, memoryview]:
    """Return the notes of a NOTED frame and the array of its payloads."""
    room = len(body) - _NOTES_SIZE.size - array_header_size(count) - count
    size = _NOTES_SIZE.unpack_from(body)[0] if room > 0 else 0
    if not 0 < size <= room:
        raise ProtocolError(
            f"NOTED on channel {channel}: expected notes of 1 to {max(room, 0)} bytes before "
            f"{count} payloads, got {size}"
        )
    start = _NOTES_SIZE.size
    return body[start : start + size], body[start + size :]


def _kind(start: bytes) -> int:
    kind = _KINDS.get(start)
    if kind is not None:
        return kind
    magic, version, got, flags = _START.unpack(start)
    if magic != MAGIC:
        raise ProtocolError(f"frame: expected magic {MAGIC!r}, got {magic!r}")
    if version != VERSION:
        raise ProtocolError(f"frame: expected version {VERSION}, got {version}")
    if got not in KIND_NAMES:
        raise ProtocolError(f"frame: expected a kind of 1 to {ASK}, got {got}")
    raise ProtocolError(f"{KIND_NAMES[got]} frame: expected no flags, got {flags:#06x}")


def _check_small(frame: Frame) -> None:
    """Everything but a BATCH: no payloads, and a body of the size its kind has."""
    name, size = KIND_NAMES[frame.kind], len(frame.body)
    if frame.count:
        raise ProtocolError(f"{name}: expected count 0, got {frame.count}")
    if frame.kind in (HELLO, REFUSED):
        if size > MAX_TEXT_BYTES:
            raise ProtocolError(f"{name}: expected at most {MAX_TEXT_BYTES} bytes, got {size}")
        parse_text(frame)
        return
    empty = frame.kind in (END, ASK)
    expected = 0 if empty else _COUNTERS.size
    if not empty and size > expected:  # numbers of messages done out of order
        expected += min((size - expected) // 8, MAX_BEYOND) * 8
    if size != expected:
        raise ProtocolError(f"{name}: expected a body of {expected} bytes, got {size}")
