"""A channel at its receiver: every (state, frame) pair, and illegal ones change nothing.

Its states are named here: they are what has arrived and what was taken. Each is reached by the
ordinary way.
"""

from __future__ import annotations

from typing import Any

import pytest

from dflow.errors import ProtocolError
from dflow.flow.in_edge import InChannel, Unwanted
from dflow.flow.order import Merge
from dflow.message import Priority
from dflow.wire import frames as f
from dflow.wire.notes import NO_NOTES, Notes, pack_notes

EPOCH, CAPACITY = 2, 2
ONE = b"\x01"


def batch(first: int, count: int = 1, epoch: int = EPOCH, notes: Notes = NO_NOTES) -> f.Frame:
    if notes:
        return f.parse(f.pack_noted(7, epoch, first, [ONE] * count, 5, pack_notes(notes)))
    return f.parse(f.pack_batch(7, epoch, first, [ONE] * count, 5))


def end(after: int, epoch: int = EPOCH) -> f.Frame:
    return f.parse(f.pack_end(7, epoch, after, 5))


STATES = ["open", "one waits", "full", "taken", "done", "ended, one waits", "ended"]
EVENTS: dict[str, Any] = {
    "the first": lambda ch: ch.accept(batch(0)),
    "the second": lambda ch: ch.accept(batch(1)),
    "two more": lambda ch: ch.accept(batch(ch.window.received, 2)),
    "one that was here": lambda ch: ch.accept(batch(max(0, ch.window.received - 1) + 5)),
    "of another epoch": lambda ch: ch.accept(batch(ch.window.received, epoch=EPOCH + 1)),
    "with numbers": lambda ch: ch.accept(batch(ch.window.received, notes=Notes(numbers=[5]))),
    "with tags": lambda ch: ch.accept(batch(ch.window.received, notes=Notes((), [5], [0]))),
    "with ages": lambda ch: ch.accept(batch(ch.window.received, notes=Notes(ages_ns=[5]))),
    "END": lambda ch: ch.accept_end(end(ch.window.received)),
    "END too soon": lambda ch: ch.accept_end(end(ch.window.received + 1)),
    "END of another epoch": lambda ch: ch.accept_end(end(ch.window.received, EPOCH - 1)),
}
# after each event: received, in the inbox, whether ended; "=": nothing has changed; "!": refused
AFTER = {
    "open": "1-1 ! 2-2 ! ! ! ! ! 0-0e ! !",
    "one waits": "! 2-2 ! ! ! ! ! ! 1-1e ! !",
    "full": "! ! ! ! ! ! ! ! 2-2e ! !",
    "taken": "! 2-1 3-2 ! ! ! ! ! 1-0e ! !",
    "done": "! 2-1 3-2 ! ! ! ! ! 1-0e ! !",
    "ended, one waits": "! ! ! ! ! ! ! ! = ! !",  # a sender that hears nothing says it again
    "ended": "! ! ! ! ! ! ! ! = ! !",
}


def channel(**kind: Any) -> InChannel:
    return InChannel(7, "a.out->b.in", "in", Priority.NORMAL, CAPACITY, 1 << 20, EPOCH, **kind)


def at(state: str) -> InChannel:
    made = channel()
    if state in ("one waits", "full", "ended, one waits", "taken", "done"):
        made.accept(batch(0))
    if state == "full":
        made.accept(batch(1))
    if state in ("taken", "done"):
        made.take(1)
    if state == "done":
        made.finish(1)
    if state.startswith("ended"):
        made.accept_end(end(made.window.received))
    return made


def all_of(made: InChannel) -> dict[str, str]:
    """Return everything a channel remembers."""
    window = made.window
    found = {f"window.{name}": repr(getattr(window, name)) for name in type(window).__slots__}
    for name in InChannel.__slots__:
        if name not in ("window", "siblings", "merge"):
            found[name] = repr(getattr(made, name))
    if made.merge is not None:
        lines = [
            [line.waiting, line.last, line.completed, line.ended] for line in made.merge._lines
        ]
        found["merge"] = repr([made.merge.expected, made.merge.held, lines])
    return found


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("event", EVENTS)
def test_every_frame_at_every_state(state: str, event: str) -> None:
    made, expected = at(state), AFTER[state].split()[[*EVENTS].index(event)]
    before = all_of(made)
    if expected == "!":
        with pytest.raises(ProtocolError):
            EVENTS[event](made)
        assert all_of(made) == before
        return
    EVENTS[event](made)
    if expected == "=":
        assert all_of(made) == before
        return
    ended = "e" if made.end_at is not None else ""
    assert f"{made.window.received}-{made.depth}{ended}" == expected
    assert made.exhausted == (made.end_at is not None and not made.depth)


NOTES: dict[str, Notes] = {
    "the next number": Notes(numbers=[4]),
    "a later number": Notes(numbers=[9]),
    "a number again": Notes(numbers=[3]),
    "withdrawn": Notes(numbers=[4], withdrawn=[0]),
    "the next result": Notes(tags=[4], places=[0]),
    "another result of the same": Notes(tags=[3], places=[1]),
    "a result again": Notes(tags=[3], places=[0]),
    "a result and its completion": Notes((), [4], [0], [4], [1]),
    "a completion again": Notes((), [4], [0], [2], [1]),
    "an age": Notes(ages_ns=[10]),
    "a place in shared memory": Notes(buffers=(1, 2, 3, 4, 5, 6, 7, 8, 70_000)),
    "nothing": NO_NOTES,
}
LEGAL = {
    "plain": {"nothing"},
    "numbered": {"the next number", "a later number", "withdrawn"},
    "tagged": {"the next result", "another result of the same", "a result and its completion",
               "nothing"},
    "dated": {"an age", "nothing"},
    "shared": {"a place in shared memory", "nothing"},
}  # fmt: skip


def kind_of(kind: str) -> InChannel:
    made = channel(numbered=kind == "numbered", ttl_s=1.0 if kind == "dated" else None)
    made.shares = kind == "shared"
    first = NO_NOTES
    if kind == "tagged":
        made.join(Merge("a.out->b.in", 1), (made,))
        first = Notes((), [3], [0], [2], [0])
    if kind == "numbered":
        first = Notes(numbers=[3])
    made.accept(batch(0, notes=first))
    return made


@pytest.mark.parametrize("kind", LEGAL)
@pytest.mark.parametrize("notes", NOTES)
def test_every_kind_of_notes_on_every_kind_of_channel(kind: str, notes: str) -> None:
    made = kind_of(kind)
    before = all_of(made)
    frame = batch(1, notes=NOTES[notes])
    if notes in LEGAL[kind]:
        made.accept(frame)
        assert made.window.received == 2
        return
    with pytest.raises(ProtocolError):
        made.accept(frame)
    assert all_of(made) == before


@pytest.mark.parametrize("why", list(Unwanted))
def test_what_is_passed_over_is_counted_by_its_reason_and_is_done(why: Unwanted) -> None:
    made = at("full")
    made.cancel(0)
    made.pass_over(why, 1)
    counts = (made.expired, made.withdrawn, made.superseded)
    expected = {Unwanted.EXPIRED: (1, 0, 0), Unwanted.CANCELLED: (0, 1, 0),
                Unwanted.SUPERSEDED: (0, 0, 1), Unwanted.LOST: (0, 0, 0)}  # fmt: skip
    assert counts == expected[why]
    assert (made.window.taken, made.window.done, made.depth) == (1, 1, 1)
    assert (0 in made.cancelled) == (why is not Unwanted.CANCELLED)
