"""Fused nodes give the same whether turns pass through them or not, and as if called by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from dflow import Context, Graph, Input, Node, Output, node, sink, source
from dflow.worker import chain
from tests.unit.crew_bench import Bench

SEEN: list[int] = []
"""What has reached the sink; at the top, as nothing else can be shipped."""

ACTIONS = ("pass", "pass", "pass", "none", "raise", "stop", "many")
KINDS = ("plain", "plain", "plain", "talker", "told", "generator")


@source
def numbers(n: int) -> Iterator[int | None]:
    """Count, with a gap now and then."""
    for number in range(n):
        yield None if number % 11 == 10 else number


@sink
def show(x: int) -> None:
    """Note what comes, and raise now and then."""
    SEEN.append(x)
    if x % 13 == 12:
        raise ValueError(x)


def act(x: int, actions: tuple[str, ...]) -> Any:
    """Do what it is the turn of."""
    action = actions[x % len(actions)]
    if action == "raise":
        raise ValueError(x)
    if action == "stop":
        return next(iter(()))
    if action == "many":
        return (each for each in (x, x + 5))
    return None if action == "none" else x + 1


@node
def plain(x: int, actions: tuple[str, ...]) -> Any:
    """Return."""
    return act(x, actions)


@node
def told(x: int, ctx: Context, actions: tuple[str, ...]) -> Any:
    """Emit by the context now and then, and return."""
    assert ctx.headers is not None
    assert ctx.headers.edge.endswith(f"->{ctx.node}.in")
    if x % 7 == 0:
        ctx.emit(x + 100)
    return act(x, actions)


@node
def generator(x: int, actions: tuple[str, ...]) -> Iterator[int]:
    """Yield."""
    result = act(x, actions)
    if isinstance(result, int):
        yield result
    elif result is not None:
        yield from result


class Talker(Node):
    """Emits by hand now and then."""

    values = Input(int)
    out = Output(int)

    def __init__(self, actions: tuple[str, ...]) -> None:
        self.actions = actions

    @values.handler
    def handle(self, x: int) -> Any:
        """Emit before the result."""
        if x % 3 == 0:
            self.out.emit(-x)
        return act(x, self.actions)


MAKE: dict[str, Callable[[tuple[str, ...]], Node]] = {
    "plain": lambda actions: plain(actions=actions),
    "told": lambda actions: told(actions=actions),
    "generator": lambda actions: generator(actions=actions),
    "talker": Talker,
}


@dataclass(frozen=True)
class Step:
    """A node of the chain: its kind, and what it does with its messages, in turn."""

    kind: str
    actions: tuple[str, ...]

    def results(self, x: int) -> tuple[list[int], bool]:
        """Return what it emits for ``x``, and whether it raises."""
        by_hand = {"told": [x + 100] * (x % 7 == 0), "talker": [-x] * (x % 3 == 0)}
        emitted = by_hand.get(self.kind, [])
        try:
            result = act(x, self.actions)
        except (ValueError, StopIteration):
            return emitted, True
        if result is None:
            return emitted, False
        return emitted + ([result] if isinstance(result, int) else list(result)), False


@dataclass(frozen=True)
class Outcome:
    """What a run has given: what the sink saw, and the counters of each node and edge."""

    seen: list[int]
    counters: list[tuple[int, int, int]]
    edges: list[int]


def by_hand(steps: list[Step], n: int) -> Outcome:
    """Call the functions one after the other."""
    values = [number for number in range(n) if number % 11 != 10]
    edges = [len(values)]
    counters = [(0, len(values), 0)]
    for step in steps:
        results = [step.results(x) for x in values]
        after = [each for emitted, _ in results for each in emitted]
        counters.append((len(values), len(after), sum(failed for _, failed in results)))
        edges.append(len(after))
        values = after
    counters.append((len(values), 0, sum(x % 13 == 12 for x in values)))
    return Outcome(values, counters, edges)


def run(steps: list[Step], n: int, capacity: int, holds: list[int], pass_on: list[bool]) -> Outcome:
    """Run the chain in one worker; turns pass through as ``pass_on`` says, if they may at all.

    ``holds``: which node is held at each step, of the first ones.
    """
    SEEN.clear()
    nodes = [MAKE[step.kind](step.actions).options(name=f"n{at}") for at, step in enumerate(steps)]
    graph = Graph("g")
    row = [numbers(n), *nodes, show()]
    for a, b in pairwise(row):
        graph.connect(a, b, capacity=capacity)
    graph.fuse(*graph.nodes)
    choices = iter(pass_on * (100 * (n + 10)))
    bench = Bench(graph)
    try:
        with patch.object(chain, "may_pass", lambda *_, idle: idle and next(choices, False)):
            for held in holds:
                name = list(bench.works)[held % len(bench.works)]
                bench.crew.hold("paused", True, name)
                bench.step()
                bench.crew.hold("paused", False, name)
            for _ in range(100 * (n + 10)):
                if bench.crew.at_end():
                    break
                bench.step()
        assert bench.crew.at_end()
        return outcome(bench)
    finally:
        bench.close()


def outcome(bench: Bench) -> Outcome:
    """Read all counters; the books must balance."""
    counted = [bench.counters(name) for name in bench.works]
    stats = bench.crew.stats()
    received = {channel.channel: channel for channel in stats.ins}
    for sent in stats.outs:
        end = received[sent.channel]
        assert sent.sent == sent.taken == sent.done == end.received == end.delivered == end.done
    assert sum(node.busy_ns for node in counted) >= 0
    return Outcome(
        list(SEEN),
        [(node.handled, node.emitted, node.errors) for node in counted],
        [stats.offered[index] for index in sorted(stats.offered)],
    )


STEPS = st.builds(
    Step,
    st.sampled_from(KINDS),
    st.lists(st.sampled_from(ACTIONS), min_size=1, max_size=5).map(tuple),
)


@settings(deadline=None)
@given(
    st.lists(STEPS, min_size=1, max_size=4),
    st.integers(0, 60),
    st.integers(1, 20),
    st.lists(st.integers(0, 5), max_size=8),
    st.lists(st.booleans(), min_size=1, max_size=6),
)
def test_passing_through_changes_nothing(
    steps: list[Step], n: int, capacity: int, holds: list[int], pass_on: list[bool]
) -> None:
    expected = by_hand(steps, n)
    assert run(steps, n, capacity, holds, [False]) == expected
    assert run(steps, n, capacity, holds, [True]) == expected
    assert run(steps, n, capacity, holds, pass_on) == expected
