"""Searches for messages to cancel, against a world in which workers answer, die, or are silent.

The world knows where the copies of each message are. Whatever the order of answers: every
request is answered once, in time, with the strongest outcome among those who answered.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dflow.broker.cancelling import ANSWER_S, Cancelling
from dflow.broker.events import Instruction, Send
from dflow.errors import ProtocolError
from dflow.graph.plan import ChannelPlan, WorkerId
from dflow.message import EXTERNAL, Cancelled, strongest
from dflow.wire import control as c

HANDLE = WorkerId(EXTERNAL)
A, B0, B1 = WorkerId("a"), WorkerId("b", 0), WorkerId("b", 1)
WORKERS = [A, B0, B1]
CHANNELS = {
    0: ChannelPlan(0, 0, A, B0),
    1: ChannelPlan(1, 0, A, B1),
    2: ChannelPlan(2, 1, B0, HANDLE),
    3: ChannelPlan(3, 1, B1, HANDLE),
    4: ChannelPlan(4, 2, HANDLE, A),
}
outcomes = st.sampled_from(list(Cancelled))


def key_of(worker: WorkerId) -> bytes:
    return str(worker).encode()


@dataclass
class World:
    """Who can be reached, what was said to whom and not answered yet, and every reply."""

    now: float = 0.0
    gone: set[WorkerId] = field(default_factory=set)
    pending: list[tuple[WorkerId, c.Find | c.Cancel]] = field(default_factory=list)
    replies: list[tuple[int, Cancelled, float]] = field(default_factory=list)
    heard: dict[int, list[Cancelled]] = field(default_factory=dict)  # by request
    request_of: dict[int, int] = field(default_factory=dict)  # by number of the search

    def __post_init__(self) -> None:
        self.machine = Cancelling(CHANNELS, lambda w: None if w in self.gone else key_of(w))

    def carry_out(self, todo: list[Instruction]) -> None:
        """Deliver what the machine says."""
        for one in todo:
            assert isinstance(one, Send)
            match one.message:
                case c.CancelReply(request, outcome):
                    assert one.key == b"asker"
                    self.replies.append((request, Cancelled(outcome), self.now))
                case c.Find() | c.Cancel() as message:
                    to = next(w for w in (*WORKERS, HANDLE) if key_of(w) == one.key)
                    assert to not in self.gone
                    if isinstance(message, c.Cancel):
                        assert CHANNELS[message.channel].receiver == to
                    self.pending.append((to, message))
                case other:
                    raise AssertionError(f"nobody asked for {other}")

    def ask(self, request: int, rows: list[list[int]]) -> None:
        """Have the launching process ask."""
        self.heard[request] = []
        before = len(self.pending)
        asked = c.CancelRequest(request, f"id-{request}", rows)
        self.carry_out(self.machine.ask(b"asker", asked, HANDLE, WORKERS, self.now))
        for _, message in self.pending[before:]:
            self.request_of[message.request] = request

    def answer(self, index: int, outcome: Cancelled, rows: list[list[int]]) -> None:
        """Have one that was told something answer."""
        who, message = self.pending.pop(index % len(self.pending))
        if who in self.gone:
            return
        request = self.request_of[message.request]
        if request not in {r for r, _, _ in self.replies}:
            self.heard[request].append(outcome)
        if isinstance(message, c.Find):
            mine = [row for row in rows if CHANNELS[row[0]].sender == who]
            answer = c.Found(message.request, outcome.value, mine)
            self.carry_out(self.machine.answered(who, answer))
        else:
            answered = c.Outcome(message.request, outcome.value)
            self.carry_out(self.machine.answered(who, answered))

    def pass_time(self, seconds: float) -> None:
        """Let time pass, never past a timer."""
        due = self.machine.next_timer()
        self.now = self.now + seconds if due is None else min(due, self.now + seconds)
        self.carry_out(self.machine.check(self.now))


ROWS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)).map(list), max_size=3)
OUTSIDE = st.lists(st.integers(0, 9).map(lambda sequence: [4, sequence]), max_size=2)
ACTS = st.one_of(
    st.tuples(st.just("ask"), OUTSIDE),
    st.tuples(st.just("answer"), st.tuples(st.integers(0, 30), outcomes, ROWS)),
    st.tuples(st.just("answer"), st.tuples(st.integers(0, 30), outcomes, ROWS)),
    st.tuples(st.just("die"), st.sampled_from([*WORKERS, HANDLE])),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.5, 3.0])),
)


@given(st.lists(ACTS, max_size=60))
def test_every_request_is_answered_once_in_time_with_the_strongest_of_what_was_heard(
    acts: list[tuple[str, object]],
) -> None:
    world = World()
    asked_at: dict[int, float] = {}
    for act in acts:
        match act:
            case ("ask", list(rows)):
                request = len(asked_at) + 1
                asked_at[request] = world.now
                world.ask(request, rows)
            case ("answer", (int(index), Cancelled() as outcome, list(rows))) if world.pending:
                world.answer(index, outcome, rows)
            case ("die", WorkerId() as worker):
                world.gone.add(worker)
                world.pass_time(0.0)
            case ("wait", float(seconds)):
                world.pass_time(seconds)
    for _ in range(len(asked_at)):
        world.pass_time(ANSWER_S)
    assert len(world.machine) == 0
    assert world.machine.next_timer() is None
    assert sorted(request for request, _, _ in world.replies) == sorted(asked_at)
    for request, outcome, at in world.replies:
        assert outcome is strongest(world.heard[request])
        assert at - asked_at[request] <= ANSWER_S


@given(st.lists(outcomes))
def test_the_outcome_of_a_message_is_the_strongest_of_its_copies(
    of_copies: list[Cancelled],
) -> None:
    ranked = (Cancelled.HANDLING, Cancelled.CANCELLED, Cancelled.DONE, Cancelled.UNKNOWN)
    expected = next((one for one in ranked if one in of_copies), Cancelled.UNKNOWN)
    assert strongest(of_copies) is expected


# --- cases ---------------------------------------------------------------------------------


def asked(rows: list[list[int]] | None = None) -> World:
    """Return a world in which the message of request 1 is searched for."""
    world = World()
    world.ask(1, rows or [])
    return world


def told(world: World) -> list[tuple[str, c.Control]]:
    """Return what is to be answered."""
    return [(str(who), message) for who, message in world.pending]


def test_a_message_that_still_waits_at_its_sender_is_cancelled_there() -> None:
    world = asked()
    assert [who for who, _ in told(world)] == ["a[0]", "b[0]", "b[1]"]
    world.answer(0, Cancelled.CANCELLED, [])
    assert world.replies == []  # another may have a copy
    world.answer(0, Cancelled.UNKNOWN, [])
    world.answer(0, Cancelled.UNKNOWN, [])
    assert world.replies == [(1, Cancelled.CANCELLED, 0.0)]


def test_copies_that_have_left_are_cancelled_where_they_went() -> None:
    world = asked()
    world.answer(0, Cancelled.UNKNOWN, [[0, 7], [1, 3]])
    assert told(world)[2:] == [("b[0]", c.Cancel(1, 0, 7)), ("b[1]", c.Cancel(1, 1, 3))]
    for outcome in (Cancelled.UNKNOWN, Cancelled.UNKNOWN, Cancelled.CANCELLED, Cancelled.HANDLING):
        world.answer(0, outcome, [])
    assert world.replies == [(1, Cancelled.HANDLING, 0.0)]


def test_what_the_launching_process_sent_is_cancelled_without_a_search() -> None:
    world = asked([[4, 2]])
    assert told(world) == [("a[0]", c.Cancel(1, 4, 2))]
    world.answer(0, Cancelled.DONE, [])
    assert world.replies == [(1, Cancelled.DONE, 0.0)]


def test_without_anybody_to_ask_the_answer_comes_at_once() -> None:
    world = World(gone={A, B0, B1})
    world.ask(1, [])
    world.ask(2, [[4, 0]])
    assert [(r, o) for r, o, _ in world.replies] == [
        (1, Cancelled.UNKNOWN), (2, Cancelled.UNKNOWN),
    ]  # fmt: skip


def test_a_silent_worker_is_waited_for_only_so_long() -> None:
    world = asked()
    world.answer(0, Cancelled.CANCELLED, [])
    world.pass_time(ANSWER_S - 0.1)
    assert world.replies == []
    world.pass_time(0.1)
    assert world.replies == [(1, Cancelled.CANCELLED, ANSWER_S)]
    world.answer(0, Cancelled.HANDLING, [])  # too late
    assert len(world.replies) == 1


def test_an_answer_said_twice_counts_once() -> None:
    world = asked([[4, 2], [4, 3]])
    world.answer(0, Cancelled.CANCELLED, [])
    for outcome in (Cancelled.DONE, Cancelled.DONE):
        world.carry_out(world.machine.answered(A, c.Outcome(1, outcome.value)))
    assert world.replies == [(1, Cancelled.CANCELLED, 0.0)]


@pytest.mark.parametrize(
    ("who", "answer", "says"),
    [
        (A, c.Found(1, "gone", []), "expected one of cancelled, handling, done, unknown"),
        (A, c.Found(1, "done", [[0]]), r"expected \[channel, sequence\], got \[0\]"),
        (A, c.Found(1, "done", [[0, -1]]), r"expected \[channel, sequence\]"),
        (A, c.Found(1, "done", [[99, 0]]), r"expected \[channel, sequence\]"),
        (A, c.Found(1, "done", [0]), r"expected \[channel, sequence\]"),
        (A, c.Found(1, "done", [["0", 0]]), r"expected \[channel, sequence\]"),
        (B0, c.Found(1, "done", [[0, 0]]), r"b\[0\]: channel 0 belongs to a\[0\]"),
        (A, c.Outcome(1, ""), "expected one of"),
    ],
)
def test_nonsense_is_refused_and_changes_nothing(
    who: WorkerId, answer: c.Found | c.Outcome, says: str
) -> None:
    world = asked()
    with pytest.raises(ProtocolError, match=says):
        world.machine.answered(who, answer)
    for _ in WORKERS:
        world.answer(0, Cancelled.UNKNOWN, [])
    assert world.replies == [(1, Cancelled.UNKNOWN, 0.0)]
