"""`dflow.testing.simulate` as its users see it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dflow import Graph, edge, node, sink, source
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
