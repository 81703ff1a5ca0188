"""The graph that is soaked: replicas, keys, ticks, bursts, async, errors, large messages."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

from dflow import Context, Graph, Input, Node, Output, node, sink, source

__all__ = ["soak_graph"]

Message = dict[str, Any]


@source
def mixed(ctx: Context, seed: int) -> Iterator[Message]:
    """Yield messages from a few bytes to a megabyte, as fast as they are wanted."""
    chance = random.Random(seed)
    number = 0
    while not ctx.stopping:
        size = 1_000_000 if number % 5000 == 4999 else chance.randrange(200)
        yield {"id": number, "user": f"user-{chance.randrange(1000)}", "body": bytes(size)}
        number += 1


@source
async def paced(ctx: Context) -> AsyncIterator[Message]:
    """Yield a small message every few milliseconds."""
    number = 0
    while not ctx.stopping:
        yield {"id": number, "user": "clock", "body": b""}
        number += 1
        await asyncio.sleep(0.005)


@node
def spread(message: Message) -> Iterator[Message]:
    """Yield most messages once, some of them a hundred times."""
    for _ in range(100 if message["id"] % 1000 == 999 else 1):
        yield {"user": message["user"], "size": len(message["body"])}


class Counts(Node):
    """Adds up by user, and tells on every tick."""

    messages = Input(dict)
    counts = Output(dict)

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()

    @messages.handler
    def add(self, message: Message) -> None:
        """Count one message."""
        self.seen[message["user"]] += message["size"]

    def on_tick(self) -> None:
        """Emit the counts and forget them."""
        self.counts.emit(dict(self.seen))
        self.seen.clear()

    def on_end(self) -> None:
        """Emit the last counts."""
        self.on_tick()


@sink
async def wait_a_little(counts: dict[str, int]) -> None:
    """Stand for a slow service."""
    await asyncio.sleep(0.01)


def soak_graph() -> Graph:
    """Return the graph."""
    graph = Graph("soak")
    spreading = spread().options(replicas=2)
    counts = Counts().options(replicas=2, tick_s=0.2)
    graph.connect(mixed(seed=1), spreading)
    graph.connect(paced(), spreading)
    graph.connect(spreading, counts, key="user")
    graph.connect(counts, wait_a_little().options(concurrency=4))
    return graph
