"""What workers count, on its way."""

from __future__ import annotations

import tracemalloc

from dflow.stats import (
    Fates,
    InChannelStats,
    KeyStats,
    NodeStats,
    OutChannelStats,
    QueueStats,
    WorkerStats,
)

STATS = WorkerStats(
    NodeStats(1, 2, 3, 4, 5, {"a": 1.5}, 6),
    {0: 5},
    {0: 1},
    {0: 3},
    (OutChannelStats(1, 2, 3, 4, 5), OutChannelStats(2, 3, 4, 5, 6)),
    (InChannelStats(3, 2, 1, 0),),
    {0: Fates(1, 2, 3, 4, 5, 6)},
    {0: QueueStats(1.5, (KeyStats("k", 1, 2, 3, 4),))},
    7,
    {"other": NodeStats(9)},
    8,
)


def test_stats_arrive_as_they_were() -> None:
    assert WorkerStats.from_wire(STATS.to_wire()) == STATS


def test_reporting_for_long_takes_no_more_memory() -> None:
    STATS.to_wire()
    tracemalloc.start(1)
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(300):
            STATS.to_wire()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 20_000  # freed tuples, one a call and channel, made it 120 KB
