"""One replica in a thread: its loop, its pulse and its user code. The test is everybody else.

It plays the coordinator over a real control socket, and the neighbour over real data sockets.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeVar

import pytest
from loguru import logger

from dflow import Context, Graph, Input, Node, Output, sink, source
from dflow.flow.out_edge import OutEdge
from dflow.graph.plan import WorkerId
from dflow.message import Priority
from dflow.stats import WorkerStats
from dflow.transport.control import ControlRouter
from dflow.transport.endpoint import close_context, wait
from dflow.wire import control as c
from dflow.wire import frames as f
from dflow.wire.codec import Codec
from dflow.worker.context import Context as WorkerContext
from dflow.worker.loop import WorkerLoop
from dflow.worker.plane import DataPlane
from dflow.worker.pulse import Pulse
from dflow.worker.spin import Spin
from dflow.worker.work import Work
from tests.support import eventually

PATIENCE_S = 10.0
TOKEN = "token-of-the-run"
ME = b"worker"
CODEC = Codec()
_Message = TypeVar("_Message", bound=c.Control)


def fresh() -> str:
    """Return an endpoint inside this process."""
    return f"inproc://{secrets.token_hex(6)}"


class Stage:
    """The replica ``name`` of ``graph``; ``peer`` is the data plane of its only neighbour."""

    def __init__(self, graph: Graph, name: str, neighbour: str, *, peer_token: str = TOKEN) -> None:
        self.plan = graph.plan()
        self.me = WorkerId(name)
        self.router = ControlRouter(fresh())
        self.peer_violations: list[str] = []
        self.peer = self._plane(graph, WorkerId(neighbour), peer_token, self.peer_violations.append)
        self.pulse = Pulse(self.router.endpoint, ME, stats_interval_s=60, remote=False)
        self.pulse.start()
        ctx = WorkerContext(name, 0, "run-1", logger)
        self.plane = self._plane(graph, self.me, TOKEN, lambda text: self.loop.violated(text))
        node = graph.nodes[name].fresh()
        work = Work(node, ctx, self.plane, self.pulse, CODEC)
        self.work = work
        spin_s = node.node_options.spin_s
        self.loop = WorkerLoop(work, self.plane, self.pulse, ctx, fresh, spin_s)
        self.pulse.attach(self.plane, work.stats, lambda: None, self.loop.leave)
        self.thread = threading.Thread(target=self.loop.run)
        self.thread.start()
        self.pulse.post(c.Heartbeat())  # so that the router knows whom to answer
        self.expect(c.Heartbeat)

    def _plane(
        self, graph: Graph, me: WorkerId, token: str, on_violation: Callable[[str], None]
    ) -> DataPlane:
        return DataPlane(
            self.plan, me, token=token, epoch=1, edge_key=graph.edge_key, on_violation=on_violation
        )

    # --- the coordinator ------------------------------------------------------------------------

    def say(self, *messages: c.Control) -> None:
        """Send commands."""
        for message in messages:
            assert self.router.send(ME, c.encode(message))

    def expect(self, kind: type[_Message]) -> _Message:
        """Return the replica's next word, which must be a ``kind``."""
        assert wait([self.router.socket], PATIENCE_S), f"expected {kind.__name__}, heard nothing"
        received = self.router.receive()
        assert received is not None
        message = c.decode(received[1][0])
        assert isinstance(message, kind), f"expected {kind.__name__}, got {message}"
        return message

    def link(self) -> None:
        """Assign, bind both sides, and say where the channels lead."""
        self.say(c.Assign(self.me.node, 0, "run-1", 1))
        bound = self.expect(c.Bound).endpoints
        listening = self.peer.inbound.bind(fresh)
        normal = int(Priority.NORMAL)
        mine = [ch.number for ch in self.plan.channels if ch.sender == self.me]
        self.peer.outbound.open(
            [ch.number, bound[normal]] for ch in self.plan.channels if ch.receiver == self.me
        )
        self.say(c.Link([[number, listening[normal]] for number in mine]))

    def ready(self) -> None:
        """Bring the replica to READY."""
        self.link()
        self.hear(lambda: wait([self.router.socket], 0))
        self.expect(c.Linked)
        self.say(c.Start())
        self.expect(c.Started)

    def run(self) -> None:
        """Bring the replica to RUNNING."""
        self.ready()
        self.say(c.Run())

    def stop(self) -> WorkerStats:
        """Let the replica stop; return its final counters."""
        self.expect(c.Drained)
        self.say(c.Stop())
        return self.leave()

    def leave(self) -> WorkerStats:
        """Wait for `Stopped`, let the replica go, and return its final counters."""
        stats = WorkerStats.from_wire(self.expect(c.Stopped).stats)
        self.say(c.Exit())
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()
        assert self.loop.left == ""
        return stats

    # --- the neighbour --------------------------------------------------------------------------

    def hear(self, condition: Callable[[], object]) -> None:
        """Take in what the replica sends to its neighbour until ``condition`` holds."""

        def heard() -> object:
            self.peer.receive(self.peer.poller.wait(0.001))
            self.peer.inbound.grant(idle=True)
            return condition()

        eventually(heard, within_s=PATIENCE_S)

    def values(self, count: int) -> list[Any]:
        """Return the next ``count`` values the replica sent."""
        found: list[Any] = []

        def enough() -> bool:
            found.extend(self.take())
            return len(found) >= count

        self.hear(enough)
        return found

    def take(self) -> list[Any]:
        """Return the values that have arrived by now."""
        (channel,) = self.peer.inbound.channels.values()
        found: list[Any] = []
        while channel.inbox:
            batch = channel.inbox[0]
            found += CODEC.decode_batch(batch.body, batch.count)
            channel.take(batch.count)
            channel.finish(batch.count)
        return found

    def ended(self) -> bool:
        """Whether the replica has sent END; takes what came before it."""
        self.take()
        return all(inputs.exhausted for inputs in self.peer.inbound.inputs.values())

    def send(self, *values: Any, end: bool = False) -> None:
        """Send values to the replica, and END."""
        (edge,) = self.peer.outbound.edges
        assert isinstance(edge, OutEdge)
        for value in values:
            edge.lanes[0].push(CODEC.encode(value))

        def gone() -> bool:
            self.peer.pump()
            return not self.peer.outbound.unsent

        self.hear(gone)
        if end:
            self.peer.outbound.end(self.peer.outbound.edges)

    def close(self) -> None:
        """End whatever still runs, and close every socket."""
        if self.thread.is_alive():
            self.loop.leave("the test is over")
            self.thread.join(PATIENCE_S)
        self.work.close()
        self.plane.close()
        self.pulse.leave()
        self.peer.close()
        self.router.socket.close(0)


