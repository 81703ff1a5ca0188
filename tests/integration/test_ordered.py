"""Ordered nodes with real processes: results leave in the order the inputs came."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from dflow import Cancelled, Context, Graph, Input, Node, Output, Priority, edge, node
from tests.integration.flows import Inlet, await_file, collect, count, endless, keep

pytestmark = pytest.mark.timeout(30)
N = 600


def limp(ctx: Context, x: int) -> None:
    """Take the longer the higher the replica's number is, now and then."""
    if x % 5 == 0:
        time.sleep(0.001 * ctx.replica)


@node
def lame(x: int, ctx: Context) -> int:
    """Pass on, at a replica's own speed."""
    limp(ctx, x)
    return x


@node
def erratic(x: int, ctx: Context) -> Any:
    """Bring no, one or several results, or fail."""
    limp(ctx, x)
    if x % 11 == 0:
        raise LookupError(str(x))
    if x % 3 == 0:
        return None
    if x % 3 == 1:
        return [x]
    return ([x, place] for place in range(x % 4))


@node
def spread(x: int, ctx: Context) -> Iterator[list[int]]:
    """Bring several results, and fail now and then in between."""
    for place in range(x % 4):
        yield [x, place]
        if x % 13 == 0:
            raise LookupError(str(x))
    limp(ctx, x)


def erratically(x: int) -> list[Any]:
    """Return what `erratic` brings for ``x``."""
    if x % 11 == 0 or x % 3 == 0:
        return []
    return [[x]] if x % 3 == 1 else [[x, place] for place in range(x % 4)]


def spreading(x: int) -> list[Any]:
    """Return what `spread` brings for ``x``."""
    return [[x, place] for place in range(x % 4)][: 1 if x % 13 == 0 else 4]


def ordered(made: Any, replicas: int = 3, **options: Any) -> Any:
    """Return ``made`` as an ordered node with replicas."""
    return made.options(replicas=replicas, ordered=True, **options)


# --- what the handlers do -----------------------------------------------------------------------


def test_replicas_of_different_speed_keep_the_order() -> None:
    @node
    def who(x: int, ctx: Context) -> list[int]:
        limp(ctx, x)
        return [x, ctx.replica]

    last = keep()
    values, _ = collect(Graph("speeds", count(N) >> ordered(who()) >> last), last)
    assert [x for x, _ in values] == list(range(N))
    assert {replica for _, replica in values} == {0, 1, 2}


def test_results_are_read_in_order_from_an_ordered_node() -> None:
    last = ordered(lame())
    values, _ = collect(Graph("read", count(N) >> last), last)
    assert values == list(range(N))


def test_filters_flat_maps_and_exceptions_leave_no_gap_and_no_disorder() -> None:
    last = keep()
    values, report = collect(Graph("erratic", count(N) >> ordered(erratic()) >> last), last)
    assert values == [result for x in range(N) for result in erratically(x)]
    assert report.node("erratic").errors == len(range(0, N, 11))


def test_generators_keep_the_order() -> None:
    last = keep()
    values, _ = collect(Graph("spread", count(N) >> ordered(spread()) >> last), last)
    assert values == [result for x in range(N) for result in spreading(x)]


@node
async def dawdle(x: int) -> Any:
    """Finish out of order."""
    await asyncio.sleep(0.001 * (x * 7 % 5))
    return None if x % 10 == 3 else x


@node
async def trickle(x: int) -> AsyncIterator[list[int]]:
    """Finish out of order, with several results."""
    for place in range(x % 3):
        await asyncio.sleep(0.001 * (x * 7 % 3))
        yield [x, place]


@pytest.mark.parametrize("replicas", [1, 3])
def test_tasks_that_overtake_each_other_keep_the_order(replicas: int) -> None:
    last = keep()
    stage = ordered(dawdle(), replicas, concurrency=5)
    values, _ = collect(Graph("tasks", count(300) >> stage >> last), last)
    assert values == [x for x in range(300) if x % 10 != 3]


@pytest.mark.parametrize("replicas", [1, 2])
def test_async_generators_that_overtake_each_other_keep_the_order(replicas: int) -> None:
    last = keep()
    stage = ordered(trickle(), replicas, concurrency=4)
    values, _ = collect(Graph("trickle", count(150) >> stage >> last), last)
    assert values == [[x, place] for x in range(150) for place in range(x % 3)]


# --- what follows -------------------------------------------------------------------------------


