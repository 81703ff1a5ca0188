"""Who is taken for a burner, when turns begin and end, and in what order they go."""

from __future__ import annotations

from collections import Counter

import pytest

from dflow import Graph, Priority, node, source
from dflow.broker.turns import (
    AT_ONCE,
    DECIDE_EACH_S,
    OVERDUE_S,
    QUANTUM_S,
    TurnScheduler,
    TurnState,
    Use,
    niceness_of,
    turns_of,
)
from dflow.graph.plan import WorkerId
from dflow.options import RunOptions
from dflow.worker.turn import OwnTurn

STANDING, NO_TURN = 0.0, -1.0
INTERVAL_S = 0.25
HIGH, NORMAL, LOW = int(Priority.HIGH), int(Priority.NORMAL), int(Priority.LOW)


class Workers:
    """Workers that report at every interval; ``use[name]``: (computing, delayed)."""

    def __init__(self, slots: int, bands: dict[str, int], *, always: bool = True) -> None:
        self.turns = TurnScheduler(
            {WorkerId(name): band for name, band in bands.items()}, slots, always=always
        )
        self.now = 0.0
        self.used = {name: [0.0, 0.0] for name in bands}
        self.report()

    def report(self, **use: tuple[float, float]) -> dict[str, float]:
        """Let time pass, take in everybody's report, and return whom what is told."""
        self.now += INTERVAL_S
        for name, (cpu, delayed) in use.items():
            self.used[name][0] += cpu * INTERVAL_S
            self.used[name][1] += delayed * INTERVAL_S
        for name, (cpu_s, delayed_s) in self.used.items():
            use_ns = Use(int(cpu_s * 1e9), int(delayed_s * 1e9))
            self.turns.measured(WorkerId(name), use_ns, self.now)
        return self.take()

    def over(self, name: str, wanting: bool = True) -> dict[str, float]:
        self.turns.over(WorkerId(name), wanting, self.now)
        return self.take()

    def take(self) -> dict[str, float]:
        return {worker.node: seconds for worker, seconds in self.turns.take(self.now)}

    def state(self, name: str) -> TurnState:
        return self.turns.state_of(WorkerId(name))


def burning(count: int, share: float = 0.25) -> dict[str, tuple[float, float]]:
    """Return the use of workers that want a whole core each and get ``share``."""
    return {f"b{number}": (share, 1.0 - share) for number in range(count)}


def test_burners_that_fit_the_slots_are_left_alone() -> None:
    workers = Workers(2, {"b0": LOW, "b1": LOW, "light": HIGH})
    for _ in range(10):
        assert workers.report(b0=(1.0, 0.0), b1=(1.0, 0.0), light=(0.4, 0.05)) == {}


def test_burners_beyond_the_slots_take_turns_and_the_light_keep_theirs() -> None:
    workers = Workers(2, {"b0": LOW, "b1": LOW, "b2": LOW, "b3": LOW, "light": HIGH})
    told = workers.report(**burning(4, 0.5), light=(0.02, 0.1))
    assert sorted(told.values()) == [NO_TURN, NO_TURN, QUANTUM_S, QUANTUM_S]
    assert "light" not in told


def test_in_a_large_run_not_every_report_decides_anew_who_takes_turns() -> None:
    many = {f"b{number}": LOW for number in range(2 * AT_ONCE)} | {"light": HIGH}
    workers = Workers(2, many)
    told = workers.report(**burning(2 * AT_ONCE, 0.01))
    assert sorted(told.values())[-3:] == [NO_TURN, QUANTUM_S, QUANTUM_S]
    decided_s = workers.now

    workers.now += QUANTUM_S / 10  # one that has changed its mind waits for the next decision
    workers.turns.measured(WorkerId("b7"), Use(int(1e9), 0), workers.now + INTERVAL_S)
    assert workers.take() == {}
    due = workers.turns.next_timer()
    assert due is not None
    assert decided_s < due <= decided_s + (AT_ONCE + 1) * DECIDE_EACH_S


