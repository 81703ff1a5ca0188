"""The life of a run in its log: a few lines, whatever its size, with labels for machines."""

from __future__ import annotations

from dflow.broker.events import Say
from dflow.broker.lifecycle import Phase
from dflow.graph.plan import WorkerId
from dflow.wire import control as c
from tests.unit.broker_pair import Fleet, chain


def running(*names: str, **replicas: int) -> Fleet:
    """Return a run under way, whose nodes do not end by themselves."""
    fleet = Fleet(chain(*names, **replicas), with_handle=True)
    for fake in fleet.fakes.values():
        fake.mute = {c.Run, c.Drain}
    fleet.join()
    assert fleet.state.phase is Phase.RUNNING
    return fleet


def life(fleet: Fleet) -> list[Say]:
    """Return what was said of the life of a run, at INFO or above."""
    return [said for said in fleet.said if said.level != "DEBUG"]


def events(fleet: Fleet) -> list[object]:
    """Return what happened, by name."""
    return [said.labels.get("event") for said in life(fleet)]


def test_a_run_that_goes_well_is_told_in_four_lines() -> None:
    fleet = Fleet(chain("a", "b"), with_handle=True)
    fleet.join()
    fleet.count(10)
    fleet.say(fleet.fake("a"), c.Drained())
    fleet.say(fleet.fake("b"), c.Drained())
    report = fleet.ended()
    assert events(fleet) == ["run.starting", "run.linked", "run.running", "run.finished"]
    begin, linked, running, end = life(fleet)
    assert begin.text == "test is starting: 2 nodes, 2 workers, 1 edge"
    assert (begin.labels["nodes"], begin.labels["workers"]) == (2, 2)
    assert linked.text == "linked by 1 channel; nodes start"
    assert running.labels["phase"] == "running"
    assert end.text.startswith("finished after 0.00 s: ")
    assert (end.labels["sent"], end.labels["outcome"]) == (report.totals["sent"], "finished")
    assert end.labels["balances"] is True


def test_many_workers_do_not_make_the_log_longer() -> None:
    fleet = running("a", "b", b=150)
    fleet.say(fleet.fake("run"), c.DrainRequest(5.0))
    assert len(life(fleet)) == 4


def test_a_drain_says_how_long_it_may_take() -> None:
    fleet = running("a", "b")
    fleet.say(fleet.fake("run"), c.DrainRequest(5.0))
    said = life(fleet)[-1]
    assert (said.labels["event"], said.labels["within_s"]) == ("run.draining", 5.0)
    assert said.text.startswith("draining for up to 5 s")


def test_pausing_and_resuming_are_told_once() -> None:
    fleet = running("a", "b")
    for number, on in enumerate((1, 1, 0, 0)):
        fleet.say(fleet.fake("run"), c.PauseRequest(number + 1, "b", on))
    told = [(said.labels["event"], said.labels["node"]) for said in life(fleet)[3:]]
    assert told == [("node.paused", "b"), ("node.resumed", "b")]


def test_a_death_is_told_with_who_and_why() -> None:
    fleet = running("a", "b")
    fleet.exit(WorkerId("b"), 7)
    fleet.ended()
    failed, aborting, end = life(fleet)[3:]
    assert (failed.level, failed.labels["event"]) == ("ERROR", "run.failed")
    assert (failed.labels["kind"], failed.labels["node"]) == ("worker_died", "b")
    assert aborting.labels["event"] == "run.aborting"
    assert end.labels["outcome"] == "failed"


def test_an_abort_that_was_asked_for_says_why() -> None:
    fleet = running("a", "b")
    fleet.say(fleet.fake("run"), c.AbortRequest("enough"))
    fleet.ended()
    aborted = life(fleet)[3]
    assert (aborted.labels["event"], aborted.text) == ("run.aborted", "enough")
    assert events(fleet)[-1] == "run.finished"
