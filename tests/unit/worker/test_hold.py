"""A held node: no data, no source, no end; control messages, ticks and hooks go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from loguru import logger

from dflow import Graph, Input, Node, Output, Priority, sink, source
from dflow.graph.plan import WorkerId
from dflow.transport.endpoint import close_context
from dflow.transport.link import OutLink
from dflow.wire.codec import Codec
from dflow.wire.frames import pack_batch, pack_end, parse
from dflow.worker.context import Context
from dflow.worker.handling import Handling
from dflow.worker.plane import DataPlane
from dflow.worker.pulse import Pulse
from dflow.worker.work import Work
from tests.support import unheard

CODEC = Codec()


@source
def numbers(count: int) -> Iterator[int]:
    """Yield ``count`` numbers."""
    yield from range(count)


@sink
def show(x: int) -> None:
    """Stand for whoever comes next."""


class Subject(Node):
    """Notes what it is given; yields as much as it is told."""

    data = Input(int)
    control = Input(int, priority=Priority.CONTROL, required=False)
    out = Output(int)

    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []

    @data.handler
    def handle(self, x: int) -> Iterator[int]:
        """Note a message and yield twice."""
        self.seen.append(("data", x))
        yield x
        yield x

    @control.handler
    def command(self, x: int) -> None:
        """Note a control message."""
        self.seen.append(("control", x))

    def on_tick(self) -> None:
        """Note a tick."""
        self.seen.append(("tick", 0))


class Nowhere(OutLink):
    """A connection to nobody."""

    def __init__(self) -> None:
        """Connect to nothing."""

    def send(self, frame: bytes) -> None:
        """Forget ``frame``."""

    def close(self) -> None:
        """Nothing is open."""


class Bench:
    """The work of one node; the test plays the rest of the worker."""

    def __init__(self, graph: Graph, name: str) -> None:
        self.plane = DataPlane(
            graph.plan(),
            WorkerId(name),
            token="",
            epoch=1,
            edge_key=graph.edge_key,
            on_violation=pytest.fail,
        )
        numbers = [n for edge in self.plane.outbound.edges for n in edge.channels]
        self.plane.outbound.links |= dict.fromkeys(numbers, Nowhere())
        self.pulse = Pulse(unheard(), b"x", stats_interval_s=1, remote=False)
        self.node: Any = graph.nodes[name].fresh()
        ctx = Context(name, 0, "run-1", logger)
        self.work = Work(self.node, ctx, self.plane, self.pulse, CODEC)
        self.plane.lock.acquire()
        self.work.begin()

    def receive(self, *values: int, port: str = "data", end: bool = False) -> None:
        """Put messages into an inbox."""
        channels = self.plane.inbound.channels.values()
        channel = next(ch for ch in channels if ch.port == port)
        payloads = [CODEC.encode(value) for value in values]
        first = channel.window.received
        channel.accept(parse(pack_batch(channel.number, 1, first, payloads, 0)))
        if end:
            channel.accept_end(parse(pack_end(channel.number, 1, first + len(values), 0)))
        self.plane.inbound.ready.push(channel)

    def work_off(self) -> None:
        """Do all there is to do."""
        while self.work.ready() and not self.work.at_end():
            self.work.step()

    @property
    def emitted(self) -> int:
        """Messages emitted so far."""
        return sum(edge.offered for edge in self.plane.outbound.edges)

    def close(self) -> None:
        """Close every socket."""
        self.plane.lock.release()
        self.plane.close()
        self.pulse.start()
        self.pulse.leave()


@pytest.fixture
def bench() -> Iterator[Callable[..., Bench]]:
    """Give benches; they are closed afterwards."""
    made: list[Bench] = []

    def make(graph: Graph, name: str) -> Bench:
        made.append(Bench(graph, name))
        return made[-1]

    yield make
    for one in made:
        one.close()
    close_context()


MakeBench = Callable[..., Bench]


def subject(make: MakeBench, **options: Any) -> Bench:
    """Return the bench of a `Subject` that is fed by a source for each input."""
    graph = Graph("g")
    node = Subject().options(name="subject", **{"tick_s": 60, **options})
    graph.connect(numbers(1), node.data)
    graph.connect(numbers(1), node.control)
    graph.add(node >> show())
    return make(graph, "subject")


def test_a_held_node_takes_no_data_until_it_is_let_go(bench: MakeBench) -> None:
    one = subject(bench)
    one.work.hold("paused", on=True)
    one.receive(1, 2)
    assert not one.work.ready()
    one.work.step()
    assert (one.work.held, one.node.seen) == (True, [])
    one.work.hold("paused", on=False)
    one.work_off()
    assert one.node.seen == [("data", 1), ("data", 2)]


def test_a_held_node_handles_control_messages(bench: MakeBench) -> None:
    one = subject(bench)
    one.work.hold("paused", on=True)
    one.receive(1, 2)
    one.receive(7, port="control")
    one.work_off()
    assert one.node.seen == [("control", 7)]


def test_every_reason_must_be_gone(bench: MakeBench) -> None:
    one = subject(bench)
    for reason in ("paused", "turn", "paused"):
        one.work.hold(reason, on=True)
    one.receive(1)
    one.work.hold("paused", on=False)
    one.work.hold("never said", on=False)
    assert not one.work.ready()
    one.work.hold("turn", on=False)
    assert one.work.ready()


def test_a_held_node_ticks(bench: MakeBench) -> None:
    one = subject(bench, tick_s=1e-9)
    one.work.hold("turn", on=True)
    one.receive(1)
    one.work.step()
    assert ("tick", 0) in one.node.seen
    assert ("data", 1) not in one.node.seen


def test_a_held_node_leaves_a_paused_generator_where_it_is(bench: MakeBench) -> None:
    one = subject(bench)
    one.receive(1)
    channel = next(iter(one.plane.inbound.channels.values()))
    one.work.dispatch.paused.append((iter([5]), Handling(channel, 0)))
    one.work.hold("paused", on=True)
    assert not one.work.ready()
    assert not one.work.resume()
    one.work.hold("paused", on=False)
    assert one.work.resume()
    assert one.emitted == 1


def test_a_held_node_lets_a_generator_of_a_hook_go_on(bench: MakeBench) -> None:
    one = subject(bench)
    one.work.dispatch.paused.append((iter([5]), None))
    one.work.hold("paused", on=True)
    assert one.work.ready()
    assert one.work.resume()
    assert one.emitted == 1


def test_a_held_node_does_not_reach_its_end(bench: MakeBench) -> None:
    graph = Graph("g", numbers(0) >> show())
    one = bench(graph, "show")
    one.plane.inbound.inputs["show"].open = 0  # as after END
    one.work.hold("paused", on=True)
    assert not one.work.at_end()
    assert not one.work.ready()
    one.work.hold("paused", on=False)
    assert one.work.at_end()


def test_a_held_source_is_not_pulled(bench: MakeBench) -> None:
    one = bench(Graph("g", numbers(5) >> show()), "numbers")
    one.work.hold("turn", on=True)
    assert not one.work.ready()
    one.work.step()
    assert (one.emitted, one.work.at_end()) == (0, False)
    one.work.hold("turn", on=False)
    for _ in range(10):
        one.work.step()
    assert (one.emitted, one.work.at_end()) == (5, True)
