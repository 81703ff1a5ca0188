"""What ``ordered`` and ``max_in_flight_per_key`` need of a graph, and what is said without it."""

from __future__ import annotations

from typing import Any

from dflow.graph import Graph, Input, Node, Output, Problem, edge
from dflow.message import Priority
from tests.unit.graph_nodes import keep, numbers, square


class Worker(Node):
    """One data input, one for settings, one output."""

    values = Input(Any, required=False)
    more = Input(Any, required=False)
    settings = Input(Any, priority=Priority.CONTROL, required=False)
    results = Output(Any)

    @values.handler
    def take(self, value: Any) -> None:
        """Do nothing."""

    @more.handler
    def take_more(self, value: Any) -> None:
        """Do nothing."""

    @settings.handler
    def change(self, value: Any) -> None:
        """Do nothing."""


def ordered(name: str = "ordered", replicas: int = 2) -> Any:
    """Return a node whose replicas keep the order."""
    return Worker().options(name=name, ordered=True, replicas=replicas)


def limited(limit: int = 1, **options: Any) -> Any:
    """Return a node that handles few messages of a key at once."""
    return Worker().options(name="limited", max_in_flight_per_key=limit, **options)


def only(graph: Graph) -> Problem:
    problems = graph.problems()
    assert len(problems) == 1, [str(problem) for problem in problems]
    return problems[0]


def test_one_sender_gives_an_order() -> None:
    node = ordered()
    assert Graph("g", numbers() >> node.values).problems() == ()


def test_an_ordered_node_gives_its_order_on() -> None:
    first, second = ordered("first"), ordered("second", replicas=3)
    graph = Graph("g", numbers() >> first.values, first.results >> second.values)
    assert graph.problems() == ()


def test_control_messages_stand_outside_the_order() -> None:
    node = ordered()
    graph = Graph("g", numbers() >> node.values, numbers() >> node.settings)
    graph.connect(numbers(), node.more, priority=Priority.CONTROL)
    assert graph.problems() == ()


def test_a_source_has_no_order_to_keep() -> None:
    graph = Graph("g", numbers().options(ordered=True, replicas=2) >> keep())
    problem = only(graph)
    assert problem.where == "numbers"
    assert "a source has no inputs whose order its results could keep" in problem.what
    assert problem.next_step == "remove ordered=True, or use one replica"


def test_two_edges_into_an_ordered_node_have_no_common_order() -> None:
    node = ordered()
    graph = Graph("g", numbers() >> node.values, numbers() >> node.more)
    problem = only(graph)
    assert problem.where == "ordered"
    assert problem.what == (
        "ordered=True: expected one edge to take the order from, got 2"
        " (numbers.out->ordered.values, numbers_2.out->ordered.more)"
    )
    assert problem.next_step == "put a node with one replica before it that merges them"


def test_replicas_without_order_cannot_give_one() -> None:
    node = ordered()
    problem = only(Graph("g", numbers() >> square().options(replicas=3) >> node.values))
    assert problem.where == "square.out->ordered.values"
    assert problem.what == (
        "ordered=True at ordered: square has 3 replicas, so its messages have no order"
    )
    assert problem.next_step == "make square ordered, too, or give it one replica"


def test_one_replica_is_in_order_by_itself() -> None:
    node = Worker().options(ordered=True)
    many = square().options(replicas=3)
    graph = Graph("g", numbers() >> many >> node.values, numbers() >> node.more)
    assert graph.problems() == ()


def test_nothing_may_be_lost_between_two_ordered_nodes() -> None:
    for lossy in ({"policy": "drop_oldest"}, {"ttl_s": 1.0}):
        first, second = ordered("first"), ordered("second")
        graph = Graph("g", numbers() >> first.values)
        graph.connect(first.results, second.values, **lossy)
        problem = only(graph)
        assert problem.where == "first.results->second.values"
        assert "an edge between two ordered nodes may not lose messages" in problem.what


def test_before_the_order_begins_messages_may_be_lost() -> None:
    node = ordered()
    graph = Graph("g", numbers() >> edge(policy="latest", ttl_s=1) >> node.values)
    graph.connect(node.results, keep(), policy="drop")
    assert graph.problems() == ()


def test_a_limit_for_each_key_needs_one_keyed_edge() -> None:
    node = limited(replicas=3)
    assert Graph("g", numbers() >> edge(key=abs) >> node.values).problems() == ()


def test_a_limit_may_hold_for_what_comes_from_outside() -> None:
    node = limited()
    graph = Graph("g", node).accept(node.values, key="user")
    assert graph.problems() == ()


def test_a_limit_without_a_key_is_a_problem() -> None:
    node = limited()
    for graph in (Graph("g", limited()), Graph("g", numbers() >> node.values)):
        problem = only(graph)
        assert problem.where == "limited"
        assert "expected one edge with key= and no other data into the node" in problem.what
        assert problem.next_step.startswith("give its edge (or graph.accept) key=...")


def test_a_limit_cannot_be_counted_on_two_edges() -> None:
    node = limited()
    graph = Graph("g", numbers() >> edge(key=abs) >> node.values, numbers() >> node.more)
    assert only(graph).what.endswith("got numbers.out->limited.values, numbers_2.out->limited.more")
    node = limited()
    graph = Graph("g", numbers() >> edge(key=abs) >> node.values).accept(node.more, key=abs)
    assert only(graph).what.endswith("got numbers.out->limited.values, accept(limited.more)")


def test_settings_of_a_limited_node_need_no_key() -> None:
    node = limited()
    graph = Graph("g", numbers() >> edge(key=abs) >> node.values, numbers() >> node.settings)
    assert graph.problems() == ()


def test_replicas_cannot_count_one_limit_together() -> None:
    node = limited()
    many = square().options(replicas=2)
    problem = only(Graph("g", numbers() >> many >> edge(key=abs) >> node.values))
    assert problem.where == "square.out->limited.values"
    assert problem.what.endswith("square has 2 replicas, which cannot count together")
    assert problem.next_step == "give square one replica, or put a node with one between them"
