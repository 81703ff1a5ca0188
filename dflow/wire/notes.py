"""What a batch says about its messages beside their payloads: order, age, where buffers are.

Notes are one msgpack map with small integer keys, in front of the payloads; a batch that has
none pays nothing for them. Unknown keys are refused, as are lists of the wrong length: a
receiver acts on what it reads here before it has decoded any payload. Whatever a peer writes, at
most eight lists are made of it, of no more numbers than there are bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack

from dflow.errors import ProtocolError
from dflow.wire.buffers import LARGE_BYTES, MAX_BUFFERS, Place
from dflow.wire.unpack import require_whole

__all__ = ["MAX_NOTES_BYTES", "NO_NOTES", "Notes", "pack_buffers", "pack_notes", "parse_notes"]

MAX_NOTES_BYTES = 1 << 22
"""Far above what a batch of 512 messages and the completions of one turn can need."""

MAX_NUMBER = 1 << 62
"""Largest number in notes, but for those of a place: who counts on does not leave 64 bits."""

_NUMBERS, _TAGS, _PLACES, _COMPLETED, _COUNTS, _AGES, _WITHDRAWN, _BUFFERS = range(1, 9)
_TRUSTED_BYTES = 2048
"""Notes up to this size can make no more than a few megabytes of lists, whatever they claim."""
_ROW = len(Place._fields)
_ONE_PLACE = bytes((0x81, _BUFFERS, 0x90 | _ROW))  # a map of one key, and a list
_SHORT_BYTES = 128  # nothing large can be made of these
_NUMBERS_ONLY = {"max_map_len": _BUFFERS, "max_str_len": 0, "max_bin_len": 0, "max_ext_len": 0}


@dataclass(frozen=True, slots=True)
class Notes:
    """Per message: ``numbers``, or ``tags`` with ``places``; and ``ages_ns``. Each may be empty.

    ``numbers``: which message of the edge it is, for an ordered node (`EdgePlan.numbered`).
    ``tags``: the number of the input it came from, ``places``: which of that input's results it
    is (`EdgePlan.tagged`). ``completed`` are inputs all of whose results have been sent,
    ``counts`` how many those were, on all channels together; neither is per message. They
    follow the messages of the batch. ``ages_ns``: how long it waited at the sender.
    ``withdrawn``: positions of messages that nobody is to see: their numbers were given away, so
    they are sent all the same. ``buffers``: `Place` after `Place` of what lies beside the one
    message, in shared memory.
    """

    numbers: Sequence[int] = ()
    tags: Sequence[int] = ()
    places: Sequence[int] = ()
    completed: Sequence[int] = ()
    counts: Sequence[int] = ()
    ages_ns: Sequence[int] = ()
    withdrawn: Sequence[int] = ()
    buffers: Sequence[int] = ()

    def __bool__(self) -> bool:
        return bool(
            self.numbers
            or self.tags
            or self.completed
            or self.ages_ns
            or self.withdrawn
            or self.buffers
        )

    @property
    def buffer_bytes(self) -> int:
        """How much the buffers hold."""
        return sum(self.buffers[_ROW - 1 :: _ROW])

    def buffer_places(self) -> list[Place]:
        """Return where the buffers are."""
        flat = self.buffers
        return [Place(*flat[at : at + _ROW]) for at in range(0, len(flat), _ROW)]


NO_NOTES = Notes()


def pack_notes(notes: Notes) -> bytes:
    """Return the bytes of ``notes``; empty if there is nothing to say."""
    if not notes:
        return b""
    said: dict[int, Sequence[int]] = {
        _NUMBERS: notes.numbers,
        _TAGS: notes.tags,
        _PLACES: notes.places,
        _COMPLETED: notes.completed,
        _COUNTS: notes.counts,
        _AGES: notes.ages_ns,
        _WITHDRAWN: notes.withdrawn,
        _BUFFERS: notes.buffers,
    }
    packed: bytes = msgpack.packb({key: list(value) for key, value in said.items() if value})
    return packed


def pack_buffers(flat: Sequence[int]) -> bytes:
    """Do as `pack_notes` with notes that only say where buffers are."""
    packed: bytes = msgpack.packb({_BUFFERS: flat})
    return packed


def parse_notes(data: bytes | memoryview, messages: int) -> Notes:
    """Return the notes in ``data`` about ``messages`` messages; raises `ProtocolError`."""
    if not len(data):
        return NO_NOTES
    if messages == 1 and len(data) <= _SHORT_BYTES and data[:3] == _ONE_PLACE:
        notes = _parse_place(data)
        if notes is not None:
            return notes
    if len(data) > MAX_NOTES_BYTES:
        raise ProtocolError(f"notes: expected at most {MAX_NOTES_BYTES} bytes, got {len(data)}")
    try:
        if len(data) > _TRUSTED_BYTES:
            require_whole(data)
        said: dict[int, list[int]] = msgpack.unpackb(
            data,
            strict_map_key=False,
            list_hook=_at_most(_BUFFERS),
            object_hook=_at_most(1),
            **_NUMBERS_ONLY,
        )
        good = _are_notes(said)
    except Exception as error:  # noqa: BLE001  # msgpack raises many types
        raise ProtocolError(f"notes: malformed ({type(error).__name__})") from None
    if not good:
        raise ProtocolError("notes: expected lists of whole numbers under known keys")
    notes = Notes(*(said.get(key, ()) for key in range(_NUMBERS, _BUFFERS + 1)))
    for per_message in (notes.numbers, notes.tags, notes.places, notes.ages_ns):
        if per_message and len(per_message) != messages:
            raise ProtocolError(
                f"notes: expected {messages} entries, one for each message, got {len(per_message)}"
            )
    if len(notes.tags) != len(notes.places) or len(notes.completed) != len(notes.counts):
        raise ProtocolError("notes: expected a place for each tag and a count for each completion")
    if notes.withdrawn and max(notes.withdrawn) >= messages:
        raise ProtocolError(f"notes: expected positions below {messages}, got {notes.withdrawn}")
    if notes.buffers:
        _check_buffers(notes.buffers, messages)
    return notes


def _parse_place(data: bytes | memoryview) -> Notes | None:
    """Return notes that only say where one buffer is, or None if that is not all they are."""
    try:
        flat = msgpack.unpackb(data[2:])
    except Exception:  # noqa: BLE001  # msgpack raises many types; judged by who calls
        return None
    if len(flat) != _ROW or not _are_numbers(flat) or flat[-1] < LARGE_BYTES:
        return None
    return Notes(buffers=flat)


def _check_buffers(flat: Sequence[int], messages: int) -> None:
    if messages != 1 or len(flat) % _ROW or len(flat) > MAX_BUFFERS * _ROW:
        raise ProtocolError(
            f"notes: expected the places of up to {MAX_BUFFERS} buffers of one message, got "
            f"{len(flat)} numbers for {messages}"
        )
    if min(flat[_ROW - 1 :: _ROW]) < LARGE_BYTES:
        raise ProtocolError(f"notes: expected buffers of at least {LARGE_BYTES} bytes")


def _at_most(count: int) -> Callable[[Any], Any]:
    """Return a hook for so many lists or maps: a byte is enough for one, which takes 64."""
    left = count

    def hook(made: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise ProtocolError(f"notes: expected at most {count}")
        return made

    return hook


def _are_notes(said: Any) -> bool:
    return (
        type(said) is dict
        and all(type(key) is int and _NUMBERS <= key <= _BUFFERS for key in said)
        and all(type(value) is list and _are_numbers(value) for value in said.values())
        and all(max(v, default=0) <= MAX_NUMBER for key, v in said.items() if key != _BUFFERS)
    )


def _are_numbers(values: list[Any]) -> bool:
    return not values or (set(map(type, values)) == {int} and min(values) >= 0)
