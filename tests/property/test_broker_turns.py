"""Turns over a network that is late: slots are kept, given back, and never lost; nobody starves.

The workers of the model are the real `OwnTurn`; what they say and hear waits in queues.
"""

from __future__ import annotations

from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dflow.broker.turns import OVERDUE_S, TurnScheduler, TurnState, Use
from dflow.graph.plan import WorkerId
from dflow.message import Priority
from dflow.worker.turn import OwnTurn

INTERVAL_S = 0.25


class Burner:
    """One worker: what it has to do, the turn it believes to have, and the words under way."""

    def __init__(self, number: int, band: int) -> None:
        self.id = WorkerId(f"w{number}")
        self.band = band
        self.turn = OwnTurn()
        self.busy = True
        self.cpu_ns = 0
        self.heard: deque[float] = deque()
        self.said: deque[int] = deque()

    @property
    def computes(self) -> bool:
        return self.busy and not self.turn.held


class Turns(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.released = False

    @initialize(
        bands=st.lists(st.sampled_from([int(b) for b in Priority][1:]), min_size=1, max_size=6),
        slots=st.integers(1, 3),
        always=st.booleans(),
    )
    def begin(self, bands: list[int], slots: int, always: bool) -> None:
        self.workers = [Burner(number, band) for number, band in enumerate(bands)]
        self.scheduler = TurnScheduler({w.id: w.band for w in self.workers}, slots, always=always)
        self.measure()

    def take(self) -> None:
        by_id = {w.id: w for w in self.workers}
        for worker, seconds in self.scheduler.take(self.now):
            if worker in by_id:
                by_id[worker].heard.append(seconds)

    def measure(self) -> None:
        for w in self.workers:
            self.scheduler.measured(w.id, Use(w.cpu_ns), self.now)
        self.take()

    def any_worker(self, number: int) -> Burner | None:
        return self.workers[number % len(self.workers)] if self.workers else None

    @rule(number=st.integers(0, 9), busy=st.booleans())
    def has_something_to_do(self, number: int, busy: bool) -> None:
        w = self.any_worker(number)
        if w is not None:
            w.busy = busy

    @rule(number=st.integers(0, 9))
    def worker_hears(self, number: int) -> None:
        w = self.any_worker(number)
        if w is not None and w.heard:
            w.turn.given(w.heard.popleft(), int(self.now * 1e9))

    @rule(number=st.integers(0, 9))
    def worker_minds(self, number: int) -> None:
        w = self.any_worker(number)
        if w is not None:
            self.mind(w)

    def mind(self, w: Burner) -> None:
        over = w.turn.mind(w.busy and not w.turn.held, int(self.now * 1e9))
        if over is not None:
            w.said.append(over)

    @rule(number=st.integers(0, 9))
    def coordinator_hears(self, number: int) -> None:
        w = self.any_worker(number)
        if w is not None and w.said:
            self.scheduler.over(w.id, bool(w.said.popleft()), self.now)
            self.take()

    @rule(seconds=st.sampled_from([0.001, 0.005, 0.03]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        for w in self.workers:
            w.cpu_ns += int(seconds * 1e9) if w.computes else 0
        self.take()

    @rule()
    def an_interval_passes_and_all_report(self) -> None:
        for _ in range(int(INTERVAL_S / 0.005)):
            self.time_passes(0.005)
            self.everything_arrives()
        self.measure()

    @rule(number=st.integers(0, 9))
    def worker_ends_or_dies(self, number: int) -> None:
        w = self.any_worker(number)
        if w is not None and len(self.workers) > 1:
            self.workers.remove(w)
            self.scheduler.ended(w.id)
            self.take()

    @rule()
    def the_run_drains(self) -> None:
        self.released = True
        self.scheduler.release(self.now)
        self.take()

    def everything_arrives(self) -> None:
        """Deliver until nobody has anything to say; time stands still."""
        for _ in range(10 * len(self.workers) + 10):
            for w in self.workers:
                while w.heard:
                    w.turn.given(w.heard.popleft(), int(self.now * 1e9))
                self.mind(w)
                while w.said:
                    self.scheduler.over(w.id, bool(w.said.popleft()), self.now)
            self.take()
            if not any(w.heard or w.said for w in self.workers):
                return
        raise AssertionError("they go on talking for ever")

    @precondition(lambda self: hasattr(self, "workers"))
    @invariant()
    def slots_are_kept(self) -> None:
        states = [self.scheduler.state_of(w.id) for w in self.workers]
        assert states.count(TurnState.HOLDING) <= self.scheduler.slots
        if states.count(TurnState.HOLDING) < self.scheduler.slots:
            assert TurnState.WAITING not in states  # no slot is idle while somebody waits
        if self.released:
            assert set(states) <= {TurnState.STANDING}

    @precondition(lambda self: hasattr(self, "workers"))
    @rule()
    def whoever_wants_to_compute_gets_to(self) -> None:
        wanting = {w.id for w in self.workers if w.busy}
        least = {w.id: w.cpu_ns for w in self.workers}
        # a full cycle of the weights for each of six, and a turn lost to each that is silent
        until = self.now + 15 * 6 * self.scheduler.quantum_s + OVERDUE_S
        while wanting and self.now < until:
            self.time_passes(0.005)
            self.everything_arrives()
            wanting -= {w.id for w in self.workers if w.cpu_ns > least[w.id]}
        assert wanting == set()

    @precondition(lambda self: hasattr(self, "workers"))
    @rule()
    def both_sides_agree_once_everything_has_arrived(self) -> None:
        self.everything_arrives()
        for w in self.workers:
            state = self.scheduler.state_of(w.id)
            assert (state is TurnState.STANDING) == (not w.turn.rationed)
            assert (state is TurnState.WAITING) <= w.turn.held


TestTurns = Turns.TestCase
TestTurns.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