def test_turns_go_round() -> None:
    workers = Workers(1, {"b0": LOW, "b1": LOW, "b2": LOW, "light": HIGH})
    workers.report(**burning(3))
    served = []
    for _ in range(7):
        holder = next(
            name for name in ("b0", "b1", "b2") if workers.state(name) is TurnState.HOLDING
        )
        served.append(holder)
        workers.now += QUANTUM_S
        workers.over(holder)
    assert served[:3] == served[3:6]
    assert Counter(served[:6]) == {"b0": 2, "b1": 2, "b2": 2}


def test_turns_are_shared_by_band() -> None:
    workers = Workers(1, {"b0": HIGH, "b1": LOW})
    workers.report(**burning(2))
    served: Counter[str] = Counter()
    for _ in range(1000):
        holder = next(name for name in ("b0", "b1") if workers.state(name) is TurnState.HOLDING)
        served[holder] += 1
        workers.now += QUANTUM_S
        workers.over(holder)
    assert served == {"b0": 800, "b1": 200}


def test_equals_take_turns_only_when_asked_to() -> None:
    for always in (False, True):
        workers = Workers(2, {"b0": LOW, "b1": LOW, "b2": LOW, "light": HIGH}, always=always)
        assert bool(workers.report(**burning(3))) is always


def test_burners_of_different_bands_take_turns_even_if_one_of_them_gets_next_to_nothing() -> None:
    workers = Workers(2, {"b0": HIGH, "b1": HIGH, "b2": LOW}, always=False)
    told = workers.report(b0=(0.99, 0.01), b1=(0.98, 0.02), b2=(0.01, 0.99))
    told |= workers.report(b0=(0.99, 0.01), b1=(0.98, 0.02), b2=(0.01, 0.99))
    assert told == {"b0": QUANTUM_S, "b1": QUANTUM_S, "b2": NO_TURN}


def test_who_is_light_but_kept_waiting_is_no_burner() -> None:
    workers = Workers(2, {"light": HIGH, **dict.fromkeys(burning(8), LOW)})
    for _ in range(4):
        told = workers.report(**burning(8), light=(0.02, 0.9))
        assert "light" not in told
    assert workers.state("b0") is not TurnState.STANDING


def test_a_turn_given_back_goes_to_the_next_at_once() -> None:
    workers = Workers(1, {"b0": LOW, "b1": LOW, "light": HIGH})
    workers.report(**burning(2))
    assert workers.over("b0", wanting=False) == {"b1": QUANTUM_S}
    assert workers.over("b1", wanting=False) == {}
    assert workers.over("b0", wanting=True) == {"b0": QUANTUM_S}


def test_a_burner_that_calms_down_gets_its_standing_turn_back() -> None:
    workers = Workers(2, {"b0": LOW, "b1": LOW, "b2": LOW, "b3": LOW})
    workers.report(**burning(4))
    calm = next(f"b{n}" for n in range(4) if workers.state(f"b{n}") is TurnState.HOLDING)
    workers.over(calm, wanting=False)
    told: dict[str, float] = {}
    for _ in range(2):
        told |= workers.report(**{k: v for k, v in burning(4).items() if k != calm})
    assert told[calm] == STANDING


def test_turns_end_when_the_burners_fit_again() -> None:
    workers = Workers(2, {"b0": LOW, "b1": LOW, "b2": LOW, "light": HIGH})
    workers.report(**burning(3))
    workers.turns.ended(WorkerId("b0"))
    told = workers.report(b1=(1.0, 0.0), b2=(1.0, 0.0))
    assert told == {"b1": STANDING, "b2": STANDING}


def test_the_slot_of_a_worker_that_ends_is_free() -> None:
    workers = Workers(1, {"b0": LOW, "b1": LOW, "light": HIGH})
    workers.report(**burning(2))
    workers.turns.ended(WorkerId("b0"))
    assert workers.take() == {"b1": QUANTUM_S}