@pytest.fixture
def stage() -> Iterator[Callable[..., Stage]]:
    """Give stages; they are closed afterwards."""
    made: list[Stage] = []
    for event in (BUSY, GO_ON, STOPPED):
        event.clear()

    def make(graph: Graph, name: str, neighbour: str, **options: str) -> Stage:
        made.append(Stage(graph, name, neighbour, **options))
        return made[-1]

    yield make
    GO_ON.set()
    for one in made:
        one.close()
    close_context()


MakeStage = Callable[..., Stage]


@sink
def show(x: int) -> None:
    """Stand for the neighbour."""


@source
def feed() -> Iterator[int]:
    """Stand for the neighbour."""
    yield 0


BUSY, GO_ON, STOPPED = threading.Event(), threading.Event(), threading.Event()
"""What user code and test tell each other; at the top, as nothing else can be shipped."""


@source
def burst() -> Iterator[int]:
    """Yield two values, then block."""
    yield 1
    yield 2
    GO_ON.wait()


class Slow(Node):
    """Blocks while it handles a message."""

    numbers = Input(int)

    @numbers.handler
    def handle(self, x: int) -> None:
        """Block until the test says so."""
        BUSY.set()
        GO_ON.wait()

    def on_stop(self) -> None:
        """Tell that it was called."""
        STOPPED.set()


def sending(make: MakeStage, node: Any, **options: str) -> Stage:
    """Return a stage that runs a source called ``subject``."""
    graph = Graph("g", node.options(name="subject") >> show())
    return make(graph, "subject", "show", **options)


def receiving(make: MakeStage, node: Any) -> Stage:
    """Return a stage that runs a sink called ``subject``."""
    return make(Graph("g", feed() >> node.options(name="subject")), "subject", "feed")


# --- an ordinary life -----------------------------------------------------------------------------


def test_a_source_sends_everything_then_end_and_its_books_say_so(stage: MakeStage) -> None:
    @source
    def numbers(count: int) -> Iterator[int]:
        yield from range(count)

    one = sending(stage, numbers(3000))
    one.run()
    assert one.values(3000) == list(range(3000))
    one.hear(one.ended)
    stats = one.stop()
    assert (stats.node.emitted, stats.offered, stats.unsent) == (3000, {0: 3000}, {0: 0})
    assert one.peer_violations == []


