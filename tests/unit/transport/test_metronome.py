"""The timer behind the pulse: it rings when user code runs for long, and only then."""

from __future__ import annotations

import select
import sys
from collections.abc import Iterator

import pytest

from dflow.clock import monotonic_ns
from dflow.transport.metronome import BEAT_S, IDLE_BEATS, Metronome

WAIT_MS = 10_000
only_linux = pytest.mark.skipif(sys.platform != "linux", reason="timers are descriptors on Linux")


@pytest.fixture
def metronome() -> Iterator[Metronome]:
    """Give one that is closed afterwards."""
    made = Metronome(lambda: None)
    yield made
    made.close()


def rings(metronome: Metronome, within_ms: int) -> bool:
    """Return whether it rings within a time."""
    poll = select.poll()
    poll.register(metronome.fd, select.POLLIN)
    return bool(poll.poll(within_ms))


@only_linux
def test_it_rings_again_and_again_while_user_code_runs(metronome: Metronome) -> None:
    metronome.begin()
    for _ in range(3):
        assert rings(metronome, WAIT_MS)
        metronome.beat(lambda: True)
    assert rings(metronome, WAIT_MS)


@only_linux
def test_it_rings_again_though_its_ring_was_taken_for_an_older_one(metronome: Metronome) -> None:
    metronome.begin()
    assert rings(metronome, WAIT_MS)
    looks = iter([False, True])  # user code began after the first look, and its timer rang
    metronome.beat(lambda: next(looks))
    assert rings(metronome, WAIT_MS)


@only_linux
def test_it_is_silent_before_work_and_after_it(metronome: Metronome) -> None:
    assert not rings(metronome, 0)
    metronome.begin()
    assert rings(metronome, WAIT_MS)
    metronome.beat(lambda: False)
    assert not rings(metronome, 5)


@only_linux
def test_who_is_done_for_now_sets_it_anew_only_while_it_runs(metronome: Metronome) -> None:
    metronome.renew(monotonic_ns())
    assert not rings(metronome, 5)
    metronome.begin()
    metronome.renew(monotonic_ns() + 1_000_000)  # a millisecond later
    assert rings(metronome, WAIT_MS)
    metronome.beat(lambda: False)
    metronome.renew(monotonic_ns() + 10_000_000)
    assert not rings(metronome, 5)


@only_linux
def test_a_listener_that_comes_late_does_not_block(metronome: Metronome) -> None:
    metronome.beat(lambda: False)  # nothing has rung: the timer was set anew meanwhile
    metronome.begin()
    assert rings(metronome, WAIT_MS)


@only_linux
def test_the_listener_of_a_timer_waits_for_it(metronome: Metronome) -> None:
    metronome.begin()
    assert metronome.timeout_s is None


@only_linux
def test_closing_twice_and_working_on_is_harmless(metronome: Metronome) -> None:
    metronome.close()
    metronome.close()
    metronome.begin()


def test_without_timers_the_listener_is_woken_for_work_and_beats_until_it_is_idle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "platform", "none")
    woken: list[int] = []
    metronome = Metronome(lambda: woken.append(1))
    assert metronome.fd == -1
    metronome.begin()
    assert woken == [1]
    waits = []
    for _ in range(IDLE_BEATS + 1):
        waits.append(metronome.timeout_s)
        metronome.beat(lambda: False)
    assert waits == [BEAT_S] * IDLE_BEATS + [None]
    metronome.begin()
    assert woken == [1]  # a moment ago
