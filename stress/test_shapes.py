"""Wide, deep and uneven graphs lose nothing and keep the order of every channel."""

from __future__ import annotations

import time

from dflow import Graph, edge, node
from stress.ledger import Verdict
from stress.nodes import (
    Checker,
    assert_edges_bounded,
    numbered,
    run_checked,
)

FAN_IN = 20
CHAIN = 30
WINDOW = 64


def test_fan_in_of_20_keeps_the_order_of_every_source(scale: int) -> None:
    count = 2_000 * scale
    names = [f"s{number}" for number in range(FAN_IN)]
    checker = Checker()
    sources = [numbered(name, count) for name in names]
    graph = Graph("fan-in", sources >> edge(capacity=WINDOW) >> checker.messages)
    report, verdict, _ = run_checked(graph, checker)
    assert verdict == Verdict(dict.fromkeys(names, count))
    assert_edges_bounded(graph, report)


@node
def step(message: tuple[str, int, int]) -> tuple[str, int, int]:
    """Count the hop."""
    origin, number, hops = message
    return origin, number, hops + 1


@node
def begin(message: tuple[str, int]) -> tuple[str, int, int]:
    """Begin counting hops."""
    return *message, 0


@node
def check_hops(message: tuple[str, int, int], expected: int) -> tuple[str, int]:
    """Raise unless the message came through every node of the chain."""
    origin, number, hops = message
    if hops != expected:
        raise ValueError(f"message {number}: expected {expected} hops, got {hops}")
    return origin, number


def test_chain_of_30_passes_everything_on_in_order(scale: int) -> None:
    count = 3_000 * scale
    steps = CHAIN - 4  # source, begin, check_hops and checker are links too
    narrow = edge(capacity=WINDOW)
    chain = numbered("s", count) >> narrow >> begin()
    for _ in range(steps):
        chain = chain >> narrow >> step()
    checker = Checker()
    graph = Graph("chain", chain >> narrow >> check_hops(steps) >> narrow >> checker)
    assert len(graph.nodes) == CHAIN
    report, verdict, _ = run_checked(graph, checker)
    assert verdict == Verdict({"s": count})
    assert_edges_bounded(graph, report)


@node
def branch(message: tuple[str, int], name: str, pause_s: float = 0) -> tuple[str, int]:
    """Pass a message on under the branch's own name, slowly if asked."""
    if pause_s:
        time.sleep(pause_s)
    return name, message[1]


def test_diamond_with_uneven_branches_delivers_every_copy_on_both(scale: int) -> None:
    count = 1_000 * scale
    start = numbered("s", count)
    slow = branch("slow", 0.001).options(name="slow")
    fast = branch("fast").options(name="fast")
    checker, narrow = Checker(), edge(capacity=WINDOW)
    graph = Graph("diamond", start >> narrow >> [slow, fast] >> narrow >> checker.messages)
    report, verdict, _ = run_checked(graph, checker)
    assert verdict == Verdict({"fast": count, "slow": count})
    # the fast branch waits for the slow one, it does not pile up
    assert_edges_bounded(graph, report)