def test_a_sink_handles_everything_before_it_is_drained(stage: MakeStage) -> None:
    got: list[int] = []

    @sink
    def keep(x: int) -> None:
        got.append(x)

    one = receiving(stage, keep())
    one.run()
    one.send(*range(2500), end=True)
    stats = one.stop()
    assert got == list(range(2500))
    (row,) = stats.ins
    assert (stats.node.handled, row.received, row.delivered, row.done) == (2500,) * 4


def spinning(stage: MakeStage, got: list[int]) -> tuple[Stage, Spin]:
    """Return a sink that keeps looking for as long as it runs."""

    @sink(spin_s=3600)
    def keep(x: int) -> None:
        got.append(x)

    one = receiving(stage, keep())
    assert one.loop.spin is not None
    one.run()
    return one, one.loop.spin


def test_a_spinning_worker_looks_for_messages_and_obeys(stage: MakeStage) -> None:
    got: list[int] = []
    one, spin = spinning(stage, got)
    for number in range(3):
        before = spin.looks
        one.hear(lambda before=before: spin.looks > before + 10)  # type: ignore[misc]  # a default
        one.send(number)
        one.hear(lambda number=number: len(got) > number)  # type: ignore[misc]  # a default
    one.send(end=True)
    assert one.stop().node.handled == 3


def test_a_paused_worker_does_not_spin(stage: MakeStage) -> None:
    one, spin = spinning(stage, [])
    one.say(c.Pause("keep", 1, 1))
    one.expect(c.Held)
    before = spin.looks
    one.say(c.Pause("keep", 1, 2))
    one.expect(c.Held)
    assert spin.looks == before
    one.say(c.Pause("keep", 0, 3))
    one.expect(c.Held)
    one.hear(lambda: spin.looks > before)


def test_a_worker_that_takes_turns_does_not_spin_after_its_turn(stage: MakeStage) -> None:
    one, spin = spinning(stage, [])
    one.say(c.Turn(3600))
    assert one.expect(c.TurnOver).wanting == 0
    before = spin.looks
    one.say(c.Pause("", 0, 1))
    one.expect(c.Held)
    assert spin.looks == before
    one.say(c.Turn(0))
    one.hear(lambda: spin.looks > before)


def test_an_async_sink_handles_everything_before_it_is_drained(stage: MakeStage) -> None:
    got: list[int] = []

    @sink
    async def keep(x: int) -> None:
        got.append(x)

    one = receiving(stage, keep().options(concurrency=8))
    one.run()
    one.send(*range(300), end=True)
    (row,) = one.stop().ins
    assert sorted(got) == list(range(300))
    assert (row.delivered, row.done) == (300, 300)


def test_an_async_source_is_run_to_its_end(stage: MakeStage) -> None:
    @source
    async def numbers() -> AsyncIterator[int]:
        for number in range(200):
            yield number

    one = sending(stage, numbers())
    one.run()
    assert one.values(200) == list(range(200))
    one.stop()


def test_hooks_are_called_in_order_and_on_end_may_emit(stage: MakeStage) -> None:
    calls: list[str] = []

    class Subject(Node):
        out = Output(int)

        def on_start(self, ctx: Context) -> None:
            calls.append("on_start")

        def produce(self, ctx: Context) -> Iterator[int]:
            calls.append("produce")
            yield 1

        def on_end(self) -> Iterator[int]:
            calls.append("on_end")
            yield 2

        def on_stop(self) -> None:
            calls.append("on_stop")

    one = sending(stage, Subject())
    one.run()
    assert one.values(2) == [1, 2]
    one.stop()
    assert calls == ["on_start", "produce", "on_end", "on_stop"]


def test_what_a_blocked_source_has_yielded_is_not_stranded(stage: MakeStage) -> None:
    one = sending(stage, burst())
    one.run()
    assert one.values(2) == [1, 2]  # while the generator still blocks
    GO_ON.set()
    one.stop()


def test_drain_ends_a_source_and_runs_its_finally(stage: MakeStage) -> None:
    closed: list[bool] = []

    @source
    def forever() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    one = sending(stage, forever())
    one.run()
    one.values(10)
    one.say(c.Drain())
    one.hear(one.ended)
    assert closed == [True]
    one.stop()


