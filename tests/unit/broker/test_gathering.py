"""Who is asked for a bundle, when it is written, and that a run ends with and without it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dflow.broker.events import AbortRequested, Keep, Kept, Received, Tick
from dflow.broker.gathering import ANSWER_S, KEEP_S, MOST_ASKERS
from dflow.broker.lifecycle import Phase
from dflow.graph.plan import Plan, WorkerId
from dflow.options import RunOptions
from dflow.wire import control as c
from tests.unit.broker_pair import KEPT, TOKEN, Fleet, chain

OPTIONS = RunOptions(bundle="/bundles")
CHAIN = chain("a", "b", "c")


def running(plan: Plan = CHAIN, *, managed: bool = True, **options: Any) -> Fleet:
    """Return a fleet that runs, and keeps a bundle if it fails."""
    wanted = RunOptions(**{"bundle": "/bundles"} | options)
    fleet = Fleet(plan, with_handle=True, managed=managed, options=wanted)
    for fake in fleet.fakes.values():
        fake.mute = {c.Run}
    fleet.join()
    assert fleet.state.phase is Phase.RUNNING
    return fleet


def guest(fleet: Fleet, number: int = 7) -> None:
    """Have an observer ask for a bundle."""
    fleet.feed(Received(b"guest", c.Hello("observer", TOKEN, 1, "here")))
    fleet.feed(Received(b"guest", c.DumpRequest(number)))


def test_a_failed_run_asks_everybody_who_lives_before_it_tells_them_to_end() -> None:
    fleet = running()
    fleet.exit(WorkerId("b"), None, "SIGKILL")
    assert fleet.order(c.Dump) == ["a[0]", "c[0]", "run[0]"]
    assert [word for word in fleet.fake("a").words() if word in ("Dump", "Abort")] == [
        "Dump", "Abort",
    ]  # fmt: skip
    assert fleet.ended().bundle == "/bundles/one"


def test_the_case_tells_cause_exits_words_and_how_things_stood() -> None:
    fleet = running()
    fleet.fake("a").words_of_itself = '{"pid": 1}'
    fleet.exit(WorkerId("b"), None, "SIGKILL")
    (case,) = fleet.cases
    assert (case.cause["kind"], case.cause["worker"]) == ("worker_died", "b[0]")
    assert case.words["a[0]"] == '{"pid": 1}'
    assert case.phase == "running"
    assert [node.workers for node in case.status.nodes[:3:2]] == [("running",), ("running",)]
    seats = {seat["name"]: seat for seat in case.seats}
    assert seats["b[0]"]["exit"] == "killed by SIGKILL (pid 100)"
    assert [seats[n]["answered"] for n in ("a[0]", "b[0]", "c[0]")] == [True, False, True]
    assert case.report is not None
    assert case.report.error_kind == "worker_died"
    assert "b[0] exited: killed by SIGKILL (pid 100)" in [row[1] for row in case.story]


def test_counters_are_those_that_came_with_the_answer_not_those_of_the_end() -> None:
    fleet = running()
    fleet.count(20)
    a = fleet.fake("a")
    fleet.say(a, c.Stats(a.stats.to_wire()))
    before = a.stats

    def stopped_with(emitted: int) -> None:
        a.stats = replace(before, node=replace(before.node, emitted=emitted))

    stopped_with(20)
    fleet.fake("c").mute.add(c.Dump)  # so that the case is made after a has stopped
    fleet.exit(WorkerId("b"), 1)
    stopped_with(99)
    fleet.say(a, c.Stats(a.stats.to_wire()))
    fleet.advance(ANSWER_S)
    assert fleet.cases[0].counters["a[0]"]["node"]["emitted"] == 20


def test_a_run_that_fails_in_order_waits_for_nothing() -> None:
    fleet = running()
    before = fleet.now
    fleet.exit(WorkerId("b"), 1)
    assert fleet.ended().outcome == "failed"
    assert fleet.now == before


def test_the_silent_are_waited_for_then_looked_at_from_outside() -> None:
    fleet = running()
    fleet.fake("c").mute |= {c.Dump, c.Abort}
    fleet.exit(WorkerId("b"), 1)
    assert fleet.probed == []
    fleet.advance(ANSWER_S, step_s=0.5)
    assert fleet.probed == [WorkerId("c")]
    assert fleet.cases == []  # c has still to end
    fleet.advance(6.0)
    (case,) = fleet.cases
    seats = {seat["name"]: seat for seat in case.seats}
    assert (seats["c[0]"]["answered"], seats["c[0]"]["killed_by_run"]) == (False, True)
    assert fleet.ended().bundle == "/bundles/one"


def test_one_that_exits_instead_of_answering_is_not_waited_for() -> None:
    fleet = running()
    fleet.fake("c").mute |= {c.Dump, c.Abort}
    fleet.exit(WorkerId("b"), 1)
    fleet.exit(WorkerId("c"), 0)
    assert fleet.probed == []
    assert fleet.ended().outcome == "failed"


@pytest.mark.parametrize("late", [0.0, 0.1])
def test_an_answer_that_comes_too_late_changes_nothing(late: float) -> None:
    fleet = running()
    fleet.fake("c").mute |= {c.Dump}
    fleet.exit(WorkerId("b"), 1)
    fleet.advance(ANSWER_S + late)
    fleet.say(fleet.fake("c"), c.Dumped(1, "late"))
    assert fleet.ended().outcome == "failed"
    assert "c[0]" not in fleet.cases[0].words


def test_without_the_option_nobody_is_asked_and_nothing_is_kept() -> None:
    fleet = running(bundle=None)
    fleet.exit(WorkerId("b"), 1)
    assert fleet.order(c.Dump) == []
    assert fleet.cases == []
    assert fleet.ended().bundle is None


def test_a_run_that_was_aborted_on_request_leaves_none() -> None:
    fleet = running()
    fleet.feed(AbortRequested("enough"))
    assert fleet.ended().outcome == "aborted"
    assert fleet.cases == []


def test_a_run_that_finishes_leaves_none() -> None:
    fleet = Fleet(CHAIN, with_handle=True, options=OPTIONS)
    fleet.join()
    assert fleet.ended().outcome == "finished"
    assert fleet.cases == []


def test_books_that_do_not_balance_are_a_failure_found_while_the_workers_still_live() -> None:
    fleet = Fleet(chain("a", "b"), with_handle=True, options=OPTIONS)
    fleet.count(12)
    b = fleet.fake("b")
    b.stats = replace(b.stats, ins=(replace(b.stats.ins[0], delivered=11),))
    fleet.join()
    (case,) = fleet.cases
    assert fleet.order(c.Dump) == ["a[0]", "b[0]", "run[0]"]
    assert case.report is not None
    assert not case.report.balances
    assert fleet.ended().bundle == "/bundles/one"


@pytest.mark.parametrize("where", ["on_start", "handler", "on_stop"])
def test_user_code_that_raises_leaves_one(where: str) -> None:
    fleet = Fleet(CHAIN, with_handle=True, options=OPTIONS)
    waits_for = {"on_start": c.Start, "handler": c.Run, "on_stop": c.Stop}
    fleet.fake("b").mute = {waits_for[where]}
    fleet.join()
    fleet.say(fleet.fake("b"), c.Failed(where, "ValueError: x", ""))
    assert fleet.ended().error_kind == "hook_failed"
    assert len(fleet.cases) == 1


def test_a_drain_that_takes_too_long_leaves_one() -> None:
    fleet = running(drain_timeout_s=2.0)
    fleet.say(fleet.fake("run"), c.DrainRequest(2.0))
    fleet.advance(3.0)
    assert fleet.ended().error_kind == "drain_timeout"
    assert fleet.cases[0].phase == "draining"


def test_only_the_first_failure_counts() -> None:
    fleet = running()
    fleet.fake("a").mute |= {c.Abort}
    fleet.exit(WorkerId("b"), 1)
    fleet.exit(WorkerId("a"), 1)
    assert len(fleet.cases) == 1
    assert fleet.cases[0].cause["worker"] == "b[0]"


def test_a_bundle_that_cannot_be_written_is_said_and_the_run_ends_as_it_would_have() -> None:
    fleet = running()
    fleet.kept = Kept("", "No space left on device")
    fleet.exit(WorkerId("b"), 1)
    report = fleet.ended()
    assert (report.error_kind, report.bundle) == ("worker_died", None)
    assert "no failure bundle: No space left on device" in fleet.warnings()


def test_nobody_waits_for_ever_for_a_bundle() -> None:
    fleet = running()
    fleet.kept = None
    fleet.exit(WorkerId("b"), 1)
    assert fleet.report is None
    fleet.advance(KEEP_S)
    assert fleet.ended().bundle is None


def test_once_it_is_kept_nobody_is_woken_for_it_any_more() -> None:
    fleet = running()
    fleet.fake("a").mute |= {c.Exit}
    fleet.exit(WorkerId("b"), 1)
    assert fleet.state.phase is Phase.LEAVING
    fleet.advance(KEEP_S / 4)
    due = fleet.state.next_timer()
    assert due is not None
    assert due > fleet.now


# --- while the run goes on ----------------------------------------------------------------


def test_a_guest_is_handed_a_bundle_and_the_run_goes_on() -> None:
    fleet = running()
    guest(fleet)
    (hand,) = fleet.handed
    assert (hand.key, hand.request) == (b"guest", 7)
    assert hand.case.cause == {}
    assert set(hand.case.words) == {"a[0]", "b[0]", "c[0]", "run[0]"}
    assert fleet.state.phase is Phase.RUNNING


def test_the_launching_process_may_ask_too() -> None:
    fleet = running()
    fleet.say(fleet.fake("run"), c.DumpRequest(3))
    assert [(hand.request, hand.key) for hand in fleet.handed] == [(3, fleet.fake("run").key)]


def test_a_worker_may_not_ask() -> None:
    fleet = running()
    fleet.say(fleet.fake("a"), c.DumpRequest(3))
    assert fleet.handed == []
    assert fleet.state.ignored["unexpected"] == 1


def test_two_who_ask_at_once_get_the_same_answers() -> None:
    fleet = running()
    fleet.fake("b").mute.add(c.Dump)
    guest(fleet, 1)
    guest(fleet, 2)
    assert fleet.order(c.Dump) == ["a[0]", "b[0]", "c[0]", "run[0]"]
    fleet.advance(ANSWER_S)
    assert [hand.request for hand in fleet.handed] == [1, 2]


def test_a_guest_that_asks_without_end_costs_little() -> None:
    fleet = running()
    fleet.fake("b").mute.add(c.Dump)
    for number in range(1000):
        guest(fleet, number)
    fleet.advance(ANSWER_S)
    assert len(fleet.handed) == MOST_ASKERS


def test_a_run_that_fails_while_a_guest_waits_keeps_its_own_bundle() -> None:
    fleet = running()
    fleet.fake("c").mute.add(c.Dump)
    guest(fleet)
    fleet.exit(WorkerId("b"), 1)
    fleet.advance(ANSWER_S)
    assert len(fleet.handed) == 1
    assert fleet.ended().bundle == "/bundles/one"


def test_workers_of_other_hosts_are_not_looked_at_from_outside() -> None:
    fleet = running(managed=False)
    fleet.fake("c").mute.add(c.Dump)
    guest(fleet)
    fleet.advance(ANSWER_S)
    assert (len(fleet.handed), fleet.probed) == (1, [])


def test_a_bundle_nobody_asked_for_is_ignored() -> None:
    fleet = running()
    fleet.feed(KEPT)
    fleet.say(fleet.fake("a"), c.Dumped(5, "unasked"))
    assert fleet.state.phase is Phase.RUNNING


# --- the story ----------------------------------------------------------------------------


def test_the_story_tells_how_it_came_to_that_without_tokens_or_steady_news() -> None:
    fleet = running()
    for _ in range(1000):
        fleet.say(fleet.fake("a"), c.Heartbeat())
    fleet.exit(WorkerId("b"), 3)
    told = [line.what for line in fleet.state.story.lines()]
    assert "Hello of a[0] (worker, pid 100 on here)" in told
    assert "run is aborting: a participant failed" in told
    assert TOKEN not in "".join(told)
    assert len(told) < 100


def test_a_text_of_a_peer_is_not_in_the_story() -> None:
    fleet = running()
    fleet.say(fleet.fake("a"), c.Failed("handler", "payload-of-the-user", "payload-of-the-user"))
    assert "payload-of-the-user" not in str(fleet.state.story.rows())
    assert "a[0] said Failed (handler)" in str(fleet.state.story.rows())


def test_keep_is_the_last_word_before_the_run_leaves() -> None:
    fleet = running()
    fleet.kept = None
    fleet.exit(WorkerId("b"), 1)
    todo = fleet.state.handle(Tick(), fleet.now)
    assert not any(isinstance(each, Keep) for each in todo)  # once is enough
    fleet.feed(KEPT)
    assert fleet.ended().bundle == "/bundles/one"
