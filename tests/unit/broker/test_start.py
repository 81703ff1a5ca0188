"""From the first Hello to RUNNING: who is told what, and in which order."""

from __future__ import annotations

import pytest

from dflow.broker.events import Received
from dflow.broker.lifecycle import Phase
from dflow.broker.state import CoordinatorState
from dflow.graph.plan import WorkerId
from dflow.message import Priority
from dflow.options import RunOptions
from dflow.wire import control as c
from tests.unit.broker_pair import HANDLE, TOKEN, Fake, Fleet, chain, diamond, make_plan


def test_phases_come_in_order_from_waiting_to_finished() -> None:
    fleet = Fleet(chain("a", "b"))
    fleet.join()
    assert [phase.value for phase in fleet.phases] == [
        "waiting", "binding", "linking", "starting", "running", "stopping", "leaving", "finished",
    ]  # fmt: skip


def test_nobody_is_told_of_channels_before_everybody_is_bound() -> None:
    fleet = Fleet(chain("a", "b", "c"))
    fleet.fake("c").mute = {c.Assign}
    fleet.join()
    assert fleet.state.phase is Phase.BINDING
    assert fleet.order(c.Link) == []
    fleet.say(fleet.fake("c"), c.Bound({Priority.NORMAL: "ipc:///c"}))
    assert fleet.order(c.Link) == ["a[0]", "b[0]", "c[0]"]


def test_link_names_every_outgoing_channel_and_where_its_receiver_listens() -> None:
    fleet = Fleet(diamond())
    fleet.join()
    links = {str(to): m.channels for to, m in fleet.sent if isinstance(m, c.Link)}
    assert links["a[0]"] == [[0, "ipc:///b[0]"], [1, "ipc:///b[1]"], [2, "ipc:///c[0]"]]
    assert links["b[1]"] == [[4, "ipc:///d[0]"]]
    assert links["d[0]"] == []


def test_a_level_starts_only_when_the_one_before_it_has_started() -> None:
    fleet = Fleet(diamond())
    fleet.fake("b", 1).mute = {c.Start}
    fleet.join()
    assert fleet.order(c.Start) == ["a[0]", "b[0]", "b[1]", "c[0]"]
    assert fleet.order(c.Run) == []
    fleet.say(fleet.fake("b", 1), c.Started())
    assert fleet.order(c.Start)[-1] == "d[0]"
    assert fleet.order(c.Run) == ["a[0]", "b[0]", "b[1]", "c[0]", "d[0]"]


def test_no_source_runs_before_every_on_start_returned() -> None:
    fleet = Fleet(chain("a", "b", "c"))
    fleet.join()
    kinds = [type(message) for _, message in fleet.sent]
    last_start = max(i for i, kind in enumerate(kinds) if kind is c.Start)
    assert kinds.index(c.Run) > last_start


def test_the_handle_links_and_runs_but_has_nothing_to_start() -> None:
    fleet = Fleet(chain("a", "b"), with_handle=True)
    fleet.fake("b").mute = {c.Run}
    fleet.join()
    words = fleet.fake("run").words()
    assert words == ["Assign", "Process", "Link", "Process", "Process", "Run", "Process"]
    phases = [m.phase for m in fleet.fake("run").heard if isinstance(m, c.Process)]
    assert phases == ["binding", "linking", "starting", "running"]


def test_the_handle_gets_the_channels_of_results() -> None:
    fleet = Fleet(make_plan([("a", "b")], results=["b"]), with_handle=True)
    fleet.join()
    links = {str(to): m.channels for to, m in fleet.sent if isinstance(m, c.Link)}
    assert links["b[0]"] == [[1, "ipc:///run[0]"]]


def test_assign_carries_all_a_worker_by_hand_needs() -> None:
    plan = chain("a", "b")
    options = RunOptions(transport="tcp", log="json")
    fleet = Fleet(plan, managed=False, options=options, graph_ref="pkg.mod:graph")
    fleet.feed(Received(b"key:a[0]", fleet.fake("a").hello(node="", replica=0)))
    to, assign = fleet.sent[0]
    assert isinstance(assign, c.Assign)
    assert (str(to), assign.node, assign.replica) == ("a[0]", "a", 0)
    assert (assign.run_id, assign.epoch, assign.graph) == ("r1", 1, "pkg.mod:graph")
    assert assign.fingerprint == plan.fingerprint
    assert RunOptions(**assign.options) == RunOptions(transport="tcp", log="json")


