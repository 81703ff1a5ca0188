"""Any notes arrive as they were; any bytes are notes or a `ProtocolError`."""

from __future__ import annotations

import contextlib

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dflow.errors import ProtocolError
from dflow.wire.buffers import LARGE_BYTES
from dflow.wire.notes import MAX_NUMBER, NO_NOTES, Notes, pack_notes, parse_notes

NUMBERS = st.integers(0, MAX_NUMBER)
PLACES = st.tuples(*[st.integers(0, 2**64 - 1)] * 8, st.integers(LARGE_BYTES, 2**64 - 1))


def flat(places: list[tuple[int, ...]]) -> list[int]:
    return [number for place in places for number in place]


@st.composite
def noted(draw: st.DrawFn) -> tuple[Notes, int]:
    """Return notes as a sender may write them, and of how many messages they speak."""
    messages, completions = draw(st.integers(0, 20)), draw(st.integers(0, 5))

    def numbers(length: int, wanted: bool = True) -> list[int]:
        return draw(st.lists(NUMBERS, min_size=length, max_size=length)) if wanted else []

    tagged = draw(st.booleans())
    return Notes(
        numbers(messages, draw(st.booleans())),
        numbers(messages, tagged),
        numbers(messages, tagged),
        numbers(completions),
        numbers(completions),
        numbers(messages, draw(st.booleans())),
        draw(st.lists(st.sampled_from(range(messages)))) if messages else [],
        draw(st.lists(PLACES, max_size=3).map(flat)) if messages == 1 else [],
    ), messages


@given(noted())
def test_notes_are_read_as_they_were_written(case: tuple[Notes, int]) -> None:
    notes, messages = case
    read = parse_notes(memoryview(pack_notes(notes)), messages)
    assert [list(getattr(read, name)) for name in Notes.__slots__] == [
        list(getattr(notes, name)) for name in Notes.__slots__
    ]


@given(noted(), st.integers(0, 30))
def test_notes_about_another_number_of_messages_are_refused(
    case: tuple[Notes, int], claimed: int
) -> None:
    notes, messages = case
    if claimed == messages or not (notes.numbers or notes.tags or notes.ages_ns or notes.buffers):
        return
    with pytest.raises(ProtocolError, match=f"expected ({claimed} entries|positions|the places)"):
        parse_notes(pack_notes(notes), claimed)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.integers(0, 8) | st.text(), inner),
)


@given(st.binary() | PLAIN.map(msgpack.packb), st.integers(0, 5))
@example(b"\x81\x01\xdd\xff\xff\xff\xff", 1)  # a list that claims 4 billion numbers
@example(b"\xdf\xff\xff\xff\xff\x01\x90", 0)
@example(b"\x81\x01" + b"\x91" * 2000 + b"\x01", 1)  # deeper than the unpacker goes
@example(b"\x81\x01\x91\xc3", 1)  # True is no number
@example(b"\x81\x01\x91\xff", 1)
@example(b"\x81\x01\x91\x01\x00", 1)  # a byte too many
def test_any_bytes_are_notes_or_a_protocol_error(data: bytes, messages: int) -> None:
    with contextlib.suppress(ProtocolError):
        notes = parse_notes(data, messages)
        assert all(type(n) is int and n >= 0 for n in (*notes.numbers, *notes.tags))
        assert len(notes.numbers) in (0, messages)
        assert len(notes.tags) == len(notes.places) in (0, messages)
        assert len(notes.completed) == len(notes.counts)
        assert len(notes.ages_ns) in (0, messages)
        assert all(position < messages for position in notes.withdrawn)


def test_nothing_said_is_no_bytes() -> None:
    assert pack_notes(NO_NOTES) == b""
    assert parse_notes(b"", 7) is NO_NOTES
    assert not NO_NOTES
