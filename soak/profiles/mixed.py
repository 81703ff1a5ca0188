"""Profile *mixed*: a bit of everything dflow can do, at a steady load with bursts.

Replicas, keys, ticks, async nodes, nodes that raise, large messages, ordered replicas, a limit for
each key, control messages, fused nodes and every policy, in one graph of eighteen workers. The
load is offered, not as much as the machine takes, so that a rate can drift; every ten seconds a
burst fills the edges up to their windows.
"""

from __future__ import annotations

import asyncio
import operator
import random
import time
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

from dflow import Context, Graph, Input, Node, Output, Priority, coalesce, latest, node
from soak.conduct import Conduct
from soak.streams import Collect, Seen, Sent, now_ns, paced

__all__ = ["drive", "mixed_graph"]

Message = dict[str, Any]
TRAFFIC_PER_S = 800.0
BURST = 5000
PICTURES_PER_S = 2.0
ORDERED_PER_S = 120.0
ONES_PER_S = 120.0
SETTINGS_PER_S = 10.0
CLOCK_S = 0.02
PICTURE_BYTES = 1_000_000
CLOCKS, PICTURES = 1 << 40, 1 << 41
"""Where the numbers of the clock's messages and of the pictures begin, in the same stream."""


def copies(number: int) -> int:
    """Return how many messages `Spread` makes of one: none of what it chokes on."""
    if number % 97 == 96:
        return 0
    return 100 if number % 1000 == 999 else 1


class Offered(Node):
    """What sources of traffic share: chance, and a factor of the rate."""

    out = Output(dict)

    def __init__(self, seed: int, load: float) -> None:
        self.seed = seed
        self.load = load


class Traffic(Offered):
    """A source of messages of up to 200 bytes, with bursts."""

    def produce(self, ctx: Context) -> Iterator[Message]:
        """Yield until the run drains."""
        chance, sent = random.Random(self.seed), Sent("traffic")
        for number in paced(ctx, TRAFFIC_PER_S * self.load, burst=BURST):
            body = bytes(chance.randrange(200))
            yield {
                "id": number,
                "user": f"user-{chance.randrange(1000)}",
                "at": now_ns(),
                "body": body,
                "check": zlib.crc32(body),
            }
            sent.add(number, copies(number))
        sent.note(ctx)


class Pictures(Offered):
    """A source of a few messages of a megabyte, each with other content."""

    def produce(self, ctx: Context) -> Iterator[Message]:
        """Yield until the run drains."""
        chance, sent = random.Random(self.seed), Sent("traffic")
        noise = memoryview(chance.randbytes(PICTURE_BYTES + 1000))
        for number in paced(ctx, PICTURES_PER_S * self.load, wait_s=0.1):
            body = noise[number % 1000 :]
            there = PICTURES + number
            check = zlib.crc32(body)
            yield {"id": there, "user": "camera", "at": now_ns(), "body": body, "check": check}
            sent.add(there, copies(there))
        sent.note(ctx)


class Clock(Node):
    """An async source of a small message every twenty milliseconds, on two outputs."""

    ticks = Output(dict)
    orders = Output(dict)

    async def produce(self, ctx: Context) -> AsyncIterator[None]:
        """Emit until the run drains."""
        ticks, orders = Sent("traffic"), Sent("served")
        number = 0
        while not ctx.stopping:
            there = {
                "id": CLOCKS + number,
                "user": "clock",
                "at": now_ns(),
                "body": b"",
                "check": 0,
            }
            self.ticks.emit(there)
            ticks.add(CLOCKS + number, copies(CLOCKS + number))
            self.orders.emit({"id": number, "customer": number % 7, "at": now_ns()})
            orders.add(number)
            number += 1
            yield
            await asyncio.sleep(CLOCK_S)
        ticks.note(ctx)
        orders.note(ctx)


