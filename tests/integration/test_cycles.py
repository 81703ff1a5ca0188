"""Runs started and stopped many times in one process leave nothing in it.

20 cycles; 1,000 with DFLOW_CYCLES=1000 (scripts/nightly cycles). Of 20, memory is judged by how
much more there is at last than at first; of 40 and more by its slope, too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.integration.cycles import Held, leaks, slope_of
from tests.integration.flows import python

CYCLES = int(os.environ.get("DFLOW_CYCLES") or 20)
SHOWN = 10


@pytest.mark.timeout(90 + 4 * CYCLES)
def test_starting_and_stopping_runs_of_every_kind_leaks_nothing() -> None:
    with python("-m", "tests.integration.cycles", CYCLES) as process:
        told, errors = process.communicate()
    assert process.returncode == 0, errors
    rows = [Held(**json.loads(line)) for line in told.splitlines()]
    assert rows[-1].cycles == CYCLES
    for row in rows[:: max(1, len(rows) // SHOWN)]:
        print(f"{row.cycles:>5} cycles: {row.rss_kb:,} KB, {row.objects:,} objects")
    slope, error = slope_of([(row.cycles, row.rss_kb) for row in rows])
    print(f"memory: {slope:.2f} KB a cycle, give or take {error:.2f}; files {rows[-1].files}")
    assert leaks(rows) == []


HELD = Held(10, 30_000, 5_000, {"socket": 2}, ["MainThread"], 4, [], 0, [], [], {"zmq.Context": 1})


@pytest.mark.parametrize(
    "leak",
    [
        lambda n: {"files": {"socket": 2 + n}},
        lambda n: {"threads": ["MainThread", *["dflow-run"] * n]},
        lambda n: {"tasks": 4 + n},
        lambda n: {"children": ["123 zombie"] * n},
        lambda n: {"maps": n},
        lambda n: {"shared": ["dflow-1"] * n},
        lambda n: {"temporary": ["dflow-abc"] * n},
        lambda n: {"ours": {"zmq.Context": 1, "dflow.runtime.Run": n}},
        lambda n: {"objects": 5_000 + 100 * n},
        lambda n: {"rss_kb": 30_000 + 30 * n},
    ],
)
def test_every_kind_of_leak_is_noticed(leak: Callable[[int], dict[str, Any]]) -> None:
    rows = [replace(HELD, cycles=10 * n, **leak(n)) for n in range(1, 11)]
    assert len(leaks(rows)) == 1


def test_few_cycles_show_a_run_that_leaves_a_third_of_a_megabyte() -> None:
    rows = [replace(HELD, cycles=10 * n, rss_kb=30_000 + 3_334 * n) for n in (1, 2)]
    assert [leak.partition(":")[0] for leak in leaks(rows)] == ["memory"]


def test_memory_that_goes_up_and_down_is_no_leak() -> None:
    rows = [replace(HELD, cycles=10 * n, rss_kb=30_000 + 400 * (n % 2)) for n in range(1, 11)]
    assert leaks(rows) == []
