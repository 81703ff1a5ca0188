"""Why a run does not get on, read off statuses made by hand: what somebody would read."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest

from dflow.report import EdgeStatus, KeyStatus, NodeStatus, ReplicaStatus, RunStatus
from dflow.why import explain

Row = dict[str, Any]


def replica(name: str, **fields: Any) -> ReplicaStatus:
    """Return a replica that runs, unless ``fields`` say otherwise."""
    return ReplicaStatus(name, **{"step": "running", **fields})


def run(
    nodes: dict[str, list[Row]],
    edges: dict[str, tuple[int, int]],
    *,
    phase: str = "running",
    launcher: ReplicaStatus | None = None,
    keys: tuple[KeyStatus, ...] = (),
) -> RunStatus:
    """Return the status of a run; a node whose name begins with "source" is one."""
    told = tuple(
        NodeStatus(
            name,
            "source" if name.startswith("source") else "node",
            len(rows),
            doing=tuple(replica(f"{name}[{i}]", **row) for i, row in enumerate(rows)),
        )
        for name, rows in nodes.items()
    )
    between = tuple(
        EdgeStatus(edge, depth=depth, capacity=capacity, keys=keys)
        for edge, (depth, capacity) in edges.items()
    )
    return RunStatus("demo", "3f2a", phase, 14.0, told, between, launcher)


def credit(edge: str, waits_for: str, for_s: float = 11.0) -> Row:
    """Return what one does that has no credit on ``edge``."""
    return {"what": "credit", "for_s": for_s, "edges": (edge,), "waits_for": (waits_for,)}


IDLE: Row = {"what": "idle", "for_s": 12.0}
AB, BC = "source.out->parse.in", "parse.out->sink.in"
SLOW: Row = {"what": "handler", "for_s": 12.0, "busy": 1.0, "edges": (BC,), "pid": 42}
LINE = {
    "source": [credit(AB, "parse[0]", 10.0)],
    "parse": [credit(BC, "sink[0]")],
    "sink": [SLOW],
}


def test_one_slow_sink_is_told_back_to_the_source() -> None:
    why = run(LINE, {AB: (1024, 1024), BC: (64, 64)}).why()
    assert why.stuck
    assert str(why) == (
        "demo (3f2a)  running for 14 s\n\n"
        "held up by sink:\n\n"
        "  sink (pid 42) is handling one message of parse.out->sink.in for 12 s\n"
        "  → edge parse.out->sink.in is full (64/64)\n"
        "  → parse has waited 11 s for credit\n"
        "  → edge source.out->parse.in is full (1,024/1,024)\n"
        "  → source has waited 10 s for credit"
    )


def test_the_place_in_the_users_code_is_named() -> None:
    nodes = LINE | {"sink": [SLOW | {"place": "app.py:17 in show"}]}
    assert "for 12 s, at app.py:17 in show →" in run(nodes, {BC: (64, 64)}).why().chains[0].line


def test_no_line_is_longer_than_a_terminal() -> None:
    long = "a_node_with_a_name_of_its_own"
    edge = f"{long}.output->sink.input"
    nodes = {
        long: [credit(edge, "sink[0]")],
        "sink": [SLOW | {"edges": (edge,), "place": "x" * 50}],
    }
    text = str(run(nodes, {edge: (10**7, 10**7)}).why())
    assert max(map(len, text.splitlines())) <= 79


def test_many_links_are_shortened_in_the_text_and_not_in_json() -> None:
    names = [f"n{i}" for i in range(20)]
    ids = [f"{a}.out->{b}.in" for a, b in pairwise(names)]
    nodes = {
        name: [credit(edge, f"{after}[0]")]
        for name, edge, after in zip(names, ids, names[1:], strict=False)
    }
    why = run(nodes | {"n19": [SLOW]}, dict.fromkeys(ids, (8, 8))).why()
    assert "… 28 more links like these …" in why.text
    assert len(why.text.splitlines()) == 12
    assert len(why.to_dict()["chains"][0]["links"]) == 39


def test_a_consumer_that_is_slow_but_moves_is_not_called_stuck() -> None:
    moving = SLOW | {"for_s": 0.02, "busy": 0.98}
    why = run(LINE | {"sink": [moving]}, {AB: (8, 8), BC: (64, 64)}).why()
    assert not why.stuck
    assert why.summary == "nothing is stuck, but sink is slower than what comes:"
    assert "sink (pid 42) handles one message of parse.out->sink.in after the other" in why.text


def test_when_nothing_is_wrong_the_busiest_node_is_named() -> None:
    nodes = {"source": [{"what": "source", "busy": 0.2}], "parse": [{"what": "idle", "busy": 0.7}]}
    why = run(nodes, {AB: (16, 64)}).why()
    assert (why.stuck, why.chains) == (False, ())
    assert why.summary == (
        "nothing is stuck; the busiest node is parse: 70% of its time in its own code; "
        "the fullest edge is source.out->parse.in (16/64)"
    )


def test_those_that_wait_for_each_other_are_told_as_a_circle() -> None:
    nodes = {
        "a": [credit("a.out->b.in", "b[0]")],
        "b": [credit("b.out->a.in", "a[0]")],
        "source": [credit("source.out->a.x", "a[0]")],
    }
    why = run(
        nodes, {"a.out->b.in": (8, 8), "b.out->a.in": (8, 8), "source.out->a.x": (8, 8)}
    ).why()
    assert why.stuck
    assert len(why.chains) == 1
    assert why.chains[0].links[-1].text.endswith("they wait for each other, and none can go on")


FAN_IN = {
    "source_a.out->merge.a": (0, 8),
    "source_b.out->merge.b": (0, 8),
    "merge.out->show.in": (0, 8),
}


def test_a_fan_in_waits_for_the_one_input_that_has_not_ended() -> None:
    nodes: dict[str, list[Row]] = {
        "source_a": [{"what": "ended"}],
        "source_b": [{"what": "source", "for_s": 30.0}],
        "merge": [IDLE],
        "show": [IDLE],
    }
    why = run(nodes, FAN_IN).why()
    assert not why.stuck
    assert why.text == (
        "  source_b has waited 30 s for its next value\n"
        "  → merge has waited 12 s for a message, or the end, of source_b (source_a has\n"
        "    ended)\n"
        "  → show has waited 12 s for a message, or the end, of merge"
    )


def test_a_drain_that_waits_for_an_end_says_whose() -> None:
    nodes = {"source": [{"what": "source", "for_s": 5.0}], "parse": [IDLE], "sink": [IDLE]}
    why = explain(run(nodes, {AB: (0, 8), BC: (0, 8)}, phase="draining"), patience_s=0.0)
    assert [link.name for link in why.chains[0].links] == ["source[0]", "parse[0]", "sink[0]"]


def test_a_paused_node_and_who_waits_for_it() -> None:
    nodes = LINE | {"sink": [{"what": "paused", "for_s": 0.2}]}
    why = run(nodes, {AB: (8, 8), BC: (64, 64)}).why()
    assert why.stuck
    assert "sink is paused for 0.2 s; run.resume('sink') lets it go on" in why.text


def test_results_nobody_reads_in_the_launching_process() -> None:
    edge = "parse.out->run.parse.out"
    launcher = replica("run[0]", what="results", for_s=9.0, edges=(edge,))
    nodes = {"source": [credit(AB, "parse[0]")], "parse": [credit(edge, "run[0]", 8.0)]}
    why = run(nodes, {AB: (8, 8), edge: (8, 8)}, launcher=launcher).why()
    assert why.summary == "held up by the launching process:"
    assert "the launching process has not read results for 9.0 s" in why.text


def test_a_sender_outside_waits_for_room() -> None:
    edge = "run->sink.in"
    launcher = replica("run[0]", what="send", for_s=3.0, edges=(edge,))
    why = run({"sink": [SLOW]}, {edge: (8, 8)}, launcher=launcher).why()
    assert [link.name for link in why.chains[0].links] == ["sink[0]", edge, "run[0]"]


def test_a_node_that_only_the_outside_feeds_waits_for_it() -> None:
    why = run({"sink": [IDLE]}, {}).why()
    assert not why.stuck
    assert "from outside: run.send(...)" in why.text


def test_a_silent_worker_is_a_cause_whatever_it_said_last() -> None:
    silent = credit(BC, "sink[0]") | {"heard_s": 8.0, "pid": 7}
    why = run(LINE | {"parse": [silent]}, {AB: (8, 8), BC: (64, 64)}).why()
    texts = [chain.links[0].text for chain in why.chains]
    assert any(text.startswith("parse (pid 7) was last heard of 8.0 s ago") for text in texts)
    assert why.stuck


def test_an_ordered_merge_names_the_number_and_who_may_bring_it() -> None:
    order = {"what": "order", "for_s": 4.0, "number": 7, "edges": (BC,), "waits_for": ("parse[1]",)}
    nodes = {"parse": [credit(BC, "sink[0]"), SLOW], "sink": [order]}
    why = run(nodes, {AB: (8, 8), BC: (16, 32)}).why()
    assert "sink has waited 4.0 s for the result of input 7 from parse[1]: it is next" in why.text
    assert [chain.links[0].name for chain in why.chains] == ["parse[1]"]


def test_a_key_that_is_at_its_limit_is_named() -> None:
    keys = (KeyStatus("'ann'", 5, 4, 1),)
    why = run(LINE, {AB: (8, 8), BC: (5, 64)}, keys=keys).why()
    assert "is out of credit (5/64; key 'ann': 4 waiting, 1 in flight)" in why.chains[0].line


def test_an_edge_that_is_full_by_bytes_says_so() -> None:
    status = run(LINE, {AB: (8, 8)})
    full = EdgeStatus(BC, depth=3, capacity=64, bytes=63_000_000, max_bytes=64_000_000)
    why = RunStatus("demo", "3f2a", "running", 14.0, status.nodes, (*status.edges, full)).why()
    assert "is out of credit (3/64; 63 MB of 64 MB)" in why.text


def test_fused_nodes_wait_for_the_one_whose_code_runs() -> None:
    nodes = {
        "source": [credit(AB, "parse[0]")],
        "parse": [{"what": "thread", "for_s": 11.0, "pid": 42}],
        "sink": [SLOW],
    }
    why = run(nodes, {AB: (8, 8), BC: (1, 64)}).why()
    assert "parse has waited 11 s for sink, which runs in the same worker" in why.text
    assert why.chains[0].links[-1].name == "source[0]"


def test_a_node_without_a_turn_says_that_others_compute() -> None:
    nodes = LINE | {"sink": [{"what": "turn", "for_s": 2.0}]}
    why = run(nodes, {BC: (64, 64)}).why()
    assert "sink has waited 2.0 s for its turn: others compute" in why.text


def test_coroutines_are_counted_and_the_oldest_told() -> None:
    nodes = LINE | {"sink": [{"what": "tasks", "for_s": 9.0, "tasks": 8}]}
    assert (
        "sink awaits in 8 coroutines, the oldest for 9.0 s" in run(nodes, {BC: (64, 64)}).why().text
    )


def test_several_causes_are_told_apart_and_the_longest_comes_first() -> None:
    nodes = {
        "source": [credit("source.out->a.in", "a[0]")],
        "source_2": [credit("source_2.out->b.in", "b[0]", 3.0)],
        "a": [SLOW | {"for_s": 20.0}],
        "b": [SLOW | {"for_s": 4.0}],
    }
    why = run(nodes, {"source.out->a.in": (8, 8), "source_2.out->b.in": (8, 8)}).why()
    assert [chain.links[0].name for chain in why.chains] == ["a[0]", "b[0]"]
    assert why.summary == "held up by a and b:"


def test_replicas_in_the_same_state_are_told_once() -> None:
    why = run({"sink": [SLOW, SLOW | {"for_s": 15.0}, SLOW]}, {BC: (8, 24)}).why()
    assert len(why.chains) == 1
    assert why.chains[0].links[0].name == "sink[1]"
    assert why.chains[0].alike == ("sink[0]", "sink[2]")


def test_whoever_else_waits_is_mentioned() -> None:
    nodes = LINE | {"other": [credit("other.out->sink.b", "sink[0]", 2.0)]}
    why = run(nodes, {AB: (8, 8), BC: (64, 64), "other.out->sink.b": (8, 8)}).why()
    assert why.chains[0].also == ("other",)


@pytest.mark.parametrize(
    ("phase", "step", "rest", "text"),
    [
        ("waiting", "absent", "joined", "has not joined: its process is starting"),
        ("binding", "joined", "bound", "has not said where it listens"),
        ("linking", "linking", "linked", "waits for the answer of those it sends to"),
        ("starting", "starting", "linked", "is in on_start for 6.0 s"),
        ("stopping", "stopping", "drained", "is in on_stop for 6.0 s"),
        ("aborting", "aborting", "stopped", "was told to end at once"),
    ],
)
def test_each_phase_names_who_has_not_said_what(
    phase: str, step: str, rest: str, text: str
) -> None:
    hook = {"starting": "on_start", "stopping": "on_stop"}.get(phase, "")
    late: Row = {"step": step, "what": hook, "for_s": 6.0 if hook else 0.0, "pid": 5}
    why = run({"a": [late], "b": [{"step": rest, "pid": 6}]}, {}, phase=phase).why()
    assert why.summary == f"{phase}: 1 of 2 is awaited"
    assert text in why.text
    assert ("b waits to be" in why.text) == bool(hook)


def test_a_phase_in_which_nobody_is_behind_says_so() -> None:
    why = run({"a": [{"step": "stopped"}]}, {}, phase="stopping").why()
    assert (why.summary, why.text) == ("stopping; nobody is behind", "")


def test_a_status_without_nodes_is_explained_too() -> None:
    assert not RunStatus("demo", "3f2a", "running", 0.0).why().stuck
    assert str(RunStatus("demo", "3f2a", "finished", 0.0).why())


def test_what_it_says_is_json() -> None:
    why = run(LINE, {AB: (8, 8), BC: (64, 64)}).why().to_dict()
    assert json.loads(json.dumps(why)) == why
    assert why["chains"][0]["links"][0] == {
        "kind": "node",
        "name": "sink[0]",
        "text": "sink (pid 42) is handling one message of parse.out->sink.in for 12 s",
        "for_s": 12.0,
    }


def test_a_status_survives_the_wire() -> None:
    launcher = replica("run[0]", what="send", edges=("run->sink.in",))
    status = run(LINE, {AB: (8, 8), BC: (64, 64)}, launcher=launcher)
    assert RunStatus.from_dict(json.loads(json.dumps(status.to_dict()))) == status
