"""Data frames: golden bytes, and everything malformed is a `ProtocolError`."""

from __future__ import annotations

import struct
from collections.abc import Callable

import msgpack
import pytest

from dflow.errors import ProtocolError
from dflow.wire import frames
from dflow.wire.notes import Notes, pack_notes, parse_notes

# Bytes of version 1, written down by hand: a change here is a change of the protocol.
GOLDEN = {
    "hello": "6466 01 01 0000 02000000 05000000 00000000 0000000000000000 0000000000000000"
    " 746f6b656e",
    "batch": "6466 01 02 0000 02000000 05000000 02000000 0700000000000000 1581e97df4102211"
    " 92 01 a161",
    "end": "6466 01 03 0000 02000000 05000000 00000000 0900000000000000 1581e97df4102211",
    "credit": "6466 01 04 0000 02000000 05000000 00000000 0000000000000000 0000000000000000"
    " 0300000000000000 0001000000000000 0200000000000000",
    "closed": "6466 01 05 0000 02000000 05000000 00000000 0000000000000000 0000000000000000"
    " 0300000000000000 0001000000000000 0200000000000000",
    "ask": "6466 01 08 0000 02000000 05000000 00000000 0900000000000000 0000000000000000",
    "refused": "6466 01 06 0000 02000000 05000000 00000000 0000000000000000 0000000000000000 6e6f",
    "noted": "6466 01 07 0000 02000000 05000000 02000000 0700000000000000 1581e97df4102211"
    " 05000000 81 01 92 03 04 92 01 a161",
    "notes alone": "6466 01 07 0000 02000000 05000000 00000000 0700000000000000 1581e97df4102211"
    " 07000000 82 04 91 09 05 91 02 90",
}
SENT_NS = 1234567890123456789
PACKED = {
    "hello": frames.pack_hello(5, 2, "token"),
    "batch": frames.pack_batch(5, 2, 7, [b"\x01", b"\xa1a"], SENT_NS),
    "end": frames.pack_end(5, 2, 9, SENT_NS),
    "ask": frames.pack_ask(5, 2, 9),
    "credit": frames.pack_credit(5, 2, 3, 256, 2),
    "closed": frames.pack_closed(5, 2, 3, 256, 2),
    "refused": frames.pack_refused(5, 2, "no"),
    "noted": frames.pack_noted(
        5, 2, 7, [b"\x01", b"\xa1a"], SENT_NS, pack_notes(Notes(numbers=[3, 4]))
    ),
    "notes alone": frames.pack_noted(
        5, 2, 7, [], SENT_NS, pack_notes(Notes(completed=[9], counts=[2]))
    ),
}
KINDS = {
    "hello": frames.HELLO,
    "batch": frames.BATCH,
    "end": frames.END,
    "ask": frames.ASK,
    "credit": frames.CREDIT,
    "closed": frames.CLOSED,
    "refused": frames.REFUSED,
    "noted": frames.BATCH,  # parsed as what it is, with notes
    "notes alone": frames.BATCH,
}


@pytest.mark.parametrize("name", GOLDEN)
def test_every_kind_has_the_bytes_of_version_1(name: str) -> None:
    assert PACKED[name] == bytes.fromhex(GOLDEN[name])


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_bytes_are_parsed(name: str) -> None:
    frame = frames.parse(bytes.fromhex(GOLDEN[name]))
    assert (frame.kind, frame.epoch, frame.channel) == (KINDS[name], 2, 5)
    assert frames.parse(memoryview(PACKED[name])) == frame


def test_a_batch_is_parsed_without_copying_its_payloads() -> None:
    frame = frames.parse(PACKED["batch"])
    assert (frame.count, frame.sequence, frame.sent_ns) == (2, 7, SENT_NS)
    assert msgpack.unpackb(frame.body) == [1, "a"]
    assert frame.body.obj is PACKED["batch"]


def test_a_batch_with_notes_is_a_batch_that_says_more() -> None:
    noted, plain = frames.parse(PACKED["noted"]), frames.parse(PACKED["batch"])
    assert noted._replace(notes=b"") == plain
    assert parse_notes(noted.notes, noted.count) == Notes(numbers=[3, 4])
    assert plain.notes == b""


def test_notes_travel_without_messages_too() -> None:
    frame = frames.parse(PACKED["notes alone"])
    assert (frame.count, frame.sequence, bytes(frame.body)) == (0, 7, b"\x90")
    assert parse_notes(frame.notes, frame.count) == Notes(completed=[9], counts=[2])


def test_text_and_counters_are_read_back() -> None:
    assert frames.parse_text(frames.parse(PACKED["hello"])) == "token"
    assert frames.parse_text(frames.parse(PACKED["refused"])) == "no"
    assert frames.parse_credit(frames.parse(PACKED["credit"])) == (3, 256, 2)
    assert frames.parse_credit(frames.parse(PACKED["closed"])) == (3, 256, 2)
    end = frames.parse(PACKED["end"])
    assert (end.sequence, end.sent_ns, len(end.body)) == (9, SENT_NS, 0)


def test_a_plain_report_is_read_at_once_and_all_else_is_left_to_parse() -> None:
    report = frames.pack_credit(3, 1, 10, 1 << 40, 9)
    assert frames.parse_plain_credit(report) == (3, 10, 1 << 40, 9)
    others = [
        frames.pack_closed(3, 1, 10, 400, 9),
        frames.pack_credit(3, 1, 10, 400, 9, [12]),
        frames.pack_hello(3, 1, "t" * 24),
        report[:-1],
        b"xy" + report[2:],
        report[:14] + b"\1" + report[15:],  # a count
        b"",
    ]
    assert [frames.parse_plain_credit(data) for data in others] == [None] * len(others)