def test_one_ordered_stage_after_another_keeps_the_order() -> None:
    @node
    def second(x: list[int], ctx: Context) -> Iterator[list[int]]:
        limp(ctx, sum(x))
        yield from [x] * (sum(x) % 3)

    last = keep()
    chain = count(N) >> ordered(erratic()) >> ordered(second(), 2) >> last
    values, _ = collect(Graph("stages", chain), last)
    first = [result for x in range(N) for result in erratically(x)]
    assert values == [x for x in first for _ in range(sum(x) % 3)]


def test_a_keyed_stage_gets_each_key_in_order() -> None:
    @node
    def who(x: int, ctx: Context) -> list[int]:
        return [x, ctx.replica]

    last = who().options(replicas=2)
    graph = Graph("keyed", count(N) >> ordered(lame()) >> edge(key=lambda x: x % 7) >> last)
    values, _ = collect(graph, last)
    by_key: dict[int, list[int]] = defaultdict(list)
    replicas: dict[int, set[int]] = defaultdict(set)
    for x, replica in values:
        by_key[x % 7].append(x)
        replicas[x % 7].add(replica)
    assert by_key == {key: list(range(key, N, 7)) for key in range(7)}
    assert all(len(found) == 1 for found in replicas.values())


def test_an_ordered_stage_fed_by_key_keeps_the_order_of_all() -> None:
    last = keep()
    chain = count(N) >> edge(key=lambda x: x % 7) >> ordered(lame()) >> last
    values, _ = collect(Graph("by_key", chain), last)
    assert values == list(range(N))


def test_two_ordered_nodes_into_one_keep_each_its_own_order() -> None:
    @node
    def tag(x: int) -> list[Any]:
        return ["odd", x]

    one, two, last = ordered(lame(), 2), ordered(tag(), 2), keep()
    numbers = count(300)
    graph = Graph("joined", numbers >> one >> last, numbers >> two >> last)
    values, _ = collect(graph, last)
    assert [x for x in values if isinstance(x, int)] == list(range(300))
    assert [x for x in values if isinstance(x, list)] == [["odd", x] for x in range(300)]


class Sorter(Node):
    """Emits on one output or the other, and on both when told to end."""

    numbers = Input(int)
    settings = Input(int, priority=Priority.CONTROL, required=False)
    even = Output()
    odd = Output()

    def on_start(self, ctx: Context) -> None:
        self.ctx = ctx

    @numbers.handler
    def sort(self, x: int) -> None:
        limp(self.ctx, x)
        for _ in range(x % 3):
            (self.odd if x % 2 else self.even).emit(x)

    @settings.handler
    def set(self, x: int) -> None:
        self.even.emit(["set", x])

    def on_end(self, ctx: Context) -> None:
        self.even.emit(["end", ctx.replica])


def test_each_output_is_in_order_and_the_end_comes_once_from_every_replica() -> None:
    stage = ordered(Sorter())
    evens, odds = keep(), keep().options(name="odds")
    graph = Graph("outputs", count(N) >> stage.numbers)
    graph.connect(stage.even, evens)
    graph.connect(stage.odd, odds)
    with graph.start(results=[evens, odds]) as run:
        even, odd = list(run.results(evens)), list(run.results(odds))
        report = run.wait(20)
    assert report.balances, report.imbalances
    assert [x for x in even if isinstance(x, int)] == [
        x for x in range(0, N, 2) for _ in range(x % 3)
    ]
    assert odd == [x for x in range(1, N, 2) for _ in range(x % 3)]
    assert sorted(x for x in even if isinstance(x, list)) == [["end", r] for r in range(3)]


# --- windows ------------------------------------------------------------------------------------


@pytest.mark.parametrize("capacity", [1, 2])
def test_tiny_windows_do_not_get_stuck(capacity: int) -> None:
    window = edge(capacity=capacity)
    last = keep()
    chain = (
        count(120)
        >> window
        >> ordered(erratic(), 3)
        >> window
        >> ordered(keep().options(name="between"), 2)
        >> window
        >> last
    )
    values, _ = collect(Graph("tiny", chain), last)
    assert values == [result for x in range(120) for result in erratically(x)]


def test_a_generator_that_waits_for_credit_keeps_its_place() -> None:
    @node
    def many(x: int, ctx: Context) -> Iterator[list[int]]:
        for place in range(20):
            yield [x, place]
        limp(ctx, x)

    last = keep()
    chain = count(30) >> ordered(many(), 3) >> edge(capacity=2) >> last
    values, _ = collect(Graph("waits", chain), last)
    assert values == [[x, place] for x in range(30) for place in range(20)]


# --- from outside, and to the end ---------------------------------------------------------------


def test_messages_sent_from_outside_are_kept_in_order() -> None:
    inlet, stage = Inlet(), ordered(lame())
    graph = Graph("outside", inlet >> stage)
    with graph.start(results=[stage]) as run:
        for x in range(300):
            run.send(inlet.data, x)
        run.stop()
        values = list(run.results())
        report = run.wait(20)
    assert values == list(range(300))
    assert report.balances, report.imbalances


