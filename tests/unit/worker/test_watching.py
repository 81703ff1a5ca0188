"""What a worker's nodes do, as the pulse thread sees it; the test plays that thread."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dflow import Graph, edge, node, sink, source
from dflow.stats import Doing
from dflow.worker import watching
from dflow.worker.watching import place_in
from tests.unit.crew_bench import Bench

WITHIN_S = 10.0
ENTERED, LET_GO = threading.Event(), threading.Event()


@source
def numbers(n: int) -> Iterator[int]:
    """Count."""
    yield from range(n)


@node
def double(x: int) -> int:
    """Pass on."""
    return 2 * x


@sink
def hold(x: int) -> None:
    """Stay until the test lets go."""
    ENTERED.set()
    assert LET_GO.wait(WITHIN_S)


@sink
def show(x: int) -> None:
    """Take."""


@contextmanager
def benched(graph: Graph) -> Iterator[Bench]:
    """A worker with all the nodes of ``graph``, closed at the end."""
    ENTERED.clear()
    LET_GO.clear()
    bench = Bench(graph)
    try:
        yield bench
    finally:
        LET_GO.set()
        bench.close()


def seen(bench: Bench, name: str) -> Doing:
    """Return what a node is seen to do."""
    return bench.counters(name).doing


def fused(*parts: object) -> Graph:
    """Return a graph of nodes in one worker."""
    line = parts[0]
    for part in parts[1:]:
        line = line >> part  # type: ignore[operator]  # nodes
    graph = Graph("watched", line)
    graph.fuse(*parts)  # type: ignore[arg-type]
    return graph


@contextmanager
def stepping(bench: Bench, nodes: dict[str, Doing]) -> Iterator[None]:
    """Look at the nodes from another thread while the main thread is held in `hold`."""

    def look() -> None:
        assert ENTERED.wait(WITHIN_S)
        for name in bench.works:
            nodes[name] = seen(bench, name)
        LET_GO.set()

    looker = threading.Thread(target=look)
    looker.start()
    yield
    looker.join()


def test_the_node_whose_handler_runs_is_told_from_those_behind_it() -> None:
    nodes: dict[str, Doing] = {}
    with benched(fused(numbers(3), double(), hold())) as bench, stepping(bench, nodes):
        bench.step(8)
    assert nodes["hold"].what == "handler"
    assert nodes["hold"].edges == (1,)
    assert "hold" not in {name for name, doing in nodes.items() if doing.what == "thread"}
    assert nodes["numbers"].what == "thread"


def test_the_place_is_looked_up_once_it_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "SLOW_NS", 0)
    nodes: dict[str, Doing] = {}
    with benched(fused(numbers(3), double(), hold())) as bench, stepping(bench, nodes):
        bench.step(8)
    assert nodes["hold"].place.startswith("test_watching.py:")
    assert nodes["hold"].place.endswith(" in hold")


def test_a_node_that_is_held_is_paused_and_one_that_waits_is_idle() -> None:
    with benched(fused(numbers(3), double(), show())) as bench:
        bench.crew.hold("paused", True, "double")
        assert seen(bench, "double").what == "paused"
        assert seen(bench, "show").what == "idle"
        bench.crew.hold("paused", False, "double")
        assert seen(bench, "double").what == "idle"


def test_a_node_without_room_names_the_edge_and_the_channel() -> None:
    parts = numbers(100), double(), show()
    graph = Graph("watched", parts[0] >> edge(capacity=2) >> parts[1] >> parts[2])
    graph.fuse(*parts)
    with benched(graph) as bench:
        bench.crew.hold("paused", True, "double")
        bench.step(4)
        doing = seen(bench, "numbers")
        assert (doing.what, doing.edges, doing.channels) == ("credit", (0,), (0,))


def test_the_time_grows_only_while_nothing_moves() -> None:
    with benched(fused(numbers(10_000), double(), show())) as bench:
        first = seen(bench, "show")
        second = seen(bench, "show")
        assert second.for_s >= first.for_s
        bench.step(3)
        assert seen(bench, "show").for_s == 0.0
        assert 0.0 <= seen(bench, "show").busy <= 1.0


def test_what_cannot_be_read_just_now_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    with benched(fused(numbers(3), double(), show())) as bench:
        before = seen(bench, "show")

        def torn(watch: object, now: int) -> None:
            raise RuntimeError("deque mutated during iteration")

        monkeypatch.setattr(watching.Watch, "_see", torn)
        assert seen(bench, "show") == before


def test_a_frame_outside_of_any_worker_is_no_place() -> None:
    assert place_in(None) == ""
    assert place_in(sys._getframe()).startswith("test_watching.py:")