def test_workers_by_hand_get_the_free_replicas_in_order() -> None:
    fleet = Fleet(chain("a", "b", b=2), managed=False)
    for key in (b"1", b"2", b"3", b"4"):
        fleet.feed(Received(key, c.Hello("worker", TOKEN, 1, "here")))
    given = [f"{m.node}[{m.replica}]" for _, m in fleet.sent if isinstance(m, c.Assign)]
    assert given == ["a[0]", "b[0]", "b[1]"]
    refused = [m.reason for _, m in fleet.sent if isinstance(m, c.Refused)]
    assert len(refused) == 1
    assert "nobody can join any more" in refused[0] or "all 3 replicas are taken" in refused[0]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"token": "wrong"}, "token: not the one of this run"),
        ({"token": "пароль"}, "token: not the one of this run"),
        ({"fingerprint": "feed"}, "graph: expected fingerprint"),
        ({"node": "nobody"}, "the graph has no replica nobody[0]"),
        ({"replica": 7}, "the graph has no replica a[7]"),
        ({"node": "run"}, "the graph has no replica run[0]"),
        ({"role": "spy"}, "role: expected 'worker' or 'handle', got 'spy'"),
        ({"role": "handle"}, "this coordinator serves no launching process"),
        ({"node": ""}, "this run starts its own workers"),
    ],
)
def test_who_may_not_take_part_is_refused_with_the_reason(
    changes: dict[str, object], reason: str
) -> None:
    fleet = Fleet(chain("a", "b"))
    fleet.feed(Received(b"spy", fleet.fake("a").hello(**changes)))
    ((to, message),) = fleet.sent
    assert to == b"spy"
    assert isinstance(message, c.Refused)
    assert message.reason.startswith(reason)
    assert fleet.state.ignored["refused"] == 1
    fleet.join()
    assert fleet.ended().outcome == "finished"


def test_a_taken_place_is_refused_and_its_owner_carries_on() -> None:
    fleet = Fleet(chain("a", "b"))
    fleet.join(WorkerId("a"))
    fleet.feed(Received(b"other", fleet.fake("a").hello()))
    refused = [m.reason for _, m in fleet.sent if isinstance(m, c.Refused)]
    assert refused == ["a[0] is already taken"]
    fleet.join(WorkerId("b"))
    assert fleet.ended().outcome == "finished"


def test_a_worker_with_the_right_fingerprint_is_admitted() -> None:
    plan = chain("a", "b")
    fleet = Fleet(plan)
    for fake in fleet.fakes.values():
        fleet.feed(Received(fake.key, fake.hello(fingerprint=plan.fingerprint)))
    assert fleet.ended().outcome == "finished"


def test_a_start_that_takes_too_long_fails_and_names_who_is_awaited() -> None:
    fleet = Fleet(chain("a", "b"), options=RunOptions(start_timeout_s=3))
    fleet.fake("b").mute = {c.Start}
    fleet.join()
    fleet.advance(3)
    report = fleet.ended()
    assert (report.outcome, report.error_kind) == ("failed", "start_failed")
    assert report.error == (
        "expected all nodes ready within 3 s, but the run is still starting; still busy: b[0]\n"
        "who waited for whom:\n"
        "  b (pid 100) was last heard of 3.0 s ago: its process is stopped, or its code\n"
        "  holds the interpreter"
    )


def test_workers_that_never_joined_are_killed_when_the_start_fails() -> None:
    fleet = Fleet(chain("a", "b"), options=RunOptions(start_timeout_s=3))
    fleet.join(WorkerId("a"))
    fleet.advance(3)
    assert fleet.killed == [WorkerId("b")]
    assert fleet.fake("a").words()[-2:] == ["Abort", "Exit"]
    assert "still busy: b[0]" in str(fleet.ended().error)


