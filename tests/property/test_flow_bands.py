"""The band queue against a plain model, and the shares and waits it promises."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dflow.flow.bands import WEIGHTS, BandQueue
from dflow.message import Priority

CYCLE = sum(WEIGHTS)
Item = tuple[int, int]
"""(band, name)."""

bands = st.sampled_from([int(band) for band in Priority])
items = st.tuples(bands, st.integers(0, 3))


class BandQueueMachine(RuleBasedStateMachine):
    """Model: a list for each band, and how often each waiting item's band was passed over."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: BandQueue[Item] = BandQueue()
        self.model: dict[int, list[Item]] = {int(band): [] for band in Priority}
        self.passed = dict.fromkeys(self.model, 0)

    @rule(item=items)
    def push(self, item: Item) -> None:
        self.queue.push(item, item[0])
        if item not in self.model[item[0]]:
            self.model[item[0]].append(item)

    @rule(item=items)
    def remove(self, item: Item) -> None:
        self.queue.remove(item)
        if item in self.model[item[0]]:
            self.model[item[0]].remove(item)
            if not self.model[item[0]]:
                self.passed[item[0]] = 0

    @rule()
    def pop(self) -> None:
        self.serve(self.queue.pop(), lambda _: True)

    @rule(times=st.integers(1, 40))
    def serve_whoever_is_always_ready(self, times: int) -> None:
        for _ in range(times):
            item = self.queue.pop()
            self.serve(item, lambda _: True)
            if item is not None:
                self.push(item)

    @rule(only=st.integers(1, 4), times=st.integers(1, 20))
    def pop_the_highest_bands(self, only: int, times: int) -> None:
        for _ in range(times):
            item = self.queue.pop(only=only)
            self.serve(item, lambda each: each[0] < only)
            if item is not None:
                self.push(item)

    @rule(names=st.sets(st.integers(0, 3)), again=st.booleans())
    def pop_some_items(self, names: set[int], again: bool) -> None:
        item = self.queue.pop(lambda each: each[1] in names)
        self.serve(item, lambda each: each[1] in names)
        if item is not None and again:
            self.push(item)

    def serve(self, item: Item | None, allowed: Callable[[Item], bool]) -> None:
        """Check that ``item`` was a right choice, and take it out of the model."""
        able = {b: [one for one in each if allowed(one)] for b, each in self.model.items()}
        able = {band: each for band, each in able.items() if each}
        if item is None:
            assert able == {}
            return
        band = item[0]
        assert item == able[band][0]  # first in, first out, among those allowed
        for other in able:
            self.passed[other] += 1
        self.passed[band] = 0
        self.model[band].remove(item)

    @precondition(lambda self: any(self.model.values()))
    @invariant()
    def nobody_is_passed_over_for_longer_than_a_cycle(self) -> None:
        # two may have waited that long at once: the lower one is then next but one
        assert max(self.passed.values()) <= CYCLE + 1
        assert self.passed[Priority.CONTROL] <= CYCLE

    @invariant()
    def it_holds_what_the_model_holds(self) -> None:
        held = [item for each in self.model.values() for item in each]
        assert len(self.queue) == len(held)
        assert all(item in self.queue for item in held)
        for only in (1, 2, 3, 4):
            assert self.queue.waiting(only=only) == any(band < only for band, _ in held)
        for name in range(4):
            known = any(item[1] == name for item in held)
            assert self.queue.waiting(lambda item, name=name: item[1] == name) == known  # type: ignore[misc]  # mypy cannot infer a lambda with a default


TestBandQueue = BandQueueMachine.TestCase
TestBandQueue.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)


def saturated(load: Iterable[Item], services: int) -> list[Item]:
    """Return who is served when everybody is ready again at once."""
    queue: BandQueue[Item] = BandQueue()
    for item in load:
        queue.push(item, item[0])
    served = []
    for _ in range(services):
        one = queue.pop()
        assert one is not None
        served.append(one)
        queue.push(one, one[0])
    return served


loads = st.sets(items, min_size=1)


@given(loads, st.integers(0, 200))
def test_service_is_within_a_fifth_of_the_weights_over_any_thousand(
    load: set[Item], begin: int
) -> None:
    window = saturated(load, begin + 1000)[begin:]
    services = Counter(band for band, _ in window)
    ready = {band for band, _ in load}
    for band in ready:
        fair = 1000 * WEIGHTS[band] / sum(WEIGHTS[other] for other in ready)
        assert 0.8 * fair <= services[band] <= 1.2 * fair


