"""The small machines of a worker: every (state, event) pair, and any sequence against a model."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dflow.worker.dispatch import MAX_TURN, Turns
from dflow.worker.ordered import Order
from dflow.worker.plane import Gate
from dflow.worker.spin import Spin
from dflow.worker.turn import HAS_NOTHING_TO_DO, WANTS_ANOTHER, OwnTurn

# --- whose turn it is ---------------------------------------------------------------------------

TURN_STATES: dict[str, list[Callable[[OwnTurn], object]]] = {
    "standing": [],
    "holding": [lambda turn: turn.given(1.0, 0)],
    "resting": [lambda turn: turn.given(1.0, 0), lambda turn: turn.mind(False, 1)],
    "waiting": [lambda turn: turn.given(-1.0, 0)],
}
TURN_EVENTS: dict[str, Callable[[OwnTurn], object]] = {
    "given for a while": lambda turn: turn.given(2.0, 10),
    "given until further notice": lambda turn: turn.given(0.0, 10),
    "not given": lambda turn: turn.given(-1.0, 10),
    "something to do, in time": lambda turn: turn.mind(True, 999_999_999),
    "something to do, too late": lambda turn: turn.mind(True, 1_000_000_000),
    "nothing to do, in time": lambda turn: turn.mind(False, 5),
    "nothing to do, too late": lambda turn: turn.mind(False, 1_000_000_000),
}
NO, WANTS, NOTHING = None, WANTS_ANOTHER, HAS_NOTHING_TO_DO
TURN_AFTER = {
    "standing": ["holding", "standing", "waiting"] + ["standing"] * 4,
    "holding": ["holding", "standing", "waiting", "holding", "waiting", "resting", "resting"],
    "resting": ["holding", "standing", "waiting", "waiting", "waiting", "resting", "resting"],
    "waiting": ["holding", "standing", "waiting"] + ["waiting"] * 4,
}
TURN_SAYS: dict[str, list[int | None]] = {
    "standing": [NO] * 7,
    "holding": [NO, NO, NO, NO, WANTS, NOTHING, NOTHING],
    "resting": [NO, NO, NO, WANTS, WANTS, NO, NO],
    "waiting": [NO] * 7,
}


@pytest.mark.parametrize(("state", "event"), [*product(TURN_STATES, TURN_EVENTS)])
def test_every_event_of_a_turn_at_every_state(state: str, event: str) -> None:
    turn, at = OwnTurn(), [*TURN_EVENTS].index(event)
    for step in TURN_STATES[state]:
        step(turn)
    assert turn._state.value == state
    assert TURN_EVENTS[event](turn) == TURN_SAYS[state][at]
    assert turn._state.value == TURN_AFTER[state][at]
    assert turn.held == (TURN_AFTER[state][at] == "waiting")


# --- the gate -----------------------------------------------------------------------------------

GATES = {"open": (False, False), "shut": (True, False), "held": (True, True)}
GATE_EVENTS: dict[str, Callable[[Gate], object]] = {
    "close": Gate.close,
    "hold": Gate.hold,
    "open": Gate.open,
    "full": lambda gate: gate.update(full=True),
    "not full": lambda gate: gate.update(full=False),
}
GATE_AFTER = {
    "open": "shut held open shut open",
    "shut": "shut held open shut open",
    "held": "held held open held held",
}


@pytest.mark.parametrize(("state", "event"), [*product(GATES, GATE_EVENTS)])
def test_every_event_of_a_gate_at_every_state(state: str, event: str) -> None:
    gate = Gate()
    gate.shut, gate.held = GATES[state]
    GATE_EVENTS[event](gate)
    after = GATE_AFTER[state].split()[[*GATE_EVENTS].index(event)]
    assert (gate.shut, gate.held) == GATES[after]


# --- how long to look, and how many to take -------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(
    st.floats(0, 0.01),
    st.lists(st.tuples(st.sampled_from([None, 0.0, 0.001, 0.1]), st.integers(0, 10**7),
                       st.booleans()), max_size=20),
)  # fmt: skip
def test_a_spin_never_looks_longer_than_asked_or_than_its_time_since_it_was_busy(
    spin_s: float, steps: list[tuple[float | None, int, bool]]
) -> None:
    spin, now, idle_since = Spin(spin_s), 0, -1
    for timeout_s, passed, busy in steps:
        now += passed
        if busy:
            spin.busy()
            idle_since = -1
        idle_since = now if idle_since < 0 else idle_since
        until = spin.until_ns(timeout_s, now)
        assert until >= now
        assert until <= max(now, idle_since + int(spin_s * 1e9))
        if timeout_s is not None:
            assert until <= now + int(timeout_s * 1e9)
        if timeout_s is None and now < idle_since + int(spin_s * 1e9):
            assert until == idle_since + int(spin_s * 1e9)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 10**8), st.booleans()), max_size=40))
def test_a_turn_has_one_message_or_more_and_at_most_doubles(
    steps: list[tuple[int, int, bool]],
) -> None:
    taken_away = 0
    turns = Turns(1_000_000, lambda: taken_away)
    busy = 0
    for messages, elapsed_ns, preempted in steps:
        taken_away += preempted
        before = turns.size
        turns.measured(min(messages, before), elapsed_ns)
        busy += elapsed_ns
        assert 1 <= turns.size <= min(2 * before, MAX_TURN)
        assert turns.busy_ns == busy
        if elapsed_ns > 1_000_000 and not preempted:
            assert turns.size <= before


# --- results of an ordered node -------------------------------------------------------------------


class _Edge:
    """What an `Order` tells when an input is complete."""

    class plan:  # noqa: N801  # stands for an attribute
        tagged = True

    def __init__(self) -> None:
        self.told: list[int] = []

    def complete(self, number: int) -> None:
        self.told.append(number)


class _Offering:
    output = "out"

    def __init__(self) -> None:
        self.out: list[tuple[Any, Any]] = []

    def commit(self, prepared: Any, *, id: Any = None, tag: Any = None, **_: Any) -> None:
        self.out.append((prepared, tag))


randoms = st.builds(Random, st.integers(0, 2**64 - 1))
"""Not `st.randoms`: there each number is a choice of Hypothesis's own, many times as dear."""


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 8), randoms)
def test_whoever_finishes_first_results_leave_in_the_order_of_their_inputs(
    inputs: int, rng: Random
) -> None:
    edge, offering = _Edge(), _Offering()
    order = Order([edge], lambda error, where: None)  # type: ignore[list-item]  # stands for one
    finished: list[int] = []
    slots = [order.enter(n, lambda n=n: finished.append(n)) for n in range(inputs)]  # type: ignore[misc]  # mypy has no types for defaults
    emitted = [0] * inputs
    while any(not slot.ended for slot in slots):
        number = rng.choice([n for n, slot in enumerate(slots) if not slot.ended])
        order.begin(slots[number])
        if rng.random() < 0.6:
            order.emit(offering, (number, emitted[number]), None)  # type: ignore[arg-type]  # as well
            emitted[number] += 1
        else:
            order.leave(slots[number])
        done = [slot.ended for slot in slots]
        first = done.index(False) if False in done else inputs
        assert finished == list(range(first))
        order.tell()
        assert edge.told == finished
    order.begin(None)
    expected = [(n, place) for n in range(inputs) for place in range(emitted[n])]
    assert offering.out == [(one, one) for one in expected]
    assert not order.news
