"""The handle: sending, reading, looking, from any thread, and several runs at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dflow import (
    DrainTimeout,
    Graph,
    Input,
    Node,
    NodeEnded,
    Output,
    PortError,
    Priority,
    Run,
    RunReport,
    RunStatus,
    edge,
    source,
)
from dflow.launch.handle import Handle
from dflow.options import DEFAULT_CAPACITY
from tests.integration.flows import (
    Inlet,
    await_file,
    collect,
    count,
    ended_by,
    endless,
    keep,
    swallow,
)
from tests.support import eventually

pytestmark = pytest.mark.timeout(30)


class Gated(Node):
    """Holds its first message back until a file exists; control messages go past it."""

    data = Input(int, required=False)
    control = Input(int, priority=Priority.CONTROL)
    out = Output()

    def __init__(self, gate: Path) -> None:
        self.gate = gate

    @data.handler
    def handle(self, x: int) -> int:
        await_file(self.gate)
        return x

    @control.handler
    def change(self, x: int) -> tuple[str, int]:
        return "control", x


# --- send ---------------------------------------------------------------------------------


def test_everything_sent_is_handled_in_order_and_counted() -> None:
    inlet = Inlet()
    with Graph("send", inlet).start(results=inlet) as run:
        for number in range(1500):
            run.send(inlet.data, number)
        run.stop()
        assert list(run.results()) == list(range(1500))
        report = run.wait(20)
    assert report.balances
    assert report.edge("run->inlet.data").delivered == 1500


def test_messages_are_sent_to_a_port_by_its_name() -> None:
    inlet, last = Inlet(), keep().options(name="last")
    with Graph("named", inlet >> last).start(results=["last"]) as run:
        run.send("inlet.data", 1)
        results = run.results("last.out")
        assert next(results) == 1
        run.stop()
        assert list(results) == []


def test_what_is_no_input_of_the_graph_cannot_be_sent_to() -> None:
    inlet = Inlet()
    stranger = keep()
    wrong: list[tuple[Any, str]] = [
        ("stop", r"graph 'wrong': no node 'stop' \(its nodes are inlet\)"),
        ("inlet.date", r"inlet: no port .*'date'; did you mean 'data'.*data, settings, out"),
        ("inlet", r"expected one input, got 2; name it: inlet.data or inlet.settings"),
        ("inlet.out", r"expected an input, got an output; the inputs of inlet are inlet.data"),
        (inlet.out, r"expected an input, got an output"),
        (5, r"expected a node, a port or a name, got 5 \(its nodes are inlet\)"),
        ([inlet], r"expected a node, a port or a name, got \[<"),
        (None, r"expected a node, a port or a name, got None"),
        (stranger, r"'keep' is not in it"),
        (stranger.port("in"), r"'keep' is not in it"),
    ]
    with Graph("wrong", inlet).start() as run:
        for target, message in wrong:
            with pytest.raises(PortError, match=message):
                run.send(target, 1)


def test_what_is_no_output_of_the_graph_cannot_be_a_result() -> None:
    graph = Graph("wrong", count(1) >> (last := keep()))
    wrong: list[tuple[Any, str]] = [
        (5, r"expected a node, a port or a name, got 5 \(its nodes are count, keep\)"),
        (["keep", "keeep"], r"no node 'keeep'; did you mean 'keep'\? \(its nodes are count, keep"),
        (last.port("in"), r"expected an output, got an input; the outputs of keep are keep.out"),
        ({"keep"}, r"expected a node, a port or a name, got \{"),
        (keep(), r"'keep' is not in it"),
    ]
    for results, message in wrong:
        with pytest.raises(PortError, match=message):
            graph.start(results=results)


def test_sent_messages_join_those_of_the_graph() -> None:
    class Both(Node):
        data = Input(int)
        out = Output(int)

        @data.handler
        def pass_on(self, x: int) -> int:
            return x

    both = Both()
    with Graph("join", endless() >> both.data).start(results=both) as run:
        run.send(both, -7)
        values = run.results()
        assert -7 in values
        run.stop()
        rest = list(values)
        report = run.wait(20)
    assert report.balances
    assert -7 not in rest
    assert report.edge("run->both.data").delivered == 1


def test_control_message_arrives_while_the_data_path_is_blocked(tmp_path: Path) -> None:
    gate, inlet = tmp_path / "gate", Inlet()
    last, seen = Gated(gate), keep()
    graph = Graph("control")
    graph.connect(endless(), inlet.data)
    graph.connect(inlet, last.data, capacity=4)
    graph.connect(last, seen)
    with graph.start(results=[seen]) as run:
        eventually(lambda: run.status().edges[1].sent >= 4)
        run.send(inlet.settings, 1)  # its output has no credit: it must be handled all the same
        eventually(lambda: _handled(run, "run->inlet.settings") == 1)
        assert _handled(run, "inlet.out->gated.data") <= 1
        gate.touch()
        run.stop()
        values = list(run.results())
        report = run.wait(20)
    assert ("settings", 1) in values
    assert report.balances


def _handled(run: Run, edge_id: str) -> int:
    return next((e.delivered for e in run.status().edges if e.id == edge_id), 0)


def test_control_message_overtakes_data_that_waits(tmp_path: Path) -> None:
    gate, gated = tmp_path / "gate", Gated(tmp_path / "gate")
    with Graph("overtake", gated).start(results=gated) as run:
        for number in range(100):
            run.send(gated.data, number)
        run.send(gated.control, 1)
        eventually(lambda: any(e.id == "run->gated.control" for e in run.status().edges))
        gate.touch()
        run.stop()
        values = list(run.results())
        assert run.wait(20).balances
    assert [v for v in values if isinstance(v, int)] == list(range(100))
    assert values.index(("control", 1)) < 100


def test_send_waits_for_credit_and_gives_up_after_its_timeout(tmp_path: Path) -> None:
    gate, gated = tmp_path / "gate", Gated(tmp_path / "gate")
    sent = 0
    with Graph("credit", gated).start(results=gated) as run:
        with suppress(TimeoutError):
            while sent < 2 * DEFAULT_CAPACITY:
                run.send(gated.data, sent, timeout_s=0.3)
                sent += 1
        with pytest.raises(TimeoutError, match="no credit"):
            run.send(gated.data, sent, timeout_s=0.1)
        assert DEFAULT_CAPACITY <= sent <= DEFAULT_CAPACITY + 100
        gate.touch()
        run.send(gated.data, sent)
        run.stop()
        assert list(run.results()) == list(range(sent + 1))
        assert run.wait(20).balances


def test_sending_to_a_node_that_has_ended_raises() -> None:
    last = keep()
    run = Graph("ended", count(1) >> last).start()
    report = run.wait(20)
    with pytest.raises(NodeEnded):
        run.send(last, 1)
    with pytest.raises(NodeEnded):
        run.status()
    assert report.balances


def test_sending_while_the_run_drains_raises() -> None:
    inlet = Inlet()
    with Graph("draining", inlet).start() as run:
        run.send(inlet.data, 1)
        run.stop()
        with pytest.raises(NodeEnded):
            run.send(inlet.data, 2)
        report = run.wait(20)
    assert report.edge("run->inlet.data").delivered == 1
    assert report.balances


def test_sending_to_a_node_whose_inputs_ended_meanwhile_raises(tmp_path: Path) -> None:
    @source
    def held() -> Iterator[int]:
        await_file(tmp_path / "gate")
        yield 0

    inlet = Inlet()
    graph = Graph("meanwhile", count(1) >> inlet.data, held() >> swallow())
    with graph.start() as run:
        eventually(lambda: _drained(run, "inlet"))
        with pytest.raises(NodeEnded):
            run.send(inlet.data, 5)
        (tmp_path / "gate").touch()
        report = run.wait(20)
    assert report.balances
    assert report.outcome == "finished"


def test_sending_while_the_node_ends_raises_or_is_counted_and_never_harms_the_run(
    tmp_path: Path,
) -> None:
    @source
    def held() -> Iterator[int]:
        await_file(tmp_path / "gate")
        yield 0

    inlets = [Inlet().options(name=f"inlet_{number}") for number in range(6)]
    graph = Graph("race", [count(0) >> inlet.data for inlet in inlets], held() >> swallow())
    sent = 0
    with graph.start() as run:
        for inlet in inlets:
            with suppress(NodeEnded):
                for number in range(50):
                    run.send(inlet.data, number)
                    sent += 1
        (tmp_path / "gate").touch()
        report = run.wait(20)
    assert report.balances, report.imbalances
    assert report.outcome == "finished"
    outside = [edge for edge in report.edges if edge.id.startswith("run->")]
    assert sum(edge.sent for edge in outside) == sent
    assert sum(edge.delivered + edge.rejected for edge in outside) == sent


def _drained(run: Run, name: str) -> bool:
    return any(n.name == name and n.workers == ("drained",) for n in run.status().nodes)


def test_sends_from_many_threads_all_arrive_and_each_in_its_order() -> None:
    inlet = Inlet()
    with Graph("threads", inlet).start(results=inlet) as run:

        def work(tag: int) -> None:
            for number in range(300):
                run.send(inlet.data, [tag, number])

        threads = [threading.Thread(target=work, args=(tag,)) for tag in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        run.stop()
        values = list(run.results())
        assert run.wait(20).balances
    for tag in range(4):
        assert [number for t, number in values if t == tag] == list(range(300))


def test_sent_messages_take_the_key_of_the_nodes_edge(tmp_path: Path) -> None:
    class Where(Node):
        data = Input(int)
        out = Output(tuple)

        def on_start(self, ctx: Any) -> None:
            self.replica = ctx.replica

        @data.handler
        def handle(self, x: int) -> tuple[int, int]:
            return x % 5, self.replica

    @source
    def numbers() -> Iterator[int]:
        yield from range(50)
        await_file(tmp_path / "gate")

    where = Where().options(replicas=3)
    graph = Graph("keyed", numbers() >> edge(key=lambda x: x % 5) >> where.data)
    with graph.start(results=where) as run:
        for number in range(50):
            run.send(where, number)
        (tmp_path / "gate").touch()
        run.stop()
        routes = list(run.results())
        report = run.wait(20)
    assert report.balances
    assert len(routes) == report.node("where").handled >= 50
    assert len(set(routes)) == 5


def test_drain_deadline_holds_for_what_was_sent_to_a_stuck_node(tmp_path: Path) -> None:
    gated = Gated(tmp_path / "never")
    run = Graph("stuck", gated).start(drain_timeout_s=0.3)
    for number in range(10):
        run.send(gated.data, number)
    run.stop()
    with pytest.raises(DrainTimeout) as caught:
        run.wait(15)
    assert "run->gated.data" in str(caught.value)
    ended_by(caught.value)


# --- results ------------------------------------------------------------------------------


def test_results_of_several_ports_are_read_apart() -> None:
    first, second = keep(), keep()
    graph = Graph("several", count(5) >> first, count(3) >> second)
    with graph.start(results=[first, second]) as run:
        assert list(run.results(second)) == [0, 1, 2]
        assert list(run.results(first.out)) == [0, 1, 2, 3, 4]
        with pytest.raises(PortError, match="expected an output named"):
            run.results()
        assert run.wait(20).balances


def test_results_may_be_read_after_the_run_has_stopped_and_in_parts() -> None:
    last = keep()
    with Graph("late", count(100) >> last).start(results=last) as run:
        values = run.results()
        assert [next(values) for _ in range(10)] == list(range(10))
        run.stop()
        rest = [*values, *run.results()]
        report = run.wait(20)
    assert rest == list(range(10, 10 + len(rest)))
    assert report.balances


@pytest.mark.parametrize(
    ("make", "outcomes"),
    [
        (partial(count, 10), ("finished", "drained")),  # it may be over before the block is
        (partial(count, 5000), ("finished", "drained")),
        (endless, ("drained",)),
    ],
    ids=["10", "5000", "endless"],
)
def test_with_block_may_be_left_without_reading_the_results(
    make: Callable[[], Node], outcomes: tuple[str, ...]
) -> None:
    last = keep()
    with Graph("unread", make() >> last).start(results=last) as run:
        pass
    assert run.report is not None
    assert run.report.balances
    assert run.report.outcome in outcomes


def test_results_that_fit_the_window_may_be_read_after_the_run_has_ended() -> None:
    last = keep().options(replicas=2)
    run = Graph("after", count(100) >> last).start(results=last)
    report = run.wait(20)
    assert report.balances
    assert report.outcome == "finished"
    assert sorted(run.results()) == list(range(100))
    assert list(run.results()) == []


def test_slow_reader_holds_the_graph_back() -> None:
    last = keep()
    with Graph("slow", endless() >> last).start(results=last) as run:
        values = run.results()
        next(values)
        seen: list[int] = []

        def settled() -> bool:
            seen.append(run.status().nodes[0].emitted)
            return len(seen) > 20 and seen[-1] == seen[-20]

        eventually(settled, within_s=15)
        assert seen[-1] < 10_000
    assert run.report is not None
    assert run.report.balances


# --- status -------------------------------------------------------------------------------


def test_status_shows_live_counters_phases_and_depths(tmp_path: Path) -> None:
    gated = Gated(tmp_path / "gate")
    graph = Graph("status")
    graph.connect(endless(), gated.data, capacity=10)
    with graph.start(results=gated) as run:
        eventually(lambda: run.status().edges[0].sent >= 10)
        status = run.status()
        first, second = status.nodes
        assert status.phase == run.phase == "running"
        assert (status.graph, status.run_id) == ("status", run.run_id)
        assert status.uptime_s > 0
        assert first.emitted >= 10
        assert first.workers == second.workers == ("running",)
        assert status.edges[0].capacity == 10
        assert status.edges[0].depth >= 9
        assert status.edges[0].delivered <= 1
        (tmp_path / "gate").touch()
        run.stop()
        list(run.results())
        report = run.wait(20)
    assert report.balances
    assert run.phase == "finished"


def test_on_status_is_called_while_the_run_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "seen"
    seen: list[str] = []

    @source
    def until_seen() -> Iterator[int]:
        yield 1
        await_file(path)

    def look(status: RunStatus) -> None:
        seen.append(status.phase)
        path.touch()

    report = Graph("observed", until_seen() >> swallow()).run(on_status=look)
    assert "running" in seen
    assert report.balances


# --- where it may be used -----------------------------------------------------------------


def test_two_runs_at_once_in_one_process_do_not_mix() -> None:
    a, b = Inlet(), Inlet()
    with (
        Graph("same", a).start(results=a) as first,
        Graph("same", b).start(results=b) as second,
    ):
        for number in range(100):
            first.send(a.data, number)
            second.send(b.data, -number)
        first.stop()
        second.stop()
        assert list(first.results()) == list(range(100))
        assert list(second.results()) == [-number for number in range(100)]
        assert first.wait(20).balances
        assert second.wait(20).balances
    assert first.run_id != second.run_id


def test_one_graph_may_run_many_times_and_twice_at_once() -> None:
    last = keep()
    graph = Graph("again", count(50) >> last)
    for _ in range(2):
        assert collect(graph, last)[0] == list(range(50))
    with graph.start(results=last) as one, graph.start(results=last) as two:
        assert list(one.results()) == list(two.results()) == list(range(50))
        assert one.wait(20).balances
        assert two.wait(20).balances


def in_thread(body: Callable[[], Any]) -> Any:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(body()))
    thread.start()
    thread.join(20)
    assert found, "the thread did not return"
    return found[0]


def test_run_works_in_a_thread() -> None:
    report = in_thread(Graph("thread", count(100) >> swallow()).run)
    assert isinstance(report, RunReport)
    assert report.balances
    assert report.node("swallow").handled == 100


def test_run_started_in_one_thread_survives_it_and_may_be_used_in_another() -> None:
    inlet = Inlet()
    run = in_thread(lambda: Graph("moved", inlet).start(results=inlet))
    assert isinstance(run, Run)
    run.send(inlet.data, 1)
    run.stop()
    assert in_thread(lambda: list(run.results())) == [1]
    assert run.wait(20).balances


def test_readers_of_one_port_continue_where_the_last_one_left_off() -> None:
    inlet = count(20)
    with Graph("pieces", inlet).start(results=inlet) as run:
        first = [next(run.results()) for _ in range(3)]
        assert first + list(run.results()) == list(range(20))


def test_a_handle_that_is_slow_at_the_end_still_hears_the_report(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The run's processes are gone before the thread looks at its socket again."""
    step = Handle._step

    def late_step(handle: Handle, ready: list[Any]) -> bool:
        return handle.phase == "stopping" or step(handle, ready)

    monkeypatch.setattr(Handle, "_step", late_step)
    report = Graph("late", count(3) >> swallow()).run()
    assert report.outcome == "finished"
    assert report.balances