class Held(Node):
    """Passes on what is sent to it, the first two not before ``path`` exists."""

    data = Input(int, required=False)
    out = Output()

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    @data.handler
    def handle(self, x: int) -> int:
        if x < 2:
            self.path.with_name(str(x)).touch()
            await_file(self.path)
        return x


def test_messages_sent_straight_to_an_ordered_node_are_kept_in_order(tmp_path: Path) -> None:
    door = tmp_path / "door"
    door.touch()
    stage = ordered(Held(str(door)), 3)
    with Graph("straight", stage).start(results=[stage]) as run:
        for x in range(300):
            run.send(stage.data, x)
        run.stop()
        values = list(run.results())
        report = run.wait(20)
    assert values == list(range(300))
    assert report.balances, report.imbalances


def test_cancelled_messages_leave_no_gap(tmp_path: Path) -> None:
    door = tmp_path / "door"
    stage = ordered(Held(str(door)), 2)
    with Graph("cancelled", stage).start(results=[stage]) as run:
        ids = [run.send(stage.data, x) for x in range(20)]
        for x in range(2):
            await_file(tmp_path / str(x))  # both replicas have their hands full
        found = [run.cancel(ids[x]) for x in (3, 4, 5, 12, 19, 0)]
        door.touch()
        run.stop()
        values = list(run.results())
        report = run.wait(20)
    assert found == [Cancelled.CANCELLED] * 5 + [Cancelled.HANDLING]
    assert values == [x for x in range(20) if x not in (3, 4, 5, 12, 19)]
    assert report.balances, report.imbalances
    assert report.edge("run->held.data").cancelled == 5


def test_messages_too_old_leave_no_gap() -> None:
    @node
    def naps(x: int) -> int:
        if x < 2:
            time.sleep(0.5)
        return x

    last = ordered(naps(), 2)
    chain = count(40) >> edge(ttl_s=0.2) >> last
    values, report = collect(Graph("expired", chain), last)
    assert values == [0, 1]
    assert report.edge("count.out->naps.in").expired == 38


def test_a_drain_in_the_middle_ends_with_everything_before_it() -> None:
    last = ordered(lame())
    graph = Graph("drained", endless() >> edge(capacity=64) >> last)
    with graph.start(results=[last]) as run:
        values = []
        for x in run.results():
            values.append(x)
            if x == 200:
                run.stop()
        report = run.wait(20)
    assert values == list(range(len(values)))
    assert len(values) > 200
    assert report.balances, report.imbalances
    assert report.edge("endless.out->lame.in").sent == len(values)


def test_control_messages_are_handled_in_between() -> None:
    stage, last = ordered(Sorter(), 2), keep()
    graph = Graph("settings", endless() >> edge(capacity=32) >> stage.numbers)
    graph.connect(stage.even, last)
    numbers, told = [], 0
    with graph.start(results=[last]) as run:
        for place, x in enumerate(run.results()):
            if place == 50:
                run.send(stage.settings, 7)
            if isinstance(x, int):
                numbers.append(x)
            elif x == ["set", 7]:
                told += 1
                run.stop()
        report = run.wait(20)
    assert told
    assert numbers == sorted(numbers)
    assert report.balances, report.imbalances


@node
async def nap(x: int) -> int:
    """Take some milliseconds."""
    await asyncio.sleep(0.005)
    return x


def test_tasks_in_order_pass_over_what_is_too_old() -> None:
    napping = nap().options(concurrency=4, ordered=True)
    graph = Graph("old", count(200) >> edge(ttl_s=0.02) >> napping)
    values, report = collect(graph, napping, log_level="WARNING")
    into = report.edge("count.out->nap.in")
    assert into.expired > 0
    assert into.delivered + into.expired == 200
    assert len(values) == into.delivered
    assert values == sorted(values)


def test_tasks_in_order_pass_over_what_was_cancelled() -> None:
    napping = nap().options(concurrency=4, ordered=True)
    graph = Graph("cancelled", napping).accept(napping)
    with graph.start(results=napping, log_level="WARNING") as run:
        ids = [run.send(napping, x) for x in range(40)]
        cancelled = {x for x in range(0, 40, 3) if run.cancel(ids[x]) is Cancelled.CANCELLED}
        results = run.results()
        kept = [x for x in range(40) if x not in cancelled]
        assert [next(results) for _ in kept] == kept
    report = run.wait()
    assert report.balances, report.imbalances
    assert report.edge("run->nap.in").cancelled == len(cancelled)
