"""Several nodes in one worker: whose turn it is, what waits, and how each ends by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count as endless

import pytest

from dflow import Context, Graph, Input, Node, Output, Priority, sink, source
from dflow.graph.plan import WorkerId
from dflow.transport.endpoint import close_context
from dflow.worker.crew import PATIENCE
from tests.unit.crew_bench import Bench

STORY: list[str] = []
"""What happened, in order; at the top, as nothing else can be shipped."""


@source
def numbers(n: int | None = None) -> Iterator[int]:
    """Count, for ever if no end is given."""
    yield from endless() if n is None else range(n)


@sink
def show(x: int) -> None:
    """Take a number."""


class Step(Node):
    """Passes on; tells its story."""

    values = Input(int, required=False)
    control = Input(int, priority=Priority.CONTROL, required=False)
    out = Output(int, required=False)

    @values.handler
    def handle(self, x: int) -> int:
        """Pass on."""
        return x

    @control.handler
    def command(self, x: int, ctx: Context) -> None:
        """Note it."""
        STORY.append(f"{ctx.node} told {x}")

    def on_start(self, ctx: Context) -> None:
        """Note it, and raise if that is what the name says."""
        STORY.append(f"{ctx.node} start")
        if ctx.node == "broken":
            raise RuntimeError("cannot start")

    def on_end(self, ctx: Context) -> int:
        """Note it, and emit once more."""
        STORY.append(f"{ctx.node} end")
        return -1

    def on_stop(self, ctx: Context) -> None:
        """Note it."""
        STORY.append(f"{ctx.node} stop")


MakeBench = Callable[[Graph], Bench]


@pytest.fixture
def bench() -> Iterator[MakeBench]:
    """Give benches; they are closed afterwards."""
    made: list[Bench] = []
    STORY.clear()

    def make(graph: Graph) -> Bench:
        graph.fuse(*graph.nodes)
        made.append(Bench(graph))
        return made[-1]

    yield make
    for one in made:
        one.close()
    close_context()


def line(n: int | None = None, capacity: int = 2048) -> Graph:
    """Return numbers -> a -> b -> show."""
    a, b = Step().options(name="a"), Step().options(name="b")
    graph = Graph("g")
    graph.connect(numbers(n), a.values, capacity=capacity)
    graph.connect(a, b.values, capacity=capacity)
    graph.connect(b, show(), capacity=capacity)
    return graph


def test_everything_runs_through_to_the_end(bench: MakeBench) -> None:
    one = bench(line(3000))
    assert one.crew.hook("on_start") is None
    while not one.crew.at_end():
        assert one.crew.ready()
        one.step()
    assert one.crew.hook("on_end") is None
    assert one.crew.hook("on_stop") is None
    assert one.counters("show").handled == 3002
    assert STORY == [
        "a start", "b start", "a end", "b end", "b stop", "a stop",
    ]  # fmt: skip


def test_a_source_makes_nothing_new_while_messages_wait(bench: MakeBench) -> None:
    one = bench(line())
    one.commands.append("a command: one turn a step")
    for _ in range(200):
        one.step()
        assert sum(edge.waiting for edge in one.plane.outbound.edges) == 0
    depths = [channel.depth for channel in one.plane.inbound.channels.values()]
    assert sum(depths) <= 512  # one turn's worth, somewhere between source and sink


def test_a_source_is_not_starved_by_messages_that_never_end(bench: MakeBench) -> None:
    graph = line()
    one = bench(graph.accept("b.values", capacity=4096))
    one.commands.append("a command: one turn a step")
    before = one.counters("numbers").emitted
    for _ in range(3 * PATIENCE * len(one.works)):
        one.receive("b", "values", 1)
        one.step()
    assert one.counters("numbers").emitted > before


def test_a_held_node_stops_alone_and_those_before_it_when_there_is_no_room(
    bench: MakeBench,
) -> None:
    one = bench(line(capacity=4))
    one.step(20)
    one.crew.hold("paused", True, "b")
    one.step(20)
    handled = one.counters("b").handled
    one.receive("b", "control", 7)
    one.step(20)
    assert one.counters("b").handled == handled + 1
    assert STORY == ["b told 7"]
    assert not one.crew.ready()  # a waits for b, and the source for a
    one.crew.hold("paused", False, "b")
    assert one.crew.ready()
    one.step(20)
    assert one.counters("b").handled > handled + 1


def test_a_turn_of_the_worker_is_a_turn_of_all_nodes(bench: MakeBench) -> None:
    one = bench(line())
    one.crew.hold("turn", True)
    assert not one.crew.ready()
    one.step(3)
    assert one.counters("numbers").emitted == 0
    one.crew.hold("turn", False)
    assert one.crew.ready()


def test_draining_one_source_leaves_the_other(bench: MakeBench) -> None:
    a = Step().options(name="a")
    graph = Graph("g")
    for name in ("first", "second"):
        graph.connect(numbers().options(name=name), a.values)
    one = bench(graph)
    one.step(5)
    one.crew.close_inputs("first")
    one.step(5)
    first, second = (one.counters(name).emitted for name in ("first", "second"))
    one.step(5)
    assert one.counters("first").emitted == first
    assert one.counters("second").emitted > second
    assert not one.crew.at_end()
    one.crew.close_inputs()
    one.step(20)
    assert one.crew.at_end()


def test_only_the_source_meant_may_be_interrupted_for_a_drain(bench: MakeBench) -> None:
    one = bench(line())
    one.commands.append("a command: one turn a step")
    assert one.crew.told_to_end()
    one.step()
    assert one.crew.interruptible()  # the source ran last
    one.step()
    assert not one.crew.interruptible()


def test_those_that_started_are_stopped_when_another_cannot_start(bench: MakeBench) -> None:
    a, b, c = (Step().options(name=name) for name in ("a", "broken", "c"))
    one = bench(Graph("g", numbers() >> a.values, a >> b.values, b >> c.values))
    raised = one.crew.hook("on_start")
    assert raised is not None
    assert (raised.where, raised.node) == ("on_start", "broken")
    one.crew.stop()
    assert STORY == ["a start", "broken start", "a stop"]


def test_a_worker_knows_whom_a_message_from_outside_is_for(bench: MakeBench) -> None:
    one = bench(line(0))
    one.receive("a", "control", 1)
    one.receive("b", "control", 2)
    one.step(10)
    assert sorted(STORY)[-2:] == ["b end", "b told 2"]
    assert "a told 1" in STORY
    assert WorkerId("numbers") == one.plane.plan.host(WorkerId("b"))


def test_a_message_from_outside_that_comes_after_its_node_has_ended_is_left(
    bench: MakeBench,
) -> None:
    graph = line(0)
    graph.connect(numbers().options(name="others"), show().options(name="rest"))
    one = bench(graph)
    one.step(10)
    assert "a end" in STORY
    one.receive("a", "values", 7)
    one.step(10)
    assert one.counters("a").handled == 0
    channel = one.plane.inbound.channels[one.plane.plan.external_channel("a", "values", 0)]
    assert (channel.window.received, channel.window.taken) == (1, 0)
