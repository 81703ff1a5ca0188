"""From RUNNING to the report: natural end, drain, deadlines, abort."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dflow.broker.events import AbortRequested, DrainRequested
from dflow.broker.lifecycle import Phase
from dflow.broker.outcome import exit_code
from dflow.broker.timers import GRACE_S
from dflow.graph.plan import Plan, WorkerId
from dflow.options import RunOptions
from dflow.report import RunReport, RunStatus
from dflow.stats import OutChannelStats
from dflow.wire import control as c
from tests.unit.broker_pair import Fleet, chain, diamond, make_plan


def running(plan: Plan, *, handle: bool = True, managed: bool = True, **options: float) -> Fleet:
    """Return a fleet whose nodes run and do not end by themselves."""
    fleet = Fleet(plan, with_handle=handle, managed=managed, options=RunOptions(**options))  # type: ignore[arg-type]  # only the numbers are used
    for fake in fleet.fakes.values():
        fake.mute = {c.Run}
    fleet.join()
    assert fleet.state.phase is Phase.RUNNING
    return fleet


def test_stop_goes_from_the_sinks_to_the_sources_level_by_level() -> None:
    fleet = Fleet(diamond(), with_handle=True)
    fleet.fake("c").mute = {c.Stop}
    fleet.join()
    assert fleet.order(c.Stop) == ["run[0]", "d[0]", "b[0]", "b[1]", "c[0]"]
    fleet.say(fleet.fake("c"), c.Stopped([]))
    assert fleet.order(c.Stop)[-1] == "a[0]"
    assert fleet.ended().outcome == "finished"


def test_nobody_stops_before_all_are_drained() -> None:
    fleet = running(chain("a", "b", "c"))
    fleet.say(fleet.fake("a"), c.Drained())
    fleet.say(fleet.fake("c"), c.Drained())
    assert fleet.order(c.Stop) == []
    fleet.say(fleet.fake("b"), c.Drained())
    assert fleet.ended().outcome == "finished"


def test_results_in_the_handle_are_awaited_before_the_stop() -> None:
    fleet = Fleet(make_plan([("a", "b")], results=["b"]), with_handle=True)
    fleet.fake("run").mute = {c.Run}
    fleet.join()
    assert fleet.order(c.Stop) == []
    fleet.say(fleet.fake("run"), c.Drained())
    assert fleet.ended().outcome == "finished"


def test_the_report_reaches_the_handle_and_everybody_may_leave() -> None:
    fleet = Fleet(chain("a", "b"), with_handle=True)
    fleet.count(12)
    fleet.join()
    (finished,) = [m for m in fleet.fake("run").heard if isinstance(m, c.Finished)]
    assert RunReport.from_dict(finished.report) == fleet.ended()
    assert fleet.order(c.Exit) == ["a[0]", "b[0]"]
    assert fleet.ended().edge("a.out->b.in").delivered == 12
    assert fleet.ended().balances
    assert fleet.fake("run").words()[-1] == "Finished"


def test_drain_tells_sources_and_nodes_fed_from_outside_only() -> None:
    fleet = running(make_plan([("a", "b")], extra=["lone"]))
    fleet.say(fleet.fake("run"), c.DrainRequest(30.0))
    assert fleet.order(c.Drain) == ["a[0]", "lone[0]"]
    for node in ("a", "b", "lone"):
        fleet.say(fleet.fake(node), c.Drained())
    assert fleet.ended().outcome == "drained"
    assert exit_code(fleet.ended()) == 0


def test_a_source_that_has_ended_already_is_not_told_to_drain() -> None:
    fleet = running(chain("a", "b"))
    fleet.say(fleet.fake("a"), c.Drained())
    fleet.say(fleet.fake("run"), c.DrainRequest(30.0))
    assert fleet.order(c.Drain) == []
    fleet.say(fleet.fake("b"), c.Drained())
    assert fleet.ended().outcome == "drained"


def test_the_drain_deadline_names_what_was_abandoned_and_who_was_busy() -> None:
    fleet = running(chain("a", "b"))
    fleet.count(10)
    stats = fleet.fake("b").stats
    fleet.fake("b").stats = replace(stats, ins=(replace(stats.ins[0], delivered=4, done=4),))
    fleet.say(fleet.fake("run"), c.DrainRequest(5.0))
    fleet.say(fleet.fake("a"), c.Drained())
    fleet.advance(4.9)
    assert fleet.state.phase is Phase.DRAINING
    fleet.advance(0.2)
    report = fleet.ended()
    assert (report.outcome, report.error_kind) == ("drain_timeout", "drain_timeout")
    assert str(report.error).startswith(
        "the drain deadline of 5 s has passed; abandoned by edge: a.out->b.in 6; still busy: b[0]\n"
        "who waited for whom:\n"
        "  b (pid 100) was last heard of 5.1 s ago: its process is stopped, or its code\n"
        "  holds the interpreter\n"
    )
    assert report.edge("a.out->b.in").abandoned == 6
    assert report.balances
    assert exit_code(report) == 4
    assert fleet.fake("b").words()[-2:] == ["Abort", "Exit"]


def test_without_a_deadline_given_the_runs_own_holds() -> None:
    fleet = running(chain("a", "b"), drain_timeout_s=2.0)
    fleet.feed(DrainRequested())
    fleet.advance(2)
    assert fleet.ended().outcome == "drain_timeout"


@pytest.mark.parametrize(("first", "second", "ends_at"), [(10, 3, 4), (3, 10, 3)])
def test_a_second_drain_request_can_only_shorten_the_deadline(
    first: float, second: float, ends_at: float
) -> None:
    fleet = running(chain("a", "b"))
    fleet.say(fleet.fake("run"), c.DrainRequest(float(first)))
    fleet.advance(1)
    fleet.say(fleet.fake("run"), c.DrainRequest(float(second)))
    fleet.advance(ends_at - 1 - 0.1)
    assert fleet.state.phase is Phase.DRAINING
    fleet.advance(0.2)
    assert fleet.ended().outcome == "drain_timeout"


def test_a_drain_of_zero_seconds_ends_at_once() -> None:
    fleet = running(chain("a", "b"))
    fleet.say(fleet.fake("run"), c.DrainRequest(0.0))
    assert fleet.ended().outcome == "drain_timeout"


def test_drain_during_the_start_ends_the_run_in_order_and_is_no_error() -> None:
    fleet = Fleet(chain("a", "b"), with_handle=True)
    fleet.fake("b").mute = {c.Start}
    fleet.join()
    fleet.feed(DrainRequested())
    assert fleet.ended().outcome == "drained"
    assert fleet.ended().error is None
    assert fleet.order(c.Abort) == ["a[0]", "b[0]", "run[0]"]


def test_an_on_stop_that_hangs_in_a_drain_is_bounded() -> None:
    fleet = running(chain("a", "b"))
    fleet.fake("b").mute |= {c.Stop, c.Abort}
    fleet.say(fleet.fake("run"), c.DrainRequest(1.0))
    fleet.say(fleet.fake("a"), c.Drained())
    fleet.say(fleet.fake("b"), c.Drained())
    fleet.advance(GRACE_S - 0.1)
    assert fleet.phases[-1].value == "stopping"
    fleet.advance(0.1)
    assert fleet.phases[-1].value == "aborting"
    fleet.advance(GRACE_S)
    assert fleet.killed == [WorkerId("b")]
    report = fleet.ended()
    assert report.error == (
        "everything is drained, but on_stop has not returned by the drain deadline; "
        "nothing abandoned; still busy: b[0]\n"
        "who waited for whom:\n"
        "  b (pid 100) was last heard of 5.0 s ago: its process is stopped, or its code\n"
        "  holds the interpreter\n"
        "  → a waits to be stopped"
    )


def test_a_natural_end_gives_on_stop_all_the_time_it_takes() -> None:
    fleet = Fleet(chain("a", "b"))
    fleet.fake("b").mute = {c.Stop}
    fleet.join()
    fleet.advance(3600, step_s=30)
    assert fleet.state.phase is Phase.STOPPING
    fleet.say(fleet.fake("b"), c.Stopped([]))
    assert fleet.ended().outcome == "finished"


def test_abort_ends_everybody_at_once_with_the_reason() -> None:
    fleet = running(chain("a", "b"))
    fleet.say(fleet.fake("run"), c.AbortRequest("enough"))
    report = fleet.ended()
    assert (report.outcome, report.error_kind, report.error) == ("aborted", "aborted", "enough")
    assert {m.reason for _, m in fleet.sent if isinstance(m, c.Abort)} == {"enough"}
    assert exit_code(report) == 4


def test_abort_during_a_drain_counts_as_abort() -> None:
    fleet = running(chain("a", "b"))
    fleet.feed(DrainRequested())
    fleet.feed(AbortRequested("interrupted twice"))
    assert fleet.ended().outcome == "aborted"


@pytest.mark.parametrize("mute_at", [c.Assign, c.Link, c.Start, c.Run, c.Stop])
def test_abort_works_in_every_phase(mute_at: type[c.Control]) -> None:
    fleet = Fleet(chain("a", "b"), with_handle=True)
    fleet.fake("b").mute = {mute_at}
    fleet.join()
    fleet.feed(AbortRequested("now"))
    assert fleet.ended().outcome == "aborted"


def test_whoever_does_not_answer_an_abort_is_killed_after_the_grace() -> None:
    fleet = running(chain("a", "b"))
    fleet.fake("b").mute |= {c.Abort}
    fleet.feed(AbortRequested("now"))
    fleet.advance(GRACE_S - 0.1)
    assert (fleet.killed, fleet.report) == ([], None)
    fleet.advance(0.1)
    assert fleet.killed == [WorkerId("b")]
    assert fleet.ended().outcome == "aborted"
    assert not fleet.ended().edge("a.out->b.in").exact
    assert "b[0]: killed, as it was aborting for too long" in fleet.warnings()


def test_a_handle_that_does_not_answer_still_gets_the_report() -> None:
    fleet = running(chain("a", "b"))
    fleet.fake("run").mute |= {c.Abort}
    fleet.feed(AbortRequested("now"))
    fleet.advance(GRACE_S)
    assert fleet.ended().outcome == "aborted"
    assert fleet.fake("run").words()[-1] == "Finished"
    assert fleet.killed == []


def test_workers_by_hand_that_do_not_answer_are_given_up() -> None:
    fleet = running(chain("a", "b"), handle=False, managed=False)
    fleet.fake("b").mute |= {c.Abort}
    fleet.feed(AbortRequested("now"))
    fleet.advance(GRACE_S)
    assert fleet.ended().outcome == "aborted"
    assert fleet.killed == []


def test_a_worker_that_does_not_leave_is_killed_and_the_run_is_still_a_success() -> None:
    fleet = Fleet(chain("a", "b"), with_handle=True)
    fleet.fake("b").mute = {c.Exit}
    fleet.join()
    assert fleet.fake("run").words()[-1] == "Finished"
    assert fleet.report is None
    fleet.advance(GRACE_S)
    assert fleet.killed == [WorkerId("b")]
    assert fleet.ended().outcome == "finished"


def test_a_coordinator_that_was_stopped_itself_gives_everybody_the_grace_all_the_same() -> None:
    fleet = Fleet(chain("a", "b"), with_handle=True)
    fleet.fake("b").mute = {c.Exit}
    fleet.join()
    fleet.advance(60, step_s=60)
    assert fleet.killed == []
    fleet.advance(GRACE_S)
    assert fleet.killed == [WorkerId("b")]


def test_a_coordinator_that_is_always_late_ends_the_run_all_the_same() -> None:
    fleet = running(chain("a", "b"), drain_timeout_s=2.0)
    fleet.say(fleet.fake("run"), c.DrainRequest(2.0))
    fleet.advance(60, step_s=3)
    assert fleet.ended().outcome == "drain_timeout"


def test_a_worker_that_survives_being_killed_does_not_hold_up_the_end() -> None:
    fleet = Fleet(chain("a", "b"))
    fleet.fake("b").mute = {c.Exit}
    fleet.unkillable = True
    fleet.join()
    fleet.advance(2 * GRACE_S)
    assert fleet.killed == [WorkerId("b")]
    assert fleet.ended().outcome == "finished"


def test_a_bad_exit_after_the_work_is_only_a_warning() -> None:
    fleet = Fleet(chain("a", "b"))
    fleet.fake("b").mute = {c.Exit}
    fleet.join()
    fleet.exit(WorkerId("b"), None, "SIGSEGV")
    assert fleet.ended().outcome == "finished"
    assert fleet.warnings() == ["b[0]: killed by SIGSEGV (pid 100) after its work was done"]


def test_after_the_end_nothing_happens_any_more() -> None:
    fleet = Fleet(chain("a", "b"))
    fleet.join()
    sent = len(fleet.sent)
    fleet.feed(AbortRequested("late"))
    fleet.say(fleet.fake("a"), c.Drained())
    fleet.advance(100)
    assert len(fleet.sent) == sent
    assert fleet.state.next_timer() is None
    assert fleet.ended().outcome == "finished"


def test_pings_go_to_everybody_who_has_not_left() -> None:
    fleet = running(chain("a", "b"))
    fleet.sent.clear()
    fleet.advance(3)
    assert fleet.order(c.Ping) == ["a[0]", "b[0]", "run[0]"] * 3


def test_times_of_the_report_come_from_the_clock_given() -> None:
    fleet = running(chain("a", "b"))
    fleet.advance(7)
    for node in ("a", "b"):
        fleet.say(fleet.fake(node), c.Drained())
    report = fleet.ended()
    assert (report.started_s, report.ended_s, report.wall_s) == (1000.0, 1007.0, 7.0)


def test_status_shows_the_run_as_last_reported() -> None:
    fleet = running(chain("a", "b", b=2))
    fleet.count(9)
    a = replace(fleet.fake("a").stats, outs=(OutChannelStats(0, 9, 90, 4, 4),))
    fleet.say(fleet.fake("a"), c.Stats(a.to_wire()))
    fleet.say(fleet.fake("b", 1), c.Stats(fleet.fake("b", 1).stats.to_wire()))
    fleet.advance(2)
    fleet.say(fleet.fake("run"), c.StatusRequest(5))
    (reply,) = [m for m in fleet.fake("run").heard if isinstance(m, c.StatusReply)]
    status = RunStatus.from_dict(reply.status)
    assert status == fleet.state.status()
    assert (reply.request, status.phase, status.uptime_s) == (5, "running", 2.0)
    assert [(n.name, n.handled, n.emitted, n.workers) for n in status.nodes] == [
        ("a", 0, 9, ("running",)),
        ("b", 4, 9, ("running", "running")),
    ]
    (edge,) = status.edges
    assert (edge.sent, edge.delivered, edge.depth, edge.capacity) == (9, 4, 5, 16)
