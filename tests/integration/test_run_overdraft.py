"""What may run while a node has no credit, ticks and control messages, stays bounded."""

from __future__ import annotations

import time
from typing import Any

import pytest

from dflow import Graph, Input, Node, Output, Priority, edge, sink
from tests.integration.flows import count

pytestmark = pytest.mark.timeout(30)

CAPACITY = 10
BURST = 5


@sink
def slow(x: Any) -> None:
    """Spend a millisecond on each message."""
    begun = time.monotonic()
    while time.monotonic() - begun < 0.001:
        pass


class Ticking(Node):
    """Passes on what it gets and emits more with every tick than the sink can take."""

    numbers = Input(int)
    out = Output(int)

    @numbers.handler
    def pass_on(self, number: int) -> int:
        return number


class CallingTick(Ticking):
    def on_tick(self) -> None:
        for _ in range(BURST):
            self.out.emit(-1)


class ReturningTick(Ticking):
    def on_tick(self) -> int:
        return -1


class YieldingTick(Ticking):
    def on_tick(self) -> Any:
        yield from [-1] * BURST


@pytest.mark.parametrize("node", [CallingTick(), ReturningTick(), YieldingTick()])
def test_ticks_that_emit_leave_credit_for_data_and_memory_bounded(node: Ticking) -> None:
    ticking = node.options(tick_s=0.001)
    report = Graph("ticks", count(100) >> ticking >> edge(capacity=CAPACITY) >> slow()).run()
    assert report.node(ticking.name).handled == 100
    assert report.balances
    assert report.edge(f"{ticking.name}.out->slow.in").peak <= CAPACITY + 2 * BURST


class Controlled(Node):
    """Emits for every control message, which is handled also without credit."""

    commands = Input(int, priority=Priority.CONTROL)
    out = Output(int)

    @commands.handler
    def pass_on(self, number: int) -> int:
        return number


def test_control_messages_that_emit_without_credit_wait_after_another_window() -> None:
    controlled = Controlled()
    chain = count(1000) >> controlled >> edge(capacity=CAPACITY) >> slow()
    report = Graph("control", chain).run()
    assert report.node("slow").handled == 1000
    assert report.balances
    assert report.edge("controlled.out->slow.in").peak <= 2 * CAPACITY + 1