@given(loads, st.integers(1, 300))
def test_equals_differ_by_one_service_at_most_at_any_moment(load: set[Item], services: int) -> None:
    served = Counter(saturated(load, services))
    for band in {band for band, _ in load}:
        counts = [served[item] for item in load if item[0] == band]
        assert max(counts) - min(counts) <= 1


@given(st.lists(st.tuples(bands, st.integers(0, 3)), max_size=60))
def test_low_waits_one_cycle_at_most_whoever_comes_and_goes(arrivals: list[Item]) -> None:
    queue: BandQueue[Item] = BandQueue()
    low = (int(Priority.LOW), 9)
    for item in arrivals:  # some history
        queue.push(item, item[0])
        if item[1] == 0:
            queue.pop()
    while queue.pop() is not None:
        pass
    queue.push(low, low[0])
    waited = 0
    busy = [item for item in arrivals if item[0] != Priority.LOW]
    while True:
        for item in busy:
            queue.push(item, item[0])
        if queue.pop() == low:
            break
        waited += 1
    assert waited < CYCLE


@pytest.mark.parametrize("ready", [(1,), (2,), (3,), (1, 3), (1, 2, 3)])
def test_a_lone_control_item_is_next_under_full_load(ready: tuple[int, ...]) -> None:
    queue: BandQueue[Item] = BandQueue()
    busy = [(band, name) for band in ready for name in range(2)]
    for item in busy:
        queue.push(item, item[0])
    for service in range(200):
        control = (0, 0)
        if service % 5 == 0:
            queue.push(control, 0)
            assert queue.pop() == control
        data = queue.pop() or control
        queue.push(data, data[0])


def test_a_band_that_was_idle_is_owed_nothing() -> None:
    queue: BandQueue[Item] = BandQueue()
    queue.push((2, 0), 2)
    for _ in range(1000):  # alone for a long time
        queue.push(queue.pop() or (2, 0), 2)
    queue.push((1, 0), 1)
    served = []
    for _ in range(9):
        item = queue.pop() or (0, 0)
        served.append(item[0])
        queue.push(item, item[0])
    assert served == [1, 1, 1, 1, 2, 2, 1, 1, 1]


def test_control_served_while_data_is_held_costs_it_nothing_afterwards() -> None:
    queue: BandQueue[Item] = BandQueue()
    for band in Priority:
        queue.push((band, 0), band)
    for _ in range(100):
        assert queue.pop(only=1) == (0, 0)
        queue.push((0, 0), 0)
    served = []
    for _ in range(CYCLE):
        item = queue.pop() or (9, 9)
        served.append(item[0])
        queue.push(item, item[0])
    assert Counter(served) == dict(enumerate(WEIGHTS))


def test_skipped_items_keep_their_places() -> None:
    queue: BandQueue[str] = BandQueue()
    for item in ("a1", "b1", "a2", "b2"):
        queue.push(item)
    assert queue.pop(lambda item: item.startswith("b")) == "b1"
    assert [queue.pop() for _ in range(4)] == ["a1", "a2", "b2", None]


@pytest.mark.parametrize("weights", [(1,), (3, 1), (1, 1, 1)])
def test_other_weights_hold_as_well(weights: tuple[int, ...]) -> None:
    queue: BandQueue[int] = BandQueue(weights)
    for band in range(len(weights)):
        queue.push(band, band)
    served: Counter[int] = Counter()
    for _ in range(10 * sum(weights)):
        item = queue.pop()
        assert item is not None
        served[item] += 1
        queue.push(item, item)
    assert served == {band: 10 * weight for band, weight in enumerate(weights)}


@given(
    st.lists(st.one_of(items, st.none()), max_size=60),
)
def test_an_item_that_waits_alone_is_accounted_for_like_any_other(
    steps: list[Item | None],
) -> None:
    short, long = BandQueue[Item](), BandQueue[Item]()
    for item in steps:
        if item is not None:
            short.push(item, item[0])
            long.push(item, item[0])
        else:
            assert short.pop() == long.pop(lambda _: True)  # restricted, so it takes the long way
    assert [short.pop() for _ in range(16)] == [long.pop(lambda _: True) for _ in range(16)]
