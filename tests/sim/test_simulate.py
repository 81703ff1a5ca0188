"""`dflow.testing.simulate` as its users see it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dflow import Graph, Input, Node, Output, Priority, edge, node, sink, source
from dflow.errors import HookFailed
from dflow.report import RunReport
from dflow.testing import Cut, Drop, Faults, simulate, spend


@source
def numbers(n: int) -> Iterator[int]:
    yield from range(n)


@node
def square(x: int) -> int:
    return x * x


@node
def slow(x: int) -> int:
    spend(0.003)
    return x


@sink
def show(x: int) -> None:
    pass


def squares(n: int = 20, **options: Any) -> Graph:
    return Graph("squares", numbers(n) >> square().options(**options) >> show())


def test_a_graph_runs_to_its_end_and_tells_what_each_node_emitted() -> None:
    simulation = simulate(squares(5), seed=1)
    assert simulation.results("numbers") == [0, 1, 2, 3, 4]
    assert simulation.results("square") == simulation.results("show") == [0, 1, 4, 9, 16]
    assert simulation.report.outcome == "finished"


def test_the_same_seed_gives_the_same_trace_and_another_one_another() -> None:
    one, again, other = (simulate(squares(replicas=2), seed=seed) for seed in (1, 1, 2))
    assert str(one.trace) == str(again.trace) != str(other.trace)


def test_a_lost_last_report_does_not_stop_the_run() -> None:
    graph = Graph("g", numbers(3) >> edge(capacity=1) >> square() >> show())
    lost = Faults(exactly=[Drop("numbers[0].out->square[0].in", 1)])
    simulation = simulate(graph, seed=1, faults=lost)
    assert simulation.results("show") == [0, 1, 4]
    assert 1 < simulation.now_s < 3  # it was asked for after a second


def test_a_cut_connection_ends_the_run_by_name() -> None:
    graph = Graph("g", numbers(50) >> edge(capacity=4) >> slow() >> show())
    cut = Faults(exactly=[Cut("numbers.out->slow.in", at_s=0.02)])
    with pytest.raises(HookFailed, match=r"edge numbers\.out->slow\.in") as caught:
        simulate(graph, seed=1, faults=cut)
    report = caught.value.report
    assert isinstance(report, RunReport)
    assert report.balances


def test_a_connection_cut_after_the_sender_is_done_is_noticed() -> None:
    """It has said that it is drained, and hears only then that its END was refused."""
    graph = Graph("g", numbers(50) >> slow().options(replicas=3) >> show())
    with pytest.raises(HookFailed, match="refused"):
        simulate(graph, seed=1, faults=Faults(cut_links=1, within_s=(0.003, 0.02)), limit_s=60)


class Adding(Node):
    """Adds what it was told last."""

    numbers = Input(int)
    settings = Input(int, priority=Priority.CONTROL)
    sums = Output(int)

    def __init__(self) -> None:
        self.added = 0

    @numbers.handler
    def add(self, x: int) -> int:
        spend(0.001)
        return x + self.added

    @settings.handler
    def change(self, added: int) -> None:
        self.added = added


def test_messages_come_from_outside_while_the_graph_runs() -> None:
    graph = Graph("g")
    adding = Adding()
    graph.connect(numbers(100), adding.numbers)
    graph.connect(adding.sums, show())
    simulation = simulate(graph, seed=1, send={adding.settings: [1000]})
    values = simulation.results("show")
    changed = next(i for i, value in enumerate(values) if value >= 1000)
    assert values == [*range(changed), *range(1000 + changed, 1100)]


def test_what_only_the_outside_feeds_ends_when_everything_is_sent() -> None:
    graph = Graph("g")
    squares = square()
    graph.connect(squares, show())
    graph.accept(squares, capacity=2)
    simulation = simulate(graph, seed=1, send={"square": range(10)})
    assert simulation.results("show") == [x * x for x in range(10)]
    assert simulation.report.balances


def test_what_is_sent_too_late_is_told() -> None:
    simulation = simulate(squares(0), seed=1, send={"square": [1]})
    [(place, value, error)] = simulation.refused
    assert (place, value) == ("square.in", 1)
    assert "has ended" in str(error)
