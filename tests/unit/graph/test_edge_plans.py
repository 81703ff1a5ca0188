"""What a plan says of an edge: how its messages wait, and what they carry besides themselves."""

from __future__ import annotations

import operator
import threading
from typing import Any

import pytest

from dflow.errors import GraphError, OptionError, PortError
from dflow.graph import EdgePlan, Graph, edge, sink
from dflow.message import Priority
from dflow.policy import coalesce
from tests.unit.graph.test_ordering import Worker, ordered
from tests.unit.graph_nodes import keep, numbers, square


def planned(sender: Any = None, receiver: Any = None, **options: Any) -> EdgePlan:
    """Return the plan of one edge."""
    start = numbers() if sender is None else sender
    end = keep() if receiver is None else receiver
    return Graph("g", start >> edge(**options) >> end).plan().edges[-1]


def between(sender: Any, receiver: Any, **options: Any) -> EdgePlan:
    """Return the plan of the edge from ``sender`` to ``receiver``, behind a source."""
    graph = Graph("g", numbers() >> sender.values)
    graph.connect(sender.results, receiver, **options)
    return graph.plan().edges[-1]


def external(graph: Graph, port: str) -> EdgePlan:
    """Return the plan of the edge from outside into ``port``."""
    return next(e for e in graph.plan().external_edges if f"{e.receiver}.{e.input}" == port)


# --- how messages wait --------------------------------------------------------------------------


def test_a_plain_edge_takes_the_short_way() -> None:
    assert not planned().queued
    assert not planned(key=abs, priority=Priority.HIGH, capacity=1, max_bytes=1).queued
    assert not planned(receiver=keep().options(replicas=2)).queued
    control = planned(priority=Priority.CONTROL)
    assert not control.queued
    assert not control.broadcast


@pytest.mark.parametrize(
    "options",
    [
        {"policy": "drop"},
        {"policy": "drop_oldest"},
        {"policy": "latest"},
        {"policy": "reject"},
        {"policy": coalesce(operator.add)},
        {"ttl_s": 1.0},
        {"cancellable": True},
    ],
)
def test_messages_that_may_be_taken_back_wait_one_by_one(options: dict[str, Any]) -> None:
    assert planned(**options).queued


