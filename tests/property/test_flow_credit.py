"""Credit: every (state, event) pair of both windows, and any reports in any order against a model.

A window's states are not enumerated in the code (counters are states enough), so they are named
here: what a sender may be told at each of them, and what that does.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dflow.errors import ProtocolError
from dflow.flow.credit import ReceiveWindow, SendWindow

CAPACITY, MAX_BYTES = 4, 100

SENDERS: dict[str, tuple[int, int, int, int, int]] = {
    # sent, sent_bytes, taken, taken_bytes, done
    "new": (0, 0, 0, 0, 0),
    "some under way": (3, 30, 1, 10, 0),
    "full": (4, 40, 0, 0, 0),
    "full by bytes": (2, 100, 1, 20, 1),
    "overdrawn by one large message": (1, 500, 0, 0, 0),
    "settled": (3, 30, 3, 30, 3),
}
REPORTS: dict[str, tuple[int, int, int]] = {
    "nothing": (0, 0, 0),
    "one taken": (1, 10, 0),
    "one done": (1, 10, 1),
    "three taken, of 30 bytes": (3, 30, 2),
    "more messages than were sent": (5, 0, 0),
    "more bytes than were sent": (0, 501, 0),
    "done, but not taken": (0, 0, 1),
}
# for each state: after each report (taken, taken_bytes, done, whether credit came back), or "!"
HEARD: dict[str, list[tuple[int, int, int, bool] | str]] = {
    "new": [(0, 0, 0, False), "!", "!", "!", "!", "!", "!"],
    "some under way": [
        (1, 10, 0, False), (1, 10, 0, False), (1, 10, 1, False), (3, 30, 2, True), "!", "!", "!",
    ],
    "full": [(0, 0, 0, False), (1, 10, 0, True), (1, 10, 1, True), (3, 30, 2, True), "!", "!", "!"],
    "full by bytes": [
        (1, 20, 1, False), (1, 20, 1, False), (1, 20, 1, False), "!", "!", "!", "!",
    ],
    "overdrawn by one large message": [
        (0, 0, 0, False), (1, 10, 0, True), (1, 10, 1, True), "!", "!", "!", "!",
    ],
    "settled": [
        (3, 30, 3, False), (3, 30, 3, False), (3, 30, 3, False), (3, 30, 3, False), "!", "!", "!",
    ],
}  # fmt: skip


def sender(state: str) -> SendWindow:
    window = SendWindow(CAPACITY, MAX_BYTES)
    window.sent, window.sent_bytes, window.taken, window.taken_bytes, window.done = SENDERS[state]
    return window


def all_of(window: Any) -> dict[str, Any]:
    """Return everything a window remembers."""
    return {name: repr(getattr(window, name)) for name in type(window).__slots__}


@pytest.mark.parametrize("state", SENDERS)
@pytest.mark.parametrize("report", REPORTS)
def test_every_report_at_every_state_of_a_sender(state: str, report: str) -> None:
    window, expected = sender(state), HEARD[state][[*REPORTS].index(report)]
    before = all_of(window)
    if isinstance(expected, str):
        with pytest.raises(ProtocolError, match="credit report: expected taken <="):
            window.report(*REPORTS[report])
        assert all_of(window) == before
        return
    gained = window.report(*REPORTS[report])
    assert (window.taken, window.taken_bytes, window.done, gained) == expected
    assert (window.sent, window.sent_bytes) == SENDERS[state][:2]


@pytest.mark.parametrize(
    ("state", "room", "room_bytes", "idle"),
    [
        ("new", 4, 100, True),
        ("some under way", 2, 80, False),
        ("full", 0, 60, False),
        ("full by bytes", 3, 20, False),
        ("overdrawn by one large message", 3, -400, False),
        ("settled", 4, 100, True),
    ],
)
def test_what_a_sender_may_send_at_every_state(
    state: str, room: int, room_bytes: int, idle: bool
) -> None:
    window = sender(state)
    assert (window.room, window.room_bytes, window.idle) == (room, room_bytes, idle)


RECEIVERS: dict[str, dict[str, int]] = {
    "new": {},
    "some wait": {"received": 3, "received_bytes": 60, "taken": 1, "taken_bytes": 20},
    "full": {"received": 4, "received_bytes": 40},
    "full, one lent": {"received": 4, "received_bytes": 40, "lent": 1},
    "one larger than the window": {"received": 1, "received_bytes": 300},
    "all taken": {"received": 3, "received_bytes": 30, "taken": 3, "taken_bytes": 30},
}
BATCHES: dict[str, tuple[int, int, int]] = {
    # beyond what was received, messages, bytes
    "the next one": (0, 1, 10),
    "two": (0, 2, 20),
    "four": (0, 4, 40),
    "one larger than the window": (0, 1, 300),
    "five": (0, 5, 50),
    "one again": (-1, 1, 10),
    "after a gap": (1, 1, 10),
}
TAKEN = {
    "new": "yes yes yes yes no no no",
    "some wait": "yes yes no no no no no",
    "full": "no no no no no no no",
    "full, one lent": "yes no no no no no no",
    "one larger than the window": "no no no no no no no",
    "all taken": "yes yes yes yes no no no",
}


@pytest.mark.parametrize("state", RECEIVERS)
@pytest.mark.parametrize("batch", BATCHES)
def test_every_batch_at_every_state_of_a_receiver(state: str, batch: str) -> None:
    window = ReceiveWindow(CAPACITY, MAX_BYTES)
    for name, value in RECEIVERS[state].items():
        setattr(window, name, value)
    beyond, messages, size = BATCHES[batch]
    before, received, received_bytes = all_of(window), window.received, window.received_bytes
    if TAKEN[state].split()[[*BATCHES].index(batch)] == "no":
        with pytest.raises(ProtocolError, match="batch: expected"):
            window.receive(window.received + beyond, messages, size)
        assert all_of(window) == before
        return
    window.receive(window.received + beyond, messages, size)
    assert (window.received, window.received_bytes) == (received + messages, received_bytes + size)
    changed = {name for name, value in all_of(window).items() if value != before[name]}
    assert changed == {"received", "received_bytes"}


class Windows(RuleBasedStateMachine):
    """Both ends of a channel; reports are lost, repeated and overtaken."""

    @initialize(
        capacity=st.integers(1, 6), reports=st.sampled_from(["half", "prompt", "ready", "each"])
    )
    def open(self, capacity: int, reports: str) -> None:
        """Make the windows."""
        self.out, self.into = SendWindow(capacity, 60), ReceiveWindow(capacity, 60, reports)
        self.said: list[tuple[int, int, int, tuple[int, ...]]] = []
        self.sizes: list[int] = []
        self.undone: list[int] = []

    @rule(count=st.integers(1, 4), size=st.integers(1, 90))
    def send(self, count: int, size: int) -> None:
        """Send a batch if there is credit, or one alone."""
        fits = count <= self.out.room and size * count <= self.out.room_bytes
        if fits or (count == 1 and self.out.idle):
            first = self.out.sent
            self.out.spend(count, size * count)
            self.into.receive(first, count, size * count)
            self.sizes += [size] * count

    @rule()
    def take(self) -> None:
        """Hand one message to a handler."""
        if self.into.taken < self.into.received:
            self.undone.append(self.into.taken)
            self.into.taken_bytes += self.sizes[self.into.taken]
            self.into.taken += 1

    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        """Any handler returns."""
        if self.undone:
            one = data.draw(st.sampled_from(self.undone))
            self.undone.remove(one)
            self.into.finish(one)

    @rule(idle=st.booleans())
    def report(self, idle: bool) -> None:
        """Report what is due."""
        if self.into.due(idle=idle):
            self.said.append(self.into.report())
            assert not self.into.due(idle=True)

    @rule(data=st.data())
    def hear(self, data: st.DataObject) -> None:
        """Any report arrives, perhaps again."""
        if self.said:
            taken, taken_bytes, done, _ = data.draw(st.sampled_from(self.said))
            room = self.out.room
            assert self.out.report(taken, taken_bytes, done) >= (self.out.room > room)

    @invariant()
    def counters_are_in_order_and_nothing_is_lost(self) -> None:
        """The sender knows no more than is true; what is done is the beginning of all."""
        if not hasattr(self, "out"):
            return
        out, into = self.out, self.into
        assert out.done <= out.taken <= into.taken <= into.received == out.sent
        assert into.received - into.taken <= into.capacity
        done = set(range(into.taken)) - set(self.undone)
        assert done == set(range(into.done)) | into.beyond
        if out.taken == out.sent:
            assert out.room == out.capacity

    def teardown(self) -> None:
        """Whatever was lost, the last report makes up for."""
        if not hasattr(self, "out"):
            return
        while self.into.taken < self.into.received:
            self.take()
        for one in self.undone:
            self.into.finish(one)
        taken, taken_bytes, done, _ = self.into.report()
        self.out.report(taken, taken_bytes, done)
        assert (self.out.taken, self.out.done, self.out.room_bytes) == (
            self.out.sent, self.out.sent, self.out.max_bytes,
        )  # fmt: skip


TestWindows = Windows.TestCase
TestWindows.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
