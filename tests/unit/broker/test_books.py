"""The books: what the two ends of every edge counted becomes one report."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dflow.broker import books
from dflow.errors import ProtocolError
from dflow.graph.plan import Plan, WorkerId
from dflow.report import EdgeReport, RunReport
from dflow.stats import (
    Fates,
    InChannelStats,
    KeyStats,
    NodeStats,
    OutChannelStats,
    QueueStats,
    WorkerStats,
)
from tests.unit.broker_pair import HANDLE, chain, diamond, flow, make_plan

A, B, C = WorkerId("a"), WorkerId("b"), WorkerId("c")


def report(plan: Plan, counted: books.Counted, outcome: str = "finished") -> RunReport:
    """Return the report of a run that counted so."""
    edges = books.edge_reports(plan, counted, (), complete=outcome in ("finished", "drained"))
    nodes = books.node_reports(plan, counted)
    return RunReport("g", "r", outcome, 0.0, 1.0, 1.0, nodes=nodes, edges=edges)


def test_counters_of_replicas_and_channels_add_up() -> None:
    plan = diamond()
    done = report(plan, flow(plan, 7))
    assert done.imbalances == []
    edge = done.edge("b.out->d.in")
    assert (edge.sent, edge.delivered, edge.bytes, edge.peak) == (14, 14, 140, 3)
    node = done.node("b")
    assert (node.replicas, node.handled, node.emitted, node.busy_s) == (2, 7, 14, 2.0)
    assert done.totals["sent"] == done.totals["delivered"] == 7 + 7 + 14 + 7


def test_metrics_of_replicas_add_up() -> None:
    plan = chain("a", "b", b=2)
    stats = WorkerStats(NodeStats(metrics={"hits": 2.0}))
    done = report(plan, {WorkerId("b", 0): stats, WorkerId("b", 1): stats})
    assert done.node("b").metrics == {"hits": 4.0}


def test_what_was_on_the_way_when_a_run_was_cut_short_is_abandoned() -> None:
    plan = chain("a", "b")
    counted = {
        A: WorkerStats(
            offered={0: 30},
            unsent={0: 5},
            outs=(OutChannelStats(0, sent=25, sent_bytes=250, taken=12, done=10),),
        ),
        B: WorkerStats(ins=(InChannelStats(0, received=20, delivered=11, done=10),)),
    }
    cut = report(plan, counted, "aborted")
    edge = cut.edge("a.out->b.in")
    assert (edge.sent, edge.delivered, edge.abandoned) == (30, 11, 5 + 5 + 9)
    assert (edge.unsent, edge.wired, edge.received) == (5, 25, 20)
    assert cut.balances


def test_a_finished_run_that_abandoned_something_does_not_balance() -> None:
    plan = chain("a", "b")
    counted = flow(plan, 4)
    counted[B] = replace(counted[B], ins=(InChannelStats(0, 3, 3, 3),))
    (text,) = report(plan, counted).imbalances
    assert text == "edge a.out->b.in: expected none abandoned when finished, got 1"


def test_a_sender_that_lost_count_is_found_out() -> None:
    plan = chain("a", "b")
    counted = flow(plan, 4)
    counted[A] = replace(counted[A], offered={0: 5})
    assert any(
        "5 sent, but 0 unsent + 4 on the wire" in t for t in report(plan, counted).imbalances
    )


def test_a_receiver_that_got_more_than_was_sent_is_found_out() -> None:
    plan = chain("a", "b")
    counted = flow(plan, 4)
    counted[B] = replace(counted[B], ins=(InChannelStats(0, 6, 6, 6),))
    found = report(plan, counted).imbalances
    assert "edge a.out->b.in: expected wired >= received >= delivered, got 4, 6, 6" in found


def test_copies_that_differ_are_found_out() -> None:
    plan = make_plan([("a", "b"), ("a", "c")])
    counted = flow(plan, 4)
    counted[A] = replace(
        counted[A], offered={0: 4, 1: 3}, outs=(counted[A].outs[0], OutChannelStats(1, 3, 30, 3, 3))
    )
    counted[C] = replace(counted[C], ins=(InChannelStats(1, 3, 3, 3),))
    (text,) = report(plan, counted).imbalances
    assert text == (
        "output a.out: expected the same number on each edge, got a.out->b.in 4, a.out->c.in 3"
    )


def test_an_edge_from_outside_appears_only_when_used() -> None:
    plan = chain("a", "b")
    assert [e.id for e in report(plan, flow(plan, 2)).edges] == ["a.out->b.in"]
    channel, index = plan.external_channel("b", "in", 0), plan.external_edges[0].index
    counted = flow(plan, 2)
    counted[HANDLE] = WorkerStats(
        offered={index: 3}, outs=(OutChannelStats(channel, 3, 9, 3, 3),), peak={index: 2}
    )
    counted[B] = replace(counted[B], ins=(*counted[B].ins, InChannelStats(channel, 3, 3, 3)))
    edge = report(plan, counted).edge("run->b.in")
    assert edge == EdgeReport(
        "run->b.in", sent=3, delivered=3, wired=3, received=3, peak=2, bytes=9
    )


def test_what_an_ended_node_did_not_take_from_outside_was_rejected() -> None:
    plan = chain("a", "b")
    channel, index = plan.external_channel("b", "in", 0), plan.external_edges[0].index
    counted = flow(plan, 2)
    counted[HANDLE] = WorkerStats(
        offered={index: 5}, unsent={index: 1}, outs=(OutChannelStats(channel, 4, 9, 2, 2),)
    )
    counted[B] = replace(counted[B], ins=(*counted[B].ins, InChannelStats(channel, 2, 2, 2)))
    finished = report(plan, counted)
    assert (finished.edge("run->b.in").rejected, finished.edge("run->b.in").abandoned) == (3, 0)
    assert finished.balances
    aborted = report(plan, counted, "aborted")
    assert (aborted.edge("run->b.in").rejected, aborted.edge("run->b.in").abandoned) == (0, 3)


def test_results_are_an_edge_like_any_other() -> None:
    plan = make_plan([("a", "b")], results=["b"])
    done = report(plan, flow(plan, 6))
    assert done.edge("b.out->run.in").delivered == 6
    assert [node.name for node in done.nodes] == ["a", "b"]


def test_a_dead_sender_is_known_by_what_arrived() -> None:
    plan = chain("a", "b")
    counted = {B: WorkerStats(ins=(InChannelStats(0, received=9, delivered=9, done=9),))}
    (edge,) = books.edge_reports(plan, counted, {A}, complete=False)
    assert (edge.sent, edge.delivered, edge.exact) == (9, 9, False)
    assert list(edge.imbalances()) == []


def test_a_dead_receiver_is_known_by_what_it_had_reported_done() -> None:
    plan = chain("a", "b")
    counted = {
        A: WorkerStats(offered={0: 9}, outs=(OutChannelStats(0, 9, 90, taken=7, done=6),)),
        B: WorkerStats(ins=(InChannelStats(0, received=3, delivered=2, done=2),)),
    }
    (edge,) = books.edge_reports(plan, counted, {B}, complete=False)
    assert (edge.sent, edge.received, edge.delivered, edge.abandoned) == (9, 7, 6, 3)
    assert list(edge.imbalances()) == []


def test_in_flight_counts_both_sides_of_a_worker() -> None:
    plan = chain("a", "b", "c")
    counted = {
        A: WorkerStats(outs=(OutChannelStats(0, 10, 100, 8, 7),)),
        B: WorkerStats(unsent={1: 2, 99: 4}, outs=(OutChannelStats(1, 5, 50, 5, 1),)),
        C: WorkerStats(ins=(InChannelStats(1, 5, 5, 4),)),
    }
    assert books.in_flight(plan, counted, B) == {"a.out->b.in": 3, "b.out->c.in": 3}
    assert books.in_flight(plan, flow(plan, 9), B) == {}


def test_counters_of_channels_that_do_not_exist_are_left_out() -> None:
    plan = chain("a", "b")
    counted = flow(plan, 3)
    counted[A] = replace(counted[A], outs=(*counted[A].outs, OutChannelStats(77, 5, 5, 5, 5)))
    assert report(plan, counted).balances


def test_the_two_ends_may_report_at_different_times() -> None:
    plan = chain("a", "b")
    counted = {B: WorkerStats(ins=(InChannelStats(0, 4, 4, 4),))}
    (edge,) = books.edge_statuses(plan, counted)
    assert (edge.sent, edge.delivered, edge.depth) == (4, 4, 0)


# --- fates: what never reached a handler --------------------------------------------------------

FATES = Fates(dropped=3, coalesced=2, expired=1, cancelled=4, rejected=5, errors=7)


def lossy(plan: Plan) -> dict[WorkerId, WorkerStats]:
    """Return the counters of an edge on which everything happened: 40 offered, 21 delivered."""
    return {
        A: WorkerStats(
            NodeStats(emitted=40, skipped=6),
            offered={0: 40},
            outs=(OutChannelStats(0, 25, 250, 25, 25),),
            fates={0: FATES},
        ),
        B: WorkerStats(ins=(InChannelStats(0, 25, 21, 25, expired=1, cancelled=3),)),
    }


def test_what_a_sender_and_a_receiver_kept_back_adds_up() -> None:
    plan = chain("a", "b")
    done = report(plan, lossy(plan))
    assert done.imbalances == []
    edge = done.edge("a.out->b.in")
    assert (edge.sent, edge.wired, edge.received, edge.delivered) == (40, 25, 25, 21)
    assert (edge.dropped, edge.coalesced, edge.expired, edge.cancelled) == (3, 2, 2, 7)
    assert (edge.rejected, edge.refused, edge.withheld, edge.merge_errors) == (5, 5, 15, 7)
    assert done.node("a").skipped_ticks == 6


@pytest.mark.parametrize("fate", ["dropped", "coalesced", "expired", "cancelled", "rejected"])
def test_a_fate_counted_wrong_is_found_out(fate: str) -> None:
    plan = chain("a", "b")
    counted = lossy(plan)
    one_more = replace(FATES, **{fate: getattr(FATES, fate) + 1})
    counted[A] = replace(counted[A], fates={0: one_more})
    assert report(plan, counted).imbalances != []


@pytest.mark.parametrize("fate", ["expired", "cancelled"])
def test_a_receiver_s_fate_counted_wrong_is_found_out(fate: str) -> None:
    plan = chain("a", "b")
    counted = lossy(plan)
    (into,) = counted[B].ins
    counted[B] = replace(counted[B], ins=(replace(into, **{fate: getattr(into, fate) + 1}),))
    assert report(plan, counted).imbalances != []


def test_a_message_refused_on_one_edge_was_offered_to_no_other() -> None:
    plan = make_plan([("a", "b"), ("a", "c")])
    counted = flow(plan, 4)
    counted[A] = replace(counted[A], offered={0: 7, 1: 4}, fates={0: Fates(rejected=3)})
    assert report(plan, counted).imbalances == []
    counted[A] = replace(counted[A], offered={0: 7, 1: 7}, fates={0: Fates(rejected=3)})
    assert report(plan, counted).imbalances != []


def test_messages_on_the_way_to_who_died_are_abandoned_whatever_else_was_lost() -> None:
    plan = chain("a", "b")
    (edge,) = books.edge_reports(plan, {A: lossy(plan)[A]}, {B}, complete=False)
    assert (edge.sent, edge.delivered, edge.abandoned, edge.withheld) == (40, 25, 0, 15)
    assert list(edge.imbalances()) == []


def test_copies_of_a_broadcast_count_each_for_itself() -> None:
    plan = make_plan([("a", "b"), ("a", "c")], {"b": 2})
    copied = replace(plan.edges[0], broadcast=True)
    plan = replace(plan, edges=(copied, plan.edges[1]))
    counted = {
        A: WorkerStats(
            offered={0: 6, 1: 3},
            outs=(*(OutChannelStats(n, 3, 3, 3, 3) for n in range(3)),),
        ),
        WorkerId("b", 0): WorkerStats(ins=(InChannelStats(0, 3, 3, 3),)),
        WorkerId("b", 1): WorkerStats(ins=(InChannelStats(1, 3, 3, 3),)),
        C: WorkerStats(ins=(InChannelStats(2, 3, 3, 3),)),
    }
    done = report(plan, counted)
    assert (done.edge("a.out->b.in").sent, done.edge("a.out->b.in").copies) == (6, 2)
    assert done.imbalances == []


def test_a_status_shows_what_waits_what_is_under_way_and_what_was_lost() -> None:
    plan = chain("a", "b")
    keys = (KeyStats("ann", 2, 1, 9, rejected=1), KeyStats("bob", 0, 1, 3))
    counted = {
        A: WorkerStats(
            offered={0: 40},
            unsent={0: 4},
            outs=(OutChannelStats(0, 21, 210, 20, 18),),
            fates={0: FATES},
            queues={0: QueueStats(1.5, keys)},
        ),
        B: WorkerStats(ins=(InChannelStats(0, 21, 16, 18, expired=1, cancelled=1),)),
    }
    (edge,) = books.edge_statuses(plan, counted)
    assert (edge.sent, edge.delivered, edge.waiting, edge.in_flight, edge.done) == (
        40, 16, 4, 3, 16,
    )  # fmt: skip
    assert edge.depth == 4 + 21 - 20
    assert (edge.dropped, edge.coalesced, edge.expired, edge.cancelled) == (3, 2, 2, 5)
    assert (edge.rejected, edge.capacity, edge.policy, edge.oldest_s) == (5, 8, "block", 1.5)
    assert [(k.key, k.depth, k.waiting, k.in_flight, k.done, k.rejected) for k in edge.keys] == [
        ("ann", 3, 2, 1, 9, 1),
        ("bob", 1, 0, 1, 3, 0),
    ]


@pytest.mark.parametrize(
    ("changes", "depth"),
    [
        ({}, 3 + 6),
        ({"policy": "reject"}, 3 + 6),
        ({"policy": "drop_oldest"}, 3 + 5),  # the receiver has one at hand
        ({"policy": "latest"}, 3),  # one in flight was asked for
        ({"limit": 2}, 3),
    ],
)
def test_depth_counts_what_waits_as_the_policy_does(changes: dict[str, Any], depth: int) -> None:
    plan = chain("a", "b")
    plan = replace(plan, edges=(replace(plan.edges[0], **changes),))
    counted = {
        A: WorkerStats(offered={0: 13}, unsent={0: 3}, outs=(OutChannelStats(0, 10, 10, 4, 4),)),
        B: WorkerStats(ins=(InChannelStats(0, 7, 2, 2),)),  # told before it took two more
    }
    (edge,) = books.edge_statuses(plan, counted)
    assert (edge.depth, edge.waiting, edge.in_flight) == (depth, 3, 6)


def test_a_key_of_several_senders_is_one_key() -> None:
    plan = chain("a", "b", a=2)
    counted = {
        WorkerId("a", replica): WorkerStats(
            queues={0: QueueStats(0.0, (KeyStats("bob", 1, 0, 2), KeyStats(who, 2, 1, 0, 1)))}
        )
        for replica, who in enumerate(("ann", "eve"))
    }
    (edge,) = books.edge_statuses(plan, counted)
    assert [(k.key, k.depth, k.waiting, k.in_flight, k.done, k.rejected) for k in edge.keys] == [
        ("ann", 3, 2, 1, 0, 1),
        ("eve", 3, 2, 1, 0, 1),
        ("bob", 2, 2, 0, 4, 0),
    ]


@pytest.mark.parametrize(
    ("changes", "capacity"),
    [
        ({}, 24),
        ({"policy": "drop"}, 8),
        ({"policy": "drop", "keyed": True}, 24),
        ({"policy": "block", "keyed": True, "limit": 1}, 8),
    ],
)
def test_the_capacity_of_an_edge_is_that_of_its_queues(
    changes: dict[str, Any], capacity: int
) -> None:
    plan = chain("a", "b", b=3)
    plan = replace(plan, edges=(replace(plan.edges[0], **changes),))
    (edge,) = books.edge_statuses(plan, {})
    assert edge.capacity == capacity


def test_stats_with_fates_and_queues_travel() -> None:
    plan = chain("a", "b")
    stats = replace(
        lossy(plan)[A],
        queues={0: QueueStats(0.5, (KeyStats("ann", 1, 2, 3, 4),))},
        cpu_ns=17,
        fused={"c": NodeStats(handled=1, metrics={"hits": 2.0}, skipped=3)},
    )
    assert books.parse_stats(stats.to_wire(), "a[0]") == stats


@pytest.mark.parametrize(
    "changes",
    [
        {"cpu_ns": -1},
        {"cpu_ns": 1.5},
        {"fates": {0: Fates(dropped=-1)}},
        {"fates": {"x": Fates()}},
        {"queues": {0: QueueStats("old")}},  # type: ignore[arg-type]  # what a peer may send
        {"queues": {0: QueueStats(1.0, (KeyStats(7, 1, 2, 3),))}},  # type: ignore[arg-type]  # likewise
        {"queues": {0: QueueStats(1.0, (KeyStats("k", -1, 2, 3),))}},
        {"ins": (InChannelStats(0, 1, 1, 1, 0, -1, 0),)},
        {"fused": {"c": NodeStats(skipped=-3)}},
        {"fused": {3: NodeStats()}},
    ],
)
def test_stats_that_are_no_counters_are_refused(changes: dict[str, Any]) -> None:
    wrong = replace(WorkerStats(), **changes)
    with pytest.raises(ProtocolError, match="expected stats"):
        books.parse_stats(wrong.to_wire(), "a[0]")
