"""The last step of a message's way: a batch's messages through the user's handler.

Work is done in *turns* of about a millisecond, or one message if that takes longer.
Between turns the worker looks at its sockets: higher bands first, credit, commands. A turn
ends early when the gate shuts: an output is out of credit, a command has come, or the pulse
thread wants the wire looked at.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from types import GeneratorType
from typing import TYPE_CHECKING, Any

from dflow.clock import CLOCK, Clock, preempted
from dflow.errors import DecodeError
from dflow.flow.in_edge import LOST, Batch, InChannel
from dflow.message import Priority
from dflow.wire.restoring import restored
from dflow.worker.context import current_headers
from dflow.worker.emitting import (
    ALL,
    ReturnedGenerator,
    call_each,
    emit_results,
    stopped_iteration,
)
from dflow.worker.faults import Interrupted
from dflow.worker.handling import Handling

if TYPE_CHECKING:
    from dflow.graph.node import Handler
    from dflow.wire.codec import Codec
    from dflow.worker.context import Direct, Discard, Emit, LocalDirect
    from dflow.worker.ordered import Order
    from dflow.worker.plane import Gate
    from dflow.worker.way import Way

__all__ = ["PROMPT_TURN_NS", "TURN_NS", "Dispatcher", "Turns"]

TURN_NS = 1_000_000
"""Length of a turn: long enough that looking at the sockets costs a few percent."""

PROMPT_TURN_NS = 200_000
"""The same in a worker that receives on CONTROL: a control message waits for a turn at most."""

PROMPT_NS = 200_000
"""A message that takes longer than this is a turn of its own: what it emits leaves at once, for
a tenth of its cost at most."""

MAX_TURN = 1024

MAX_PAUSED = 16
"""Generators that may wait for credit at once; beyond it not even control messages are taken."""

OnError = Callable[[BaseException, str], None]


class Turns:
    """How many messages make a turn of ``turn_ns``: follows what they cost, doubling at most.

    A turn that was long because the core was taken away says nothing of what messages cost.
    Taken for long messages, they would leave one by one, and a batch that was taken apart stays
    so on every node to come: in a chain on busy cores a message cost three times as much.
    ``each_ns`` is what a message cost lately.
    """

    __slots__ = ("_most", "_preempted", "_seen", "_turn_ns", "busy_ns", "each_ns", "size")

    def __init__(
        self,
        turn_ns: int = TURN_NS,
        preempted: Callable[[], int] = preempted,
        most: int = MAX_TURN,
    ) -> None:
        self.size = 1
        self.busy_ns = 0
        self.each_ns = 0
        self._most = most
        self._turn_ns = turn_ns
        self._preempted = preempted
        self._seen = 0

    def measured(self, messages: int, elapsed_ns: int) -> None:
        """Adapt to a turn that took ``elapsed_ns`` for ``messages``."""
        self.busy_ns += elapsed_ns
        if self.size > 1 and (elapsed_ns > self._turn_ns or elapsed_ns > messages * PROMPT_NS):
            seen, self._seen = self._seen, self._preempted()
            if self._seen != seen:  # since the last long one: perhaps not in this one
                return
        if messages:
            self.each_ns = elapsed_ns // messages
        if elapsed_ns > messages * PROMPT_NS:
            self.size = 1
        elif elapsed_ns > self._turn_ns:
            self.size = max(1, min(self.size, messages * self._turn_ns // elapsed_ns))
        elif messages >= self.size and elapsed_ns < self._turn_ns // 2:
            self.size = min(self.size * 2, self._most)


class Dispatcher:
    """Runs synchronous handlers.

    ``paused`` are generators that wait for credit, oldest first: of a handler, and of what
    may come in between all the same (control messages, a tick); None with a hook's. ``handling``
    are the messages of the turn or generator at hand; while ``choosing`` they are not known yet.
    """

    __slots__ = (
        "_codec", "_direct", "_emit", "_ended_ns", "_gate", "_handlers", "_now",
        "_on_error", "_order", "_paused_before", "_wall_ns", "began_ns", "choosing", "errors",
        "handled", "handling", "other_ns", "paused", "turns",
    )  # fmt: skip

    def __init__(
        self,
        handlers: dict[str, Handler],
        emit: Emit,
        codec: Codec,
        gate: Gate,
        on_error: OnError,
        direct: Direct | LocalDirect | Discard | None = None,
        turn_ns: int = TURN_NS,
        order: Order | None = None,
        clock: Clock = CLOCK,
    ) -> None:
        self._handlers = handlers
        self._now = clock.monotonic_ns
        self._wall_ns = clock.wall_ns
        self._order = order
        self._emit = emit
        self._direct = direct
        self._codec = codec
        self._gate = gate
        self._on_error = on_error
        self.turns = {port: Turns(turn_ns, clock.preempted) for port in handlers}
        self.began_ns = self._ended_ns = 0
        self._paused_before = 0
        self.handled = 0
        self.errors = 0
        self.other_ns = 0  # resumed generators
        self.paused: deque[tuple[Iterator[Any], Handling | None]] = deque()
        self.handling: Handling | None = None
        self.choosing = False

    @property
    def crowded(self) -> bool:
        """Whether so many generators wait for credit that no message may be taken."""
        return len(self.paused) >= MAX_PAUSED

    @property
    def paused_by_data(self) -> bool:
        """Whether the generator that would go on next is of a data message."""
        handling = self.paused[0][1]
        return handling is not None and handling.channel.priority is not Priority.CONTROL

    @property
    def busy_ns(self) -> int:
        """Nanoseconds spent in user code (and in emit, which it calls)."""
        return self.other_ns + sum(turns.busy_ns for turns in self.turns.values())

    def turn(self, channel: InChannel, most: int = MAX_TURN) -> None:
        """Hand up to ``most`` messages of the first batch to the handler, for about one turn."""
        self.run(channel, most)
        self.settle()

    def run(self, channel: InChannel, most: int = MAX_TURN, way: Way | None = None) -> None:
        """Do the part of `turn` that runs user code; `settle` must follow.

        ``way``: how the turn passes through to other nodes.
        """
        handler = self._handlers[channel.port]
        self.choosing = True
        values = self._next_values(channel, min(self.turns[channel.port].size, most))
        each = iter(values)
        self.handling = handling = Handling(channel, channel.window.taken, len(values), each)
        self._paused_before = len(self.paused)
        self.choosing = False
        if values:
            self.began_ns = self._ended_ns = self._now()
            if way is not None:
                way.begin()
                way.calls(each, handling)
            elif self._order is not None:
                self._one_by_one(self._order, handler, each, handling)
            elif handler.is_generator:
                self._generators(handler.call, each)
            else:
                self._calls(handler.call, each, handling)
            self._ended_ns = self._now()

    def settle(self) -> None:
        """Count what `run` has handled as taken and done; no user code runs."""
        handling, self.handling = self.handling, None
        if handling is None or not handling.count:
            return
        channel = handling.channel
        used = handling.begun
        self.turns[channel.port].measured(used, self._ended_ns - self.began_ns)
        current_headers.set(None)
        self.handled += used
        channel.take(used)
        finished = used - (len(self.paused) - self._paused_before)
        if channel.window.done == handling.first:
            channel.finish(finished)
        else:  # an earlier one is paused
            for sequence in range(handling.first, handling.first + finished):
                channel.finish_one(sequence)

    def take(self, channel: InChannel, most: int) -> list[tuple[Any, Handling]]:
        """Take up to ``most`` messages off the channel, to be handled as tasks."""
        values = self._next_values(channel, most)
        if not values:  # none may be wanted, and nothing left
            return []
        first = channel.window.taken
        taken = [(value, Handling(channel, first + i)) for i, value in enumerate(values)]
        if self._order is not None and channel.priority is not Priority.CONTROL:
            numbers = channel.numbers(len(values))
            for number, (_, handling) in zip(numbers, taken, strict=True):
                finished = partial(channel.finish_one, handling.sequence)
                handling.slot = self._order.enter(number, finished)
        self.handled += len(values)
        channel.take(len(values))
        return taken

    def _next_values(self, channel: InChannel, most: int) -> list[Any]:
        """Return up to ``most`` messages of the first batch; [] if the next are not wanted."""
        batch = channel.inbox[0]
        values = batch.values
        if values is None:
            try:
                values = self._codec.decode_batch(batch.body, batch.count, batch.buffers)
                batch.values = values = self._restored(channel, values)
            except DecodeError as error:
                values = self._salvage(channel, batch, error)
                batch.values = values = self._restored(channel, values)
                if self._gate.shut:
                    return []
            batch.body, batch.buffers = None, ()
        if channel.picky:
            unwanted, most = channel.pick(most, self._wall_ns())
            if unwanted is not None:
                if self._order is not None:
                    for number in channel.numbers(most):  # they bring no results
                        self._order.leave(self._order.enter(number))
                channel.pass_over(unwanted, most)
                return []
        current_headers.set(batch.headers)
        return values[batch.position : batch.position + most]

    def _calls(self, call: Callable[[Any], Any], each: Iterator[Any], handling: Handling) -> None:
        try:
            call_each(call, each, self._emit, self._direct, self._gate)
        except Interrupted:
            pass
        except ReturnedGenerator as returned:
            self.drain(returned.values, handling)
        except Exception as error:  # noqa: BLE001  # user code may raise anything
            self.failed(error, "handler")

    def _generators(self, call: Callable[[Any], Any], each: Iterator[Any]) -> None:
        for value in each:
            try:
                results = iter(call(value) or ())
            except Exception as error:  # noqa: BLE001  # user code may raise anything
                self.failed(error, "handler")
                continue
            if not self.drain(results, self.handling) or self._gate.shut:
                break

    def _one_by_one(
        self, order: Order, handler: Handler, each: Iterator[Any], handling: Handling
    ) -> None:
        """Handle messages of an ordered node: every result belongs to the message at hand."""
        channel = handling.channel
        in_line = channel.priority is not Priority.CONTROL
        paused = False
        for number, value in zip(channel.numbers(handling.count), each, strict=True):
            handling.slot = slot = order.enter(number) if in_line else None
            order.begin(slot)
            try:
                result = handler.call(value)
                if handler.is_generator or isinstance(result, GeneratorType):
                    paused = not self.drain(iter(result or ()), handling)
                elif result is not None:
                    self._emit(result)
            except Interrupted:
                pass
            except Exception as error:  # noqa: BLE001  # user code may raise anything
                self.failed(error, "handler")
            if slot is not None and not paused:
                order.leave(slot)
            if paused or self._gate.shut:
                break
        order.begin(None)

    def resume(self) -> None:
        """Go on with the generator that has waited longest for credit."""
        if not self.paused:
            return
        results, handling = self.paused[0]
        self.handling = handling
        slot = None if handling is None else handling.slot
        if self._order is not None:
            self._order.begin(slot)
        began = self._now()
        if self._pull(results):
            self.paused.popleft()
            if handling is not None:
                handling.channel.finish_one(handling.sequence)
            if self._order is not None and slot is not None:
                self._order.leave(slot)
        if self._order is not None:
            self._order.begin(None)
        self.handling = None
        self.other_ns += self._now() - began

    def drain(self, results: Iterator[Any], handling: Handling | None = None) -> bool:
        """Emit what ``results`` yields; False if it was paused for lack of credit."""
        if self._pull(results):
            return True
        self.paused.append((results, None if handling is None else handling.alone()))
        return False

    def _pull(self, results: Iterator[Any]) -> bool:
        """Emit what ``results`` yields until the gate shuts; return whether that was all."""
        while True:
            try:
                return emit_results(self._emit, self._direct, results, self._gate, ALL)[1]
            except Interrupted:
                return True
            except Exception as error:  # noqa: BLE001  # user code may raise anything
                self.failed(error, "handler")
                if not isinstance(results, GeneratorType):
                    return True
                if self._gate.shut:
                    return False
                # only that value is lost; if the generator itself raised, it has no next one

    def _restored(self, channel: InChannel, values: list[Any]) -> list[Any]:
        """Make bytes what the handler's annotation says."""
        restore = self._handlers[channel.port].restore
        return values if restore is None else restored(restore, values)

    def failed(self, error: BaseException, where: str) -> None:
        """Count an error of the user's code, and report it."""
        self.errors += 1
        if isinstance(error, StopIteration):  # it has no text of its own, and looks like an end
            error = stopped_iteration(error)
        self._on_error(error, where)

    def _salvage(self, channel: InChannel, batch: Batch, error: DecodeError) -> list[Any]:
        """Decode message by message; `LOST` stands for each that cannot be, and is counted."""
        try:
            values = self._codec.decode_each(batch.body, batch.count, batch.buffers)
            errors = [value for value in values if isinstance(value, DecodeError)]
            values = [LOST if isinstance(value, DecodeError) else value for value in values]
        except DecodeError:
            values, errors = [LOST] * batch.count, [error]
        lost = sum(value is LOST for value in values)  # not by ==, which is the user's
        channel.malformed += lost
        channel.picky = True
        self.errors += lost
        for each in errors:
            self._on_error(each, f"decoding {channel.edge_id}")
        return values
