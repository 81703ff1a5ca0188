"""A turn that passes through fused nodes: each message goes from one handler to the next.

What a loop of `dflow.worker.emitting` maps over the messages of such a turn is one function that
calls the handlers of all nodes one after the other (`dflow.worker.passing.compose`); what comes
out of the last one is emitted by the last one's emitter.

*What cannot be passed on by a call* goes the queued way: a generator that was returned, and what a
handler emits with ``emit``, with all that follows it in this turn.

*Errors* are those of the node that raised, and so is a result of the last one that cannot travel.

*Counting.* Nobody counts each message. As many reach a node as reached the one before, less those
that ended there (`stayed`). All counters of an edge go up by that number at once, after the turn,
so the books balance at any moment.

*Time.* The turn has one duration; it is shared out in proportion to what a message of each node
cost when the nodes last had turns of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import compress, repeat
from operator import length_hint
from types import FrameType, GeneratorType
from typing import TYPE_CHECKING, Any

from dflow.message import Headers
from dflow.worker.context import Discard
from dflow.worker.emitting import (
    ALL,
    ReturnedGenerator,
    call_each,
    emit_results,
)
from dflow.worker.faults import Interrupted
from dflow.worker.handling import Handling
from dflow.worker.outbound import Outputs
from dflow.worker.passing import COMPOSED, Call, Detour, compose, shares_of_time

if TYPE_CHECKING:
    from dflow.flow.in_edge import InChannel
    from dflow.worker.chain import Station
    from dflow.worker.dispatch import Turns
    from dflow.worker.plane import DataPlane

__all__ = ["Way"]


class Way:
    """From one node of a chain to its end, for what comes by ``channel``, or out of the source.

    ``entries`` are the channels into the nodes behind the first, ``turns`` measure those of each.
    A turn is `begin`, then `calls` or `pull` in user code, then `settle`. ``outputs``: all edges
    it may emit on.
    """

    __slots__ = (
        "__dict__", "_busy_ns", "_channel", "_costs", "_edges", "_entries", "_handling", "_last",
        "_paused", "_plane", "_stations", "_talkers", "_tickets", "_turns", "_values", "outputs",
        "stayed",
    )  # fmt: skip

    def __init__(
        self,
        stations: Sequence[Station],
        channel: InChannel | None,
        entries: Sequence[InChannel],
        turns: Sequence[Turns],
        plane: DataPlane,
    ) -> None:
        self._stations = stations
        self._last = stations[-1]
        self._channel = channel
        self._entries = entries
        self._turns = turns
        self._plane = plane
        self._edges = [at.onward for at in stations[:-1] if at.onward is not None]
        self._talkers = [
            (at.ctx, edge, entry)
            for at, edge, entry in zip(stations[1:], self._edges, entries, strict=True)
            if not at.silent
        ]
        self.outputs = Outputs([edge for at in stations for edge in at.outputs.edges], [])
        self.outputs.way = self
        self.stayed = [0] * len(stations)
        self._paused = 0  # where a generator began to wait in this turn; 0: nowhere behind us
        self._handling: Handling | None = None
        self._values: Any = None
        self._tickets: Iterator[bool] = iter(())
        self._busy_ns = 0
        self._costs = [0] * len(stations)

    @cached_property
    def _through(self) -> Call:
        first, *others = self._stations
        calls: list[Call | None] = [None]
        if self._channel is not None:
            calls = [first.handlers[self._channel.port].call]
        for at, entry in zip(others, self._entries, strict=True):
            calls.append(at.handlers[entry.port].call)
        before = zip(self._stations[:-1], self._edges, strict=True)
        by_hand = [None if at.silent else edge for at, edge in before]
        return compose(calls, by_hand, self._odd, self._failed, self._lost)

    # --- seen from outside -----------------------------------------------------------------------

    def position(self, frame: FrameType | None) -> int:
        """Return which node's code runs in ``frame``, or is called from there; 0 is the first."""
        while frame is not None:
            if frame.f_code.co_filename == COMPOSED:
                at: int = frame.f_locals.get("at", 0)
                return at
            frame = frame.f_back
        return 0

    @property
    def begun(self) -> int:
        """How many messages the first node had in the turn at hand."""
        return self._begun

    def node(self, at: int) -> str:
        """Return the name of the node at a position."""
        return self._stations[at].ctx.node

    def entry(self, at: int) -> InChannel:
        """Return the channel by which messages reach the node at a position beyond the first."""
        return self._entries[at - 1]

    # --- before ----------------------------------------------------------------------------------

    @property
    def each_ns(self) -> int:
        """What a message costs all the nodes together."""
        return sum([turns.each_ns for turns in self._turns])

    @property
    def idle(self) -> bool:
        """Whether nothing is queued on the way, and nobody on it waits or is held."""
        for edge, entry in zip(self._edges, self._entries, strict=True):
            if edge.pending or entry.inbox:
                return False
        for at in self._stations[1:]:
            if at.holds or at.dispatch.paused:
                return False
        feed = self._stations[0].feed
        if feed is not None and not isinstance(feed.values, GeneratorType):
            return False  # nobody could tell whether it is the source that blocks: see `at_source`
        return not self._last.outputs.blocked

    @property
    def at_source(self) -> bool:
        """Whether the code that runs is the source's, not that of a node behind it."""
        return isinstance(self._values, GeneratorType) and self._values.gi_running

    def begin(self) -> None:
        """Begin a turn: from now on the gate is that of all edges on the way."""
        self._plane.running = self.outputs
        self._paused = 0
        self._busy_ns = self._turns[0].busy_ns
        self._costs = [turns.each_ns for turns in self._turns]
        for edge in self._edges:
            edge.pushed = False
        for ctx, edge, entry in self._talkers:
            ctx.passed = Headers(edge.id, entry.window.received, self._plane.clock.wall_ns())

    # --- in user code ----------------------------------------------------------------------------

    def calls(self, each: Iterator[Any], handling: Handling) -> None:
        """Hand messages of the first node's inbox to its handler, and what it returns on."""
        self._handling = handling
        last = self._last
        try:
            call_each(self._through, each, last.emit, last.direct, self._plane.gate)
        except Interrupted:
            pass
        except BaseException as error:  # noqa: BLE001  # user code may raise anything
            self._raised(error)

    def pull(self, values: Iterator[Any], most: int) -> tuple[int, bool]:
        """Hand on values of the source; return how many, and whether that was all there are.

        Raises what the source does.
        """
        self._values = values
        self._tickets = repeat(True, ALL)  # one for each value: what is left tells their number
        over = False
        try:
            over = self._pull(compress(values, self._tickets), most)
        except BaseException as error:  # noqa: BLE001  # user code may raise anything
            self._raised(error)
        return self._begun, over

    def _pull(self, values: Iterator[Any], most: int) -> bool:
        """Return whether that was all there are."""
        last, gate, through = self._last, self._plane.gate, self._through
        if not isinstance(last.direct, Discard):
            return emit_results(last.emit, last.direct, map(through, values), gate, most)[1]
        for value in values:  # a call from here is cheaper than one from `map`
            through(value)
            most -= 1
            if gate.shut or most <= 0:
                return False
        return True

    def _raised(self, error: BaseException) -> None:
        """Deal with what ended the turn early, or raise it again."""
        if isinstance(error, Detour):
            self._drain(error.at, error.values)
        elif isinstance(error, ReturnedGenerator):
            self._drain(len(self._stations) - 1, error.values)
        elif not isinstance(error, Exception) or self._source_ended:
            raise error
        else:  # what the last one has returned cannot be emitted
            self._last.dispatch.failed(error, "handler")

    @property
    def _source_ended(self) -> bool:
        return isinstance(self._values, GeneratorType) and self._values.gi_frame is None

    def _drain(self, at: int, values: Iterator[Any]) -> None:
        """Emit the values of a generator as the node itself would."""
        handling = self._handling
        if at:
            entry = self._entries[at - 1]
            handling = Handling(entry, entry.window.taken + self._counts()[at] - 1)
        if not self._stations[at].dispatch.drain(values, handling):
            self._paused = at

    def _odd(self, at: int, result: Any) -> None:
        """A result that is not passed on by a call."""
        self.stayed[at] += 1
        if result is None:
            return
        station = self._stations[at]
        if type(result) is not GeneratorType:
            station.emit(result)  # behind what was emitted by hand
        elif station.feed is None:
            raise Detour(at, result)
        else:  # a source must yield its values
            station.feed.refused(ReturnedGenerator(result))

    def _failed(self, at: int, error: Exception) -> None:
        """A handler raised: that message is lost, and the next one goes its way."""
        self.stayed[at] += 1
        self._stations[at].dispatch.failed(error, "handler")

    def _lost(self, at: int) -> None:
        """A handler was interrupted."""
        self.stayed[at] += 1

    # --- afterwards ------------------------------------------------------------------------------

    @property
    def _begun(self) -> int:
        """How many messages the first node had in this turn."""
        if self._handling is not None:
            return self._handling.begun
        return ALL - length_hint(self._tickets) if self._values is not None else 0

    def _counts(self) -> list[int]:
        """Return how many messages reached each node."""
        counts = [self._begun]
        for stayed in self.stayed[:-1]:
            counts.append(counts[-1] - stayed)
        return counts

    def settle(self) -> None:
        """Count what has passed; the first node's part is counted, and no user code runs."""
        counts = self._counts()
        self._handling = self._values = None
        self.stayed = [0] * len(counts)
        for at, count in enumerate(counts[1:], 1):
            if count:
                self._stations[at].dispatch.handled += count
                self._edges[at - 1].passed_on(count)
                self._entries[at - 1].finish(count - (self._paused == at))
        for ctx, _, _ in self._talkers:
            ctx.passed = None
        self._share(counts)

    def _share(self, counts: list[int]) -> None:
        """Say whose time the turn was; so far it was counted as the first node's."""
        elapsed_ns = self._turns[0].busy_ns - self._busy_ns
        self._turns[0].busy_ns = self._busy_ns
        shares = shares_of_time(elapsed_ns, counts, self._costs)
        for turns, share, count in zip(self._turns, shares, counts, strict=True):
            turns.busy_ns += share
            if count:
                turns.each_ns = share // count