def test_a_slot_is_not_lost_to_one_that_blocks_in_a_handler() -> None:
    workers = Workers(1, {"b0": LOW, "b1": LOW, "light": HIGH})
    workers.report(**burning(2))
    assert workers.report(b0=(0.0, 0.0)) == {"b0": STANDING, "b1": STANDING}


def test_a_turn_that_never_ends_loses_its_slot() -> None:
    workers = Workers(1, {"b0": LOW, "b1": LOW, "light": HIGH})
    workers.report(**burning(2))
    due = workers.turns.next_timer()
    assert due == pytest.approx(workers.now + QUANTUM_S + OVERDUE_S)
    workers.now = due or 0.0
    assert workers.take() == {"b1": QUANTUM_S}
    assert workers.state("b0") is TurnState.OVERDUE
    assert workers.over("b0") == {}
    assert workers.state("b0") is TurnState.WAITING


def test_at_the_end_everybody_may_compute() -> None:
    workers = Workers(1, {"b0": LOW, "b1": LOW, "b2": LOW, "light": HIGH})
    workers.report(**burning(3))
    workers.turns.release(workers.now)
    assert workers.take() == {"b0": STANDING, "b1": STANDING, "b2": STANDING}
    assert workers.report(**burning(3)) == {}
    assert workers.turns.next_timer() is None


def test_no_slots_means_no_turns() -> None:
    workers = Workers(0, {"b0": LOW, "b1": LOW, "light": HIGH})
    for _ in range(3):
        assert workers.report(**burning(2)) == {}


@source
def numbers() -> object:
    """Yield a few."""
    yield from range(3)


@node
def same(number: int) -> int:
    """Return it."""
    return number


@pytest.mark.parametrize(("asked", "slots"), [(None, 4), (0, 0), (7, 7)])
def test_a_run_has_as_many_slots_as_it_asks_for_or_as_there_are_cores(
    asked: int | None, slots: int
) -> None:
    plan = Graph("g", numbers() >> same()).plan()
    assert turns_of(plan, RunOptions(slots=asked), cores=4).slots == slots


def banded(**bands: Priority) -> dict[str, int]:
    """Return each node's niceness in a graph whose nodes have these bands."""
    graph = Graph("g")
    for name, band in bands.items():
        graph.add(numbers().options(name=name, priority=band))
    plan = graph.plan()
    return {worker.node: niceness_of(plan, worker) for worker in plan.workers}


def test_the_lower_the_band_the_nicer_but_only_beside_a_better_one() -> None:
    high, normal, low = Priority.HIGH, Priority.NORMAL, Priority.LOW
    assert banded(a=high, b=normal, c=low) == {"a": 0, "b": 10, "c": 19}
    assert banded(b=normal, c=low) == {"b": 0, "c": 19}
    assert banded(c=low, d=low) == {"c": 0, "d": 0}


def told(turn: OwnTurn) -> tuple[bool, bool]:
    """Return whether the worker must mind its turn, and whether it is held."""
    return turn.rationed, turn.held


def test_a_worker_computes_until_its_turn_is_over() -> None:
    turn = OwnTurn()
    assert told(turn) == (False, False)
    turn.given(0.02, 0)
    assert told(turn) == (True, False)
    assert turn.mind(True, 19_000_000) is None
    assert turn.mind(True, 20_000_000) == 1
    assert told(turn) == (True, True)
    assert turn.mind(True, 30_000_000) is None
    turn.given(0.0, 0)
    assert told(turn) == (False, False)


def test_a_worker_with_nothing_to_do_gives_its_turn_back_and_asks_for_another() -> None:
    turn = OwnTurn()
    turn.given(0.02, 0)
    assert turn.mind(False, 1) == 0
    assert told(turn) == (True, False)  # not held: it may reach its end
    assert turn.mind(False, 2) is None
    assert turn.mind(True, 3) == 1
    assert told(turn) == (True, True)


def test_a_worker_told_to_wait_waits() -> None:
    turn = OwnTurn()
    turn.given(-1.0, 0)
    assert told(turn) == (True, True)
    assert turn.mind(True, 1) is None
