"""A worker with several nodes, to the coordinator: one participant, and books for every node."""

from __future__ import annotations

from dataclasses import replace

from dflow.broker import books
from dflow.broker.doings import what_all_do
from dflow.broker.events import DrainRequested
from dflow.broker.lifecycle import Move
from dflow.broker.participants import Participants
from dflow.graph.plan import Plan, WorkerId
from dflow.stats import InChannelStats, NodeStats, OutChannelStats, WorkerStats
from dflow.wire import control as c
from tests.unit.broker_pair import HANDLE, Fleet, chain, make_plan

A, B, C, D = map(WorkerId, "abcd")


def fused(plan: Plan, *group: str) -> Plan:
    """Return ``plan`` with these nodes in one worker."""
    edges = [replace(edge, local={edge.sender, edge.receiver} <= set(group)) for edge in plan.edges]
    return replace(plan, edges=tuple(edges), fused=(group,))


def counted() -> dict[WorkerId, WorkerStats]:
    """Return what the workers of a run of ``a >> b >> c >> d``, b and c fused, count."""
    return {
        A: WorkerStats(NodeStats(emitted=5), {0: 5}, {0: 0}, {0: 1}, (_out(0, 5),)),
        B: WorkerStats(
            NodeStats(handled=5, emitted=5, metrics={"hits": 1.0}),
            {1: 5, 2: 4},
            {1: 0, 2: 0},
            {1: 2, 2: 1},
            (_out(1, 5), _out(2, 4)),
            (_in(0, 5), _in(1, 5)),
            fused={"c": NodeStats(handled=5, emitted=4, errors=1, metrics={"hits": 2.0})},
        ),
        D: WorkerStats(NodeStats(handled=4), ins=(_in(2, 4),)),
    }


def _out(channel: int, messages: int) -> OutChannelStats:
    return OutChannelStats(channel, messages, 0, messages, messages)


def _in(channel: int, messages: int) -> InChannelStats:
    return InChannelStats(channel, messages, messages, messages)


PLAN = fused(chain("a", "b", "c", "d"), "b", "c")


def test_every_node_and_edge_has_its_own_line_in_the_books() -> None:
    b, c_, d = books.node_reports(PLAN, counted())[1:]
    assert (b.name, b.handled, b.emitted, b.metrics) == ("b", 5, 5, {"hits": 1.0})
    assert (c_.name, c_.handled, c_.emitted, c_.errors) == ("c", 5, 4, 1)
    assert (c_.replicas, c_.metrics, d.handled) == (1, {"hits": 2.0}, 4)
    edges = books.edge_reports(PLAN, counted(), (), complete=True)
    assert [(edge.id, edge.sent, edge.delivered) for edge in edges] == [
        ("a.out->b.in", 5, 5),
        ("b.out->c.in", 5, 5),
        ("c.out->d.in", 4, 4),
    ]
    assert [edge.peak for edge in edges] == [1, 2, 1]


def test_the_status_of_a_fused_node_is_that_of_its_worker() -> None:
    roll = Participants(PLAN, "token", with_handle=False, managed=True)
    for worker, moves in ((A, 6), (B, 4), (D, 7)):
        p = roll.get(worker)
        assert p is not None
        for move in [Move.JOINED, Move.BOUND, Move.LINK, Move.LINKED, Move.START, Move.STARTED,
                     Move.RUN, Move.DRAINED][: moves + 1]:  # fmt: skip
            p.move(move)
    steps = {p.worker: p.step.value for p in roll}
    doing, _ = what_all_do(PLAN, roll, counted(), steps, 0.0)
    statuses = books.node_statuses(PLAN, counted(), doing)
    assert [status.workers for status in statuses] == [
        ("running",), ("starting",), ("starting",), ("drained",),
    ]  # fmt: skip


def test_whoever_dies_takes_all_its_nodes_along() -> None:
    told = counted()
    told[A] = replace(told[A], outs=(OutChannelStats(0, 5, 0, 4, 3),))
    told[B] = replace(
        told[B], unsent={1: 2, 2: 0}, outs=(_out(1, 5), OutChannelStats(2, 4, 0, 4, 4))
    )
    told[D] = WorkerStats(NodeStats(handled=3), ins=(_in(2, 3),))
    assert books.in_flight(PLAN, told, B) == {
        "a.out->b.in": 2,
        "b.out->c.in": 2,
        "c.out->d.in": 1,
    }
    edges = books.edge_reports(PLAN, told, {B}, complete=False)
    assert [edge.exact for edge in edges] == [False, False, False]


def test_a_run_with_fused_nodes_has_one_participant_for_them() -> None:
    fleet = Fleet(PLAN)
    fleet.join()
    assert set(fleet.fakes) == {A, B, D}
    links = {str(to): m.channels for to, m in fleet.sent if isinstance(m, c.Link)}
    assert links == {
        "a[0]": [[0, "ipc:///b[0]"]],
        "b[0]": [[2, "ipc:///d[0]"]],
        "d[0]": [],
    }
    assert fleet.order(c.Start) == ["a[0]", "b[0]", "d[0]"]
    assert fleet.order(c.Stop) == ["d[0]", "b[0]", "a[0]"]
    assert fleet.ended().outcome == "finished"


def test_a_worker_is_told_to_drain_if_any_of_its_nodes_has_nobody_before_it() -> None:
    edges = [("a", "b"), ("b", "c"), ("x", "c")]
    for group, told in ((("b", "c"), ["a[0]", "x[0]"]), (("x", "b", "c"), ["a[0]", "x[0]"])):
        fleet = Fleet(fused(make_plan(edges), *group))
        for fake in fleet.fakes.values():
            fake.endless = True
        fleet.join()
        fleet.feed(DrainRequested())
        assert sorted(fleet.order(c.Drain)) == told


def test_an_error_names_the_node_it_came_from() -> None:
    fleet = Fleet(PLAN)
    fleet.join(A, B)
    fleet.say(fleet.fake("b"), c.Failed("handler", "ValueError: no", "", "c"))
    assert any(text.startswith("c[0]: handler failed: ValueError") for text in fleet.warnings())


def test_a_log_record_is_of_the_node_that_wrote_it() -> None:
    fleet = Fleet(PLAN)
    fleet.join(A, B)
    for extra in ({"node": "c"}, {"node": "b"}, {"node": "a"}, {}):
        fleet.say(fleet.fake("b"), c.Log("INFO", 1.0, "text", "module", 1, extra))
    assert [relay.worker for relay in fleet.relayed] == [C, B, B, B]


def test_a_death_names_everybody_who_ended_with_it() -> None:
    fleet = Fleet(PLAN)
    fleet.fake("d").mute.add(c.Run)
    fleet.join(A, B)
    fleet.exit(B, None, "SIGKILL")
    assert any(
        text.startswith("b[0] (fused with c): worker died: killed by SIGKILL")
        for text in fleet.warnings()
    )


def test_a_fused_node_is_located_where_its_worker_is() -> None:
    fleet = Fleet(PLAN, with_handle=True)
    for fake in fleet.fakes.values():
        fake.endless = True
    fleet.join()
    fleet.say(fleet.fakes[HANDLE], c.Locate(1, "c", "in"))
    (located,) = [m for _, m in fleet.sent if isinstance(m, c.Located)]
    assert [endpoint for _, endpoint in located.channels] == ["ipc:///b[0]"]