def test_workers_by_hand_may_take_any_time_to_join() -> None:
    fleet = Fleet(chain("a", "b"), managed=False, options=RunOptions(start_timeout_s=3))
    fleet.advance(3600, step_s=1)
    assert fleet.state.phase is Phase.WAITING
    fleet.join()
    assert fleet.ended().outcome == "finished"


def test_a_worker_by_hand_that_left_while_others_are_awaited_frees_its_place() -> None:
    fleet = Fleet(chain("a", "b"), managed=False)
    fleet.join(WorkerId("a"))
    fleet.advance(11)
    assert fleet.state.phase is Phase.WAITING
    assert "waiting for another in its place" in fleet.warnings()[0]
    fleet.join()
    assert fleet.ended().outcome == "finished"


def test_a_worker_by_hand_with_other_code_frees_its_place() -> None:
    fleet = Fleet(chain("a", "b", "c"), managed=False)
    fleet.join(WorkerId("a"), WorkerId("b"))
    fleet.say(fleet.fake("a"), c.Failed("joining", "expected the coordinator's graph", ""))
    assert (fleet.state.phase, fleet.report) == (Phase.WAITING, None)
    (warning,) = fleet.warnings()
    assert warning.startswith("a[0]: joining failed: expected the coordinator's graph; waiting for")
    fleet.join(WorkerId("c"))
    assert fleet.state.phase is Phase.WAITING
    fleet.join(WorkerId("a"))
    assert fleet.ended().outcome == "finished"


def test_user_code_that_fails_in_a_worker_by_hand_ends_the_run() -> None:
    fleet = Fleet(chain("a", "b"), managed=False)
    fleet.join(WorkerId("a"))
    fleet.say(fleet.fake("a"), c.Failed("__init__", "ValueError: no", ""))
    assert fleet.ended().outcome == "failed"


def test_a_receiver_without_a_socket_for_an_edge_fails_the_start() -> None:
    fleet = Fleet(chain("a", "b"))
    fleet.fake("b").mute = {c.Assign}
    fleet.join()
    fleet.say(fleet.fake("b"), c.Bound({Priority.HIGH: "ipc:///b"}))
    report = fleet.ended()
    assert (report.outcome, report.error_kind) == ("failed", "start_failed")
    assert report.error == (
        "edge a.out->b.in: expected b[0] to receive on band NORMAL, but it bound no socket for it"
    )
    assert fleet.order(c.Link) == []


def test_locate_names_every_replica_that_may_be_sent_to() -> None:
    plan = chain("a", "b", b=2)
    fleet = Fleet(plan, with_handle=True)
    for fake in fleet.fakes.values():
        fake.mute = {c.Run}
    fleet.join()
    fleet.say(fleet.fake("run"), c.Locate(7, "b", "in"))
    fleet.say(fleet.fake("b", 0), c.Drained())
    fleet.say(fleet.fake("run"), c.Locate(8, "b", "in"))
    fleet.say(fleet.fake("run"), c.Locate(9, "b", "nonsense"))
    fleet.say(fleet.fake("run"), c.Locate(10, "nobody", "in"))
    located = [m for m in fleet.fake("run").heard if isinstance(m, c.Located)]
    both = [[plan.external_channel("b", "in", n), f"ipc:///b[{n}]"] for n in (0, 1)]
    assert [(m.request, m.channels) for m in located] == [
        (7, both), (8, both[1:]), (9, []), (10, []),
    ]  # fmt: skip
    assert HANDLE in fleet.fakes


def test_only_who_showed_the_token_is_known() -> None:
    state = CoordinatorState(chain("a", "b"), RunOptions(), "r", TOKEN)
    fake = Fake(WorkerId("a"))
    hellos = {
        b"observer": c.Hello("observer", TOKEN, 1, "h"),
        b"liar": c.Hello("observer", "wrong", 1, "h"),
        b"stranger": c.Hello("worker", "wrong", 1, "h", "b"),
        fake.key: fake.hello(),
    }
    assert not any(map(state.knows, hellos))
    for key, hello in hellos.items():
        state.handle(Received(key, hello), 0.0)
    assert {key for key in hellos if state.knows(key)} == {b"observer", fake.key}