class Spread(Node):
    """Makes most messages one, some a hundred, and raises on others."""

    into = Input(dict)
    out = Output(dict)

    def __init__(self) -> None:
        self.corrupt = 0

    @into.handler
    def spread(self, message: Message) -> Iterator[Message]:
        """Yield what `copies` says."""
        if zlib.crc32(message["body"]) != message["check"]:
            self.corrupt += 1
        times = copies(message["id"])
        if not times:
            raise ValueError(f"message {message['id']}: one of those this node chokes on")
        for _ in range(times):
            yield {
                "id": message["id"],
                "user": message["user"],
                "at": message["at"],
                "size": len(message["body"]),
            }

    def on_end(self, ctx: Context) -> None:
        """Say how many bodies were not what was sent."""
        ctx.metrics.gauge("seen.traffic.wrong", self.corrupt)


class Counts(Node):
    """Adds up by user, tells on every tick, and obeys control messages."""

    messages = Input(dict)
    settings = Input(dict, priority=Priority.CONTROL)
    counts = Output(dict)
    told = Output(dict)

    def __init__(self) -> None:
        self.users: Counter[str] = Counter()
        self.traffic, self.control = Seen("traffic"), Seen("control")
        self.ticks = 0

    @messages.handler
    def add(self, message: Message) -> None:
        """Count one message."""
        self.users[message["user"]] += message["size"]
        self.traffic.add(message["id"], message["at"])

    @settings.handler
    def change(self, message: Message) -> None:
        """Note that it came, and in order."""
        self.control.add(message["id"], message["at"])
        self.control.in_order(message["id"])

    def on_tick(self, ctx: Context) -> None:
        """Emit the counts and forget them."""
        self.counts.emit(dict(self.users))
        self.users.clear()
        self.ticks += 1
        if self.ticks % 5 == 0:
            self.tell(ctx)

    def tell(self, ctx: Context) -> None:
        """Say what was seen since the last time."""
        self.told.emit(self.traffic.note(ctx))
        self.told.emit(self.control.note(ctx))

    def on_end(self, ctx: Context) -> None:
        """Emit the last counts."""
        self.counts.emit(dict(self.users))
        self.tell(ctx)


class Settings(Node):
    """A source of control messages, ten a second, which go to every replica."""

    out = Output(dict)

    def __init__(self, replicas: int) -> None:
        self.replicas = replicas

    def produce(self, ctx: Context) -> Iterator[Message]:
        """Yield until the run drains."""
        sent = Sent("control")
        for number in paced(ctx, SETTINGS_PER_S, wait_s=0.1):
            yield {"id": number, "at": now_ns()}
            sent.add(number, self.replicas)
        sent.note(ctx)


class Numbers(Node):
    """A source of ``(number, time)`` at a rate."""

    out = Output(tuple)

    def __init__(self, stream: str, per_s: float) -> None:
        self.stream = stream
        self.per_s = per_s

    def produce(self, ctx: Context) -> Iterator[tuple[int, int]]:
        """Yield until the run drains."""
        sent = Sent(self.stream)
        for number in paced(ctx, self.per_s):
            yield number, now_ns()
            sent.add(number)
        sent.note(ctx)


class Ones(Node):
    """A source of the number 1, counted: what a merge adds up must be how many there were."""

    out = Output(int)

    def __init__(self, load: float) -> None:
        self.load = load

    def produce(self, ctx: Context) -> Iterator[int]:
        """Yield until the run drains."""
        count = 0
        for _ in paced(ctx, ONES_PER_S * self.load):
            yield 1
            count += 1
        ctx.metrics.gauge("sent.merged.count", count)


class Checked(Node):
    """A sink of ``(number, time)`` that tells what it saw; ``ordered`` if the order is promised."""

    into = Input(tuple)
    told = Output(dict)

    def __init__(self, stream: str, ordered: bool) -> None:
        self.seen = Seen(stream)
        self.ordered = ordered

    @into.handler
    def check(self, message: tuple[int, int]) -> None:
        """Count it."""
        self.seen.add(message[0], message[1])
        if self.ordered:
            self.seen.in_order(message[0])

    def on_tick(self, ctx: Context) -> None:
        """Tell."""
        self.told.emit(self.seen.note(ctx))

    def on_end(self, ctx: Context) -> None:
        """Tell for the last time."""
        self.told.emit(self.seen.note(ctx))


