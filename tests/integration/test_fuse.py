"""Fused nodes under real processes: everything but the process is as if they were not."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dflow import (
    Cancelled,
    Context,
    Graph,
    HookFailed,
    Input,
    Node,
    Output,
    Priority,
    edge,
    node,
    sink,
)
from dflow.errors import EdgeFull, WorkerDied
from dflow.report import EdgeReport, NodeReport, RunReport
from dflow.runtime import Run
from tests.integration.flows import (
    Inlet,
    await_file,
    collect,
    count,
    ended_by,
    endless,
    keep,
    run_checked,
    swallow,
    write_line,
)  # fmt: skip
from tests.support import eventually

pytestmark = pytest.mark.timeout(40)
N = 3000


@node
def double(x: int) -> int:
    return 2 * x


@node
def twice(x: int) -> Iterator[int]:
    yield x
    yield -x


@node
def fails_on_odd(x: int) -> int:
    if x % 2:
        raise ValueError(f"boom {x}")
    return x


@node
def unsendable_on_odd(x: int) -> Any:
    return threading.Lock() if x % 2 else x


@node
def whereabouts(x: Any) -> tuple[int, int]:
    """Return this process and thread."""
    return os.getpid(), threading.get_ident()


def work_of(report: NodeReport) -> tuple[object, ...]:
    """Return what must not depend on where a node runs."""
    return report.name, report.replicas, report.handled, report.emitted, report.errors


def way_of(report: EdgeReport) -> tuple[object, ...]:
    """Return what must not depend on whether an edge is inside a worker."""
    return (
        report.id, report.sent, report.delivered, report.dropped, report.coalesced,
        report.rejected, report.expired, report.abandoned, report.exact,
    )  # fmt: skip


def handled(run: Run, name: str) -> int:
    """Return how many messages a node has handled by now."""
    (status,) = [status for status in run.status().nodes if status.name == name]
    return status.handled


def same(first: RunReport, second: RunReport) -> None:
    """Check that two runs did the same."""
    assert list(map(work_of, first.nodes)) == list(map(work_of, second.nodes))
    assert list(map(way_of, first.edges)) == list(map(way_of, second.edges))


# --- the same results, the same books ---------------------------------------------------------


def chain(*fused: str) -> tuple[Graph, Node]:
    last = keep()
    graph = Graph("chain", count(N) >> double() >> fails_on_odd() >> twice() >> last)
    return (graph.fuse(*fused) if fused else graph), last


def diamond(*fused: str) -> tuple[Graph, Node]:
    first, left, right, last = keep().options(name="first"), double(), twice(), keep()
    graph = Graph("diamond", count(N) >> first, first >> [left, right], [left, right] >> last)
    return (graph.fuse(*fused) if fused else graph), last


def fan_out(*fused: str) -> tuple[Graph, Node]:
    first, last = double(), keep()
    graph = Graph("fan", count(N) >> first >> last, first >> swallow().options(name="outside"))
    return (graph.fuse(*fused) if fused else graph), last


def failing(*fused: str) -> tuple[Graph, Node]:
    last = keep()
    graph = Graph("failing", count(100) >> fails_on_odd() >> twice() >> last)
    return (graph.fuse(*fused) if fused else graph), last


@pytest.mark.parametrize(
    ("make", "fused"),
    [
        (chain, ("count", "double", "fails_on_odd", "twice", "keep")),
        (chain, ("double", "fails_on_odd")),
        (chain, ("fails_on_odd", "twice", "keep")),
        (diamond, ("first", "double", "twice", "keep")),
        (diamond, ("double", "twice")),
        (fan_out, ("count", "double", "keep")),
        (failing, ("count", "fails_on_odd", "twice", "keep")),
    ],
)
def test_fused_nodes_do_the_same_and_are_reported_the_same(make: Any, fused: Any) -> None:
    graph, last = make(*fused)
    values, report = collect(graph, last)
    graph, last = make()
    expected, plain = collect(graph, last)
    assert sorted(values) == sorted(expected)
    if make is not diamond:
        assert values == expected
    same(report, plain)


def test_replicas_of_fused_nodes_pass_to_each_other() -> None:
    first, second = whereabouts().options(replicas=2), keep().options(replicas=2)
    third = whereabouts().options(replicas=2, name="third")
    last = keep().options(name="last")
    graph = Graph("replicas", count(N) >> first >> second >> third >> last).fuse(first, second)
    values, report = collect(graph, last)
    assert len(values) == N
    assert [report.node(name).replicas for name in ("whereabouts", "keep", "third")] == [2, 2, 2]
    assert report.edge("whereabouts.out->keep.in").delivered == N


def test_fused_nodes_share_one_process_and_one_thread() -> None:
    first, second, last = whereabouts(), keep(), Pair()
    graph = Graph("where", count(1) >> first >> second >> last)
    ((theirs, own),), _ = collect(graph.fuse(first, second, last), last)
    assert theirs == own


class Pair(Node):
    """Adds its own whereabouts."""

    places = Input(Any)
    out = Output(Any)

    @places.handler
    def handle(self, place: Any) -> Any:
        """Emit both."""
        return place, (os.getpid(), threading.get_ident())


class Box:
    """Not made to travel."""

    def __init__(self, value: int) -> None:
        self.value = value


@node
def pack(x: int) -> Box:
    return Box(x)


@node
def unpack(box: Box) -> int:
    return box.value


def test_what_cannot_travel_may_pass_between_fused_nodes() -> None:
    first, last = pack(), unpack()
    values, _ = collect(Graph("boxes", count(50) >> first >> last).fuse(first, last), last)
    assert values == list(range(50))


@node
def listed(x: int) -> list[int]:
    return [x]


@node
def grow(values: list[int]) -> None:
    values.append(-1)


@node
def length(values: list[int]) -> int:
    return len(values)


def test_values_are_shared_and_not_copied() -> None:
    first, second, last = listed(), grow(), length()
    graph = Graph("shared", count(3) >> first >> [second, last])
    values, _ = collect(graph.fuse(first, second, last), last)
    assert values == [2, 2, 2]


# --- policies -------------------------------------------------------------------------------------


@sink
def wait_for(x: int, path: str, into: str) -> None:
    """Note the message; wait for a file first."""
    await_file(Path(path))
    write_line(Path(into), x)


@pytest.mark.parametrize(
    ("policy", "fate"),
    [("drop", "dropped"), ("drop_oldest", "dropped"), ("latest", "dropped")],
)
def test_policies_hold_inside_a_worker(policy: str, fate: str) -> None:
    first, last = count(N), keep()
    graph = Graph("policy")
    graph.connect(first, last, policy=policy, capacity=4)
    values, report = collect(graph.fuse(first, last), last)
    lost = getattr(report.edge("count.out->keep.in"), fate)
    assert len(values) + lost == N
    assert values == sorted(values)
    if policy != "drop":
        assert values[-1] == N - 1


class Emitter(Node):
    """Emits 20 at once and counts what is refused."""

    go = Input(int)
    out = Output(int)

    @go.handler
    def handle(self, x: int, ctx: Context) -> None:
        """Emit."""
        for number in range(20):
            try:
                self.out.emit(number)
            except EdgeFull:
                ctx.metrics.count("refused")


def test_a_full_edge_inside_a_worker_refuses() -> None:
    first, last = Emitter(), keep()
    graph = Graph("reject", count(1) >> first)
    graph.connect(first, last, policy="reject", capacity=4)
    values, report = collect(graph.fuse(first, last), last)
    refused = report.node("emitter").metrics["refused"]
    assert (values, refused) == ([0, 1, 2, 3], 16)
    assert report.edge("emitter.out->keep.in").rejected == 16


def add(a: int, b: int) -> int:
    return a + b


def test_a_coalescing_edge_inside_a_worker_loses_nothing_of_the_sum() -> None:
    from dflow import coalesce

    first, last = count(N), keep()
    graph = Graph("coalesce")
    graph.connect(first, last, policy=coalesce(add), capacity=8)
    values, report = collect(graph.fuse(first, last), last)
    assert sum(values) == sum(range(N))
    assert report.edge("count.out->keep.in").coalesced == N - len(values)


@pytest.mark.parametrize("capacity", [1, 2, 64])
def test_blocking_edges_of_any_capacity_lose_and_reorder_nothing(capacity: int) -> None:
    first, second, last = count(500), twice(), keep()
    window = edge(capacity=capacity)
    graph = Graph("windows", first >> window >> second >> window >> last)
    values, report = collect(graph.fuse(first, second, last), last)
    assert values == [y for x in range(500) for y in (x, -x)]
    assert report.edge("count.out->twice.in").peak <= capacity + 512


# --- hooks, ticks, control ------------------------------------------------------------------------


class Story(Node):
    """Writes down what happens to it."""

    values = Input(Any)
    out = Output(Any)

    def __init__(self, path: str) -> None:
        self.path = path

    def on_start(self, ctx: Context) -> None:
        """Write."""
        write_line(Path(self.path), f"start {ctx.node}")

    @values.handler
    def handle(self, x: Any) -> Any:
        """Pass on."""
        return x

    def on_end(self, ctx: Context) -> Iterator[Any]:
        """Write, and emit one more."""
        write_line(Path(self.path), f"end {ctx.node}")
        yield f"last of {ctx.node}"

    def on_stop(self, ctx: Context) -> None:
        """Write."""
        write_line(Path(self.path), f"stop {ctx.node}")


def test_hooks_are_called_in_topological_order_and_on_end_may_emit(tmp_path: Path) -> None:
    path = tmp_path / "story"
    a, b, c = (Story(str(path)).options(name=name) for name in "abc")
    values, _ = collect(Graph("story", count(2) >> a >> b >> c).fuse(c, a, b), c)
    assert values == [0, 1, "last of a", "last of b", "last of c"]
    assert path.read_text().split("\n")[:-1] == [
        f"{what} {name}"
        for what, names in (("start", "abc"), ("end", "abc"), ("stop", "cba"))
        for name in names
    ]


class Ticking(Node):
    """Emits at every tick, until it has done so five times."""

    values = Input(Any)
    out = Output(str)

    def __init__(self) -> None:
        self.left = 5

    @values.handler
    def handle(self, x: Any) -> None:
        """Do nothing."""

    def on_tick(self, ctx: Context) -> str | None:
        """Emit."""
        self.left -= 1
        return f"tick {ctx.node}" if self.left >= 0 else None


def test_every_fused_node_ticks_by_its_own_clock() -> None:
    first = Ticking().options(name="fast", tick_s=0.01)
    second, last = Ticking().options(name="slow", tick_s=0.02), keep()
    graph = Graph("ticks", endless() >> edge(policy="latest") >> [first, second] >> last)
    graph.fuse(first, second, last)
    with graph.start(results=[last]) as run:
        results = run.results()
        seen = [next(results) for _ in range(10)]
        run.stop()
        report = run.wait(20)
    assert sorted(seen) == ["tick fast"] * 5 + ["tick slow"] * 5
    assert report.node("fast").ticks >= 5
    assert report.node("slow").ticks >= 5


def test_messages_from_outside_reach_an_inner_node() -> None:
    first, inner, last = keep().options(name="first"), Inlet(), keep()
    graph = Graph("inlet", endless() >> edge(policy="latest") >> first >> inner.data)
    graph.connect(inner, last)
    graph.fuse(first, inner, last)
    with graph.start(results=[last]) as run:
        run.send(inner.settings, 7)
        run.send(inner.data, "outside")
        wanted = {("settings", 7), "outside"}
        for value in run.results():
            wanted.discard(tuple(value) if isinstance(value, (list, tuple)) else value)
            if not wanted:
                run.stop()
        report = run.wait(20)
    assert report.balances
    assert report.edge("run->inlet.settings").delivered == 1


def test_a_fused_node_can_be_paused_and_drained_alone() -> None:
    first, last = keep().options(name="first"), keep()
    graph = Graph("pause", endless() >> first >> last).fuse(first, last)
    with graph.start() as run:
        eventually(lambda: handled(run, "keep") > 0, within_s=10)
        run.pause(last)
        eventually(lambda: depth(run, "first.out->keep.in") >= 2048, within_s=10)
        run.resume(last)
        before = handled(run, "keep")
        eventually(lambda: handled(run, "keep") > before, within_s=10)
        run.drain(first)
        report = run.wait(20)
    assert report.balances
    assert report.node("endless").emitted == report.node("keep").handled


def depth(run: Run, edge_id: str) -> int:
    """Return how many messages wait on an edge or are in flight."""
    (status,) = [status for status in run.status().edges if status.id == edge_id]
    return status.depth


def test_a_drain_ends_fused_sources_and_what_they_feed() -> None:
    first, last = endless(), keep()
    graph = Graph("drain", first >> last >> swallow()).fuse(first, last)
    with graph.start() as run:
        eventually(lambda: handled(run, "swallow") > 1000, within_s=10)
        run.stop()
        report = run.wait(20)
    assert report.outcome == "drained"
    assert report.node("endless").emitted == report.node("swallow").handled


# --- coroutines -----------------------------------------------------------------------------------


@node
async def slowly(x: int) -> int:
    await asyncio.sleep(0.001)
    return x


def test_coroutines_of_fused_nodes_share_the_event_loop() -> None:
    first = slowly().options(name="first", concurrency=8)
    second, last = slowly().options(name="second", concurrency=8), keep()
    graph = Graph("async", count(200) >> first >> second >> last).fuse(first, second, last)
    values, _ = collect(graph, last)
    assert sorted(values) == list(range(200))


# --- what goes wrong ------------------------------------------------------------------------------


def test_an_error_that_ends_the_run_names_the_fused_node_it_came_from() -> None:
    last = fails_on_odd().options(on_error="stop")
    graph = Graph("stop", count(10) >> keep() >> last).fuse("keep", last)
    with pytest.raises(HookFailed, match=r"fails_on_odd\[0\]: handler failed: ValueError: boom"):
        graph.run()


def test_a_result_that_cannot_leave_the_worker_is_an_error_of_the_node_it_came_from() -> None:
    first, last = keep().options(name="first"), unsendable_on_odd()
    graph = Graph("unsendable", count(N) >> first >> last >> keep()).fuse("count", first, last)
    values, report = collect(graph, graph.nodes["keep"])
    assert values == list(range(0, N, 2))
    assert [(node.handled, node.errors) for node in report.nodes] == [
        (0, 0), (N, 0), (N, N // 2), (N // 2, 0),
    ]  # fmt: skip


class Unstartable(Node):
    """Raises in on_start."""

    values = Input(Any)

    @values.handler
    def handle(self, x: Any) -> None:
        """Never called."""

    def on_start(self) -> None:
        """Raise."""
        raise RuntimeError("cannot start")


def test_an_on_start_that_raises_stops_those_that_had_started(tmp_path: Path) -> None:
    path = tmp_path / "story"
    first, last = Story(str(path)).options(name="first"), Unstartable()
    graph = Graph("start", count(1) >> first >> last).fuse(first, last)
    with pytest.raises(HookFailed, match=r"unstartable\[0\]: on_start failed: RuntimeError"):
        graph.run()
    assert path.read_text().split("\n")[:-1] == ["start first", "stop first"]


def test_killed_worker_ends_the_run_and_names_all_nodes_that_were_in_it() -> None:
    graph = Graph("kill", endless() >> keep() >> swallow()).fuse("keep", "swallow")
    with graph.start() as run:
        eventually(lambda: handled(run, "swallow") > 0, within_s=10)
        assert set(run.pids) == {"agent", "coordinator", "endless[0]", "keep[0]"}
        os.kill(run.pids["keep[0]"], signal.SIGKILL)
        with pytest.raises(WorkerDied, match=r"keep\[0\] \(fused with swallow\): worker died") as e:
            run.wait(20)
    ended_by(e.value)


def test_types_are_checked_inside_a_worker_when_asked_for() -> None:
    first, last = mistyped(), keep()
    graph = Graph("types", count(4) >> first >> last).fuse(first, last)
    report = run_checked(graph, check_types=True)
    assert (report.node("mistyped").errors, report.node("keep").handled) == (4, 0)


@node
def mistyped(x: int) -> int:
    return str(x)  # type: ignore[return-value]  # that is the point


def test_control_is_served_between_data_of_fused_nodes() -> None:
    first, last = count(N), Inlet()
    graph = Graph("control")
    graph.connect(first, last.data, priority=Priority.LOW)
    graph.connect(count(3).options(name="commands"), last.settings)
    graph.fuse(first, last)
    values, report = collect(graph, last)
    assert len(values) == N + 3
    assert report.edge("commands.out->inlet.settings").delivered == 3


# --- what messages one by one can do ------------------------------------------------------------


def test_a_message_on_its_way_to_an_inner_node_can_be_cancelled() -> None:
    first, inner, last = endless(), Inlet(), keep()
    graph = Graph("cancel", first >> edge(policy="latest") >> inner.data, inner >> last)
    graph.connect(count(1).options(name="once"), inner.settings)
    graph.fuse(first, inner, last)
    with graph.start(results=[last]) as run:
        run.pause(inner)
        id = run.send(inner.data, "unwanted")
        assert run.cancel(id) is Cancelled.CANCELLED
        run.send(inner.data, "wanted")
        run.resume(inner)
        seen: list[Any] = []
        for value in run.results():
            seen.append(value)
            if value == "wanted":
                run.stop()
        report = run.wait(20)
    assert report.balances
    assert "unwanted" not in seen


class Dispatcher(Node):
    """Emits jobs with ids."""

    go = Input(int)
    jobs = Output(int)

    @go.handler
    def handle(self, x: int) -> None:
        """Emit one that may be cancelled."""
        self.jobs.emit(x, id=f"job-{x}")


def test_a_message_between_fused_nodes_can_be_cancelled_by_its_id() -> None:
    first, last = Dispatcher(), keep()
    graph = Graph("ids", first)
    graph.connect(first.jobs, last, cancellable=True)
    graph.accept(first).fuse(first, last)
    with graph.start(results=[last]) as run:
        run.pause(last)
        for number in range(5):
            run.send(first, number)
        eventually(lambda: depth(run, "dispatcher.jobs->keep.in") == 5, within_s=10)
        assert run.cancel("job-3") is Cancelled.CANCELLED
        run.resume(last)
        run.stop()
        assert list(run.results()) == [0, 1, 2, 4]
        report = run.wait(20)
    assert report.edge("dispatcher.jobs->keep.in").cancelled == 1
    assert report.balances


def test_what_has_waited_too_long_inside_a_worker_expires() -> None:
    first, last = keep().options(name="first"), keep()
    graph = Graph("ttl")
    graph.connect(first, last, ttl_s=0.2)
    graph.accept(first).fuse(first, last)
    with graph.start() as run:
        run.pause(last)
        for number in range(5):
            run.send(first, number)
        eventually(lambda: depth(run, "first.out->keep.in") == 5, within_s=10)
        passed = time.monotonic() + 0.3
        eventually(lambda: time.monotonic() > passed)
        run.resume(last)
        run.stop()
        report = run.wait(20)
    edge_report = report.edge("first.out->keep.in")
    assert (edge_report.expired, edge_report.delivered) == (5, 0)
    assert report.balances


@node
async def at_most_one_of_a_key(x: int) -> tuple[int, int]:
    """Return the key and how many of it were under way."""
    key = x % 4
    UNDER_WAY[key] += 1
    await asyncio.sleep(0.001)
    UNDER_WAY[key] -= 1
    return x, UNDER_WAY[key]


UNDER_WAY = [0] * 4


def key_of(x: int) -> int:
    return x % 4


def test_limits_for_each_key_hold_inside_a_worker() -> None:
    first = count(200)
    work = at_most_one_of_a_key().options(concurrency=16, max_in_flight_per_key=1)
    last = keep()
    graph = Graph("limit", first >> edge(key=key_of) >> work >> last).fuse(first, work, last)
    values, _ = collect(graph, last)
    assert {under_way for _, under_way in values} == {0}
    for key in range(4):
        assert [x for x, _ in values if x % 4 == key] == list(range(key, 200, 4))


@node
async def sooner_or_later(x: int) -> int:
    await asyncio.sleep(0.003 if x % 3 == 0 else 0)
    return x


def test_concurrent_results_leave_in_order_inside_a_worker() -> None:
    first, last = count(200), keep()
    work = sooner_or_later().options(concurrency=16, ordered=True)
    graph = Graph("ordered", first >> work >> last).fuse(first, work, last)
    values, _ = collect(graph, last)
    assert values == list(range(200))


class Told(Node):
    """Emits what it is told, with its replica."""

    values = Input(Any, required=False)
    settings = Input(Any, priority=Priority.CONTROL)
    out = Output(Any)

    @values.handler
    def handle(self, x: Any) -> None:
        """Do nothing."""

    @settings.handler
    def change(self, x: Any, ctx: Context) -> Any:
        """Say who heard it."""
        return x, ctx.replica


def test_control_messages_reach_all_replicas_of_a_fused_node() -> None:
    first, told, last = keep().options(replicas=2), Told().options(replicas=2), keep()
    graph = Graph("broadcast", count(6) >> first >> told.settings, told >> last.options(name="end"))
    graph.fuse(first, told)
    values, report = collect(graph, graph.nodes["end"])
    assert sorted(map(tuple, values)) == [(x, replica) for x in range(6) for replica in range(2)]
    assert report.edge("keep.out->told.settings").delivered == 12


@pytest.mark.parametrize("options", [{"start_method": "spawn"}, {"transport": "tcp"}])
def test_fused_nodes_run_however_processes_are_made_and_linked(options: dict[str, Any]) -> None:
    graph, last = chain("double", "fails_on_odd", "twice")
    values, _ = collect(graph, last, **options)
    assert len(values) == 2 * N
