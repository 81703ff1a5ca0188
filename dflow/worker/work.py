"""All that runs user code in a worker: handlers, source, hooks and ticks of one replica.

The loop asks two questions, `ready` (is there something to do now?) and `at_end` (will there
ever be?), and says `step`. Everything here is called with the data plane's lock held and
gives it up only around user code.

A node that is *held* (`Work.hold`) behaves like one that waits for credit, and does not reach
its end either: control messages, ticks and hooks go on.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from dflow.flow.queue_edge import QueueEdge
from dflow.message import Priority
from dflow.stats import WorkerStats
from dflow.wire.restoring import restorer
from dflow.worker.account import Account
from dflow.worker.aio import AsyncRunner
from dflow.worker.chain import Station, Through, no_way
from dflow.worker.context import (
    Context,
    Discard,
    Unconsumed,
    Watch,
    current_headers,
    make_emitters,
    refuse_results,
    refusing_emitters,
)
from dflow.worker.dispatch import MAX_TURN, PROMPT_TURN_NS, TURN_NS, Dispatcher
from dflow.worker.events import EventLoop
from dflow.worker.feed import Feed
from dflow.worker.ordered import Order
from dflow.worker.state import HookRaised
from dflow.worker.ticks import Ticks
from dflow.worker.user_code import UserCode

if TYPE_CHECKING:
    from dflow.flow.in_edge import InChannel
    from dflow.graph.node import Handler, Node
    from dflow.wire.codec import Codec
    from dflow.worker.plane import DataPlane
    from dflow.worker.pulse import Pulse
    from dflow.worker.way import Way

__all__ = ["Work"]


class Work:
    """The user code of one replica. ``tasks`` and ``dispatch`` run its handlers, for ``turn_ns``.

    ``events``: the worker's asyncio loop, if several nodes share one. ``watch`` sees what it emits.
    """

    def __init__(
        self,
        node: Node,
        ctx: Context,
        plane: DataPlane,
        pulse: Pulse,
        codec: Codec,
        *,
        check_types: bool = False,
        events: Callable[[], EventLoop] = EventLoop,
        watch: Watch | None = None,
    ) -> None:
        self._events = events
        self._node = node
        self._options, self._ctx = node.node_options, ctx
        self._plane, self._pulse = plane, pulse
        self._inputs, self._outputs = plane.inbound.inputs[ctx.node], plane.outputs(ctx.node)
        self._code = UserCode(node, ctx, plane, pulse, self._outputs)
        self._ticks = Ticks(self._options.tick_s)
        self._holds: set[str] = set()
        self._closing = False
        self._waiting: int | None = None
        self._overdraft = min((e.capacity for e in plane.plan.out_edges(ctx.node)), default=1)
        self._handlers = _bind_inputs(node, ctx)
        self._order = self._make_order()
        emitters = make_emitters(
            node, plane, codec, check_types=check_types, order=self._order, watch=watch
        )
        ctx.attach(emitters.by_port)
        node.attach(emitters.by_port)
        port = node.main_output or "out"
        self._emit = emitters.by_port.get(port) or refuse_results(ctx.node, list(node.outputs))
        self._direct = emitters.direct.get(port) if node.outputs else Discard()
        for edge in self._outputs.edges:
            if isinstance(edge, QueueEdge):
                edge.on_merge_error = self._code.say
        prompt = any(map(plane.plan.takes_control, plane.inbound.inputs))
        self.turn_ns = PROMPT_TURN_NS if prompt else TURN_NS
        self.dispatch = Dispatcher(
            self._handlers,
            self._emit,
            codec,
            plane.gate,
            self._code.failed,
            self._direct,
            self.turn_ns,
            self._order,
            plane.clock,
        )
        plane.canceller.watch(self.dispatch)
        ctx.follow(lambda: self.dispatch.handling)
        if len(self._handlers) == 1:
            self._code.emitter = next(iter(self._handlers.values())).call
        self.way_through: Through = no_way
        self._way: Way | None = None  # of the turn at hand
        self.tasks: AsyncRunner | None = None
        self._feed = self._make_feed() if node.kind == "source" else None
        if any(handler.is_async for handler in self._handlers.values()):
            self._need_tasks()
        self.node_stats = self._make_account(emitters.unconsumed).node_stats

    def _make_account(self, unconsumed: Sequence[Unconsumed]) -> Account:
        return Account(
            self.station(), self._code, lambda: self.tasks, self._ticks, unconsumed,
            self._plane, self._pulse,
        )  # fmt: skip

    def _make_feed(self) -> Feed:
        return Feed(
            lambda: self._node.bind_source(self._ctx)(),
            self._code,
            self._plane.gate,
            self._emit,
            self._direct,
            self._need_tasks,
            self._plane.clock,
        )

    def _make_order(self) -> Order | None:
        """Return the line in which results leave, where they would not by themselves."""
        overtaking = any(handler.is_async for handler in self._handlers.values())
        if not self._options.ordered or not (overtaking or self._options.replicas > 1):
            return None
        queued = [edge for edge in self._outputs.edges if isinstance(edge, QueueEdge)]
        order = Order(queued, self._code.failed)
        self._outputs.orders.append(order)
        return order

    def _need_tasks(self) -> AsyncRunner:
        if self.tasks is None:
            self.tasks = AsyncRunner(
                self._options.concurrency,
                self._emit,
                self._code.failed,
                self._waits,
                self._order,
                self.turn_ns,
                self._events(),
                self._plane.clock,
                self.name if len(self._plane.inbound.inputs) > 1 else "",
            )
            self._plane.canceller.watch(tasks=self.tasks)
            self._pulse.wake_after_flush = True
        return self.tasks

    def station(self) -> Station:
        """Return what a chain of fused nodes knows of this one."""
        return Station(
            self._node, self._ctx, self._handlers, self._emit, self._direct, self.dispatch,
            self._feed, self._inputs, self._outputs, self._holds, self._order,
        )  # fmt: skip

    # --- what the loop asks ----------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The name of the node."""
        return self._ctx.node

    @property
    def fed(self) -> bool:
        """Whether planned edges end at the node, so that it ends when they do."""
        return self._inputs.fed

    @property
    def running(self) -> bool:
        """Whether the user code that runs now, or ran last, is this node's."""
        if self._way is not None:
            return self._way.at_source
        return self._plane.running is self._outputs

    @property
    def flushed(self) -> bool:
        """Whether all it has emitted is on its way, and nothing more to come waits for credit."""
        return not self.dispatch.paused and not self._outputs.unsent

    @property
    def raised(self) -> HookRaised | None:
        """The error that must end the run, if there was one."""
        return self._code.raised

    @property
    def paused(self) -> bool:
        """Whether a generator waits for credit."""
        return bool(self.dispatch.paused)

    @property
    def held(self) -> bool:
        """Whether any reason to hold the node is left."""
        return bool(self._holds)

    def ready(self) -> bool:
        """Whether `step` would do something now."""
        if self.drivable():
            return True
        if self._feed is not None:
            return self._feed.exhausted and self.at_end()
        only_control = self._choice()
        if only_control is None:
            return False
        if not self._plane.inbound.ready.waiting(only_control=only_control):
            return self.at_end()
        return self.tasks is None or self.tasks.free > 0

    def drivable(self) -> bool:
        """Whether `drive` would do something now: what needs no message."""
        if self._resumable():
            return True
        return self._feed is not None and self._feed.pullable and not self._waits()

    def takes(self, channel: InChannel) -> bool:
        """Whether a message of ``channel`` may be handled now."""
        if self.tasks is not None and self.tasks.free <= 0:
            return False
        only_control = self._choice()
        if only_control is None:
            return False
        return channel.priority is Priority.CONTROL or not only_control

    def _choice(self) -> bool | None:
        """Return whether only a control message may be taken; None if not even that."""
        if self._outputs.blocked:
            crowded = self.dispatch.crowded or self._overdrawn() >= self._overdraft
            return None if crowded else True
        self._waiting = None
        if self.dispatch.paused:
            return None if self.dispatch.crowded else True
        return bool(self._holds)

    def _only_control(self) -> bool:
        """Whether data must wait, for credit or for a generator that does."""
        return self._waits() or bool(self.dispatch.paused)

    def _waits(self) -> bool:
        """Whether data must wait: for credit, or because the node is held."""
        return bool(self._holds) or self._outputs.blocked

    def _resumable(self) -> bool:
        """Whether a paused generator may go on: of a held node only what is not of data."""
        if not self.dispatch.paused or self._outputs.blocked:
            return False
        return not self._holds or not self.dispatch.paused_by_data

    def at_end(self) -> bool:
        """Whether there is no more input, nothing under way, and nothing paused."""
        if self.dispatch.paused or self.active or self._holds:
            return False
        if self._feed is not None:
            return self._feed.exhausted
        return (self._inputs.fed or self._closing) and self._inputs.exhausted

    @property
    def active(self) -> bool:
        """Whether any coroutine is under way."""
        return self.tasks is not None and self.tasks.active

    def until_tick_s(self) -> float | None:
        """Return the seconds until the next tick is due, or None."""
        return self._ticks.until_s(self._plane.clock.monotonic_s())

    # --- what the loop says ----------------------------------------------------------------------

    def begin(self) -> None:
        """Begin to tick."""
        self._ticks.begin(self._plane.clock.monotonic_s())

    def hold(self, reason: str, on: bool, node: str = "") -> None:
        """Hold the node for ``reason``, or say that this reason is gone; idempotent.

        While any reason is left it takes no data, pulls no source, resumes no generator and
        does not reach its end. Control messages, ticks and hooks go on, and so do coroutines
        that are under way.
        """
        if on:
            self._holds.add(reason)
        else:
            self._holds.discard(reason)

    def step(self) -> None:
        """Run one turn of user code: a paused generator first, then the source or an inbox.

        A tick comes last, and one that has emitted without credit waits until data has had a
        turn: or it would take all the credit there ever is.
        """
        self.look_at_credit()
        if not self.drive() and self._feed is None:
            only_control = self._choice()
            if only_control is not None:
                channel = self._plane.inbound.ready.pop(only_control=only_control)
                if channel is not None:
                    self.take(channel, only_control=only_control)
        self.tick()

    def look_at_credit(self) -> None:
        """Notice whether what the last tick emitted has got its credit; once a step, first."""
        if self._ticks.owes:
            self._ticks.owes = self._outputs.blocked

    def drive(self) -> bool:
        """Go on with a paused generator, or pull the source; return whether it did either."""
        if self.dispatch.paused and self.resume():
            return True
        if self._feed is None or self._waits():
            return False
        self._way = self.way_through(None)
        self._feed.pull(self._way)
        self._arrived()
        return True

    def _arrived(self) -> None:
        """Count what has passed through in the turn that is over."""
        way, self._way = self._way, None
        if way is not None:
            way.settle()

    def _overdrawn(self) -> int:
        """Return how many messages were emitted without credit since it ran out; it has.

        That is what control messages emit: data waits meanwhile. Bounded, or memory would not be.
        """
        waiting = self._outputs.waiting
        if self._waiting is None or waiting < self._waiting:
            self._waiting = waiting
        return waiting - self._waiting

    def resume(self) -> bool:
        """Go on with a generator that waited for credit, if it can; return whether it did."""
        if not self._resumable():
            return False
        with self._code:
            self.dispatch.resume()
        return True

    def take(self, channel: InChannel, *, only_control: bool | None = None) -> None:
        """Give ``channel``, taken out of the ready queue, its turn; ``only_control`` if known."""
        if channel.fresh and channel.stale(self._plane.clock.wall_ns()):
            self._plane.freshen(channel)
        if self._handlers[channel.port].is_async:
            self._start_tasks(channel)
        else:
            alone = self._only_control() if only_control is None else only_control
            if not alone and channel.priority is not Priority.CONTROL:
                self._way = self.way_through(channel)
            with self._code:
                self.dispatch.run(channel, 1 if alone else MAX_TURN, self._way)
            self._plane.flush()  # what waits for it comes before what is only counted
            self.dispatch.settle()
            self._arrived()
        self._plane.inbound.offer(channel)

    def _start_tasks(self, channel: InChannel) -> None:
        tasks = self._need_tasks()
        call = self._handlers[channel.port].call
        for value, handling in self.dispatch.take(channel, tasks.free):
            tasks.start(partial(call, value), handling)
        current_headers.set(None)

    def told_to_end(self, node: str = "") -> bool:
        """Tell user code that the run drains; return whether it may be interrupted for that."""
        self._ctx.stop()
        return self._feed is not None and not self._ctx.watched

    def interruptible(self) -> bool:
        """Whether the code that runs now may be interrupted for a drain: it is this node's."""
        return True

    def close_inputs(self, node: str = "") -> None:
        """End the source, or the inputs that only the outside feeds."""
        self._closing = True
        if self._feed is not None and not (self._feed.opened and self._ctx.watched):
            self._feed.close()  # one that has looked at `ctx.stopping` ends by itself

    def stop(self) -> None:
        """Take nothing more; what is queued or under way is abandoned."""
        self.dispatch.paused.clear()
        self._inputs.drop()
        if self.tasks is not None:
            with self._code:
                self.tasks.cancel()

    def end(self) -> None:
        """Send END: the node has emitted all it ever will, and takes no more."""
        self._plane.end(self._ctx.node)

    def conclude(self) -> None:
        """Say what was left unsaid, after the last message."""
        self._code.conclude()

    def close(self) -> None:
        """Release the event loop."""
        if self.tasks is not None:
            self.tasks.close()

    # --- user code -------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Before another node of this worker waits: let generators that have credit go on."""
        if self.tasks is not None:
            self.tasks.refresh()

    def waited(self, elapsed_ns: int) -> None:
        """Another node of this worker has waited, and tasks of this one ran meanwhile."""
        if self.tasks is not None:
            self.tasks.busy_ns += elapsed_ns

    def wait(self, timeout_s: float | None) -> None:
        """Let tasks run until something happens."""
        tasks = self._need_tasks()
        with self._code:
            tasks.wait(self._plane.poller.descriptors, timeout_s)

    def tick(self) -> None:
        """Call ``on_tick`` if it is due."""
        ticks, edges = self._ticks, self._outputs.edges
        if not ticks.ticking:
            return
        ticks.owes = ticks.owes or any(handling is None for _, handling in self.dispatch.paused)
        if not ticks.due(self._plane.clock.monotonic_s()):
            return
        before = [edge.emitted for edge in edges]
        self._code.raised = self.hook("on_tick") or self._code.raised
        self._plane.flush()
        ticks.owes = any(
            edge.full and edge.waiting > 0 and edge.emitted > was
            for edge, was in zip(edges, before, strict=True)
        )

    def hook(self, name: str) -> HookRaised | None:
        """Call a lifecycle hook; return its error if that must end the run."""
        if name == "on_stop":
            self._refuse_emits()
        return self._code.hook(name, self._emit_all if name == "on_start" else self._emit_paced)

    def _refuse_emits(self) -> None:
        emitters = refusing_emitters(self._node)
        self._ctx.attach(emitters)
        self._node.attach(emitters)

    def _emit_paced(self, results: Any) -> None:
        """Emit what a hook returned; what it yields waits for credit."""
        if inspect.isgenerator(results):
            self.dispatch.drain(results)
        else:
            self._emit_all(results)

    def _emit_all(self, results: Any) -> None:
        """Emit what a hook returned, or everything it yields, whatever credit there is."""
        if results is None:
            return
        if inspect.isawaitable(results) or hasattr(results, "__aiter__"):
            self._need_tasks().call(results)
        elif inspect.isgenerator(results):
            for value in results:
                if value is not None:
                    self._emit(value)
        else:
            self._emit(results)

    # --- counters --------------------------------------------------------------------------------

    def stats(self) -> WorkerStats:
        """Return every counter; exact when called by the main thread."""
        return self._plane.stats(self.node_stats())


def _bind_inputs(node: Node, ctx: Context) -> dict[str, Handler]:
    """Return what handles each input, with bytes as its annotation says."""
    return {
        name: replace(node.bind(name, ctx), restore=restorer(port.type))
        for name, port in node.inputs.items()
    }
