"""Several participants share memory in any order; every live view is right after every step."""

from __future__ import annotations

import gc
import os
import random
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from dflow.errors import BufferLost
from dflow.transport.segments import is_supported
from dflow.transport.shm import SharedMemory
from dflow.wire.buffers import Place

pytestmark = pytest.mark.skipif(not is_supported(), reason="needs memfd and locks of Linux")

LIMIT = 1 << 20
PARTICIPANTS = 4
STEPS = 3_000
STEP_BYTES = 997  # a prime: what is compared is spread over all pages
sizes = st.sampled_from([1, 5_000, 65_536, 100_000, 300_000])


@dataclass(eq=False)
class Held:
    """A view that somebody has, and what is to be seen in it."""

    who: int
    view: memoryview
    pattern: bytes

    def check(self) -> None:
        """Compare a sample of every page, and the ends."""
        got = bytes(self.view[::STEP_BYTES]) + bytes(self.view[-1:])
        assert got == self.pattern


class Sharing(RuleBasedStateMachine):
    """Participants that write, show, borrow, pass on, let go, sweep and close."""

    held_views = Bundle("held")
    places = Bundle("places")

    def __init__(self) -> None:
        super().__init__()
        gc.disable()  # what is left of a block must depend on the steps alone
        self.before = sorted(os.listdir("/proc/self/fd"))
        self.all = [SharedMemory(LIMIT, self.warned) for _ in range(PARTICIPANTS)]
        self.held: set[Held] = set()
        self.written = 0
        self.warnings = 0

    def warned(self, text: str) -> None:
        """Count the warnings."""
        assert "shm_bytes" in text
        self.warnings += 1

    @rule(target=held_views, who=st.integers(0, PARTICIPANTS - 1), size=sizes)
    def write(self, who: int, size: int) -> Any:
        """Write something that never was before."""
        view = self.all[who].allocate(size)
        if view is None:
            return multiple()
        assert not any(self.overlap(view, other.view) for other in self.held if other.who == who)
        self.written += 1
        array = np.frombuffer(view, "u1")
        array[:] = np.random.default_rng(self.written).integers(0, 256, size, "u1")
        pattern = bytes(array[::STEP_BYTES]) + bytes(array[-1:])
        held = Held(who, view, pattern)
        self.held.add(held)
        return held

    @rule(target=places, held=held_views, begin=st.integers(0, 5000))
    def show(self, held: Held, begin: int) -> Any:
        """Describe a part of what somebody has."""
        if held.who < 0:
            return multiple()
        part = held.view[min(begin, len(held.view) - 1) :]
        address = np.frombuffer(part, "u1").__array_interface__["data"][0]
        buffer = self.all[held.who].place_of(address, len(part))
        if buffer is None or buffer.place is None:
            raise AssertionError("expected a place of what is shared")
        assert buffer.view == part
        return buffer.place, bytes(part[::STEP_BYTES]) + bytes(part[-1:]), held

    @rule(target=held_views, who=st.integers(0, PARTICIPANTS - 1), place=places)
    def borrow(self, who: int, place: tuple[Place, bytes, Held]) -> Any:
        """Borrow at any time later: what was shown, or lost; not lost while its shower has it."""
        where, pattern, shown = place
        try:
            view = self.all[who].borrow(where)
        except BufferLost:
            assert shown not in self.held
            return multiple()
        held = Held(who, view, pattern)
        held.check()
        self.held.add(held)
        return held

    @rule(target=held_views, held=held_views, who=st.integers(0, PARTICIPANTS - 1))
    def lend(self, held: Held, who: int) -> Any:
        """Show and borrow in one."""
        shown = self.show(held, 0)
        return self.borrow(who, shown) if isinstance(shown, tuple) else shown

    @rule(target=places, held=consumes(held_views))
    def show_and_let_go(self, held: Held) -> Any:
        """Describe what may be used for something else at once."""
        place = self.show(held, 0)
        self.let_go(held)
        return place

    @rule(held=consumes(held_views))
    def let_go(self, held: Held) -> None:
        """Drop a view."""
        self.held.discard(held)
        held.view = memoryview(b"")

    @rule(held=consumes(held_views))
    def drop_in_a_cycle(self, held: Held) -> None:
        """Leave a view to the garbage collector, which may come later."""
        self.held.discard(held)
        loop: list[object] = [held.view]
        loop.append(loop)
        held.view = memoryview(b"")

    @rule()
    def collect(self) -> None:
        """Collect the garbage."""
        gc.collect(0)

    @rule(who=st.integers(0, PARTICIPANTS - 1))
    def sweep(self, who: int) -> None:
        """Forget what is idle."""
        self.all[who].sweep()

    @rule(who=st.integers(0, PARTICIPANTS - 1))
    def end(self, who: int) -> None:
        """Close one; another takes its place. Its views stay."""
        self.all[who].close()
        self.all[who] = SharedMemory(LIMIT, self.warned)
        for held in self.held:
            if held.who == who:
                held.who = -1

    @staticmethod
    def overlap(one: memoryview, other: memoryview) -> bool:
        """Return whether two views of one participant share bytes."""
        return np.shares_memory(np.frombuffer(one, "u1"), np.frombuffer(other, "u1"))

    @invariant()
    def every_view_is_right(self) -> None:
        """No byte that anybody looks at has changed."""
        for held in self.held:
            held.check()

    @invariant()
    def memory_is_bounded(self) -> None:
        """No participant has more than it may."""
        for memory in self.all:
            stats = memory.stats
            assert stats.in_use_bytes <= stats.allocated_bytes <= LIMIT

    def teardown(self) -> None:
        """Everything comes back."""
        gc.enable()
        for held in self.held:
            held.view = memoryview(b"")
        gc.collect(0)
        for memory in self.all:
            memory.sweep()
            assert memory.stats.in_use_bytes == 0
            memory.close()
            assert memory.stats.allocated_bytes == 0
        assert sorted(os.listdir("/proc/self/fd")) == self.before


TestSharing = Sharing.TestCase
TestSharing.settings = settings(max_examples=80, stateful_step_count=50)


def test_a_long_walk(request: pytest.FixtureRequest) -> None:
    """Thousands of steps in one go; Hypothesis makes many short ones."""
    seed = int(request.config.getoption("hypothesis_seed"))
    walk, chance, shown = Sharing(), random.Random(seed), deque[Any](maxlen=100)
    try:
        for _ in range(STEPS):
            held = chance.choice([*walk.held, None])
            who = chance.randrange(PARTICIPANTS)
            step = chance.random()
            if held is None or step < 0.25:
                walk.write(who, chance.choice([1, 5_000, 65_536, 100_000, 300_000]))
            elif step < 0.4 and held.who >= 0:
                walk.lend(held, who)
                shown.append(walk.show(held, chance.randrange(5_000)))
            elif step < 0.6 and shown:
                walk.borrow(who, chance.choice(shown))
            elif step < 0.9 or len(walk.held) > 20:
                walk.let_go(held)
            elif step < 0.95:
                walk.drop_in_a_cycle(held)
            elif step < 0.97:
                walk.collect()
            elif step < 0.99:
                walk.sweep(who)
            else:
                walk.end(who)
            walk.every_view_is_right()
            walk.memory_is_bounded()
    finally:
        walk.teardown()
    assert walk.written > STEPS / 20
