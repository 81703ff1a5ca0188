"""Subgraphs: exposed ports, nesting, names."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import pytest

from dflow.errors import GraphError, PortError
from dflow.graph import Graph, Subgraph
from tests.unit.graph_nodes import check, keep, numbers, show, square


def cleaning(name: str = "clean") -> Subgraph:
    first, last = square(), check()
    return Subgraph(
        name,
        first >> last,
        inputs={"lines": first},
        outputs={"records": last, "rejected": last.rejected},
    )


def test_nodes_of_a_subgraph_get_its_name_before_theirs() -> None:
    clean = cleaning()
    graph = Graph("g", numbers() >> clean.lines, clean.records >> show(), clean.rejected >> keep())
    assert list(graph.nodes) == ["numbers", "clean/square", "clean/check", "show", "keep"]
    assert [edge.id for edge in graph.plan().edges] == [
        "clean/square.out->clean/check.in",
        "numbers.out->clean/square.in",
        "clean/check.out->show.in",
        "clean/check.rejected->keep.in",
    ]


def test_a_subgraph_with_one_port_a_side_stands_in_a_chain() -> None:
    node = square()
    twice = Subgraph("twice", node, inputs={"x": node}, outputs={"y": node})
    graph = Graph("g", numbers() >> twice >> show())
    assert list(graph.nodes) == ["numbers", "twice/square", "show"]
    assert graph.problems() == ()
    with pytest.raises(PortError, match=r"clean\.records or clean\.rejected"):
        cleaning() >> show()


def test_subgraphs_nest() -> None:
    inner, before = cleaning("inner"), square()
    outer = Subgraph(
        "outer", before >> inner.lines, inputs={"raw": before}, outputs={"out": inner.records}
    )
    graph = Graph("g", numbers() >> outer >> show())
    assert [name for name in graph.nodes if "/" in name] == [
        "outer/square",
        "outer/inner/square",
        "outer/inner/check",
    ]
    assert graph.problems() == ()
    assert str(outer.port("out")) == "outer/inner/check.out"


def test_using_an_exposed_port_brings_the_whole_subgraph_along() -> None:
    graph = Graph("g").connect(numbers(), cleaning().lines)
    assert list(graph.nodes) == ["numbers", "clean/square", "clean/check"]


def test_a_node_only_exposed_belongs_to_the_subgraph() -> None:
    node = check()
    alone = Subgraph("alone", inputs={"x": node}, outputs={"y": node})
    assert list(Graph("g", numbers() >> alone).nodes) == ["numbers", "alone/check"]


def test_a_subclass_builds_itself_from_arguments() -> None:
    class Limit(Subgraph):
        def __init__(self, name: str, limit: int) -> None:
            super().__init__(name)
            first, last = square(), check(limit=limit)
            self.connect(first, last, capacity=3)
            self.expose(inputs={"values": first}, outputs={"small": last})

    graph = Graph("g", numbers() >> Limit("a", 3) >> Limit("b", 4) >> show())
    assert graph.problems() == ()
    assert [edge.capacity for edge in graph.plan().edges].count(3) == 2


def test_what_is_added_to_a_subgraph_later_is_still_in_the_graph() -> None:
    clean = cleaning()
    graph = Graph("g", numbers() >> clean.lines)
    clean.add(clean.rejected >> keep())
    assert "clean/keep" in graph.nodes


def test_two_subgraphs_of_one_name_are_one_problem() -> None:
    graph = Graph("g", numbers() >> cleaning().lines, numbers() >> cleaning().lines)
    (problem,) = graph.problems()
    assert problem.where == "clean"
    assert "give it another name" in problem.next_step


def test_a_graph_with_subgraphs_pickles() -> None:
    graph = Graph("g", numbers() >> cleaning().lines)
    assert pickle.loads(pickle.dumps(graph)).plan() == graph.plan()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: cleaning().line, r"'line'; did you mean 'lines'\? \(its ports are lines, rec"),
        (lambda: Subgraph("3"), "expected a name of letters"),
        (lambda: Subgraph("s", inputs={"name": square()}), "not one of Subgraph's own, got 'name'"),
        (lambda: Subgraph("s", inputs={"a b": square()}), "that is a Python name"),
        (lambda: cleaning().expose(inputs={"lines": square()}), "'lines' is already exposed"),
        (lambda: Subgraph("s", inputs={"x": cleaning().records}), "expected an input, got"),
    ],
)
def test_mistakes_with_ports_of_a_subgraph_are_explained(
    wrong: Callable[[], object], message: str
) -> None:
    with pytest.raises((GraphError, PortError), match=message):
        wrong()


def test_a_subgraph_cannot_be_inside_itself() -> None:
    inner = cleaning("inner")
    outer = Subgraph("outer", inner)
    with pytest.raises(GraphError, match="got one around itself"):
        inner.add(outer)
    with pytest.raises(GraphError, match="got one around itself"):
        outer.add(outer)


def test_a_port_of_another_subgraph_cannot_be_exposed() -> None:
    elsewhere = cleaning("elsewhere")
    with pytest.raises(GraphError, match="which belongs elsewhere"):
        Subgraph("s", square(), inputs={"x": elsewhere.lines})
