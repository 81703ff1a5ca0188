"""`Graph.fuse`: what it plans, and which nodes cannot share a worker."""

from __future__ import annotations

from typing import Any

import pytest

from dflow.errors import GraphError
from dflow.graph import Graph, Input, Node, Output, Problem, Subgraph, WorkerId, edge, node
from dflow.message import Priority
from tests.unit.graph_nodes import numbers, show, square


class Tuned(Node):
    """Data and settings."""

    values = Input(int)
    settings = Input(int, priority=Priority.CONTROL, required=False)
    out = Output(int)

    @values.handler
    def take(self, value: int) -> int:
        """Pass on."""
        return value

    @settings.handler
    def change(self, value: int) -> None:
        """Do nothing."""


@node
def twice(x: int) -> int:
    """Double."""
    return 2 * x


def only(graph: Graph) -> Problem:
    problems = graph.problems()
    assert len(problems) == 1, [str(problem) for problem in problems]
    return problems[0]


def line(**options: Any) -> Graph:
    """Return numbers >> square >> twice >> show; the two in the middle have ``options``."""
    first, second = square().options(**options), twice().options(**options)
    return Graph("g", numbers() >> first >> second >> show())


# --- the plan -------------------------------------------------------------------------------------


def test_fused_nodes_have_one_worker_named_by_the_first_of_them() -> None:
    plan = line().fuse("twice", "square").plan()
    assert plan.fused == (("square", "twice"),)
    assert plan.workers == (WorkerId("numbers"), WorkerId("square"), WorkerId("show"))
    assert plan.host(WorkerId("twice")) == WorkerId("square")
    assert plan.host(WorkerId("show")) == WorkerId("show")
    assert plan.host(WorkerId("run")) == WorkerId("run")
    assert plan.members(WorkerId("square")) == (WorkerId("square"), WorkerId("twice"))
    assert plan.members(WorkerId("numbers")) == (WorkerId("numbers"),)
    assert plan.worker_levels == {"numbers": 0, "square": 1, "show": 2}


def test_only_edges_between_fused_nodes_are_local() -> None:
    plan = line().fuse("square", "twice").plan()
    assert [edge.local for edge in plan.edges] == [False, True, False]


def test_replica_i_sends_to_replica_i_of_a_fused_node() -> None:
    plan = line(replicas=3).fuse("square", "twice").plan()
    inside = [c for c in plan.channels if plan.edges[c.edge].local]
    assert [(c.sender.replica, c.receiver.replica) for c in inside] == [(0, 0), (1, 1), (2, 2)]
    assert [c.number for c in plan.channels] == list(range(len(plan.channels)))
    assert plan.external_channel("square", "in", 0) == len(plan.channels)
    assert [w for w in plan.workers if w.node == "square"] == [
        WorkerId("square", replica) for replica in range(3)
    ]


def test_control_to_all_replicas_is_not_local() -> None:
    first, second = square().options(replicas=2), Tuned().options(replicas=2)
    graph = Graph("g", numbers() >> first, first >> second.values, second >> show())
    graph.connect(first, second.settings)
    plan = graph.fuse(first, second).plan()
    by_input = {edge.input: edge.local for edge in plan.edges if edge.receiver == second.name}
    assert by_input == {"values": True, "settings": False}


def test_the_fingerprint_tells_fused_from_not_fused() -> None:
    assert line().fuse("square", "twice").plan().fingerprint != line().plan().fingerprint
    assert (
        line().fuse("square", "twice").plan().fingerprint
        == line().fuse("twice", "square").plan().fingerprint
    )


def test_a_subgraph_stands_for_all_its_nodes() -> None:
    first, second = square(), twice()
    inner = Subgraph("inner", first >> second, inputs={"x": first}, outputs={"y": second})
    for part in (inner, "inner"):
        graph = Graph("g", numbers() >> inner >> show())
        assert graph.fuse(part).plan().fused == (("inner/square", "inner/twice"),)


def test_nodes_that_are_not_adjacent_may_be_fused() -> None:
    graph = Graph("g", numbers() >> show(), numbers() >> show())
    plan = graph.fuse("numbers", "numbers_2", "show", "show_2").plan()
    assert plan.workers == (WorkerId("numbers"),)
    assert plan.worker_levels == {"numbers": 0}


# --- what cannot be fused -------------------------------------------------------------------------


def test_what_is_not_in_the_graph_cannot_be_fused() -> None:
    with pytest.raises(GraphError, match=r"no node 'squar'; did you mean 'square'"):
        line().fuse("squar", "twice")
    with pytest.raises(GraphError, match="is not in it"):
        line().fuse("square", twice())
    with pytest.raises(GraphError, match="expected two nodes or more, got square"):
        line().fuse("square", "square")
    with pytest.raises(GraphError, match="expected two nodes or more, got none"):
        line().fuse()


def test_a_node_is_in_one_worker_only() -> None:
    graph = line().fuse("numbers", "square").fuse("square", "twice")
    assert "fused twice, with numbers, square and with square, twice" in only(graph).what


def test_fused_nodes_have_equally_many_replicas() -> None:
    graph = Graph("g", numbers() >> square().options(replicas=2) >> show())
    assert "got numbers 1, square 2" in only(graph.fuse("numbers", "square")).what


def test_replicas_that_keep_an_order_cannot_be_fused() -> None:
    first, second = square().options(replicas=2, ordered=True), twice().options(replicas=2)
    graph = Graph("g", numbers() >> first >> second >> show())
    assert "square is ordered=True with 2 replicas" in only(graph.fuse(first, second)).what


def test_replicas_that_are_chosen_by_key_cannot_be_fused() -> None:
    first, second = square().options(replicas=2), twice().options(replicas=2)
    graph = Graph("g", numbers() >> first >> edge(key=abs) >> second >> show())
    assert only(graph.fuse(first, second)).where == "square.out->twice.in"


def test_one_process_has_one_affinity_and_one_niceness() -> None:
    first, second = square().options(niceness=3, affinity=0), twice().options(niceness=4)
    graph = Graph("g", numbers() >> first >> second >> show())
    problem = only(graph.fuse(first, second))
    assert "niceness: expected one for the worker they share, got square 3, twice 4" in problem.what


def test_a_worker_cannot_lie_on_both_sides_of_another() -> None:
    problem = only(line().fuse("numbers", "twice"))
    assert problem.where == "fuse(numbers, twice)"
    assert "square would have to start after this worker and before it" in problem.what
    assert "numbers.out->square.in, square.out->twice.in" in problem.what


def test_two_workers_cannot_each_come_before_the_other() -> None:
    a, b, x, y = (square().options(name=name) for name in "abxy")
    graph = Graph("g", numbers() >> a >> x >> show(), numbers() >> y >> b >> show())
    problem = only(graph.fuse(a, b).fuse(x, y))
    assert "x, y would have to start after this worker and before it" in problem.what


def test_a_cycle_of_the_graph_is_told_of_once() -> None:
    first, second = square(), twice()
    graph = Graph("g", numbers() >> first >> second >> first)
    graph.add(second >> show())
    assert "form a cycle" in only(graph.fuse(first, second)).what