# --- what goes wrong ------------------------------------------------------------------------------


def test_a_pulse_reports_as_often_as_the_coordinator_says() -> None:
    router = ControlRouter(fresh())
    pulse = Pulse(router.endpoint, ME, stats_interval_s=60, remote=False)
    pulse.start()
    pulse.post(c.Hello("worker", TOKEN, 1, "here", "a", 0, ""))
    heard: list[str] = []
    while len(heard) < 3:
        assert wait([router.socket], PATIENCE_S)
        received = router.receive()
        assert received is not None
        heard.append(type(c.decode(received[1][0])).__name__)
        if len(heard) == 1:
            told = c.Assign("a", 0, "run-1", 1, options={"stats_interval_s": 0.001})
            assert router.send(ME, c.encode(told))
    pulse.leave()
    router.socket.close(0)
    close_context()
    assert heard == ["Hello", "Heartbeat", "Heartbeat"]


def test_a_pulse_says_nothing_before_it_was_introduced() -> None:
    router = ControlRouter(fresh())
    pulse = Pulse(router.endpoint, ME, stats_interval_s=0.001, remote=False)
    pulse.start()
    assert not wait([router.socket], 0.05)  # fifty times longer than between two reports
    pulse.post(c.Hello("worker", TOKEN, 1, "here", "a", 0, ""))
    heard: list[str] = []
    while len(heard) < 3:
        assert wait([router.socket], PATIENCE_S)
        received = router.receive()
        assert received is not None
        heard.append(type(c.decode(received[1][0])).__name__)
    pulse.leave()
    router.socket.close(0)
    close_context()
    assert heard == ["Hello", "Heartbeat", "Heartbeat"]


class Failing(Node):
    """Raises where it is told to; with ``yields`` from a generator."""

    numbers = Input(int)
    out = Output(int, required=False)

    def __init__(self, where: str) -> None:
        self.where = where

    def _maybe(self, where: str) -> None:
        if where == self.where:
            raise RuntimeError(f"{where} failed")

    @numbers.handler
    def handle(self, x: int) -> None:
        """Raise, or do nothing."""
        self._maybe("handler")

    def on_start(self) -> Iterator[int]:
        """Raise, or yield nothing."""
        self._maybe("on_start")
        yield from ()

    def on_tick(self) -> None:
        """Raise, or do nothing."""
        self._maybe("on_tick")

    def on_end(self) -> Iterator[int]:
        """Raise, or yield nothing."""
        self._maybe("on_end")
        yield from ()


@pytest.mark.parametrize("on_error", ["skip", "stop"])
def test_an_on_start_that_raises_ends_the_run_whatever_on_error_says(
    stage: MakeStage, on_error: str
) -> None:
    one = receiving(stage, Failing("on_start").options(tick_s=60, on_error=on_error))
    one.link()
    one.hear(lambda: wait([one.router.socket], 0))
    one.expect(c.Linked)
    one.say(c.Start())
    failed = one.expect(c.Failed)
    assert failed.where == "on_start"
    assert "RuntimeError: on_start failed" in failed.error
    assert failed.traceback.startswith("Traceback")
    one.say(c.Abort("a worker failed"))
    one.leave()


@pytest.mark.parametrize("where", ["handler", "on_tick", "on_end"])
def test_an_error_ends_the_run_when_asked_to(stage: MakeStage, where: str) -> None:
    one = receiving(stage, Failing(where).options(tick_s=0.001, on_error="stop"))
    one.run()
    one.send(1, end=where != "on_tick")  # a node that has ended does not tick
    assert f"{where} failed" in one.expect(c.Failed).error
    one.say(c.Abort("a worker failed"))
    one.leave()


@pytest.mark.parametrize("where", ["handler", "on_end"])
def test_an_error_is_counted_and_skipped_by_default(stage: MakeStage, where: str) -> None:
    one = receiving(stage, Failing(where).options(tick_s=60))
    one.run()
    one.send(1, end=True)
    assert one.stop().node.errors == 1


class Late(Node):
    """Is slow at its end, and raises."""

    numbers = Input(int)
    out = Output(int, required=False)

    @numbers.handler
    def handle(self, x: int) -> None:
        """Do nothing."""

    def on_end(self) -> Iterator[int]:
        """Raise, late, before there is a value."""
        BUSY.set()
        GO_ON.wait()
        yield from ()
        raise RuntimeError("on_end failed")