def test_a_welcome_is_a_credit_of_zeros() -> None:
    assert frames.parse_credit(frames.parse(frames.pack_credit(1, 1, 0, 0, 0))) == (0, 0, 0)


@pytest.mark.parametrize("pack", [frames.pack_credit, frames.pack_closed])
def test_a_report_names_what_was_done_out_of_order(pack: Callable[..., bytes]) -> None:
    frame = frames.parse(pack(1, 1, 7, 70, 4, (9, 6, 2**40)))
    assert frames.parse_credit(frame) == (7, 70, 4)
    assert frames.parse_beyond(frame) == (9, 6, 2**40)
    assert frames.parse_beyond(frames.parse(PACKED["credit"])) == ()


def test_a_report_of_too_much_out_of_order_is_refused() -> None:
    most = range(frames.MAX_BEYOND)
    assert len(frames.parse_beyond(frames.parse(frames.pack_credit(1, 1, 0, 0, 0, most)))) == 4096
    with pytest.raises(ProtocolError, match="CREDIT: expected a body of"):
        frames.parse(frames.pack_credit(1, 1, 0, 0, 0, range(frames.MAX_BEYOND + 1)))


@pytest.mark.parametrize("count", [1, 15, 16, 65535, 65536])
def test_a_body_is_an_array_header_and_the_payloads(count: int) -> None:
    payloads = [b"\x05"] * count
    frame = frames.parse(frames.pack_batch(1, 1, 0, payloads, 0))
    assert msgpack.unpackb(frame.body) == [5] * count
    assert len(frame.body) - frames.array_header_size(count) == count


def _header(
    magic: bytes = b"df", version: int = 1, kind: int = frames.BATCH, flags: int = 0, count: int = 1
) -> bytes:
    return struct.pack("<2sBBHIIIQQ", magic, version, kind, flags, 1, 1, count, 0, 0)


def _noted(size: int, rest: bytes, count: int = 1) -> bytes:
    return _header(kind=frames.NOTED, count=count) + struct.pack("<I", size) + rest


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "at least 34 bytes, got 0"),
        (PACKED["end"][:-1], "at least 34 bytes, got 33"),
        (_header(magic=b"DF") + b"\x91\x01", "expected magic"),
        (_header(version=2) + b"\x91\x01", "expected version 1, got 2"),
        (_header(kind=0) + b"\x91\x01", "expected a kind of 1 to 8, got 0"),
        (_header(kind=9) + b"\x91\x01", "expected a kind of 1 to 8, got 9"),
        (_header(flags=1) + b"\x91\x01", "BATCH frame: expected no flags, got 0x0001"),
        (_header(flags=0x8000) + b"\x91\x01", "expected no flags, got 0x8000"),
        (_header(count=0) + b"\x90", "1 or more payloads"),
        (_header(count=1), "got count 1 and a body of 0 bytes"),
        (_header(count=1) + b"\x91", "got count 1 and a body of 1 bytes"),
        (_header(count=2**32 - 1) + b"\x91\x01", "got count 4294967295"),
        (PACKED["end"] + b"x", "END: expected a body of 0 bytes, got 1"),
        (_header(kind=frames.END), "END: expected count 0, got 1"),
        (PACKED["credit"][:-1], "CREDIT: expected a body of 24 bytes, got 23"),
        (PACKED["closed"] + b"x", "CLOSED: expected a body of 24 bytes, got 25"),
        (_header(kind=frames.HELLO, count=0) + b"\xff", "HELLO: expected UTF-8"),
        (_header(kind=frames.HELLO, count=0) + b"x" * 4097, "at most 4096 bytes, got 4097"),
        (_header(kind=frames.REFUSED, count=0) + b"\xc3", "REFUSED: expected UTF-8"),
        (_header(kind=frames.NOTED), "NOTED on channel 1: expected notes of 1 to 0 bytes"),
        (_noted(0, b"\x91\x01"), "expected notes of 1 to 0 bytes before 1 payloads, got 0"),
        (_noted(0, b"\x80\x91\x01"), "expected notes of 1 to 1 bytes before 1 payloads, got 0"),
        (_noted(2, b"\x80\x91\x01"), "expected notes of 1 to 1 bytes before 1 payloads, got 2"),
        (_noted(2**32 - 1, b"\x80\x91\x01"), "before 1 payloads, got 4294967295"),
        (_noted(1, b"\x80\x91\x01", count=2**32 - 1), "before 4294967295 payloads, got 0"),
        (_noted(1, b"\x80", count=0), "expected notes of 1 to 0 bytes before 0 payloads"),
    ],
)
def test_a_malformed_frame_is_a_protocol_error_that_says_why(data: bytes, says: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        frames.parse(data)
    assert says in str(caught.value)


def test_a_token_that_is_too_long_is_refused_by_its_sender() -> None:
    with pytest.raises(ProtocolError, match="HELLO: expected at most 4096 bytes, got 4097"):
        frames.pack_hello(1, 1, "x" * 4097)


def test_a_long_reason_is_cut_between_characters() -> None:
    frame = frames.parse(frames.pack_refused(1, 1, "x" + "é" * 4096))
    assert len(frame.body) == 4095
    assert frames.parse_text(frame) == "x" + "é" * 2047


def test_a_reason_with_lone_surrogates_still_goes_out() -> None:
    assert frames.parse_text(frames.parse(frames.pack_refused(1, 1, "\udc80!"))) == "?!"


def test_readers_of_a_body_refuse_other_kinds() -> None:
    with pytest.raises(ProtocolError, match="expected CREDIT or CLOSED, got BATCH"):
        frames.parse_credit(frames.parse(PACKED["batch"]))
    with pytest.raises(ProtocolError, match="expected HELLO or REFUSED, got END"):
        frames.parse_text(frames.parse(PACKED["end"]))
