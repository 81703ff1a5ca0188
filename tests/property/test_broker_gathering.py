"""Who is asked for a bundle, who is waited for, and when it is written: against a model.

`tests.unit.broker.test_gathering` drives whole runs; here it meets orders of calls no run makes.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dflow.broker.events import Hand, Keep, Probe, Send
from dflow.broker.gathering import ANSWER_S, KEEP_S, MOST_ASKERS, About, Gathering
from dflow.broker.lifecycle import Move, Phase, Step
from dflow.broker.requests import Requests
from dflow.broker.turns import turns_of
from dflow.graph.plan import WorkerId
from dflow.options import RunOptions
from dflow.report import RunReport, RunStatus
from dflow.story import Story
from dflow.wire import control as c
from tests.property.test_broker_parts import PLAN, running
from tests.unit.broker_pair import Fake

REPORT = RunReport("g", "r", "failed", 0.0, 1.0, 1.0)
PLACES = st.sampled_from(range(len(PLAN.workers)))


class Gathers(RuleBasedStateMachine):
    """The run fails, guests ask; workers answer in time, too late, twice, or die."""

    def __init__(self) -> None:
        super().__init__()
        self.roll = running()
        options = RunOptions(bundle="/bundles")
        requests = Requests(PLAN, self.roll, lambda: RunStatus("g", "r", "running", 1.0))
        about = About(PLAN, "r", 1, options, 0.0, 1_000.0, managed=True)
        self.gathering = Gathering(about, self.roll, requests, turns_of(PLAN, options, 0), Story())
        self.now = 0.0
        self.round = 0
        self.until: float | None = None
        self.awaited: set[WorkerId] = set()
        self.answered: set[str] = set()
        self.askers: list[tuple[bytes, int]] = []
        self.wanted = self.made = self.keeping = False
        self.give_up = 0.0
        self.path, self.has_failed = "", False

    def asked(self, todo: list[Any]) -> None:
        """Whoever lives is asked, unless all have just been."""
        alive = {p.worker for p in self.roll.workers if p.step is not Step.GONE}
        told = {one.key for one in todo if isinstance(one, Send)}
        if self.until is not None:
            assert todo == []
            return
        self.round += 1
        assert told == {Fake(worker).key for worker in alive}
        assert all(one.message == c.Dump(self.round) for one in todo)
        self.until, self.awaited, self.answered = self.now + ANSWER_S, alive, set()

    @rule()
    def fail(self) -> None:
        """The run wants a bundle of its own: once."""
        todo = self.gathering.ask(self.now, Phase.RUNNING, None)
        if self.wanted or self.path or self.has_failed:
            assert todo == []
        else:
            self.wanted = True
            self.asked(todo)

    @rule(
        key=st.sampled_from([b"1", b"2"]),
        many=st.sampled_from([1, 1, MOST_ASKERS]),
        waits=st.booleans(),
    )
    def look(self, key: bytes, many: int, waits: bool) -> None:
        """Guests ask for one, and get it or not yet; too many are not remembered."""
        for _ in range(many):
            todo = self.gathering.ask(self.now, Phase.RUNNING, None, (key, 7))
            if len(self.askers) < MOST_ASKERS:
                self.askers.append((key, 7))
            self.asked(todo)
        if waits:
            self.check(ANSWER_S)

    @rule(place=PLACES, late=st.sampled_from([0, 0, 0, 1]))
    def answer(self, place: int, late: int) -> None:
        """One tells what it knows, perhaps to a question of before."""
        p = self.roll.workers[place]
        self.gathering.heard(p, c.Dumped(self.round - late, "{}"))
        if self.until is not None and not late:
            self.awaited.discard(p.worker)
            self.answered.add(str(p.worker))

    @rule(place=PLACES)
    def die(self, place: int) -> None:
        """One is gone."""
        p = self.roll.workers[place]
        if p.step is not Step.GONE:
            p.move(Move.LOSE)

    @rule(seconds=st.sampled_from([0.0, 0.1, ANSWER_S, KEEP_S]))
    def check(self, seconds: float) -> None:
        """Time passes: all have answered, are gone, or are not waited for any longer."""
        self.now += seconds
        todo = self.gathering.check(self.now)
        if self.keeping and self.now >= self.give_up and not (self.path or self.has_failed):
            self.has_failed = True
        self.awaited = {
            p.worker
            for p in self.roll.workers
            if p.worker in self.awaited and p.step is not Step.GONE
        }
        if self.until is None or (self.awaited and self.now < self.until):
            assert todo == []
            return
        self.until = None
        probes = [one for one in todo if isinstance(one, Probe)]
        hands = [one for one in todo if isinstance(one, Hand)]
        assert len(probes) + len(hands) == len(todo)
        assert {w for one in probes for w, _ in one.silent} == self.awaited
        assert [(one.key, one.request) for one in hands] == self.askers
        for hand in hands:
            assert set(hand.case.words) == self.answered
        self.askers.clear()
        self.made = self.made or self.wanted

    @rule()
    def keep(self) -> None:
        """The run is over: its own bundle is written, once it is made."""
        todo = self.gathering.keep(self.now, REPORT)
        if not self.made or self.keeping:
            assert todo == []
            return
        (one,) = todo
        assert isinstance(one, Keep)
        assert one.case.report is REPORT
        self.keeping, self.give_up = True, self.now + KEEP_S

    @rule(path=st.sampled_from(["/x", ""]), why_not=st.sampled_from(["", "disk full"]))
    @precondition(lambda self: not (self.path or self.has_failed))
    def written(self, path: str, why_not: str) -> None:
        """The keeper says what became of it, or somebody who was not asked says so."""
        self.gathering.was_kept(path, why_not)
        if self.keeping:
            self.path, self.has_failed = path, bool(why_not) or not path

    @invariant()
    def it_is_known_what_became_of_it_and_when_to_look_again(self) -> None:
        """And nobody is woken for what is settled."""
        settled = bool(self.path) or self.has_failed
        assert self.gathering.settled == settled
        assert self.gathering.begun == (self.wanted or settled)
        dues = [self.until] if self.until is not None else []
        dues += [self.give_up] if self.keeping and not settled else []
        assert self.gathering.next_timer() == min(dues, default=None)


TestGathers = Gathers.TestCase
TestGathers.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
