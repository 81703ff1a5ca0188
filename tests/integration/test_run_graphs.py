"""Shapes of graphs on real processes: what goes in at one end comes out at the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from dflow import Graph, Input, Node, Output, Subgraph, node, source
from tests.integration.flows import collect, count, keep, run_checked, swallow

pytestmark = pytest.mark.timeout(30)


@node
def plus(x: int, amount: int = 1) -> int:
    return x + amount


@node
def times(x: int, factor: int) -> int:
    return x * factor


class Split(Node):
    """Two outputs and two inputs, each with its own handler."""

    numbers = Input(int)
    words = Input(str)
    even = Output(int)
    rest = Output()

    @numbers.handler
    def sort(self, number: int) -> None:
        (self.rest if number % 2 else self.even).emit(number)

    @words.handler
    def shout(self, word: str) -> None:
        self.rest.emit(word.upper())


@source
def words() -> Iterator[str]:
    yield from ("ab", "cd")


# --- shapes -------------------------------------------------------------------------------


def test_chain_keeps_order_and_loses_nothing() -> None:
    last = plus()
    chain = count(500) >> plus() >> plus() >> plus() >> plus() >> plus() >> last
    values, report = collect(Graph("chain", chain), last)
    assert values == [n + 6 for n in range(500)]
    assert report.totals["sent"] == report.totals["delivered"] == 500 * 7


def test_one_output_to_many_inputs_copies_to_each() -> None:
    double, triple = times(2), times(3)
    graph = Graph("fan_out", count(100) >> [double, triple])
    merged = keep()
    graph.add([double, triple] >> merged)
    values, report = collect(graph, merged)
    assert Counter(values) == Counter([n * f for n in range(100) for f in (2, 3)])
    assert report.node("count").emitted in (100, 200)
    assert [report.edge(f"count.out->{n}.in").sent for n in ("times", "times_2")] == [100, 100]


def test_edges_into_one_input_merge_and_each_keeps_its_order() -> None:
    sources = [count(200) >> times(10) >> plus(digit) for digit in range(3)]
    merged = keep()
    values, report = collect(Graph("fan_in", sources >> merged), merged)
    assert len(values) == 600
    for digit in range(3):
        assert [v for v in values if v % 10 == digit] == [n * 10 + digit for n in range(200)]
    assert report.node("keep").handled == 600


def test_diamond_with_uneven_branches_delivers_both_copies() -> None:
    @node
    def expand(x: int) -> Iterator[int]:
        yield from [x] * 5

    start, merged = count(300), keep()
    graph = Graph("diamond", start >> expand() >> merged, start >> merged)
    values, _ = collect(graph, merged)
    assert Counter(values) == Counter(list(range(300)) * 6)


def test_class_with_several_ports_has_a_handler_for_each() -> None:
    split, even, rest = Split(), keep(), keep()
    graph = Graph("ports")
    graph.connect(count(10), split.numbers)
    graph.connect(words(), split.words)
    graph.connect(split.even, even)
    graph.connect(split.rest, rest)
    with graph.start(results=[even, rest]) as run:
        assert list(run.results(even)) == [0, 2, 4, 6, 8]
        found = list(run.results(rest))
        report = run.wait(20)
    assert [v for v in found if isinstance(v, int)] == [1, 3, 5, 7, 9]
    assert [v for v in found if isinstance(v, str)] == ["AB", "CD"]
    assert report.balances
    assert report.node("split").handled == 12


def test_nested_subgraphs_run_as_ordinary_nodes_with_their_path_as_name() -> None:
    inner_plus, inner_times = plus(), times(2)
    inner = Subgraph(
        "inner", inner_plus >> inner_times, inputs={"x": inner_plus}, outputs={"y": inner_times}
    )
    extra = plus(100)
    outer = Subgraph("outer", inner >> extra, inputs={"x": inner.inputs["x"]}, outputs={"y": extra})
    last = keep()
    values, report = collect(
        Graph("nested", count(5) >> outer.inputs["x"], outer.outputs["y"] >> last), last
    )
    assert values == [(n + 1) * 2 + 100 for n in range(5)]
    assert report.edge("outer/inner/plus.out->outer/inner/times.in").delivered == 5
    assert report.node("outer/plus").handled == 5


def test_output_that_nobody_reads_costs_nothing_and_is_counted_as_emitted() -> None:
    split, even = Split(), keep()
    graph = Graph("unread")
    graph.connect(count(10), split.numbers)
    graph.connect(words(), split.words)
    graph.connect(split.even, even)
    values, report = collect(graph, even)
    assert values == [0, 2, 4, 6, 8]
    assert report.node("split").emitted == 12
    assert report.edge("split.even->keep.in").sent == 5


def test_source_without_consumers_runs_to_its_end() -> None:
    report = run_checked(Graph("alone", count(10)))
    assert report.node("count").emitted == 10
    assert report.edges == ()


def test_graph_without_messages_finishes() -> None:
    report = run_checked(Graph("empty", count(0) >> plus() >> swallow()))
    assert report.totals["sent"] == 0


# --- what functions may return ------------------------------------------------------------


def test_none_emits_nothing_and_falsy_values_are_emitted() -> None:
    @node
    def odd_one(x: int) -> Any:
        return (None, 0, "", False, [])[x % 5]

    last = odd_one()
    values, report = collect(Graph("none", count(10) >> last), last)
    assert values == [0, "", False, []] * 2
    assert report.node("odd_one").handled == 10


def test_generator_emits_each_value_it_yields() -> None:
    @node
    def repeat(x: int) -> Iterator[int]:
        for _ in range(x):
            yield x

    last = repeat()
    values, _ = collect(Graph("generator", count(5) >> last), last)
    assert values == [1, 2, 2, 3, 3, 3, 4, 4, 4, 4]


def test_source_and_node_may_be_plain_functions_that_return_iterables_of_values() -> None:
    @source
    def listed() -> list[int]:
        return [3, 1, 2]

    last = keep()
    values, _ = collect(Graph("iterable", listed() >> last), last)
    assert values == [3, 1, 2]


def test_source_written_as_a_class_yields_to_its_only_output() -> None:
    class Letters(Node):
        letters = Output(str)

        def __init__(self, text: str) -> None:
            self.text = text

        def produce(self) -> Iterator[str]:
            yield from self.text

    letters, last = Letters("xyz"), keep()
    values, _ = collect(Graph("class_source", letters.letters >> last), last)
    assert values == ["x", "y", "z"]


# --- async def ----------------------------------------------------------------------------


class Rendezvous(Node):
    """Nobody gets through before ``size`` messages are inside at the same time."""

    inp = Input(int)
    out = Output(int)

    def __init__(self, size: int) -> None:
        self.size = size

    def on_start(self) -> None:
        import asyncio

        self.inside = 0
        self.full = asyncio.Event()

    @inp.handler
    async def enter(self, x: int) -> int:
        self.inside += 1
        if self.inside == self.size:
            self.full.set()
        await self.full.wait()
        return x


def test_async_handler_has_as_many_messages_under_way_as_concurrency_allows() -> None:
    meet = Rendezvous(8).options(concurrency=8)
    values, report = collect(Graph("rendezvous", count(8) >> meet.inp), meet)
    assert sorted(values) == list(range(8))
    assert report.node("rendezvous").handled == 8


def test_async_handler_never_exceeds_its_concurrency() -> None:
    @node
    async def watch(x: int) -> int:
        import asyncio

        watch_inside.append(x)
        most = len(watch_inside)
        await asyncio.sleep(0)
        watch_inside.remove(x)
        return most

    watch_inside: list[int] = []
    last = watch().options(concurrency=3)
    values, _ = collect(Graph("limit", count(100) >> last), last)
    assert len(values) == 100
    assert 1 < max(values) <= 3


def test_async_source_and_async_generator_handler_emit_in_order() -> None:
    @source
    async def ticks(n: int) -> AsyncIterator[int]:
        import asyncio

        for number in range(n):
            await asyncio.sleep(0)
            yield number

    @node
    async def twice(x: int) -> AsyncIterator[int]:
        yield x
        yield -x

    last = twice()
    values, report = collect(Graph("async", ticks(100) >> last), last)
    assert values == [v for n in range(100) for v in (n, -n)]
    assert report.node("twice").handled == 100


def test_async_generator_handler_is_held_back_by_credit() -> None:
    @node
    async def burst(x: int) -> AsyncIterator[int]:
        for number in range(20_000):
            yield number

    blown, last = burst(), keep()
    graph = Graph("async_burst")
    graph.connect(count(1), blown)
    graph.connect(blown, last, capacity=8)
    values, report = collect(graph, last)
    assert values == list(range(20_000))
    assert report.edge("burst.out->keep.in").peak < 2_000


# --- replicas -----------------------------------------------------------------------------


class Tally(Node):
    """Counts what its own replica saw."""

    inp = Input(int)
    out = Output(int)

    def __init__(self) -> None:
        self.seen = 0

    @inp.handler
    def see(self, x: int) -> None:
        self.seen += 1

    def on_end(self) -> int:
        return self.seen


def test_each_replica_has_its_own_state() -> None:
    tally = Tally().options(replicas=3)
    graph = Graph("replicas")
    graph.connect(count(3000), tally, capacity=16)
    values, report = collect(graph, tally)
    assert len(values) == 3
    assert sum(values) == 3000
    assert all(values)
    assert report.node("tally").replicas == 3


def test_replicas_of_a_source_and_of_a_sink_all_run() -> None:
    report = run_checked(
        Graph("many", count(100).options(replicas=2) >> plus() >> swallow().options(replicas=2))
    )
    assert report.node("count").emitted == 200
    assert report.node("swallow").handled == 200
