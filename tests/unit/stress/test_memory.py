"""Peaks and growth of memory: a process that needs too much, or ever more, is named."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from stress.memory import HERE, Memory, grown_mb
from tests.support import eventually


def memory_of(samples_mb: dict[str, list[int]]) -> Memory:
    run: Any = SimpleNamespace(pids={})
    memory = Memory(run)
    memory.samples = {
        name: [(float(at), mb) for at, mb in enumerate(values)]
        for name, values in samples_mb.items()
    }
    return memory


def test_process_above_its_bound_is_named_with_its_peak() -> None:
    memory = memory_of({"slow[0]": [10, 90, 20], "fast[1]": [10, 20, 10], HERE: [100, 110]})
    memory.assert_within(30, {"slow": 100})
    with pytest.raises(AssertionError, match=r"slow\[0\]: expected at most 30 MB, got 90"):
        memory.assert_within(30, {})
    with pytest.raises(AssertionError, match=r"fast\[1\]: expected at most 15 MB, got 20"):
        memory.assert_within(100, {"fast": 15})


def test_this_process_is_judged_by_what_it_needs_more_than_at_first() -> None:
    memory = memory_of({HERE: [500, 540, 520]})
    assert memory.peaks_mb() == {HERE: 40}
    with pytest.raises(AssertionError, match="user process: expected at most 30 MB, got 40"):
        memory.assert_within(30, {})


def test_growth_is_that_of_a_line_once_warm() -> None:
    leak = [(float(at), 100.0 + max(0, at - 3)) for at in range(10)]
    peak = [(float(at), 300.0 if at == 1 else 100.0) for at in range(10)]
    assert [grown_mb(leak), grown_mb(peak)] == [pytest.approx(6), pytest.approx(0)]
    assert grown_mb(leak[:2]) is None


def test_processes_are_sampled_and_one_that_has_ended_is_no_error() -> None:
    gone = os.fork()
    if gone == 0:
        os._exit(0)
    run: Any = SimpleNamespace(pids={"me": os.getpid(), "gone": gone})
    with Memory(run) as memory:
        os.waitpid(gone, 0)
        eventually(lambda: len(memory.samples["me"]) >= 3, what="three samples")
    assert memory.peaks_mb()["me"] > 1
