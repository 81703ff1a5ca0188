"""A batch through four light handlers: called by hand, passed through, and handed over by queues.

``docs/decisions/0031-turns-pass-through.md`` says why.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.micro.wireless import BATCH
from benchmarks.workload import relay
from dflow import Graph, node, sink, source
from dflow.flow.in_edge import InChannel
from dflow.flow.local_edge import LocalEdge
from dflow.message import Priority
from dflow.worker.context import LocalDirect
from dflow.worker.emitting import call_each
from dflow.worker.passing import compose
from dflow.worker.plane import Gate

pytestmark = pytest.mark.benchmark(min_rounds=200, warmup=True)
VALUES: list[Any] = [{"id": number} for number in range(BATCH)]
LENGTH = 4


def _never(*_: Any) -> None:
    raise AssertionError


def by_hand() -> None:
    """Call one after the other, in one loop."""
    for value in VALUES:
        relay(relay(relay(relay(value))))


def composed() -> Callable[[], None]:
    """Return what calls the function that a turn that passes through calls."""
    through = compose([relay] * LENGTH, [None] * (LENGTH - 1), _never, _never, _never)

    def run() -> None:
        for value in VALUES:
            through(value)

    return run


def queued() -> Callable[[], None]:
    """Return what takes a batch over three local edges, without what a worker does around it."""
    graph = Graph("g", source(lambda: iter(()))() >> node(relay)() >> sink(relay)())
    plan = replace(graph.plan().edges[0], local=True, capacity=4 * BATCH)
    channels = [
        InChannel(n, plan.id, "in", Priority.NORMAL, plan.capacity, 1 << 20, 1) for n in range(3)
    ]
    edges = [LocalEdge(plan, channel.number, channel.window) for channel in channels]
    gate = Gate()

    def run() -> None:
        values = VALUES
        for edge, channel in zip(edges, channels, strict=True):
            direct = LocalDirect(edge, lambda: None)
            call_each(relay, iter(values), direct.edge.pending.append, direct, gate)
            for cut in edge.flush(0):
                channel.hand_over(cut.payloads, 0)
            values = channel.inbox[0].values or []
            channel.take(len(values))
            channel.finish(len(values))
        for value in values:
            relay(value)

    return run


@pytest.mark.parametrize("way", ["by_hand", "composed", "queued"])
def test_a_batch_goes_through_four_handlers(way: str, benchmark: BenchmarkFixture) -> None:
    run = {"by_hand": lambda: by_hand, "composed": composed, "queued": queued}[way]()
    benchmark.pedantic(run, rounds=1000, warmup_rounds=50)  # type: ignore[no-untyped-call]  # ships none