@pytest.mark.parametrize("capacity", [1, 2, 8, 64, 1024])
def test_policies_that_choose_among_what_waits_keep_half_of_it(capacity: int) -> None:
    edge = planned(policy="block", capacity=capacity)
    assert (edge.window, edge.reports) == (capacity, "half")
    for policy in ("drop", "reject"):
        edge = planned(policy=policy, capacity=capacity)
        assert (edge.window, edge.reports) == (capacity, "eager")
    for choosy in ("drop_oldest", coalesce(operator.add)):
        edge = planned(policy=choosy, capacity=capacity)
        assert (edge.window, edge.reports) == (max(1, capacity // 2), "eager")
    edge = planned(policy="latest", capacity=capacity)
    assert (edge.window, edge.reports) == (1, "ready")


# --- what they carry ----------------------------------------------------------------------------


def test_control_goes_to_every_replica_unless_keyed() -> None:
    def three() -> Any:
        return keep().options(replicas=3)

    assert planned(receiver=three(), priority=Priority.CONTROL).broadcast
    assert planned(receiver=three(), priority=Priority.CONTROL).queued
    assert not planned(receiver=three(), priority=Priority.CONTROL, key=abs).broadcast
    assert not planned(receiver=three(), priority=Priority.HIGH).broadcast


def test_replicas_share_the_messages_of_a_data_edge_without_key() -> None:
    two = keep().options(replicas=2)
    edge = planned(receiver=two)
    assert (edge.shared, edge.reports, edge.slots, edge.queued) == (True, "prompt", 1, False)
    for other in (
        planned(),
        planned(receiver=keep().options(replicas=2), key=abs),
        planned(receiver=keep().options(replicas=2), priority=Priority.CONTROL),
    ):
        assert not other.shared


def test_the_inputs_of_ordered_replicas_are_numbered() -> None:
    edge = planned(receiver=ordered().values)
    assert (edge.numbered, edge.tagged, edge.queued, edge.reports) == (True, False, True, "prompt")
    assert not planned(receiver=ordered(replicas=1).values).numbered
    assert not planned(receiver=ordered().settings).numbered
    assert planned(receiver=ordered().settings).broadcast


def test_the_results_of_ordered_replicas_are_tagged_where_they_meet() -> None:
    edge = between(ordered(), keep())
    assert (edge.tagged, edge.numbered, edge.queued) == (True, False, True)
    assert between(ordered(), keep().options(replicas=2), key=abs).tagged
    assert not between(ordered(), keep().options(replicas=2)).tagged
    assert not between(ordered(), keep(), priority=Priority.CONTROL).tagged
    assert not between(ordered(replicas=1), keep()).tagged


def test_an_ordered_node_after_another_needs_no_second_number() -> None:
    edge = between(ordered("first"), ordered("second").values)
    assert (edge.tagged, edge.numbered) == (True, False)


def test_results_of_ordered_replicas_reach_the_launching_process_in_order() -> None:
    node = ordered()
    graph = Graph("g", numbers() >> node.values)
    (edge,) = graph.plan(results=[node]).in_edges("run")
    assert edge.tagged


def test_a_limit_is_counted_at_the_sender_and_routes_by_slots() -> None:
    @sink
    async def act(x: int) -> None: ...

    slow = act().options(max_in_flight_per_key=2, replicas=3, concurrency=5)
    edge = planned(receiver=slow, key=abs)
    assert (edge.limit, edge.slots, edge.window, edge.reports) == (2, 5, 5, "ready")
    assert planned(receiver=Worker().values, key=abs).limit == 0


# --- from outside -------------------------------------------------------------------------------


def test_an_edge_from_outside_can_always_be_cancelled() -> None:
    edge = external(Graph("g", numbers() >> keep()), "keep.in")
    assert (edge.id, edge.sender, edge.policy) == ("run->keep.in", "run", "block")
    assert edge.cancellable
    assert edge.queued
    assert not edge.keyed


def test_edges_from_outside_are_numbered_after_those_inside() -> None:
    plan = Graph("g", numbers() >> square() >> keep()).plan(results=["square"])
    assert [e.index for e in plan.external_edges] == [3, 4]
    assert [c.edge for c in plan.external_channels] == [3, 4]


def test_accept_says_how_an_input_takes_what_is_sent() -> None:
    end = keep()
    graph = Graph("g", end).accept(end, policy="reject", capacity=10, key="user", ttl_s=2)
    edge = external(graph, "keep.in")
    assert (edge.policy, edge.capacity, edge.keyed, edge.ttl_s) == ("reject", 10, True, 2)
    assert graph.problems() == ()
    key = graph.external_key("keep", "in")
    assert key is not None
    assert key({"user": "ann"}) == "ann"


def test_accept_takes_what_connect_takes_to_name_an_input() -> None:
    node = Worker()
    graph = Graph("g", node)
    for target in (node.values, "worker.values"):
        assert graph.accept(target, capacity=3) is graph
    assert external(graph, "worker.values").capacity == 3
    graph.accept(node.more, priority=Priority.LOW)
    assert external(graph, "worker.more").priority is Priority.LOW
    assert external(graph, "worker.settings").priority is Priority.CONTROL


def test_accept_said_twice_is_what_was_said_last() -> None:
    graph = Graph("g", keep()).accept("keep", capacity=3).accept("keep", policy="drop")
    edge = external(graph, "keep.in")
    assert (edge.policy, edge.capacity) == ("drop", 2048)


def test_accept_refuses_what_is_no_input_and_no_option() -> None:
    graph = Graph("g", numbers() >> keep())
    with pytest.raises(PortError, match="did you mean 'keep'"):
        graph.accept("kep")
    with pytest.raises(PortError):
        graph.accept("numbers")
    with pytest.raises(OptionError, match=r"accept\(keep\.in\): .*did you mean 'capacity'"):
        graph.accept("keep", capacty=3)
    with pytest.raises(OptionError, match=r"accept\(keep\.in\): .*ttl_s: expected"):
        graph.accept("keep", ttl_s=-1)


def test_what_is_sent_to_a_keyed_node_goes_by_its_key() -> None:
    graph = Graph("g", numbers() >> edge(key=abs) >> keep())
    assert external(graph, "keep.in").keyed
    assert graph.external_key("keep", "in") is abs
    graph.accept("keep", key=len)
    assert graph.external_key("keep", "in") is len
    end = keep()
    two = Graph("g", numbers() >> edge(key=abs) >> end, numbers() >> edge(key=len) >> end)
    assert not external(two, "keep.in").keyed
    assert two.external_key("keep", "in") is None


def test_what_is_sent_to_ordered_replicas_is_numbered_only_if_it_is_all_there_is() -> None:
    node = ordered()
    assert external(Graph("g", node), "ordered.values").numbered
    node = ordered()
    assert not external(Graph("g", numbers() >> node.values), "ordered.values").numbered


def test_settings_sent_from_outside_reach_every_replica() -> None:
    graph = Graph("g", Worker().options(replicas=2))
    assert external(graph, "worker.settings").broadcast
    assert not external(graph, "worker.values").broadcast


def test_the_merge_of_an_edge_is_found_by_its_id() -> None:
    graph = Graph("g", numbers() >> edge(policy=coalesce(operator.add)) >> keep())
    assert graph.merge("numbers.out->keep.in") is operator.add
    assert graph.merge("run->keep.in") is None
    graph.accept("keep", policy=coalesce(max))
    assert graph.merge("run->keep.in") is max
    assert graph.merge("no->edge") is None


def test_a_merge_that_cannot_travel_is_a_problem() -> None:
    lock = threading.Lock()

    def merge(a: int, b: int) -> int:
        with lock:
            return a + b

    graph = Graph("g", numbers() >> edge(policy=coalesce(merge)) >> keep())
    graph.accept("keep", policy=coalesce(merge), key=lambda x: lock)
    wheres = [(p.where, p.what.partition(" (")[0]) for p in graph.problems()]
    assert wheres == [
        ("numbers.out->keep.in", "coalesce's function cannot be sent to a worker"),
        ("accept(keep.in)", "key= cannot be sent to a worker"),
        ("accept(keep.in)", "coalesce's function cannot be sent to a worker"),
    ]
    with pytest.raises(GraphError, match="3 problems"):
        graph.plan()


# --- nodes --------------------------------------------------------------------------------------


def test_a_node_is_scheduled_in_the_best_band_of_its_data() -> None:
    node = Worker()
    graph = Graph("g", numbers() >> edge(priority=Priority.LOW) >> node.values)
    graph.connect(numbers(), node.more, priority=Priority.HIGH)
    graph.connect(numbers(), node.settings)
    bands = {n.name: Priority(n.band) for n in graph.plan().nodes}
    assert bands == {
        "numbers": Priority.LOW,
        "numbers_2": Priority.HIGH,
        "numbers_3": Priority.NORMAL,
        "worker": Priority.HIGH,
    }


def test_a_node_s_own_priority_comes_first() -> None:
    graph = Graph("g", numbers().options(priority=Priority.LOW) >> keep())
    assert graph.plan().by_name["numbers"].band == Priority.LOW


def test_plans_that_differ_in_a_policy_differ() -> None:
    prints = {
        Graph("g", numbers() >> edge(**options) >> keep()).plan().fingerprint
        for options in ({}, {"policy": "drop"}, {"ttl_s": 1}, {"cancellable": True})
    }
    assert len(prints) == 4
