"""The last step of a message's way: a batch's messages through the user's handler.

Work is done in *turns* of about a millisecond, or one message if that takes longer.
Between turns the worker looks at its sockets: higher bands first, credit, commands. A turn
ends early when the gate shuts: an output is out of credit, a command has come, or the pulse
thread wants the wire looked at.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from operator import length_hint
from types import GeneratorType
from typing import TYPE_CHECKING, Any

from dflow.clock import monotonic_ns
from dflow.errors import DecodeError
from dflow.flow.in_edge import Batch, InChannel
from dflow.message import Priority
from dflow.worker.context import current_headers
from dflow.worker.emitting import ALL, ReturnedGenerator, emit_results
from dflow.worker.faults import Interrupted

if TYPE_CHECKING:
    from dflow.graph.node import Handler
    from dflow.wire.codec import Codec
    from dflow.worker.context import Direct, Emit
    from dflow.worker.plane import Gate

__all__ = ["PROMPT_TURN_NS", "TURN_NS", "Dispatcher", "Turns"]

TURN_NS = 1_000_000
"""Length of a turn: long enough that looking at the sockets costs a few percent."""

PROMPT_TURN_NS = 200_000
"""The same in a worker that receives on CONTROL: a control message waits for a turn at most."""

PROMPT_NS = 200_000
"""A message that takes longer than this is a turn of its own: what it emits leaves at once, for
a tenth of its cost at most."""

MAX_TURN = 512

MAX_PAUSED = 16
"""Generators that may wait for credit at once; beyond it not even control messages are taken."""

OnError = Callable[[BaseException, str], None]


class Turns:
    """How many messages make a turn of ``turn_ns``: follows what they cost, doubling at most."""

    __slots__ = ("_turn_ns", "busy_ns", "size")

    def __init__(self, turn_ns: int = TURN_NS) -> None:
        self.size = 1
        self.busy_ns = 0
        self._turn_ns = turn_ns

    def measured(self, messages: int, elapsed_ns: int) -> None:
        """Adapt to a turn that took ``elapsed_ns`` for ``messages``."""
        self.busy_ns += elapsed_ns
        if elapsed_ns > messages * PROMPT_NS:
            self.size = 1
        elif elapsed_ns > self._turn_ns:
            self.size = max(1, min(self.size, messages * self._turn_ns // elapsed_ns))
        elif messages >= self.size and elapsed_ns < self._turn_ns // 2:
            self.size = min(self.size * 2, MAX_TURN)


class Dispatcher:
    """Runs synchronous handlers.

    ``paused`` are generators that wait for credit, oldest first: of a handler, and of what
    may come in between all the same (control messages, a tick). A hook's has no channel.
    """

    __slots__ = (
        "_codec", "_direct", "_emit", "_gate", "_handlers", "_on_error", "_turns",
        "errors", "handled", "other_ns", "paused",
    )  # fmt: skip

    def __init__(
        self,
        handlers: dict[str, Handler],
        emit: Emit,
        codec: Codec,
        gate: Gate,
        on_error: OnError,
        direct: Direct | None = None,
        turn_ns: int = TURN_NS,
    ) -> None:
        self._handlers = handlers
        self._emit = emit
        self._direct = direct
        self._codec = codec
        self._gate = gate
        self._on_error = on_error
        self._turns = {port: Turns(turn_ns) for port in handlers}
        self.handled = 0
        self.errors = 0
        self.other_ns = 0  # resumed generators
        self.paused: deque[tuple[Iterator[Any], InChannel | None]] = deque()

    @property
    def crowded(self) -> bool:
        """Whether so many generators wait for credit that no message may be taken."""
        return len(self.paused) >= MAX_PAUSED

    @property
    def paused_by_data(self) -> bool:
        """Whether the generator that would go on next is of a data message."""
        channel = self.paused[0][1]
        return channel is not None and channel.priority is not Priority.CONTROL

    @property
    def busy_ns(self) -> int:
        """Nanoseconds spent in user code (and in emit, which it calls)."""
        return self.other_ns + sum(turns.busy_ns for turns in self._turns.values())

    def turn(self, channel: InChannel, most: int = MAX_TURN) -> None:
        """Hand up to ``most`` messages of the first batch to the handler, for about one turn."""
        handler = self._handlers[channel.port]
        turns = self._turns[channel.port]
        values = self._next_values(channel, min(turns.size, most))
        if not values:
            return
        began = monotonic_ns()
        before = len(self.paused)
        if handler.is_generator:
            used = self._generators(handler.call, values, channel)
        else:
            used = self._calls(handler.call, values, channel)
        turns.measured(used, monotonic_ns() - began)
        current_headers.set(None)
        self.handled += used
        channel.take(used)
        channel.finish(used - (len(self.paused) - before))

    def take(self, channel: InChannel, most: int) -> list[Any]:
        """Take up to ``most`` messages off the channel, to be handled as tasks."""
        values = self._next_values(channel, most)
        self.handled += len(values)
        if values:
            channel.take(len(values))
        return values

    def _next_values(self, channel: InChannel, most: int) -> list[Any]:
        """Return up to ``most`` messages of the first batch; [] if none could be decoded."""
        batch = channel.inbox[0]
        values = batch.values
        if values is None:
            try:
                batch.values = values = self._codec.decode_batch(batch.body, batch.count)
            except DecodeError as error:
                batch.values = values = self._salvage(channel, batch, error)
                if self._gate.shut or not values:
                    return []
            batch.body = None
        current_headers.set(batch.headers)
        return values[batch.position : batch.position + most]

    def _calls(self, call: Callable[[Any], Any], values: list[Any], channel: InChannel) -> int:
        each = iter(values)
        try:
            results = map(call, each)
            _, over = emit_results(self._emit, self._direct, results, self._gate, len(values))
            if over:  # before `most`: `map` took a StopIteration of the handler for its own end
                raise RuntimeError("handler raised StopIteration; use next(iterator, default)")
        except Interrupted:
            pass
        except ReturnedGenerator as returned:
            self.drain(returned.values, channel)
        except Exception as error:  # noqa: BLE001  # user code may raise anything
            self._failed(error, "handler")
        return len(values) - length_hint(each)

    def _generators(self, call: Callable[[Any], Any], values: list[Any], channel: InChannel) -> int:
        used = 0
        for value in values:
            used += 1
            try:
                results = iter(call(value) or ())
            except Exception as error:  # noqa: BLE001  # user code may raise anything
                self._failed(error, "handler")
                continue
            if not self.drain(results, channel) or self._gate.shut:
                break
        return used

    def resume(self) -> None:
        """Go on with the generator that has waited longest for credit."""
        if not self.paused:
            return
        results, channel = self.paused[0]
        began = monotonic_ns()
        if self._pull(results):
            self.paused.popleft()
            if channel is not None:
                channel.finish(1)
        self.other_ns += monotonic_ns() - began

    def drain(self, results: Iterator[Any], channel: InChannel | None = None) -> bool:
        """Emit what ``results`` yields; False if it was paused for lack of credit."""
        if self._pull(results):
            return True
        self.paused.append((results, channel))
        return False

    def _pull(self, results: Iterator[Any]) -> bool:
        """Emit what ``results`` yields until the gate shuts; return whether that was all."""
        while True:
            try:
                return emit_results(self._emit, self._direct, results, self._gate, ALL)[1]
            except Interrupted:
                return True
            except Exception as error:  # noqa: BLE001  # user code may raise anything
                self._failed(error, "handler")
                if not isinstance(results, GeneratorType):
                    return True
                if self._gate.shut:
                    return False
                # only that value is lost; if the generator itself raised, it has no next one

    def _failed(self, error: BaseException, where: str) -> None:
        self.errors += 1
        self._on_error(error, where)

    def _salvage(self, channel: InChannel, batch: Batch, error: DecodeError) -> list[Any]:
        """Decode message by message and return the good ones; the others are lost and counted."""
        try:
            values, errors = self._codec.decode_each(batch.body, batch.count)
        except DecodeError:
            values, errors = [], [error]
        lost = batch.count - len(values)
        channel.malformed += lost
        self.errors += lost
        channel.discard(lost)
        for each in errors:
            self._on_error(each, f"decoding {channel.edge_id}")
        return values
