"""Notes: golden bytes, and what is wrong with malformed ones is said."""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgpack
import pytest

from dflow.errors import ProtocolError
from dflow.wire.notes import MAX_NOTES_BYTES, Notes, pack_notes, parse_notes


def test_notes_are_a_map_of_what_is_said() -> None:
    assert pack_notes(Notes(numbers=range(3))) == bytes.fromhex("81 01 93 00 01 02")
    everything = Notes([1], [2], [3], [4, 5], [6, 7], [8])
    assert pack_notes(everything) == bytes.fromhex(
        "86 01 91 01 02 91 02 03 91 03 04 92 04 05 05 92 06 07 06 91 08"
    )
    assert parse_notes(pack_notes(everything), 1) == everything


def test_completions_need_no_messages() -> None:
    notes = parse_notes(pack_notes(Notes(completed=[7, 9], counts=[0, 3])), 0)
    assert (notes.completed, notes.counts, notes.tags) == ([7, 9], [0, 3], ())
    assert notes


@pytest.mark.parametrize(
    ("said", "messages", "says"),
    [
        ({1: [1, 2]}, 1, "expected 1 entries, one for each message, got 2"),
        ({6: [1]}, 2, "expected 2 entries, one for each message, got 1"),
        ({2: [1]}, 1, "a place for each tag"),
        ({3: [1]}, 1, "a place for each tag"),
        ({4: [1]}, 0, "a count for each completion"),
        ({4: [1], 5: [1, 2]}, 0, "a count for each completion"),
        ({9: [1]}, 1, "whole numbers under known keys"),
        ({0: [1]}, 1, "whole numbers under known keys"),
        ({True: [1]}, 1, "whole numbers under known keys"),
        ({1: [-1]}, 1, "whole numbers under known keys"),
        ({1: [True]}, 1, "whole numbers under known keys"),
        ({1: [1.0]}, 1, "whole numbers under known keys"),
        ({1: [[1]]}, 1, "whole numbers under known keys"),
        ({8: [1] * 8}, 1, "buffers of one message"),
        ({8: [1 << 20] * 9}, 2, "buffers of one message"),
        ({8: [1] * 9}, 1, "at least 65536 bytes"),
        ({8: [1] * 9 * ((1 << 14) + 1)}, 1, "up to 16384 buffers"),
        ({1: 5}, 1, "whole numbers under known keys"),
        ([1, 2], 2, "whole numbers under known keys"),
        (5, 1, "whole numbers under known keys"),
        ({1: ["x"]}, 1, "malformed"),
        ({1: [b"x"]}, 1, "malformed"),
        ({"1": [1]}, 1, "malformed"),
        ({1: [msgpack.ExtType(3, b"x")]}, 1, "malformed"),
        ({7: [1]}, 1, "positions below 1"),
        ({7: [0]}, 0, "positions below 0"),
        ({1: [[]] * 8}, 7, "malformed"),
        ({number: [] for number in range(9)}, 0, "malformed"),
    ],
)
def test_malformed_notes_are_a_protocol_error_that_says_why(
    said: Any, messages: int, says: str
) -> None:
    with pytest.raises(ProtocolError, match="notes: ") as caught:
        parse_notes(msgpack.packb(said), messages)
    assert says in str(caught.value)


@pytest.mark.parametrize("data", [b"\x81\x01\x92\x01", b"\x81\x01\x91\x01\x00", b"\xc1"])
def test_notes_cut_short_or_followed_by_more_are_malformed(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="notes: malformed"):
        parse_notes(data, 1)


def test_notes_larger_than_any_sender_writes_are_refused_unread() -> None:
    with pytest.raises(ProtocolError, match=f"at most {MAX_NOTES_BYTES} bytes"):
        parse_notes(bytes(MAX_NOTES_BYTES + 1), 1)


FILL = 100_000
ARRAY = b"\xdd" + FILL.to_bytes(4, "big")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x81\x01" + ARRAY + b"\x90" * FILL, id="empty lists"),
        pytest.param(b"\x81\x01" + ARRAY + b"\x80" * FILL, id="empty maps"),
        pytest.param(b"\x81\x01" + ARRAY + b"\x01" * FILL, id="numbers of too many messages"),
        pytest.param(b"\xdf" + ARRAY[1:] + b"\x01\x90" * FILL, id="a long map"),
        pytest.param(b"\x81\x01" * FILL + b"\x01", id="deep"),
        pytest.param(b"\x81\x01\xdd\x7f\xff\xff\xff" + b"\x01" * FILL, id="a lie"),
    ],
)
def test_refusing_bad_notes_takes_little_memory(data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            parse_notes(data, 1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10 * len(data)


@pytest.mark.parametrize("key", [1, 4, 6])
def test_numbers_one_could_not_count_on_from_are_refused(key: int) -> None:
    said = {key: [2**62 + 1]} | ({5: [0]} if key == 4 else {})
    with pytest.raises(ProtocolError, match="lists of whole numbers"):
        parse_notes(msgpack.packb(said), 1)