def test_a_slow_on_end_that_raises_does_not_wait_for_a_word_of_anybody(stage: MakeStage) -> None:
    one = receiving(stage, Late())
    one.run()
    one.send(1, end=True)
    assert BUSY.wait(PATIENCE_S)
    eventually(lambda: one.plane.gate.shut, within_s=PATIENCE_S, what="the pulse to end the turn")
    GO_ON.set()
    assert one.stop().node.errors == 1


@pytest.mark.parametrize("on_error", ["skip", "stop"])
def test_what_cannot_be_decoded_is_not_blamed_on_the_function_that_gets_it(
    stage: MakeStage, on_error: str
) -> None:
    lines: list[str] = []
    written = logger.add(lines.append, format="{message}", level="ERROR")
    try:
        one = receiving(stage, show().options(on_error=on_error))
        one.run()
        (edge,) = one.peer.outbound.edges
        assert isinstance(edge, OutEdge)
        edge.lanes[0].push(b"\xc7\x01\x63x")  # an extension nobody knows
        one.send(1, end=True)
        if on_error == "stop":
            lines.append(one.expect(c.Failed).error)
            one.say(c.Abort("a worker failed"))
            one.leave()
        else:
            stats = one.stop().node
            assert (stats.handled, stats.errors) == (1, 1)
    finally:
        logger.remove(written)
    (line,) = lines
    assert "DecodeError: expected a" in line
    assert "emitted by" not in line


async def cancels_its_own() -> None:
    """Await a task that was cancelled, as user code may forget to guard."""
    task = asyncio.get_running_loop().create_task(asyncio.sleep(3600))
    task.cancel()
    await task


class Cancelling(Node):
    """Lets a CancelledError out where it is told to."""

    numbers = Input(int)

    def __init__(self, where: str) -> None:
        self.where = where

    @numbers.handler
    async def handle(self, x: int) -> None:
        """Let it out, or do nothing."""
        if self.where == "handler":
            await cancels_its_own()

    async def on_end(self) -> None:
        """Let it out, or do nothing."""
        if self.where == "on_end":
            await cancels_its_own()


@pytest.mark.parametrize("where", ["handler", "on_end"])
def test_a_cancellation_of_the_users_own_is_an_error_like_any_other(
    stage: MakeStage, where: str
) -> None:
    one = receiving(stage, Cancelling(where).options(on_error="stop"))
    one.run()
    one.send(1, end=True)
    failed = one.expect(c.Failed)
    assert failed.where == where
    assert "CancelledError" in failed.error
    assert "in cancels_its_own" in failed.traceback
    one.say(c.Abort("a worker failed"))
    one.leave()


def test_a_peer_that_breaks_the_protocol_ends_the_run(stage: MakeStage) -> None:
    one = receiving(stage, show())
    one.run()
    (link,) = one.peer.outbound.links.values()
    link.send(f.pack_batch(0, 1, 5, [b"\x01"], 0))
    failed = one.expect(c.Failed)
    assert failed.where == "protocol"
    assert "expected sequence 0, got 5" in failed.error


def test_a_refused_channel_is_told_before_the_run_starts(stage: MakeStage) -> None:
    one = sending(stage, feed(), peer_token="of another run")
    one.link()
    one.hear(lambda: wait([one.router.socket], 0))
    assert one.expect(c.Failed).where == "protocol"
    one.say(c.Abort("a worker failed"))
    one.leave()


def test_a_command_out_of_order_is_ignored(stage: MakeStage) -> None:
    one = sending(stage, feed())
    one.say(c.Run(), c.Stop())
    one.run()
    assert one.values(1) == [0]
    one.stop()


def test_abort_calls_on_stop_and_counts_what_was_left(stage: MakeStage) -> None:
    one = receiving(stage, Slow())
    one.run()
    one.send(1, 2, 3)
    assert BUSY.wait(PATIENCE_S)
    one.say(c.Abort("asked to"))
    eventually(lambda: one.pulse.commands, within_s=PATIENCE_S)
    GO_ON.set()
    (row,) = one.leave().ins
    assert (row.received, row.delivered, STOPPED.is_set()) == (3, 1, True)


def test_a_lost_coordinator_ends_the_loop(stage: MakeStage) -> None:
    one = receiving(stage, show())
    one.run()
    one.loop.leave("no word from the coordinator")
    one.thread.join(PATIENCE_S)
    assert not one.thread.is_alive()
    assert one.loop.left == "no word from the coordinator"
