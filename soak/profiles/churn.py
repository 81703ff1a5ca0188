"""Profile *churn*: what comes and goes, errs and dies, beside a run that has to stay as it is.

One long run has nodes that raise, and consumers that become slow for a while and fast again.
Beside it short runs are started one after the other: they finish, are drained, aborted, end by an
error of user code, lose a worker to SIGKILL, or have a reader of results who leaves. Each must
leave nothing: its processes are looked for when it is over.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil

from dflow import (
    Context,
    Graph,
    HookFailed,
    Input,
    Node,
    Output,
    Priority,
    Run,
    WorkerDied,
    node,
    sink,
    source,
)
from dflow.errors import DflowError
from soak.conduct import Conduct
from soak.streams import Collect, Seen, Sent, now_ns, paced

__all__ = ["churn_graph", "drive"]

PER_S = 300.0
PAUSE_S = 0.5
SHORT_S = 0.3
GONE_S = 5.0
Message = dict[str, Any]


def fails(number: int) -> bool:
    """Return whether the nodes of the long run raise on this message."""
    return number % 7 == 3


class Steady(Node):
    """A source of numbered messages at a rate."""

    out = Output(dict)

    def __init__(self, load: float) -> None:
        self.load = load

    def produce(self, ctx: Context) -> Iterator[Message]:
        """Yield until the run drains."""
        sent = Sent("steady")
        for number in paced(ctx, PER_S * self.load):
            yield {"id": number, "at": now_ns()}
            sent.add(number, 0 if fails(number) else 1)
        sent.note(ctx)


@node
def flaky(message: Message) -> Message:
    """Raise on some messages."""
    if fails(message["id"]):
        raise RuntimeError(f"message {message['id']}: raised on purpose")
    return message


class Moody(Node):
    """A consumer that is as slow as it was told last.

    ``stream`` is what it has to get all of; empty if it gets what there is room for.
    """

    into = Input(dict)
    mood = Input(float, priority=Priority.CONTROL)
    told = Output(dict)

    def __init__(self, stream: str) -> None:
        self.seen = Seen(stream)
        self.pause_s = 0.0

    @into.handler
    def take(self, message: Message) -> None:
        """Count it, slowly or not."""
        self.seen.add(message["id"], message["at"])
        if self.pause_s:
            time.sleep(self.pause_s)

    @mood.handler
    def change(self, pause_s: float) -> None:
        """Be as slow as that from now on."""
        self.pause_s = pause_s

    def on_tick(self, ctx: Context) -> None:
        """Tell."""
        if self.seen.stream:
            self.told.emit(self.seen.note(ctx))

    def on_end(self, ctx: Context) -> None:
        """Tell for the last time."""
        self.on_tick(ctx)


def churn_graph(load: float = 1.0) -> tuple[Graph, Node]:
    """Return the long run's graph, and the node that collects what its sinks tell."""
    graph, collect = Graph("churn"), Collect()
    bad = flaky().options(replicas=2)
    consumer = Moody("steady").options(name="consumer", tick_s=1.0)
    bystander = Moody("").options(name="bystander", tick_s=1.0)
    graph.connect(Steady(load), bad)
    graph.connect(bad, consumer.into, capacity=256)
    graph.connect(bad, bystander.into, policy="drop_oldest", capacity=20)
    graph.connect(consumer.told, collect)
    return graph, collect


# --- short runs --------------------------------------------------------------------------------


@source
def counted(count: int, ctx: Context) -> Iterator[int]:
    """Yield numbers, and say which."""
    sent = Sent("short")
    for number in range(count):
        yield number
        sent.add(number)
    sent.note(ctx)


@source
def endless(ctx: Context) -> Iterator[int]:
    """Yield until the run drains."""
    sent = Sent("short")
    for number in paced(ctx, 2000):
        yield number
        sent.add(number)
    sent.note(ctx)


@node
def same(number: int) -> int:
    """Return it."""
    return number


@node
def choke(number: int) -> int:
    """Raise on the hundredth."""
    if number == 100:
        raise RuntimeError("raised on purpose: this ends the run")
    return number


class Count(Node):
    """A sink that counts what comes."""

    into = Input(int)

    def __init__(self) -> None:
        self.seen = Seen("short")

    @into.handler
    def take(self, number: int) -> None:
        """Count it."""
        self.seen.add(number)

    def on_end(self, ctx: Context) -> None:
        """Say what came."""
        self.seen.note(ctx)


@sink
def swallow(number: int) -> None:
    """Take it."""


def finishes(soak: Conduct) -> None:
    """Run until the source is exhausted."""
    with _short(
        soak, Graph("finishes", counted(2000) >> same().options(replicas=2) >> Count())
    ) as run:
        run.wait(timeout_s=60)


def drained(soak: Conduct) -> None:
    """Run for a moment and drain."""
    with _short(soak, Graph("drained", endless() >> same() >> Count())):
        soak.wait(SHORT_S)


def aborted(soak: Conduct) -> None:
    """Run for a moment and cut it short."""
    with _short(soak, Graph("aborted", endless() >> same() >> swallow())) as run:
        soak.wait(SHORT_S)
        run.abort("cut short on purpose")


def errs(soak: Conduct) -> None:
    """Run until a node raises that ends the run by that."""
    graph = Graph("errs", endless() >> choke().options(on_error="stop") >> swallow())
    with _short(soak, graph, expected=HookFailed) as run:
        run.wait(timeout_s=60)


def killed(soak: Conduct) -> None:
    """Kill a worker in the middle."""
    graph = Graph("killed", endless() >> same() >> swallow())
    with _short(soak, graph, expected=WorkerDied) as run:
        soak.wait(SHORT_S)
        os.kill(run.pids["same[0]"], signal.SIGKILL)
        run.wait(timeout_s=60)


def unread(soak: Conduct) -> None:
    """Read a few results and leave; those not read are thrown away."""
    last = same()
    graph = Graph("unread", endless() >> last)
    before = _children()
    with graph.start(results=last, log_level="CRITICAL") as run:
        results = run.results()
        for _ in range(20):
            next(results)
    soak.close_books("unread", run.wait())
    _all_gone(soak, before, "unread")


SHORT: tuple[Callable[[Conduct], None], ...] = (finishes, drained, aborted, errs, killed, unread)


@contextmanager
def _short(soak: Conduct, graph: Graph, expected: type[DflowError] | None = None) -> Iterator[Run]:
    """Run a graph in a ``with`` block, and look for its processes when it is over."""
    before = _children()
    with soak.run(graph, label=graph.name, expected=expected, log_level="CRITICAL") as run:
        yield run
    _all_gone(soak, before, graph.name)


def _children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


def _all_gone(soak: Conduct, before: set[int], name: str) -> None:
    """Fail the soak if processes are left that were not there before."""
    new = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
    _, alive = psutil.wait_procs(new, timeout=GONE_S)
    if alive:
        soak.fail(f"run {name} left {len(alive)} processes behind")


def drive(soak: Conduct) -> None:
    """Keep the long run going, and short ones coming, until the soak is over."""
    graph, collect = churn_graph(soak.load)
    chance = random.Random(soak.seed)
    slow = ""
    number = 0
    with soak.run(graph, collect) as run:
        while soak.wait(PAUSE_S):
            kind = SHORT[number % len(SHORT)]
            number += 1
            if slow:
                run.send(f"{slow}.mood", 0.0)
            slow = chance.choice(["consumer", "bystander", ""])
            if slow:
                run.send(f"{slow}.mood", chance.uniform(0.001, 0.01))
            kind(soak)
