"""What may be asked of a run under way: pausing and draining one node, and who may ask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from dflow.broker.events import DrainRequested, Received, Unreachable
from dflow.broker.lifecycle import Phase
from dflow.broker.observers import MOST
from dflow.broker.pausing import HEARD_S
from dflow.graph.plan import WorkerId
from dflow.report import RunStatus
from dflow.wire import control as c
from tests.unit.broker.test_end import running
from tests.unit.broker_pair import TOKEN, Fleet, chain, diamond, make_plan

CHAIN = chain("a", "b", "c", b=2)
ASKED: list[Callable[[int, str], c.Control]] = [
    lambda request, node: c.PauseRequest(request, node, 1),
    c.DrainNodeRequest,
]


def ask(fleet: Fleet, message: c.Control) -> None:
    """Ask as the launching process."""
    fleet.say(fleet.fake("run"), message)


def answers(fleet: Fleet) -> dict[int, str]:
    """Return what the launching process was answered, by request."""
    return {m.request: m.error for m in fleet.fake("run").heard if isinstance(m, c.Answer)}


def told(fleet: Fleet, kind: type[c.Control]) -> list[tuple[str, c.Control]]:
    """Return who was told a message of ``kind``, in order."""
    return [(str(to), m) for to, m in fleet.sent if isinstance(m, kind)]


def paused(fleet: Fleet) -> list[str]:
    """Return the nodes that show as paused."""
    return [node.name for node in fleet.state.status().nodes if node.paused]


# --- pause and resume ---------------------------------------------------------------------


def test_pausing_tells_every_replica_and_shows_in_the_status() -> None:
    fleet = running(CHAIN)
    ask(fleet, c.PauseRequest(1, "b", 1))
    assert told(fleet, c.Pause) == [("b[0]", c.Pause("b", 1, 1)), ("b[1]", c.Pause("b", 1, 1))]
    assert answers(fleet) == {1: ""}
    assert paused(fleet) == ["b"]


def test_who_pauses_is_answered_when_every_replica_has_heard() -> None:
    fleet = running(CHAIN)
    replicas = [fleet.fakes[WorkerId("b", n)] for n in range(2)]
    for fake in replicas:
        fake.mute = {c.Pause}
    ask(fleet, c.PauseRequest(1, "b", 1))
    ask(fleet, c.PauseRequest(2, "b", 1))
    for number in (1, 1, 2, 9):  # said twice, out of order, unasked: nothing comes of it
        fleet.say(replicas[0], c.Held(number))
    assert answers(fleet) == {}
    fleet.say(replicas[1], c.Held(2))
    assert answers(fleet) == {2: ""}
    fleet.say(replicas[1], c.Held(1))
    assert answers(fleet) == {1: "", 2: ""}


def test_who_pauses_is_not_kept_waiting_by_replicas_that_are_busy_or_end() -> None:
    fleet = running(CHAIN)
    fleet.fakes[WorkerId("b", 0)].mute = {c.Pause}
    ask(fleet, c.PauseRequest(1, "b", 1))
    fleet.advance(HEARD_S - 0.1, step_s=0.1)
    assert answers(fleet) == {}
    fleet.advance(0.2, step_s=0.1)
    assert answers(fleet) == {1: ""}
    fleet.fakes[WorkerId("a")].mute = {c.Pause, c.Abort}
    ask(fleet, c.PauseRequest(2, "a", 1))
    ask(fleet, c.AbortRequest("enough"))
    assert answers(fleet) == {1: "", 2: ""}


def test_resuming_tells_them_again_and_ends_the_show() -> None:
    fleet = running(CHAIN)
    ask(fleet, c.PauseRequest(1, "b", 1))
    fleet.sent.clear()
    ask(fleet, c.PauseRequest(2, "b", 0))
    assert told(fleet, c.Pause) == [("b[0]", c.Pause("b", 0)), ("b[1]", c.Pause("b", 0))]
    assert answers(fleet) == {1: "", 2: ""}
    assert paused(fleet) == []


def test_pausing_twice_and_resuming_what_goes_on_are_no_mistakes() -> None:
    fleet = running(CHAIN)
    for request, on in enumerate((0, 1, 1, 0, 0), start=1):
        ask(fleet, c.PauseRequest(request, "a", on))
    assert set(answers(fleet).values()) == {""}
    assert paused(fleet) == []


def test_everybody_goes_on_at_once_when_no_node_is_named() -> None:
    fleet = running(CHAIN)
    ask(fleet, c.PauseRequest(1, "c", 1))
    ask(fleet, c.PauseRequest(2, "a", 1))
    fleet.sent.clear()
    ask(fleet, c.PauseRequest(0, "", 0))
    assert told(fleet, c.Pause) == [("a[0]", c.Pause("a", 0)), ("c[0]", c.Pause("c", 0))]
    assert paused(fleet) == []


@pytest.mark.parametrize("by", [c.DrainRequest(5.0), None], ids=["handle", "signal"])
def test_a_drain_lets_the_paused_go_on_before_it_ends_anybody(by: c.Control | None) -> None:
    fleet = running(CHAIN)
    ask(fleet, c.PauseRequest(1, "a", 1))
    ask(fleet, c.PauseRequest(2, "b", 1))
    fleet.sent.clear()
    if by is not None:
        ask(fleet, by)
    else:
        fleet.feed(DrainRequested())
    heard = [type(m) for m in fleet.fake("a").heard if not isinstance(m, c.Ping)]
    assert heard[-3:] == [c.Pause, c.Pause, c.Drain]
    assert told(fleet, c.Pause)[0] == ("a[0]", c.Pause("a", 0))
    assert len(told(fleet, c.Pause)) == 3
    assert paused(fleet) == []


def test_an_abort_ends_a_paused_node_without_further_words() -> None:
    fleet = running(CHAIN)
    ask(fleet, c.PauseRequest(1, "b", 1))
    ask(fleet, c.AbortRequest("enough"))
    assert fleet.ended().outcome == "aborted"
    assert paused(fleet) == []


@pytest.mark.parametrize("make", ASKED, ids=["pause", "drain"])
@pytest.mark.parametrize(
    ("node", "error"),
    [
        ("bb", "no node 'bb'; did you mean 'b'? (the nodes are a, b, c)"),
        ("run", "no node 'run' (the nodes are a, b, c)"),
        ("a", "a: the node has ended"),
    ],
)
def test_what_cannot_be_done_is_answered_with_the_reason(
    make: Callable[[int, str], c.Control], node: str, error: str
) -> None:
    fleet = running(CHAIN)
    fleet.say(fleet.fake("a"), c.Drained())
    ask(fleet, make(7, node))
    assert answers(fleet) == {7: error}
    assert told(fleet, c.Pause) == told(fleet, c.DrainNode) == []


def test_a_replica_that_has_ended_is_not_told_while_its_twin_is() -> None:
    fleet = running(CHAIN)
    fleet.say(fleet.fakes[WorkerId("b", 0)], c.Drained())
    ask(fleet, c.PauseRequest(1, "b", 1))
    assert [to for to, _ in told(fleet, c.Pause)] == ["b[1]"]
    assert answers(fleet) == {1: ""}


def test_a_node_that_shares_a_worker_is_paused_there_by_its_name() -> None:
    plan = make_plan([("a", "b"), ("b", "c")], {"b": 2, "c": 2})
    fleet = running(replace(plan, fused=(("b", "c"),)))
    ask(fleet, c.PauseRequest(1, "c", 1))
    assert told(fleet, c.Pause) == [("b[0]", c.Pause("c", 1, 1)), ("b[1]", c.Pause("c", 1, 1))]
    assert paused(fleet) == ["c"]


def test_nothing_is_paused_once_the_run_drains() -> None:
    fleet = running(CHAIN)
    fleet.feed(DrainRequested())
    ask(fleet, c.PauseRequest(1, "b", 1))
    assert answers(fleet) == {1: "b: expected a run that goes on; it is draining"}


# --- draining one node ---------------------------------------------------------------------


def test_draining_a_node_ends_the_sources_it_is_fed_from_and_no_others() -> None:
    plan = make_plan([("a", "b"), ("b", "c"), ("x", "c"), ("y", "z")], {"a": 2})
    fleet = running(plan)
    ask(fleet, c.DrainNodeRequest(1, "c"))
    assert told(fleet, c.DrainNode) == [
        ("a[0]", c.DrainNode("a")),
        ("a[1]", c.DrainNode("a")),
        ("x[0]", c.DrainNode("x")),
    ]
    assert answers(fleet) == {1: ""}
    assert fleet.state.phase is Phase.RUNNING


def test_draining_what_only_the_outside_feeds_ends_its_inputs() -> None:
    fleet = running(make_plan([("a", "b")], extra=["lone"]))
    ask(fleet, c.DrainNodeRequest(1, "lone"))
    assert told(fleet, c.DrainNode) == [("lone[0]", c.DrainNode("lone"))]


def test_draining_a_node_lets_those_on_the_way_to_it_go_on() -> None:
    fleet = running(diamond())
    for request, node in enumerate("abd", start=1):
        ask(fleet, c.PauseRequest(request, node, 1))
    fleet.sent.clear()
    ask(fleet, c.DrainNodeRequest(4, "b"))
    assert [to for to, _ in told(fleet, c.Pause)] == ["a[0]", "b[0]", "b[1]"]
    assert paused(fleet) == ["d"]


def test_a_worker_may_not_ask_for_any_of_it() -> None:
    fleet = running(CHAIN)
    for message in (c.PauseRequest(1, "b", 1), c.DrainNodeRequest(2, "b")):
        fleet.say(fleet.fake("a"), message)
    assert fleet.state.ignored["unexpected"] == 2
    assert told(fleet, c.Pause) == told(fleet, c.DrainNode) == []


# --- observers -----------------------------------------------------------------------------


class Onlooker:
    """A peer that only looks."""

    def __init__(self, fleet: Fleet, name: str = "o1", token: str = TOKEN) -> None:
        self.fleet = fleet
        self.key = name.encode()
        self.say(c.Hello("observer", token, 7, "here"))

    def say(self, message: c.Control) -> None:
        self.fleet.feed(Received(self.key, message))

    def heard(self) -> list[c.Control]:
        return [message for to, message in self.fleet.sent if to == self.key]


def test_an_observer_is_told_the_status_and_counts_for_nothing_else() -> None:
    fleet = running(CHAIN)
    before = [node.workers for node in fleet.state.status().nodes]
    onlooker = Onlooker(fleet)
    assert onlooker.heard() == []
    onlooker.say(c.StatusRequest(5))
    (reply,) = onlooker.heard()
    assert isinstance(reply, c.StatusReply)
    assert reply.request == 5
    assert RunStatus.from_dict(reply.status) == fleet.state.status()
    assert [node.workers for node in fleet.state.status().nodes] == before
    ask(fleet, c.AbortRequest("enough"))
    assert fleet.ended().outcome == "aborted"  # nobody waited for it
    assert type(onlooker.heard()[-1]) is c.Finished


@pytest.mark.parametrize("phase", [Phase.WAITING, Phase.STARTING, Phase.RUNNING, Phase.ABORTING])
def test_one_may_look_on_in_any_phase(phase: Phase) -> None:
    fleet = Fleet(CHAIN, with_handle=True)
    for fake in fleet.fakes.values():
        fake.mute = {c.Run}
    if phase is Phase.STARTING:
        fleet.fake("b").mute = {c.Start}
    if phase is Phase.ABORTING:
        fleet.fake("b").mute = {c.Run, c.Abort}
    if phase is not Phase.WAITING:
        fleet.join()
    if phase is Phase.ABORTING:
        ask(fleet, c.AbortRequest("enough"))
    assert fleet.state.phase is phase
    onlooker = Onlooker(fleet)
    onlooker.say(c.StatusRequest(1))
    (reply,) = onlooker.heard()
    assert isinstance(reply, c.StatusReply)
    assert reply.status["phase"] == phase.value


def test_who_does_not_know_the_token_sees_nothing() -> None:
    fleet = running(CHAIN)
    stranger = Onlooker(fleet, token="guessed")
    stranger.say(c.StatusRequest(1))
    assert [type(m) for m in stranger.heard()] == [c.Refused]
    assert fleet.state.ignored == {"refused": 1, "stranger": 1}


@pytest.mark.parametrize(
    "message", [c.DrainRequest(0.0), c.AbortRequest("x"), c.PauseRequest(1, "a", 1), c.Drained()]
)
def test_an_observer_may_not_do_anything(message: c.Control) -> None:
    fleet = running(CHAIN)
    onlooker = Onlooker(fleet)
    onlooker.say(message)
    assert fleet.state.phase is Phase.RUNNING
    assert onlooker.heard() == []
    assert fleet.state.ignored == {"unexpected": 1}


def test_only_the_latest_observers_are_remembered_and_a_forgotten_one_may_come_again() -> None:
    fleet = running(CHAIN)
    first = Onlooker(fleet, "first")
    crowd = [Onlooker(fleet, f"o{number}") for number in range(MOST)]
    first.say(c.StatusRequest(1))
    assert first.heard() == []
    first.say(c.Hello("observer", TOKEN, 7, "here"))
    first.say(c.StatusRequest(2))
    crowd[-1].say(c.StatusRequest(3))
    assert len(first.heard()) == len(crowd[-1].heard()) == 1


def test_an_observer_whose_connection_is_gone_is_forgotten() -> None:
    fleet = running(CHAIN)
    onlooker = Onlooker(fleet)
    fleet.feed(Unreachable(onlooker.key))
    onlooker.say(c.StatusRequest(1))
    assert onlooker.heard() == []


def test_an_observer_that_comes_when_the_run_is_over_hears_how_it_ended() -> None:
    fleet = running(CHAIN)
    fleet.fakes[WorkerId("b", 0)].mute = {c.Exit}
    ask(fleet, c.AbortRequest("enough"))
    assert fleet.state.phase is Phase.LEAVING
    assert [type(m) for m in Onlooker(fleet).heard()] == [c.Finished]
