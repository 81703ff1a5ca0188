"""The plan, and looking things up in a graph."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

import pytest

from dflow.errors import GraphError, PortError
from dflow.graph import Graph, Input, Node, WorkerId, edge, node, sink
from dflow.message import Priority
from tests.unit.graph_nodes import (
    Camera,
    Detector,
    Settings,
    check,
    keep,
    numbers,
    show,
    square,
    squares,
    vision,
)


def test_the_plan_of_the_first_graph() -> None:
    plan = squares().plan()
    assert [(n.name, n.kind, n.replicas, n.level) for n in plan.nodes] == [
        ("numbers", "source", 1, 0),
        ("square", "node", 2, 1),
        ("show", "sink", 1, 2),
    ]
    assert [e.id for e in plan.edges] == ["numbers.out->square.in", "square.out->show.in"]
    assert plan.workers == (
        WorkerId("numbers"),
        WorkerId("square", 0),
        WorkerId("square", 1),
        WorkerId("show"),
    )
    assert len(plan.channels) == 4


def test_equal_graphs_have_equal_plans_and_fingerprints() -> None:
    assert squares().plan() == squares().plan()
    assert squares().plan().fingerprint == squares().plan().fingerprint
    assert squares().plan().fingerprint != vision().plan().fingerprint


def test_a_level_is_the_longest_way_from_a_source() -> None:
    start, end = numbers(), keep()
    graph = Graph("g", start >> end, start >> square() >> square() >> end)
    assert {n.name: n.level for n in graph.plan().nodes} == {
        "numbers": 0,
        "square": 1,
        "square_2": 2,
        "keep": 3,
    }
    assert list(graph.plan().levels()) == [("numbers",), ("square",), ("square_2",), ("keep",)]


def test_results_are_edges_to_the_launching_process() -> None:
    graph = vision()
    plan = graph.plan(results=[graph.nodes["detector"].port("rejected"), "detector.boxes"])
    assert [e.id for e in plan.in_edges("run")] == [
        "detector.rejected->run.detector.rejected",
        "detector.boxes->run.detector.boxes",
    ]
    run = plan.nodes[-1]
    assert (run.name, run.kind, run.level) == ("run", "external", 3)
    assert run.inputs == ("detector.rejected", "detector.boxes")
    assert WorkerId("run") not in plan.workers
    assert graph.edge_key(2) is None


def test_a_result_asked_for_twice_is_one_edge() -> None:
    assert len(squares().plan(results=["square", "square.out"]).in_edges("run")) == 1


def test_the_band_of_an_input_is_its_first_edge_s_then_its_own() -> None:
    detector = Detector(0.5)
    graph = Graph("g", Camera() >> edge(priority=Priority.HIGH) >> detector.frames)
    graph.connect(Camera(), detector.frames, priority=Priority.LOW)
    plan = graph.plan()
    assert plan.external_band("detector", "frames") is Priority.HIGH
    assert plan.external_band("detector", "settings") is Priority.CONTROL
    assert squares().plan().external_band("show", "in") is Priority.NORMAL


def test_an_edge_takes_the_band_of_its_input_unless_it_names_one() -> None:
    @node
    def settings(x: int) -> Settings:
        return Settings(x)

    detector = Detector(0.5)
    graph = Graph("g", Camera() >> detector.frames, numbers() >> settings() >> detector.settings)
    assert [e.priority for e in graph.plan().edges] == [
        Priority.NORMAL,
        Priority.NORMAL,
        Priority.CONTROL,
    ]


def test_automatic_names_count_up_and_leave_given_names_alone() -> None:
    given = square().options(name="square_2")
    graph = Graph("g", numbers() >> square() >> square() >> given >> show())
    assert list(graph.nodes) == ["numbers", "square", "square_3", "square_2", "show"]
    assert given.name == "square_2"


def test_a_node_knows_its_name_as_soon_as_it_is_added() -> None:
    first, second = square(), square()
    graph = Graph("g").connect(numbers(), first)
    graph.connect(first, second)
    assert (first.name, second.name) == ("square", "square_2")
    second.options(name="again")
    assert list(graph.nodes) == ["numbers", "square", "again"]


def test_adding_nodes_twice_changes_nothing() -> None:
    start = numbers()
    graph = Graph("g", start, start, start >> keep())
    assert list(graph.add(start).nodes) == ["numbers", "keep"]


def test_nodes_are_found_by_name_port_or_themselves() -> None:
    graph = vision()
    detector = graph.nodes["detector"]
    assert graph.find("detector") is detector
    assert graph.find("detector.frames") is detector
    assert graph.find(detector.port("frames")) is detector
    assert graph.find(detector) is detector
    assert str(graph.find_input("detector.settings")) == "detector.settings"
    assert str(graph.find_output("camera")) == "camera.frames"


def test_what_is_not_found_says_what_is_there() -> None:
    graph = squares()
    with pytest.raises(GraphError, match=r"'squre'; did you mean 'square'\? \(its nodes are numb"):
        graph.find("squre")
    with pytest.raises(GraphError, match="'check' is not in it; add or connect it"):
        graph.find(check())
    with pytest.raises(GraphError, match="expected a node, a port or a name, got 3"):
        graph.find(3)  # type: ignore[arg-type]
    with pytest.raises(PortError, match="no port or attribute 'inn'; did you mean 'in'"):
        graph.find_input("show.inn")
    with pytest.raises(PortError, match="name it"):
        vision().find_input("detector")


def test_keys_read_a_field_of_a_mapping_or_an_object() -> None:
    graph = Graph(
        "g", numbers() >> edge(key="user") >> keep(), numbers() >> edge(key=abs) >> keep()
    )
    field, function = graph.edge_key(0), graph.edge_key(1)
    assert field is not None
    assert function is abs
    assert field({"user": 3}) == 3

    @dataclass
    class Event:
        user: str

    assert field(Event("ann")) == "ann"
    assert squares().edge_key(0) is None
    assert [e.keyed for e in graph.plan().edges] == [True, True]


def test_a_message_without_the_key_s_field_says_which_edge_wants_it() -> None:
    @dataclass
    class Event:
        usr: str

    field = Graph("g", numbers() >> edge(key="user") >> keep()).edge_key(0)
    assert field is not None
    for message in ({"usr": 3}, Event("ann")):
        with pytest.raises(KeyError, match=r"numbers\.out->keep\.in.*'user'.*did you mean 'usr'"):
            field(message)


class Colour(Enum):
    RED = 1


class Point(NamedTuple):
    x: int
    colour: Colour


@dataclass
class Shape:
    points: list[Point]
    parent: Shape | None = None


class Plain: ...


def test_types_named_by_ports_are_found_at_any_depth() -> None:
    @sink
    def draw(shape: dict[str, list[Shape]] | None) -> None: ...

    @sink
    def plain(thing: Plain) -> None: ...

    assert Graph("g", draw()).types() == {Shape, Point, Colour}
    assert Graph("g", plain()).types() == set()
    assert vision().types() == set() | {Settings}


def test_a_node_s_replicas_and_ports_are_in_the_plan() -> None:
    plan = vision().plan()
    detector = plan.by_name["detector"]
    assert detector.inputs == ("frames", "settings")
    assert detector.outputs == ("boxes", "rejected")
    assert detector.input_bands == (Priority.NORMAL, Priority.CONTROL)


def test_an_optional_input_alone_makes_a_runnable_graph() -> None:
    class Waiter(Node):
        orders = Input(Any, required=False)

        @orders.handler
        def serve(self, order: Any) -> None: ...

    plan = Graph("g", Waiter()).plan()
    assert [(n.name, n.level, n.kind) for n in plan.nodes] == [("waiter", 0, "sink")]


def test_graphs_and_their_parts_describe_themselves() -> None:
    graph = vision()
    assert repr(graph) == "<graph vision: 3 nodes, 2 edges>"
    assert repr(graph.nodes["detector"]) == "<node detector>"
    assert repr(graph.nodes["detector"].port("frames")) == "<input detector.frames>"
    assert repr(show) == "<@sink show>"
