"""Edges under real processes: windows, order, routing, and memory that stays bounded."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from dflow import Context, Graph, Input, Node, Output, edge, node, sink, source
from dflow.flow.out_edge import key_slot
from dflow.wire.codec import Codec
from tests.integration.flows import await_file, collect, count, keep, run_checked
from tests.support import eventually

pytestmark = pytest.mark.timeout(40)
MIB = 1 << 20


# --- windows ------------------------------------------------------------------------------


@pytest.mark.parametrize("capacity", [1, 2, 8, 64, 1024])
def test_blocking_edges_of_any_capacity_lose_and_reorder_nothing(capacity: int) -> None:
    n = 400 if capacity < 8 else 3000
    last = keep()
    window = edge(capacity=capacity)
    graph = Graph("windows", count(n) >> window >> keep() >> window >> last)
    values, report = collect(graph, last)
    assert values == list(range(n))
    assert report.edge("count.out->keep.in").peak <= capacity + 512


@source
def blobs(n: int, size: int) -> Iterator[bytes]:
    for number in range(n):
        yield bytes([number % 256]) * size


@node
def first_byte(blob: bytes) -> tuple[int, int]:
    return blob[0], len(blob)


@pytest.mark.parametrize("max_bytes", ["1KB", "10KB", "64KiB", "1MB"])
def test_byte_windows_lose_nothing(max_bytes: str) -> None:
    last = first_byte()
    graph = Graph("bytes", blobs(300, 1000) >> edge(max_bytes=max_bytes) >> last)
    values, report = collect(graph, last)
    assert values == [(n % 256, 1000) for n in range(300)]
    assert report.edge("blobs.out->first_byte.in").bytes >= 300_000


def test_message_larger_than_the_whole_byte_window_passes_alone() -> None:
    @source
    def mixed() -> Iterator[bytes]:
        for size in (10, 5000, 10, 10, 100_000, 10, 3 * MIB, 10):
            yield b"x" * size

    last = first_byte()
    graph = Graph("oversized", mixed() >> edge(max_bytes="1KB") >> last)
    values, _ = collect(graph, last)
    assert [size for _, size in values] == [10, 5000, 10, 10, 100_000, 10, 3 * MIB, 10]


def test_message_larger_than_the_window_passes_on_every_kind_of_edge() -> None:
    graph = Graph(
        "oversized_keyed",
        blobs(20, 5000) >> edge(max_bytes=100, key=len) >> first_byte().options(replicas=2),
    )
    last = keep()
    graph.connect(graph.nodes["first_byte"], last)
    values, _ = collect(graph, last)
    assert sorted(values) == [(n, 5000) for n in range(20)]


def test_hundred_megabytes_pass_as_one_message() -> None:
    last = first_byte()
    values, _ = collect(Graph("huge", blobs(1, 100 * MIB) >> last), last)
    assert values == [(0, 100 * MIB)]


def test_handler_may_emit_ten_thousand_messages_for_one_into_a_window_of_eight() -> None:
    class Burst(Node):
        inp = Input(int)
        out = Output(int)

        @inp.handler
        def burst(self, x: int) -> None:
            for number in range(10_000):
                self.out.emit(10_000 * x + number)

    burst, last = Burst(), keep()
    graph = Graph("bursts", count(2) >> burst)
    graph.connect(burst, last, capacity=8)
    values, report = collect(graph, last)
    assert values == list(range(20_000))
    edge_report = report.edge("burst.out->keep.in")
    assert edge_report.sent == 20_000
    assert edge_report.peak <= 8 + 10_000  # one call's output beside the window, not two


def test_generator_with_ten_thousand_values_is_held_back_by_the_window() -> None:
    @node
    def burst(x: int) -> Iterator[int]:
        yield from range(10_000)

    blown, last = burst(), keep()
    graph = Graph("paced", count(1) >> blown)
    graph.connect(blown, last, capacity=8)
    values, report = collect(graph, last)
    assert values == list(range(10_000))
    assert report.edge("burst.out->keep.in").peak <= 8 + 1


# --- bounded memory -----------------------------------------------------------------------


class Counted(Node):
    """Emits for ever and writes how many values it has made."""

    out = Output(bytes)

    def __init__(self, size: int) -> None:
        self.size = size

    def produce(self, ctx: Context) -> Iterator[bytes]:
        while not ctx.stopping:
            yield b"x" * self.size


def test_fast_producer_waits_for_a_consumer_that_stands_still(tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    @sink
    def stuck(x: bytes) -> None:
        await_file(gate)

    producer = Counted(100_000)
    graph = Graph("stuck")
    graph.connect(producer, stuck(), max_bytes="4MB")
    with graph.start() as run:
        seen: list[int] = []

        def settled() -> bool:
            seen.append(run.status().edges[0].sent)
            return len(seen) > 20 and seen[-1] == seen[-20] > 0

        eventually(settled, within_s=20)
        memory = psutil.Process(run.pids["counted[0]"]).memory_info().rss
        assert seen[-1] <= 50
        assert memory < 200 * MIB
        gate.touch()
        run.stop()
        report = run.wait(20)
    assert report.outcome == "drained"
    assert report.balances
    assert report.edges[0].peak <= 50


def test_memory_of_a_slow_chain_stays_within_its_windows() -> None:
    @node
    def crunch(blob: bytes) -> int:
        return sum(blob) & 0xFF

    last = crunch()
    graph = Graph("slow", blobs(400, MIB // 2) >> edge(max_bytes="2MB") >> keep())
    graph.connect(graph.nodes["keep"], last, max_bytes="2MB")
    values, report = collect(graph, last)
    assert len(values) == 400
    assert max(e.peak for e in report.edges[:2]) <= 6


# --- routing and order --------------------------------------------------------------------


@node
def at_replica(message: Any, ctx: Context) -> tuple[Any, int]:
    return message, ctx.replica


@source
def events(n: int) -> Iterator[dict[str, Any]]:
    for number in range(n):
        yield {"user": f"user-{number % 17}", "number": number}


def routes(n: int) -> dict[str, set[int]]:
    last = at_replica().options(replicas=3)
    graph = Graph("keyed", events(n) >> edge(key="user") >> last)
    values, _ = collect(graph, last)
    found: defaultdict[str, set[int]] = defaultdict(set)
    for message, replica in values:
        found[message["user"]].add(replica)
    assert len(values) == n
    for replica in range(3):
        numbers = [m["number"] for m, r in values if r == replica]
        assert numbers == sorted(numbers)
    return dict(found)


def test_key_goes_to_one_replica_and_to_the_same_one_in_every_run() -> None:
    first, second = routes(1000), routes(500)
    assert first == second
    assert {len(replicas) for replicas in first.values()} == {1}
    assert set().union(*first.values()) == {0, 1, 2}


def test_key_may_be_a_callable_and_senders_agree_on_its_replica() -> None:
    last = at_replica().options(replicas=3)
    graph = Graph("callable_key")
    graph.connect(count(300).options(replicas=2), last, key=lambda x: x % 10)
    values, _ = collect(graph, last)
    found: defaultdict[int, set[int]] = defaultdict(set)
    for number, replica in values:
        found[number % 10].add(replica)
    assert len(values) == 600
    assert {len(replicas) for replicas in found.values()} == {1}


def test_message_without_the_key_is_an_error_of_the_sender_and_is_skipped(
    capfd: pytest.CaptureFixture[str],
) -> None:
    @source
    def some() -> Iterator[dict[str, int]]:
        yield {"user": 1}
        yield {"usr": 2}

    @node
    def passing(x: Any) -> Any:
        return x

    last = keep().options(replicas=2)
    graph = Graph("no_key", some() >> passing() >> edge(key="user") >> last)
    values, report = collect(graph, last)
    assert values == [{"user": 1}]
    assert report.node("passing").errors == 1
    assert "expected a message with the field 'user' for key=" in capfd.readouterr().err


def test_unkeyed_messages_go_to_whichever_replica_has_credit(tmp_path: Path) -> None:
    others = tmp_path / "others"

    @node
    def one_is_stuck(x: int, ctx: Context) -> int:
        if x == 0:
            await_file(others)  # the replica that got the first message waits for the rest
        if x == 999:
            others.touch()
        return ctx.replica

    last = one_is_stuck().options(replicas=3)
    graph = Graph("by_credit")
    graph.connect(count(1000), last, capacity=4)
    values, _ = collect(graph, last)
    shares = Counter(values)
    assert len(shares) == 3
    assert min(shares.values()) <= 4
    assert sum(shares.values()) == 1000


def test_each_sender_is_received_in_its_own_order() -> None:
    @node
    def tag(x: int, ctx: Context) -> tuple[int, int]:
        return ctx.replica, x

    tagged, last = tag().options(replicas=4), keep()
    graph = Graph("fifo", count(2000) >> edge(capacity=16) >> tagged)
    graph.connect(tagged, last, capacity=8)
    values, _ = collect(graph, last)
    assert len(values) == 2000
    for replica in range(4):
        numbers = [x for r, x in values if r == replica]
        assert numbers == sorted(numbers)


# --- a burst and then nothing -------------------------------------------------------------


@source
def burst_then_block(n: int, gate: Path) -> Iterator[int]:
    yield from range(n)
    await_file(gate)


@pytest.mark.parametrize("n", [1, 10, 700])
def test_burst_of_a_source_that_then_blocks_is_not_stranded(tmp_path: Path, n: int) -> None:
    gate, last = tmp_path / "gate", keep()
    with Graph("stranded", burst_then_block(n, gate) >> last).start(results=last) as run:
        values = run.results()
        assert [next(values) for _ in range(n)] == list(range(n))  # while the source blocks
        assert not gate.exists()
        gate.touch()
        assert list(values) == []
        assert run.wait(20).balances


@pytest.mark.parametrize("how", ["emit", "generator"])
def test_burst_of_a_handler_that_then_blocks_is_not_stranded(tmp_path: Path, how: str) -> None:
    gate = tmp_path / "gate"

    class Blocks(Node):
        inp = Input(int)
        out = Output(int)

        @inp.handler
        def handle(self, x: int) -> Any:
            return self.generator() if how == "generator" else self.emit()

        def emit(self) -> None:
            for number in range(5):
                self.out.emit(number)
            await_file(gate)

        def generator(self) -> Iterator[int]:
            yield from range(5)
            await_file(gate)

    blocks = Blocks()
    with Graph("handler", count(1) >> blocks.inp).start(results=blocks) as run:
        values = run.results()
        assert [next(values) for _ in range(5)] == list(range(5))
        gate.touch()
        assert list(values) == []
        assert run.wait(20).balances


def test_unequal_speeds_in_one_graph_do_not_stall_it() -> None:
    """A slow branch of a copy holds the fast one back, and both get everything."""

    @node
    def slow(x: int) -> int:
        return sum(range(2000)) * 0 + x

    start, fast, held = count(500), keep(), slow()
    graph = Graph("uneven")
    graph.connect(start, fast, capacity=512)
    graph.connect(start, held, capacity=1)
    report = run_checked(graph)
    assert report.node("keep").handled == report.node("slow").handled == 500


@sink
def stop_at_a(order: tuple[str, int], folder: str) -> None:
    """Count what is not for "a" in a file; be stuck with "a" until all of that was handled."""
    key, number = order
    if key == "a":
        await_file(Path(folder, "others-done"))
    elif number == 399:
        Path(folder, "others-done").touch()


def test_a_full_replica_delays_nobody_until_a_message_for_it_is_at_hand(tmp_path: Path) -> None:
    encode = Codec().encode
    other = next(k for k in "bcdefgh" if key_slot(k, 2, encode) != key_slot("a", 2, encode))

    @source
    def orders() -> Iterator[tuple[str, int]]:
        yield from (("a", number) for number in range(4))
        yield from ((other, number) for number in range(400))

    receiver = stop_at_a(str(tmp_path)).options(replicas=2)
    graph = Graph("stuck", orders() >> edge(key=lambda order: order[0], capacity=4) >> receiver)
    assert run_checked(graph).node("stop_at_a").handled == 404
