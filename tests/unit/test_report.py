"""Reports and statuses: printed, carried, checked."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import msgpack
import pytest

from dflow.report import EdgeReport, EdgeStatus, NodeReport, NodeStatus, RunReport, RunStatus

EDGE = EdgeReport("a.out->b.in", sent=1200, delivered=1200, wired=1200, received=1200, bytes=9600)
REPORT = RunReport(
    "squares",
    "r1",
    "finished",
    1000.0,
    1002.5,
    2.5,
    nodes=(
        NodeReport("a", "source", 1, 0, 1200, 0, 0, 0.25),
        NodeReport("b", "sink", 2, 1200, 0, 3, metrics={"hits": 4.0}),
    ),
    edges=(EDGE,),
)
STATUS = RunStatus(
    "squares",
    "r1",
    "running",
    1.5,
    (NodeStatus("a", "source", 1, 0, 10, 0, ("running",)),),
    (EdgeStatus("a.out->b.in", 10, 8, 2, 1024),),
)


def test_a_report_prints_as_aligned_tables() -> None:
    assert str(REPORT) == (
        "run squares (r1): finished in 2.50 s\n"
        "\n"
        "node  replicas  handled  emitted  errors    busy\n"
        "a            1        0    1,200       0  0.25 s\n"
        "b            2    1,200        0       3  0.00 s\n"
        "\n"
        "edge          sent  delivered  peak  bytes\n"
        "a.out->b.in  1,200      1,200     0  9,600\n"
        "\n"
        "books balance: 1,200 sent = 1,200 delivered"
    )


def test_skipped_ticks_are_shown_when_there_were_any() -> None:
    late = replace(REPORT.nodes[1], skipped_ticks=1234)
    lines = str(replace(REPORT, nodes=(REPORT.nodes[0], late))).splitlines()
    assert lines[2:5] == [
        "node  replicas  handled  emitted  errors  skipped ticks    busy",
        "a            1        0    1,200       0              0  0.25 s",
        "b            2    1,200        0       3          1,234  0.00 s",
    ]


def test_a_failed_report_shows_what_was_abandoned_and_the_error() -> None:
    edge = replace(EDGE, delivered=1000, abandoned=200, received=1000, exact=False)
    text = str(
        replace(
            REPORT, outcome="failed", error="b[0] died", error_kind="worker_died", edges=(edge,)
        )
    )
    assert "edge                  sent  delivered  abandoned  peak  bytes" in text
    assert "a.out->b.in (about)  1,200      1,000        200" in text
    assert "books balance: 1,200 sent = 1,000 delivered + 200 abandoned" in text
    assert text.endswith("worker_died: b[0] died")


def test_books_that_do_not_balance_say_so_and_why() -> None:
    wrong = replace(REPORT, edges=(replace(EDGE, delivered=1199),))
    assert not wrong.balances
    assert "books DO NOT balance: 1,200 sent = 1,199 delivered" in str(wrong)
    assert wrong.imbalances == [
        "edge a.out->b.in: 1200 sent, but 1199 delivered or otherwise accounted for"
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"delivered": 1199},
        {"sent": 1201, "abandoned": 1},
        {"received": 1199},
        {"wired": 1199, "unsent": 1},
        {"unsent": 1},
        {"dropped": 1},
        {"expired": 1},
        {"cancelled": 1},
        {"withheld": 1},
        {"sent": 1201, "dropped": 1},
        {"sent": 1201, "withheld": 1},
        {"delivered": 1199, "received": 1199, "abandoned": 1},
    ],
)
def test_no_single_counter_can_be_wrong_unnoticed(changes: dict[str, Any]) -> None:
    assert not replace(REPORT, edges=(replace(EDGE, **changes),)).balances


@pytest.mark.parametrize(
    "changes",
    [
        {"sent": 1203, "dropped": 1, "coalesced": 2, "withheld": 3},
        {"sent": 1203, "expired": 1, "cancelled": 2, "withheld": 3},
        {"delivered": 1197, "expired": 1, "cancelled": 2},
        {"sent": 1204, "delivered": 1199, "expired": 2, "withheld": 1, "rejected": 3, "unsent": 3},
        {"sent": 1205, "rejected": 5, "withheld": 5, "refused": 5},
        {"delivered": 1190, "received": 1195, "rejected": 10},
        {"delivered": 1198, "dead_lettered": 2},
    ],
)
def test_every_fate_of_a_message_counts_in_the_balance(changes: dict[str, Any]) -> None:
    assert replace(REPORT, edges=(replace(EDGE, **changes),)).balances


def test_an_aborted_run_may_abandon() -> None:
    edge = replace(EDGE, delivered=0, received=7, abandoned=1200)
    assert replace(REPORT, outcome="aborted", edges=(edge,)).balances
    assert not replace(REPORT, outcome="drained", edges=(edge,)).balances


def test_totals_sum_every_edge() -> None:
    two = replace(REPORT, edges=(EDGE, replace(EDGE, id="b.out->c.in")))
    assert two.totals["sent"] == 2400
    assert two.totals["abandoned"] == 0


def test_a_report_travels_as_a_dict_and_as_json() -> None:
    carried = msgpack.unpackb(msgpack.packb(REPORT.to_dict()))
    assert RunReport.from_dict(carried) == REPORT
    data = json.loads(REPORT.to_json())
    assert RunReport.from_dict(data) == REPORT
    assert data["balances"] is True
    assert data["totals"]["delivered"] == 1200


def test_a_status_travels_as_a_dict() -> None:
    carried = msgpack.unpackb(msgpack.packb(STATUS.to_dict()))
    assert RunStatus.from_dict(carried) == STATUS


def test_fields_of_a_newer_version_are_left_out() -> None:
    newer = REPORT.to_dict() | {"novelty": 1}
    newer["edges"][0]["novelty"] = 2
    assert RunReport.from_dict(newer) == REPORT


def test_nodes_and_edges_are_found_by_name() -> None:
    assert REPORT.node("b").handled == 1200
    assert REPORT.edge("a.out->b.in") is EDGE
    with pytest.raises(KeyError, match=r"expected one of a, b, got 'c'"):
        REPORT.node("c")


def test_a_run_without_edges_prints_and_balances() -> None:
    lone = replace(REPORT, edges=())
    assert "books balance: 0 sent = 0 delivered" in str(lone)
