"""``>>``, ``connect`` and ``edge``: what is connected, and what mistakes say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dflow.errors import GraphError, OptionError, PortError
from dflow.graph import Graph, edge
from dflow.message import Priority
from dflow.options import DEFAULT_CAPACITY
from tests.unit.graph_nodes import Camera, Detector, check, keep, numbers, show, square


def ids(graph: Graph) -> list[str]:
    return [str(connection) for connection in graph.connections]


def test_a_chain_connects_neighbours_from_left_to_right() -> None:
    graph = Graph("g", numbers() >> square() >> show())
    assert ids(graph) == ["numbers.out->square.in", "square.out->show.in"]
    assert list(graph.nodes) == ["numbers", "square", "show"]


def test_grouping_does_not_change_a_chain() -> None:
    left = Graph("g", (numbers() >> square()) >> show())
    right = Graph("g", numbers() >> (square() >> show()))
    assert left.plan() == right.plan()


def test_lists_copy_and_merge() -> None:
    graph = Graph("g", [numbers(), numbers()] >> square() >> [show(), keep()])
    assert ids(graph) == [
        "numbers.out->square.in",
        "numbers_2.out->square.in",
        "square.out->show.in",
        "square.out->keep.in",
    ]


def test_branches_in_a_list_go_on_from_their_ends() -> None:
    graph = Graph("g", numbers() >> [square() >> square(), check()] >> keep())
    assert ids(graph) == [
        "numbers.out->square.in",
        "numbers.out->check.in",
        "square.out->square_2.in",
        "square_2.out->keep.in",
        "check.out->keep.in",
    ]


def test_edge_options_apply_to_the_connections_they_stand_before() -> None:
    graph = Graph("g", numbers() >> edge(capacity=1) >> [show(), keep()], numbers() >> show())
    assert [c.options.capacity for c in graph.connections] == [1, 1, DEFAULT_CAPACITY]
    merged = Graph("g", [numbers(), numbers()] >> edge(priority=Priority.HIGH) >> keep())
    assert [c.options.priority for c in merged.connections] == [Priority.HIGH] * 2


def test_ports_stand_in_chains_where_a_node_has_several() -> None:
    detector = Detector(0.5)
    graph = Graph("g", Camera() >> detector.frames, detector.boxes >> keep())
    assert ids(graph) == ["camera.frames->detector.frames", "detector.boxes->keep.in"]
    extra = Graph("g", numbers() >> (middle := check()) >> show(), middle.rejected >> keep())
    assert ids(extra)[-1] == "check.rejected->keep.in"


def test_a_chain_may_be_continued_twice_without_connecting_twice() -> None:
    start = numbers() >> square()
    graph = Graph("g", start >> show(), start >> keep())
    assert ids(graph) == ["numbers.out->square.in", "square.out->show.in", "square.out->keep.in"]


def test_connect_takes_every_edge_option() -> None:
    graph = Graph("g").connect(
        numbers(),
        show(),
        policy="block",
        capacity=7,
        max_bytes="1KiB",
        key=abs,
        priority=Priority.LOW,
    )
    options = graph.connections[0].options
    assert (options.capacity, options.max_bytes, options.key) == (7, 1024, abs)
    assert options.priority is Priority.LOW


def test_wrong_edge_options_name_the_edge() -> None:
    with pytest.raises(OptionError, match=r"edge numbers\.out->show\.in: capacity: .* got 0"):
        Graph("g").connect(numbers(), show(), capacity=0)
    with pytest.raises(OptionError, match=r"edge numbers\.out->show\.in: max_bytes: .* got 'many'"):
        Graph("g").connect(numbers(), show(), max_bytes="many")
    with pytest.raises(OptionError, match=r"edge\(\).*'capcity'; did you mean 'capacity'"):
        edge(capcity=1)
    with pytest.raises(OptionError, match=r"^edge\(\): capacity: expected a whole .*, got '8'$"):
        edge(capacity="8")


@pytest.mark.parametrize("side", [5, "show", show, [], numbers])
def test_what_cannot_be_connected_is_told_of_connect(side: Any) -> None:
    for ends in ((numbers(), side), (side, show())):
        with pytest.raises(GraphError, match=r"^connect: .*expected .*, got "):
            Graph("g").connect(*ends)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Detector(1) >> keep(), r"name it: detector\.boxes or detector\.rejected"),
        (lambda: Camera() >> Detector(1), r"name it: detector\.frames or detector\.settings"),
        (lambda: show() >> keep(), "show: expected an output port, got a node without outputs"),
        (lambda: keep() >> numbers(), "keep: expected an output port"),
        (lambda: numbers() >> numbers(), "numbers: expected an input port"),
        (
            lambda: Detector(1).frames >> keep(),
            r"detector\.frames: expected an output, got an input; the outputs of detector are",
        ),
        (lambda: Camera() >> Detector(1).boxes, "expected an input, got an output; the inputs"),
    ],
)
def test_a_port_that_cannot_be_meant_is_a_port_error(
    wrong: Callable[[], object], message: str
) -> None:
    with pytest.raises(PortError, match=message):
        wrong()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: edge() >> show(), "expected a sender on its left"),
        (lambda: Graph("g", edge()), "expected a sender on its left"),
        (lambda: Graph("g", numbers() >> edge()), "expected a receiver after the edge"),
        (lambda: [numbers() >> edge()] >> show(), "expected a receiver after the edge"),
        (lambda: numbers() >> edge() >> edge(), "expected a node between two edges"),
        (lambda: numbers() >> [], "expected at least one node in the list"),
        (lambda: numbers() >> print, "got the function print; decorate it with @node"),
        (lambda: numbers() >> Detector, r"got the class Detector; write Detector\(\.\.\.\)"),
        (lambda: numbers() >> 3, "expected a node, a port, a subgraph or a list of them, got 3"),
        (lambda: Graph("g").connect([numbers()], show()), "expected one node, port or subgraph"),  # type: ignore[arg-type]
        (lambda: Graph("g").connect(numbers() >> square(), show()), "expected one node, port"),
        (lambda: Graph("g", square), r"write square\(\)"),
        (lambda: Graph("two words"), "expected a name of letters, digits"),
    ],
)
def test_what_cannot_be_connected_says_what_to_write(
    wrong: Callable[[], object], message: str
) -> None:
    with pytest.raises(GraphError, match=message):
        wrong()