class Slow(Node):
    """A sink that takes its time for each number, and adds them up."""

    into = Input(int)

    def __init__(self, pause_s: float, stream: str = "") -> None:
        self.pause_s = pause_s
        self.stream = stream
        self.total = 0

    @into.handler
    def take(self, number: int) -> None:
        """Stand for a slow service."""
        self.total += number
        time.sleep(self.pause_s)

    def on_end(self, ctx: Context) -> None:
        """Say what came together, where all of it has to."""
        if self.stream:
            ctx.metrics.gauge(f"seen.{self.stream}.count", self.total)


@node
def work(message: tuple[int, int]) -> tuple[int, int]:
    """Take longer for some, so that replicas overtake each other."""
    time.sleep(0.002 if message[0] % 13 == 0 else 0)
    return message


class Serve(Node):
    """Serves orders, never two of a customer at the same time."""

    orders = Input(dict)
    told = Output(dict)

    def __init__(self) -> None:
        self.seen = Seen("served")

    @orders.handler
    async def serve(self, order: Message) -> None:
        """Take a while for each."""
        await asyncio.sleep(0.002)
        self.seen.add(order["id"], order["at"])

    def on_tick(self, ctx: Context) -> None:
        """Tell."""
        self.told.emit(self.seen.note(ctx))

    def on_end(self, ctx: Context) -> None:
        """Tell for the last time."""
        self.told.emit(self.seen.note(ctx))


@node
async def wait_a_little(counts: dict[str, int]) -> None:
    """Stand for a slow service."""
    await asyncio.sleep(0.01)


def mixed_graph(seed: int, load: float = 1.0) -> tuple[Graph, Node]:
    """Return the graph, and the node that collects what its sinks tell."""
    graph, collect = Graph("mixed"), Collect()
    clock, spreading = Clock(), Spread().options(replicas=2)
    counts = Counts().options(replicas=2, tick_s=0.2)
    graph.connect(Traffic(seed, load), spreading)
    graph.connect(Pictures(seed, load), spreading)
    graph.connect(clock.ticks, spreading)
    graph.connect(spreading, counts.messages, key="user")
    graph.connect(Settings(replicas=2), counts.settings)
    graph.connect(counts.counts, wait_a_little().options(concurrency=4))
    serving = Serve().options(replicas=2, concurrency=4, max_in_flight_per_key=1, tick_s=1.0)
    graph.connect(clock.orders, serving, key="customer", capacity=200)
    working = work().options(replicas=2, ordered=True)
    ordered = Checked("ordered", ordered=True).options(name="ordered", tick_s=1.0)
    graph.connect(Numbers("ordered", ORDERED_PER_S * load).options(name="to_order"), working)
    graph.connect(working, ordered.into)
    ones = Ones(load)
    newest, recent = Slow(0.02).options(name="newest"), Slow(0.01).options(name="recent")
    merged = Slow(0.02, "merged").options(name="merged")
    young = Slow(0.01).options(name="young")
    graph.connect(ones, newest, policy=latest())
    graph.connect(ones, recent, policy="drop_oldest", capacity=50)
    graph.connect(ones, merged, policy=coalesce(operator.add), capacity=4)
    graph.connect(ones, young, policy="drop", capacity=20, ttl_s=0.02)
    graph.fuse("newest", "recent")
    for told in (counts.told, serving.told, ordered.told):
        graph.connect(told, collect)
    return graph, collect


def drive(soak: Conduct) -> None:
    """Run the graph until the soak is over."""
    graph, collect = mixed_graph(soak.seed, soak.load)
    with soak.run(graph, collect):
        while soak.wait(1.0):
            pass
