"""What the coordinator is made of, each against a plain model: who is paused, who looks on, when.

`tests.property.test_broker_state` drives them together; here each alone meets orders of calls that
no run makes.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dflow.broker import complaints as complaints_module
from dflow.broker import observers as observers_module
from dflow.broker.complaints import Complaints
from dflow.broker.events import Send
from dflow.broker.lifecycle import PARTICIPANT, Move, Role, Step
from dflow.broker.observers import Observers
from dflow.broker.participants import Participants
from dflow.broker.pausing import HEARD_S, Pausing
from dflow.broker.tally import Tally
from dflow.broker.timers import UNREACHABLE_S, Timers
from dflow.errors import ProtocolError
from dflow.graph.plan import WorkerId
from dflow.report import RunReport, RunStatus
from dflow.wire import control as c
from tests.unit.broker_pair import TOKEN, Fake, make_plan

PLAN = make_plan([("a", "b"), ("b", "c")], {"b": 2}, results=["c"])
FEW = settings(max_examples=40, stateful_step_count=30, deadline=None)
WAY = [Move.JOINED, Move.BOUND, Move.LINK, Move.LINKED, Move.START, Move.STARTED, Move.RUN]


def running() -> Participants:
    """Return the participants of a run in which every worker runs."""
    roll = Participants(PLAN, TOKEN, with_handle=True, managed=True)
    for p in roll.workers:
        roll.admit(Fake(p.worker).key, Fake(p.worker).hello(), 0.0)
        for move in WAY[1:]:
            p.move(move)
    return roll


class Pauses(RuleBasedStateMachine):
    """Nodes are paused and resumed; replicas confirm, die, drain, or are silent."""

    def __init__(self) -> None:
        super().__init__()
        self.roll = running()
        self.pausing = Pausing(self.roll)
        self.now = 0.0
        self.asked = 0
        self.paused: set[str] = set()
        self.owing: dict[int, tuple[set[WorkerId], float]] = {}  # by request
        self.numbers: list[tuple[WorkerId, int, int]] = []  # who was told, its number, the request
        self.answered: list[int] = []

    def take(self, todo: list[Any]) -> None:
        """Note answers."""
        for one in todo:
            assert isinstance(one, Send)
            if isinstance(one.message, c.Answer):
                self.answered.append(one.message.request)

    @rule(node=st.sampled_from("abc"))
    def pause(self, node: str) -> None:
        """Somebody pauses a node."""
        self.asked += 1
        todo = self.pausing.pause(node, b"asker", self.asked, self.now)
        keys = {Fake(p.worker).key: p.worker for p in self.roll.workers}
        sends: list[Any] = [one for one in todo if isinstance(one, Send)]
        told = [one for one in sends if isinstance(one.message, c.Pause)]
        who = {keys[one.key] for one in told}
        assert who == set(self.roll.running(node))
        self.numbers += [(keys[o.key], o.message.request, self.asked) for o in told]
        self.paused.add(node)
        self.owing[self.asked] = who, self.now + HEARD_S
        self.take(todo)

    @rule(node=st.sampled_from("abc"))
    def resume(self, node: str) -> None:
        """Somebody resumes it; it is told whether it was paused or not."""
        todo = self.pausing.resume(node)
        assert len(todo) == len(self.roll.running(node))
        self.paused.discard(node)

    @rule(data=st.data(), odd=st.booleans())
    def hear(self, data: st.DataObject, odd: bool) -> None:
        """A replica confirms, perhaps twice, or what nobody asked."""
        if odd:
            who = data.draw(st.sampled_from([p.worker for p in self.roll.workers]))
            self.take(self.pausing.heard(who, data.draw(st.integers(50, 60))))
        elif self.numbers:
            who, number, request = data.draw(st.sampled_from(self.numbers))
            self.take(self.pausing.heard(who, number))
            self.owing[request][0].discard(who)

    @rule(data=st.data(), move=st.sampled_from([Move.DRAINED, Move.LOSE]))
    def end(self, data: st.DataObject, move: Move) -> None:
        """A replica ends."""
        p = data.draw(st.sampled_from(self.roll.workers))
        if p.step is Step.RUNNING:
            p.move(move)
        if p.step is Step.GONE:
            for owing, _ in self.owing.values():
                owing.discard(p.worker)
        self.take(self.pausing.check(self.now))

    @rule(seconds=st.sampled_from([0.1, 1.0, HEARD_S]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds
        self.take(self.pausing.check(self.now))

    @invariant()
    def everybody_is_answered_once_when_all_have_heard(self) -> None:
        """Or in `HEARD_S`."""
        due = [n for n, (owing, by) in self.owing.items() if not owing or self.now >= by]
        assert sorted(self.answered) == sorted(due)
        assert len(self.pausing) == len(self.owing) - len(due)
        assert self.pausing.paused == self.paused
        left = [by for n, (_, by) in self.owing.items() if n not in due]
        assert self.pausing.next_timer() == min(left, default=None)


TestPauses = Pauses.TestCase
TestPauses.settings = FEW


class Looks(RuleBasedStateMachine):
    """Observers come, ask, and are forgotten."""

    MOST = 3

    @initialize()
    def open(self) -> None:
        """Nobody looks on."""
        observers_module.MOST, self._before = self.MOST, observers_module.MOST
        self.observers = Observers(lambda: RunStatus("g", "r", "running", 1.0))
        self.known: list[bytes] = []

    def teardown(self) -> None:
        """Let the others of this process have theirs."""
        observers_module.MOST = self._before

    def touch(self, key: bytes) -> None:
        self.known = [k for k in self.known if k != key] + [key]
        del self.known[: -self.MOST]

    @rule(key=st.sampled_from([b"1", b"2", b"3", b"4", b"5"]), over=st.booleans())
    def admit(self, key: bytes, over: bool) -> None:
        """One comes; if the run is over it is told."""
        report = RunReport("g", "r", "finished", 1.0, 2.0, 1.0) if over else None
        assert len(self.observers.admit(key, report)) == over
        self.touch(key)

    @rule(data=st.data(), word=st.sampled_from([c.StatusRequest(3), c.Heartbeat(), c.Drained()]))
    def say(self, data: st.DataObject, word: c.Control) -> None:
        """One says something."""
        if not self.known:
            return
        key = data.draw(st.sampled_from(self.known))
        if isinstance(word, c.Drained):
            with pytest.raises(ProtocolError, match="an observer may not send Drained"):
                self.observers.said(key, word)
        else:
            todo = self.observers.said(key, word)
            assert [type(one) for one in todo] == [Send] * isinstance(word, c.StatusRequest)
        self.touch(key)

    @rule(key=st.sampled_from([b"1", b"2", b"9"]))
    def leave(self, key: bytes) -> None:
        """One is gone, known or not."""
        self.observers.forget(key)
        self.known = [k for k in self.known if k != key]

    @invariant()
    def the_latest_are_known(self) -> None:
        """And told how the run ends."""
        if hasattr(self, "known"):
            report = RunReport("g", "r", "finished", 1.0, 2.0, 1.0)
            todo = self.observers.finished(report)
            assert sorted(one.key for one in todo if isinstance(one, Send)) == sorted(self.known)


TestLooks = Looks.TestCase
TestLooks.settings = FEW

TIMES = st.sampled_from([0.0, 0.1, 0.4, UNREACHABLE_S, 5.0, 100.0])


@settings(max_examples=60, deadline=None)
@given(
    st.none() | st.floats(0, 10),
    st.lists(st.tuples(st.sampled_from(["pass", "back", "within", "lengthen", "shorten"]), TIMES),
             max_size=30),
)  # fmt: skip
def test_time_goes_forward_and_deadlines_move_as_told_however_it_jumps(
    deadline: float | None, steps: list[tuple[str, float]]
) -> None:
    timers = Timers(0.0, deadline)
    now = 0.0
    for what, seconds in steps:
        before = timers.deadline
        if what in ("pass", "back"):
            slept = timers.notice(now := now + seconds if what == "pass" else now - seconds)
            assert slept == (what == "pass" and timers.now == now and seconds > UNREACHABLE_S) or (
                what == "pass" and slept is False
            )
            if not slept:
                assert timers.deadline == before
            elif before is not None and timers.deadline is not None:
                assert before <= timers.deadline < before + seconds  # it comes all the same
            now = max(now, timers.now)
        else:
            getattr(timers, what)(seconds)
            at = timers.now + seconds
            expected = {
                "within": at,
                "lengthen": None if before is None else max(before, at),
                "shorten": at if not before else min(before, at),
            }
            assert timers.deadline == expected[what]
        assert timers.now == now
        assert timers.next() <= timers.ping_at
        assert timers.overdue == (timers.deadline is not None and timers.deadline <= now)
        if timers.ping_due():
            assert timers.ping_at > now
            assert not timers.ping_due()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([b"1", b"2", b"3", b"4"]), st.sampled_from("xy")),
                max_size=30))  # fmt: skip
def test_everything_is_counted_and_each_peer_is_told_of_once_up_to_a_number(
    said: list[tuple[bytes, str]],
) -> None:
    complaints = Complaints()
    before, complaints_module._MOST = complaints_module._MOST, 3
    try:
        told = [key for key, kind in said if complaints.about(key, kind, "text")]
    finally:
        complaints_module._MOST = before
    assert told == list(dict.fromkeys(key for key, _ in said))[:3]
    assert complaints.counts == Counter(kind for _, kind in said)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 2), min_size=1, max_size=5),
    st.lists(st.tuples(st.integers(0, 4), st.sampled_from([*Step])), max_size=30),
)
def test_a_tally_is_what_one_would_count(levels: list[int], moves: list[tuple[int, Step]]) -> None:
    tally, steps = Tally(levels), [Step.ABSENT] * len(levels)
    for who, step in moves:
        if who < len(steps):
            tally.moved(levels[who], steps[who], step)
            steps[who] = step
    assert not list(tally.problems(zip(levels, steps, strict=True)))
    for some in ({Step.ABSENT}, {Step.RUNNING, Step.GONE}, set(Step)):
        assert tally.all_at(some) == all(step in some for step in steps)
        for level in set(levels):
            here = [s for lv, s in zip(levels, steps, strict=True) if lv == level]
            assert tally.level_at(level, some) == all(step in some for step in here)
    wrong = [(levels[0] + 7, steps[0]), *zip(levels[1:], steps[1:], strict=True)]
    assert list(tally.problems(wrong))


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("step", list(Step))
def test_every_move_of_a_participant_at_every_step(role: Role, step: Step) -> None:
    roll = running()
    found = roll.handle if role is Role.HANDLE else roll.workers[0]
    assert found is not None
    found.tally = None
    for move in Move:
        found.step, story = step, list(found._story)
        after = PARTICIPANT[role][step].get(move)
        if after is None:
            with pytest.raises(ProtocolError, match=f"got '{move.value}'; before that: "):
                found.move(move)
            assert (found.step, list(found._story)) == (step, story)
        else:
            found.move(move)
            assert (found.step, list(found._story)[-1:]) == (after, [move.value])
