"""`dflow.testing.simulate` as its users see it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dflow import Graph, node, sink, source
from dflow.testing import simulate


@source
def numbers(n: int) -> Iterator[int]:
    yield from range(n)


@node
def square(x: int) -> int:
    return x * x


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
