"""Turns that pass through fused nodes: which do, what is counted and logged, and how they end."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dflow import Context, Graph, Input, Node, Output, Priority, node, sink, source
from dflow.transport.endpoint import close_context
from dflow.worker.faults import Interrupted
from dflow.worker.way import Way
from tests.unit.crew_bench import Bench

SEEN: list[Any] = []
"""What has happened, in order; at the top, as nothing else can be shipped."""


@source
def numbers() -> Iterator[int]:
    """Count for ever."""
    yield from itertools.count()


@source
def listed() -> list[int]:
    """Return values that are not pulled out of a generator."""
    return list(range(5000))


@node
def relay(x: int) -> int:
    """Pass on."""
    return x


@node
def yielding(x: int) -> Iterator[int]:
    """Pass on."""
    yield x


@node
def fails(x: int) -> int:
    """Raise for every tenth."""
    if x % 10 == 0:
        raise ValueError(f"boom {x}")
    return x


@node
def interrupted(x: int) -> int:
    """Be interrupted, once turns pass through."""
    if x == 5000:
        raise Interrupted
    return x


@node
def burns(x: int, rounds: int) -> int:
    """Compute."""
    for _ in range(rounds):
        x = -x
    return x


@sink
def show(x: int) -> None:
    """Note it."""
    SEEN.append(x)


class Keeper(Node):
    """Keeps the context it was started with."""

    values = Input(int)
    out = Output(int)

    def on_start(self, ctx: Context) -> None:
        """Keep it."""
        self.ctx = ctx

    @values.handler
    def handle(self, x: int) -> int:
        """Note where the message comes from."""
        headers = self.ctx.headers
        assert headers is not None
        SEEN.append((headers.edge, self.ctx.cancelled))
        return x


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> list[Way]:
    """Give the ways turns have passed through by, in order."""
    ways: list[Way] = []
    begin = Way.begin

    def noted(way: Way) -> None:
        ways.append(way)
        begin(way)

    monkeypatch.setattr(Way, "begin", noted)
    return ways


MakeBench = Callable[..., Bench]


@pytest.fixture
def bench() -> Iterator[MakeBench]:
    """Give benches of nodes in a row; they are closed afterwards."""
    made: list[Bench] = []
    SEEN.clear()

    def make(*row: Node, **link: Any) -> Bench:
        graph = Graph("g")
        for a, b in itertools.pairwise(row):
            graph.connect(a, b, **link)
        graph.fuse(*graph.nodes)
        made.append(Bench(graph))
        assert made[-1].crew.hook("on_start") is None
        return made[-1]

    yield make
    for one in made:
        one.close()
    close_context()


def test_most_turns_of_the_source_pass_through_to_the_sink(
    bench: MakeBench, passed: list[Way]
) -> None:
    one = bench(numbers(), relay(), relay(), show())
    one.commands.append("a command: one turn a step")
    one.step(300)
    assert len(passed) > 200
    assert list(range(len(SEEN))) == SEEN
    handled = [one.counters(name).handled for name in one.works]
    assert handled[-1] == len(SEEN) > 200
    emitted = [one.counters(name).emitted for name in one.works]
    depths = [channel.depth for channel in one.plane.inbound.channels.values()]
    for sent, depth, taken in zip(emitted, depths, handled[1:], strict=False):
        assert sent == depth + taken


@pytest.mark.parametrize(
    ("row", "link"),
    [
        ((numbers, relay, show), {"policy": "drop"}),
        ((numbers, relay, show), {"key": lambda x: x}),
        ((numbers, relay, show), {"priority": Priority.CONTROL}),
        ((numbers, relay, show), {"cancellable": True}),
        ((listed, show), {}),
        ((numbers, yielding, yielding), {}),
    ],
    ids=["policy", "key", "control", "cancellable", "no generator", "generators"],
)
def test_what_needs_a_queue_keeps_it(
    bench: MakeBench, passed: list[Way], row: tuple[Callable[[], Node], ...], link: Any
) -> None:
    nodes = [make() for make in row]
    one = bench(*nodes, **link)
    one.step(100)
    assert passed == []


def test_two_ways_into_a_node_are_queues(bench: MakeBench, passed: list[Way]) -> None:
    into = show()
    one = bench(numbers(), relay().options(name="first"), into)
    assert one.works["show"].station().find_entry() is not None
    graph = Graph("g")
    for name in ("first", "second"):
        graph.connect(numbers().options(name=name), into)
    graph.fuse(*graph.nodes)
    other = Bench(graph)
    other.step(50)
    other.close()
    assert passed == []


def test_a_held_node_on_the_way_keeps_what_comes_in_its_inbox(
    bench: MakeBench, passed: list[Way]
) -> None:
    one = bench(numbers(), relay(), show(), capacity=100)
    one.step(10)
    one.crew.hold("paused", True, "show")
    seen, through = len(SEEN), len(passed)
    one.step(10)
    assert (len(SEEN), len(passed)) == (seen, through)
    assert one.counters("relay").handled == seen + 100
    one.crew.hold("paused", False, "show")
    while len(passed) == through:
        one.step()
    assert list(range(len(SEEN))) == SEEN


def test_errors_are_counted_and_logged_as_those_of_the_node_that_raised(
    bench: MakeBench, passed: list[Way]
) -> None:
    one = bench(numbers(), relay(), fails(), show())
    one.step(20)
    assert passed
    handled = one.counters("fails").handled
    assert [one.counters(name).errors for name in one.works] == [0, 0, (handled + 9) // 10, 0]
    assert one.counters("fails").emitted == handled - (handled + 9) // 10


def test_an_error_that_ends_the_run_ends_the_turn(bench: MakeBench, passed: list[Way]) -> None:
    one = bench(numbers(), relay(), fails().options(on_error="stop"), show())
    one.crew._works[2]._code._stop = False
    one.step(20)
    one.crew._works[2]._code._stop = True
    handled = one.counters("fails").handled
    one.step()
    raised = one.crew.raised
    assert raised is not None
    assert (raised.node, raised.where) == ("fails", "handler")
    assert "composed" not in raised.traceback  # nothing of dflow's own
    assert "in fails" in raised.error
    assert one.counters("fails").handled - handled <= 10
    assert passed


def test_an_interrupted_message_is_counted_where_it_was(
    bench: MakeBench, passed: list[Way]
) -> None:
    one = bench(numbers(), relay(), interrupted(), show())
    while not one.works["numbers"].at_end():
        one.step()
    assert list(range(5000)) == SEEN
    handled = [one.counters(name).handled for name in one.works]
    assert handled == [0, 5001, 5001, 5000]


def test_only_the_source_itself_is_interrupted_for_a_drain(
    bench: MakeBench, passed: list[Way]
) -> None:
    found: list[bool] = []
    one = bench(numbers(), relay(), show())
    one.crew.told_to_end()
    one.step(10)
    way = passed[0]
    one.works["numbers"]._way = way

    def values() -> Iterator[int]:
        found.append(one.crew.interruptible())
        yield 1

    way._values = values()
    found.append(one.crew.interruptible())
    next(way._values)
    way._values = None
    one.works["numbers"]._way = None
    assert found == [False, True]


def test_a_kept_context_says_where_the_message_comes_from(
    bench: MakeBench, passed: list[Way]
) -> None:
    one = bench(numbers(), relay(), Keeper(), show())
    one.step(20)
    assert passed
    said = {each for each in SEEN if isinstance(each, tuple)}
    assert said == {("relay.out->keeper.values", False)}


def test_busy_time_says_where_it_goes(bench: MakeBench, passed: list[Way]) -> None:
    light, heavy = burns(rounds=2).options(name="light"), burns(rounds=200).options(name="heavy")
    one = bench(numbers(), light, heavy, show())
    one.step(300)
    assert passed
    busy = {name: one.counters(name).busy_ns for name in one.works}
    assert busy["heavy"] > 3 * busy["light"] > 0
    assert busy["show"] > 0


def test_what_takes_long_is_not_done_in_one_go(bench: MakeBench, passed: list[Way]) -> None:
    one = bench(numbers(), burns(rounds=20_000).options(name="a"), show())
    one.step(40)
    assert len(passed) <= 3  # before it was measured
