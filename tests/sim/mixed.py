"""A graph with a bit of everything that could depend on something else than the seed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

from dflow import Context, Graph, Input, Node, Output, Priority, coalesce, node, sink, source
from dflow.testing import spend

__all__ = ["mixed"]


@source
def words(n: int) -> Iterator[dict[str, Any]]:
    for i in range(n):
        yield {"user": f"user-{i % 7}", "n": i}


@source
async def ticks(n: int) -> AsyncIterator[int]:
    for i in range(n):
        await asyncio.sleep(0.002)
        yield i


@node
async def look_up(word: dict[str, Any]) -> dict[str, Any]:
    await asyncio.sleep(0.0005 * (word["n"] % 4))
    return word


@node
def careful(word: dict[str, Any]) -> dict[str, Any]:
    if word["n"] % 11 == 10:
        raise ValueError(word["n"])
    return word


class Mixer(Node):
    words = Input(dict)
    ticks = Input(int)
    settings = Input(int, priority=Priority.CONTROL)
    out = Output(int)

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.setting = 0

    def on_start(self, ctx: Context) -> None:
        ctx.log.info("ready")

    @words.handler
    def word(self, word: dict[str, Any]) -> int:
        spend(0.0003)
        self.seen.add(word["user"])
        return int(word["n"])

    @ticks.handler
    def tick(self, n: int) -> Iterator[int]:
        yield from range(n % 3)

    @settings.handler
    def change(self, setting: int) -> None:
        self.setting = setting

    def on_tick(self) -> None:
        self.out.emit(len(self.seen))

    def on_end(self) -> int:
        return self.setting


@sink
def store(n: int) -> None:
    spend(0.0001)


@sink
def latest(word: dict[str, Any]) -> None:
    spend(0.001)


def _newer(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    return b


def mixed(n: int = 60) -> Graph:
    """Return the graph: keys, replicas, order, coroutines, ticks, errors, and three policies."""
    graph = Graph("mixed")
    feed, mixer = words(n), Mixer().options(name="mixer", tick_s=0.01)
    found = look_up().options(concurrency=4, replicas=2, ordered=True)
    checked = careful().options(replicas=2)
    graph.connect(feed, found, key="user", capacity=8)
    graph.connect(found, checked, capacity=4)
    graph.connect(checked, mixer.words, capacity=3)
    graph.connect(ticks(10), mixer.ticks)
    graph.connect(mixer.out, store(), capacity=2)
    graph.connect(found, latest().options(name="newest"), policy="latest", capacity=1)
    graph.connect(
        checked, latest().options(name="by_user"), policy=coalesce(_newer), key="user", capacity=2
    )
    return graph
