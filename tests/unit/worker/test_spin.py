"""Looking before sleeping: for how long, and when not."""

from __future__ import annotations

from typing import Any

import pytest

from dflow.worker.spin import Spin

SPIN_S = 0.010
MS = 1_000_000


class World:
    """A clock that goes on by a millisecond a look, and sockets that have something at a time."""

    def __init__(self, arrives_ms: int | None = None) -> None:
        self.now_ms = 0
        self.arrives_ms = arrives_ms
        self.looks: list[float | None] = []
        self.breaths = 0

    def clock(self) -> int:
        """Return the time in ns."""
        return self.now_ms * MS

    def look(self, timeout_s: float | None) -> list[str]:
        """Take a millisecond to look, or sleep until there is something or the time is over."""
        self.looks.append(timeout_s)
        if timeout_s == 0:
            self.now_ms += 1
        elif self.arrives_ms is not None and self.arrives_ms > self.now_ms:
            self.now_ms = self.arrives_ms
        return ["link"] if self.arrives_ms is not None and self.now_ms >= self.arrives_ms else []

    def breathe(self) -> None:
        """Count."""
        self.breaths += 1

    def wait(self, spin: Spin, timeout_s: float | None) -> list[str]:
        """Wait as a worker does."""
        return spin.wait(self.look, timeout_s, self.clock, self.breathe)


def test_it_looks_without_sleeping_until_something_comes() -> None:
    world, spin = World(arrives_ms=4), Spin(SPIN_S)
    assert world.wait(spin, None) == ["link"]
    assert world.looks == [0, 0, 0, 0]
    assert spin.looks == 4
    assert world.breaths == 3


def test_it_sleeps_when_nothing_came_in_time() -> None:
    world, spin = World(), Spin(SPIN_S)
    assert world.wait(spin, None) == []
    assert world.looks == [0] * 10 + [None]
    world.wait(spin, None)
    assert world.looks[11:] == [None]


def test_it_looks_again_after_something_came_while_it_slept() -> None:
    world, spin = World(arrives_ms=50), Spin(SPIN_S)
    assert world.wait(spin, None) == ["link"]
    world.arrives_ms = None
    world.looks.clear()
    world.wait(spin, None)
    assert world.looks == [0] * 10 + [None]


def test_it_does_not_look_for_longer_than_it_may_wait() -> None:
    world, spin = World(), Spin(SPIN_S)
    assert world.wait(spin, 0.003) == []
    assert world.looks == [0, 0, 0]
    world.wait(spin, None)  # what is left of the time to look, after a report was due
    assert world.looks[3:] == [0] * 7 + [None]


def test_it_sleeps_for_what_is_left_of_the_wait() -> None:
    world, spin = World(), Spin(SPIN_S)
    world.wait(spin, 0.025)
    assert world.looks == [0] * 10 + [pytest.approx(0.015)]


def test_work_in_between_begins_the_time_again() -> None:
    spin = Spin(SPIN_S)
    found: list[Any] = [spin.until_ns(None, now * MS) // MS for now in (0, 4, 30)]
    assert found == [10, 10, 30]
    spin.busy()
    assert spin.until_ns(None, 40 * MS) == 50 * MS
