"""Deaths, user errors, silence, and peers that say what they should not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dflow.broker.events import Garbled, Received, Unreachable
from dflow.broker.lifecycle import Phase
from dflow.broker.outcome import exit_code
from dflow.graph.plan import WorkerId
from dflow.message import Priority
from dflow.options import RunOptions
from dflow.wire import control as c
from tests.unit.broker.test_end import running
from tests.unit.broker_pair import Fleet, chain


def test_a_death_ends_the_run_and_names_worker_signal_and_messages_in_flight() -> None:
    fleet = running(chain("a", "b", "c"))
    fleet.count(20)
    a, b = fleet.fake("a"), fleet.fake("b")
    a.stats = replace(a.stats, outs=(replace(a.stats.outs[0], done=8),))
    fleet.say(b, c.Stats(b.stats.to_wire()))
    fleet.exit(WorkerId("b"), None, "SIGKILL")
    report = fleet.ended()
    assert (report.outcome, report.error_kind) == ("failed", "worker_died")
    assert report.error == (
        "b[0]: worker died: killed by SIGKILL (pid 100) while running; "
        "in flight by edge: a.out->b.in 12"
    )
    assert exit_code(report) == 1
    assert fleet.fake("a").words()[-2:] == ["Abort", "Exit"]


def test_edges_of_a_dead_worker_are_told_by_the_other_side_and_marked_inexact() -> None:
    fleet = running(chain("a", "b", "c"))
    fleet.count(20)
    a = fleet.fake("a")
    a.stats = replace(a.stats, outs=(replace(a.stats.outs[0], taken=10, done=8),))
    fleet.exit(WorkerId("b"), 3)
    report = fleet.ended()
    into, out = report.edge("a.out->b.in"), report.edge("b.out->c.in")
    assert (into.sent, into.received, into.delivered, into.abandoned) == (20, 10, 8, 12)
    assert (out.sent, out.delivered, out.abandoned) == (20, 20, 0)
    assert (into.exact, out.exact) == (False, False)
    assert report.balances


@pytest.mark.parametrize("mute", [c.Assign, c.Link, c.Start])
def test_a_death_before_the_run_stops_those_who_started(mute: type[c.Control]) -> None:
    fleet = Fleet(chain("a", "b"), with_handle=True)
    fleet.fake("b").mute = {mute}
    fleet.join()
    fleet.exit(WorkerId("b"), 1)
    assert fleet.ended().error_kind == "worker_died"
    assert "exit code 1" in str(fleet.ended().error)
    assert fleet.order(c.Abort) == ["a[0]", "run[0]"]


def test_a_worker_that_dies_before_joining_ends_the_run() -> None:
    fleet = Fleet(chain("a", "b"), with_handle=True)
    fleet.join(WorkerId("run"))
    fleet.exit(WorkerId("b"), 1)
    assert fleet.ended().error == (
        "b[0]: worker died: exit code 1 (pid 100) while absent; nothing in flight"
    )
    assert fleet.killed == [WorkerId("a")]
    assert fleet.fake("run").words()[-1] == "Finished"


def test_a_hello_after_the_run_was_ended_is_refused() -> None:
    fleet = Fleet(chain("a", "b", "c"))
    fleet.fake("c").mute = {c.Abort}
    fleet.join(WorkerId("c"))
    fleet.exit(WorkerId("b"), 1)
    fleet.join(WorkerId("a"))
    (refused,) = [m for _, m in fleet.sent if isinstance(m, c.Refused)]
    assert refused.reason == "the run is aborting; nobody can join any more"


def test_a_clean_exit_in_the_middle_of_the_run_is_a_death_too() -> None:
    fleet = running(chain("a", "b"))
    fleet.exit(WorkerId("a"), 0)
    assert fleet.ended().error_kind == "worker_died"
    assert "exit code 0" in str(fleet.ended().error)


def test_the_first_cause_wins_and_later_ones_are_said() -> None:
    fleet = running(chain("a", "b", "c"))
    fleet.fake("c").mute |= {c.Abort}
    fleet.exit(WorkerId("a"), 1)
    fleet.exit(WorkerId("c"), 2)
    assert str(fleet.ended().error).startswith("a[0]: worker died: exit code 1")
    assert any("after the run was ended: c[0]" in text for text in fleet.warnings())


def test_a_death_while_stopping_leaves_the_order_of_the_others_alone() -> None:
    fleet = Fleet(chain("a", "b", "c"))
    fleet.count(3)
    fleet.fake("c").mute = {c.Stop}
    fleet.join()
    assert fleet.state.phase is Phase.STOPPING
    fleet.exit(WorkerId("c"), None, "SIGSEGV")
    report = fleet.ended()
    assert (report.outcome, report.error_kind) == ("failed", "worker_died")
    assert fleet.order(c.Stop) == ["c[0]", "b[0]", "a[0]"]
    assert fleet.order(c.Abort) == []


def test_a_failing_on_start_ends_the_run_with_the_users_traceback() -> None:
    fleet = Fleet(chain("a", "b"), with_handle=True)
    fleet.fake("b").mute = {c.Start}
    fleet.join()
    fleet.say(fleet.fake("b"), c.Failed("on_start", "ValueError: no model", "Traceback …\n  x\n"))
    report = fleet.ended()
    assert (report.outcome, report.error_kind) == ("failed", "hook_failed")
    assert report.error == "b[0]: on_start failed: ValueError: no model\nTraceback …\n  x"
    assert fleet.order(c.Run) == []
    assert fleet.order(c.Abort) == ["a[0]", "b[0]", "run[0]"]


def test_a_start_that_fails_outside_user_code_is_a_start_failure() -> None:
    fleet = Fleet(chain("a", "b"))
    fleet.fake("b").mute = {c.Link}
    fleet.join()
    fleet.say(fleet.fake("b"), c.Failed("link", "refused", ""))
    assert fleet.ended().error_kind == "start_failed"
    assert exit_code(fleet.ended()) == 3


def test_a_handler_that_ends_the_run_is_a_hook_failure() -> None:
    fleet = running(chain("a", "b"))
    fleet.say(fleet.fake("b"), c.Failed("handler", "ZeroDivisionError", ""))
    assert (fleet.ended().outcome, fleet.ended().error_kind) == ("failed", "hook_failed")


def test_a_failing_on_stop_is_reported_and_the_others_stop_in_order() -> None:
    fleet = Fleet(chain("a", "b", "c"))
    fleet.count(3)
    fleet.fake("c").mute = {c.Stop}
    fleet.join()
    fleet.say(fleet.fake("c"), c.Failed("on_stop", "OSError", ""))
    report = fleet.ended()
    assert (report.outcome, report.error_kind) == ("failed", "hook_failed")
    assert fleet.order(c.Stop) == ["c[0]", "b[0]", "a[0]"]
    assert fleet.order(c.Abort) == ["c[0]"]
    assert report.totals["abandoned"] == 0


def test_a_failure_of_somebody_who_is_aborting_anyway_is_only_said() -> None:
    fleet = running(chain("a", "b"))
    fleet.fake("b").mute |= {c.Abort}
    fleet.exit(WorkerId("a"), 1)
    fleet.say(fleet.fake("b"), c.Failed("on_stop", "OSError", ""))
    fleet.say(fleet.fake("b"), c.Stopped([]))
    assert str(fleet.ended().error).startswith("a[0]")
    assert "b[0]: on_stop failed, too: OSError" in fleet.warnings()


def test_a_worker_by_hand_that_falls_silent_is_taken_for_dead() -> None:
    fleet = running(chain("a", "b"), handle=False, managed=False)
    for _ in range(8):
        fleet.advance(1)
        fleet.say(fleet.fake("a"), c.Heartbeat())
    assert fleet.state.phase is Phase.RUNNING
    fleet.advance(2)
    assert str(fleet.ended().error).startswith(
        "b[0]: worker died: not heard of for 10 s (pid 100 on here) while running"
    )


def test_a_silent_worker_whose_connection_is_gone_is_given_up_sooner() -> None:
    fleet = running(chain("a", "b"), handle=False, managed=False)
    for _ in range(3):
        fleet.advance(1)
        fleet.say(fleet.fake("a"), c.Heartbeat())
        fleet.feed(Unreachable(fleet.fake("b").key))
    assert "b[0]: worker died: not heard of for 2 s" in str(fleet.ended().error)


def test_a_worker_that_is_heard_of_again_is_not_unreachable() -> None:
    fleet = running(chain("a", "b"), handle=False, managed=False)
    fleet.feed(Unreachable(fleet.fake("b").key))
    fleet.feed(Unreachable(b"nobody"))
    for _ in range(6):
        fleet.say(fleet.fake("a"), c.Heartbeat())
        fleet.say(fleet.fake("b"), c.Heartbeat())
        fleet.advance(1)
    assert fleet.state.phase is Phase.RUNNING


def test_a_coordinator_that_was_stopped_itself_takes_nobody_for_dead() -> None:
    fleet = running(chain("a", "b"), handle=False, managed=False)
    fleet.advance(3600, step_s=3600)
    assert fleet.state.phase is Phase.RUNNING


def test_workers_of_an_agent_may_be_silent() -> None:
    fleet = running(chain("a", "b"))
    fleet.advance(60)
    assert fleet.state.phase is Phase.RUNNING


def test_malformed_frames_are_counted_and_said_once_a_peer() -> None:
    fleet = running(chain("a", "b"))
    for _ in range(5):
        fleet.feed(Garbled(fleet.fake("a").key, "control message: malformed (ValueError)"))
        fleet.feed(Garbled(b"\xff\xfe", "control message: malformed (ValueError)"))
    assert fleet.state.ignored["malformed"] == 10
    assert fleet.warnings() == [
        "ignored (malformed): a[0]: control message: malformed (ValueError)",
        "ignored (malformed): unknown peer fffe: control message: malformed (ValueError)",
    ]
    assert fleet.state.phase is Phase.RUNNING


def test_a_flood_of_strangers_neither_fills_the_log_nor_the_memory() -> None:
    fleet = running(chain("a", "b"))
    for n in range(3000):
        fleet.feed(Received(n.to_bytes(4, "big"), c.Drained()))
    assert fleet.state.ignored["stranger"] == 3000
    assert len(fleet.warnings()) == 1000


@pytest.mark.parametrize(
    "message", [c.Bound({2: "ipc:///x"}), c.Linked(), c.Started(), c.Stopped([])]
)
def test_repeated_and_untimely_messages_are_ignored(message: c.Control) -> None:
    fleet = running(chain("a", "b"))
    for _ in range(3):
        fleet.say(fleet.fake("a"), message)
    assert fleet.state.ignored["unexpected"] == 3
    assert "before that: joined, bound, link, linked, start, started, run" in fleet.warnings()[0]
    for node in ("a", "b"):
        fleet.say(fleet.fake(node), c.Drained())
        fleet.say(fleet.fake(node), c.Drained())
    assert fleet.ended().outcome == "finished"


def test_a_second_hello_is_ignored() -> None:
    fleet = running(chain("a", "b"))
    fleet.join(WorkerId("a"))
    assert fleet.state.ignored["unexpected"] == 1
    assert fleet.state.phase is Phase.RUNNING


def test_counters_cannot_change_after_the_last_word() -> None:
    fleet = Fleet(chain("a", "b"))
    fleet.count(5)
    fleet.fake("a").mute = {c.Stop}
    fleet.join()
    fleet.say(fleet.fake("b"), c.Stats([[9, 9, 9, 9, 9, {}], {}, {}, {}, [], []]))
    fleet.say(fleet.fake("a"), c.Stopped(fleet.fake("a").stats.to_wire()))
    assert fleet.ended().node("b").handled == 5


@pytest.mark.parametrize(
    "stats",
    [
        [1, 2, 3],
        [["x", 0, 0, 0, 0, {}], {}, {}, {}, [], []],
        [[-1, 0, 0, 0, 0, {}], {}, {}, {}, [], []],
        [[0, 0, 0, 0, 0, {"m": "text"}], {}, {}, {}, [], []],
        [[0, 0, 0, 0, 0, []], {}, {}, {}, [], []],
        [[0, 0, 0, 0, 0, {}], {0: 1.5}, {}, {}, [], []],
        [[0, 0, 0, 0, 0, {}], {}, {"e": 1}, {}, [], []],
        [[0, 0, 0, 0, 0, {}], {}, {}, {}, [[0, True, 0, 0, 0]], []],
        [[0, 0, 0, 0, 0, {}], {}, {}, {}, [], [[0, 0]]],
    ],
)
def test_counters_that_are_none_are_ignored(stats: list[object]) -> None:
    fleet = running(chain("a", "b"))
    fleet.say(fleet.fake("a"), c.Stats(stats))
    assert fleet.state.ignored["unexpected"] == 1
    assert "a[0]: expected stats (whole numbers >= 0)" in fleet.warnings()[0]
    assert fleet.state.status().nodes[0].handled == 0


def test_endpoints_that_are_none_are_ignored() -> None:
    fleet = Fleet(chain("a", "b"))
    fleet.fake("a").mute = {c.Assign}
    fleet.join()
    fleet.say(fleet.fake("a"), c.Bound({Priority.NORMAL: 7}))  # type: ignore[dict-item]  # a peer may say anything
    assert fleet.state.phase is Phase.BINDING
    fleet.say(fleet.fake("a"), c.Bound({}))
    assert fleet.ended().outcome == "finished"


@pytest.mark.parametrize(
    "message",
    [
        c.DrainRequest(1.0),
        c.AbortRequest("x"),
        c.StatusRequest(1),
        c.Locate(1, "a", "in"),
        c.Exit(),
    ],
)
def test_only_the_handle_may_ask_for_things(message: c.Control) -> None:
    fleet = running(chain("a", "b"))
    fleet.say(fleet.fake("a"), message)
    assert fleet.state.phase is Phase.RUNNING
    assert fleet.warnings() == [
        f"ignored (unexpected): a[0]: a worker may not send {type(message).__name__}"
    ]


def test_the_handle_may_not_speak_as_the_coordinator() -> None:
    fleet = running(chain("a", "b"))
    fleet.say(fleet.fake("run"), c.Exit())
    assert "run[0]: may not send Exit" in fleet.warnings()[0]


def test_log_records_are_relayed_in_order_also_those_of_the_dead() -> None:
    fleet = running(chain("a", "b"))
    records = [c.Log("INFO", 1.0, f"line {n}", "m", n, {}) for n in range(3)]
    fleet.say(fleet.fake("a"), records[0])
    fleet.fake("b").mute |= {c.Abort}
    fleet.exit(WorkerId("a"), 1)
    fleet.say(fleet.fake("a"), records[1])
    fleet.say(fleet.fake("b"), records[2])
    assert [(str(r.worker), r.record) for r in fleet.relayed] == [
        ("a[0]", records[0]), ("a[0]", records[1]), ("b[0]", records[2]),
    ]  # fmt: skip


def test_counters_that_arrive_after_the_news_of_a_death_still_count() -> None:
    fleet = running(chain("a", "b", "c"))
    fleet.fake("c").mute |= {c.Abort}
    fleet.count(6)
    fleet.exit(WorkerId("a"), 1)
    fleet.say(fleet.fake("a"), c.Stats(fleet.fake("a").stats.to_wire()))
    fleet.say(fleet.fake("a"), c.Drained())
    fleet.exit(WorkerId("c"), None, "SIGKILL")
    fleet.say(fleet.fake("c"), c.Stopped(fleet.fake("c").stats.to_wire()))
    report = fleet.ended()
    assert (report.node("a").emitted, report.edge("a.out->b.in").exact) == (6, False)
    assert fleet.state.ignored["unexpected"] == 0


def test_the_exit_of_an_unknown_worker_is_ignored() -> None:
    fleet = running(chain("a", "b"))
    fleet.exit(WorkerId("nobody"), 1)
    assert fleet.state.phase is Phase.RUNNING


def test_an_exit_reported_twice_counts_once() -> None:
    fleet = running(chain("a", "b"))
    fleet.fake("b").mute |= {c.Abort}
    fleet.exit(WorkerId("a"), 1)
    warnings = len(fleet.warnings())
    fleet.exit(WorkerId("a"), 1)
    assert len(fleet.warnings()) == warnings


def test_a_graph_of_many_workers_names_only_some_in_an_error() -> None:
    fleet = Fleet(chain("a", "b", b=50), options=RunOptions(start_timeout_s=1))
    fleet.join(WorkerId("a"))
    fleet.advance(1)
    first, _, why = str(fleet.ended().error).partition("\n")
    assert first.endswith("b[19] and 30 more")
    assert why.endswith("(the same holds for b[1], b[2], b[3] and 46 more)")


def test_a_handle_that_joins_after_a_death_still_hears_how_the_run_ended() -> None:
    fleet = Fleet(chain("a", "b"), with_handle=True)
    fleet.join(WorkerId("a"), WorkerId("b"))
    fleet.exit(WorkerId("b"), 7)
    assert fleet.report is None
    fleet.join(WorkerId("run"))
    assert fleet.ended().error_kind == "worker_died"
    assert fleet.order(c.Finished) == ["run[0]"]


def test_a_handle_that_never_joins_is_waited_for_only_so_long() -> None:
    fleet = Fleet(chain("a", "b"), with_handle=True)
    fleet.join(WorkerId("a"), WorkerId("b"))
    fleet.exit(WorkerId("b"), 7)
    fleet.advance(30)
    assert "exit code 7" in str(fleet.ended().error)
    assert fleet.order(c.Finished) == []
