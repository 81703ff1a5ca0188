"""Fused nodes in a row, and which of their turns pass through to the last.

Between two nodes of one worker a message usually waits in the receiver's inbox for a turn of its
own (`dflow.worker.crew`). Where nobody could notice a difference it is passed on by a call instead
(`dflow.worker.way`). That costs about 30 ns a message and node instead of 175.

Whether a turn passes through is decided before each, by `dflow.worker.passing.may_pass` alone. Not
while anything is queued on the way, for that goes first; nor while a node on the way is held, or
waits for credit; nor if the handlers together take so long that others should have turns between
them. Such a turn goes the queued way, as if there were no chain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from dflow.flow.local_edge import LocalEdge
from dflow.graph.function import FunctionNode
from dflow.message import Priority
from dflow.worker.context import LocalDirect
from dflow.worker.passing import may_pass
from dflow.worker.way import Way

if TYPE_CHECKING:
    from dflow.flow.in_edge import InChannel
    from dflow.graph.node import Handler, Node
    from dflow.worker.context import Context, Direct, Discard, Emit
    from dflow.worker.dispatch import Dispatcher, Turns
    from dflow.worker.feed import Feed
    from dflow.worker.inbound import Inputs
    from dflow.worker.ordered import Order
    from dflow.worker.outbound import Outputs
    from dflow.worker.plane import DataPlane

__all__ = ["Chain", "Station", "Through", "find_chains", "no_way"]


@dataclass(frozen=True, slots=True, eq=False)
class Station:
    """What a chain knows of a node: what runs it, and what it may have to wait for."""

    node: Node
    ctx: Context
    handlers: dict[str, Handler]
    emit: Emit
    direct: Direct | LocalDirect | Discard | None
    dispatch: Dispatcher
    feed: Feed | None
    inputs: Inputs
    outputs: Outputs
    holds: set[str]
    order: Order | None

    @property
    def silent(self) -> bool:
        """Whether its code has no way to emit but to return or yield, nor to ask for headers."""
        return isinstance(self.node, FunctionNode) and not self.node.factory.shape.contexts

    @property
    def onward(self) -> LocalEdge | None:
        """The edge inside the worker that all it emits goes to, if there is such a one."""
        alone = len(self.node.outputs) == len(self.outputs.edges) == 1 and self.order is None
        return self.direct.edge if alone and isinstance(self.direct, LocalDirect) else None

    def find_entry(self) -> InChannel | None:
        """Return the channel by which messages may be passed in; call it before the run begins.

        It must be the only one that the graph knows; from outside there may come others.
        """
        if len(self.inputs.channels) != 1 or self.order is not None:
            return None
        (channel,) = self.inputs.channels
        band = channel.priority is not Priority.CONTROL
        return channel if band and channel.merge is None and self.plain(channel) else None

    def plain(self, channel: InChannel) -> bool:
        """Whether what handles a channel's messages returns its result when it is called."""
        handler = self.handlers[channel.port]
        return not (handler.is_async or handler.is_generator)

    def turns(self, channel: InChannel | None) -> Turns | None:
        """Return what measures the turns of a channel, or of the source; None: of neither."""
        if channel is not None:
            return self.dispatch.turns[channel.port] if self.plain(channel) else None
        return None if self.feed is None else self.feed.turns


Through = Callable[["InChannel | None"], Way | None]
"""Says how a turn of a node, for messages of a channel or (None) of its source, passes through to
the nodes behind; None: it goes the queued way."""


def no_way(channel: InChannel | None) -> Way | None:
    """Return None: there are no such nodes."""
    return None


def find_chains(stations: Sequence[Station], plane: DataPlane) -> dict[str, Through]:
    """Return how turns pass through, by name of the node: of all that have others behind them."""
    entries = {at.node.name: at.find_entry() for at in stations}
    by_number = {
        channel.number: at
        for at, channel in zip(stations, entries.values(), strict=True)
        if channel is not None
    }
    after: dict[str, Station] = {}
    for at in stations:
        if at.onward is not None and at.onward.channels[0] in by_number:
            after[at.node.name] = by_number[at.onward.channels[0]]
    begun = {at.node.name for at in after.values()}
    found: dict[str, Through] = {}
    for at in stations:
        if at.node.name in begun:
            continue
        row = [at]
        while row[-1].node.name in after:
            row.append(after[row[-1].node.name])
        chain = Chain(row, [entries[each.node.name] for each in row[1:]], plane)
        found |= {each.node.name: partial(chain.way, place) for place, each in enumerate(row[:-1])}
    return found


class Chain:
    """Nodes in a row; ``entries[i]`` is the channel by which ``stations[i]`` hands on its all."""

    def __init__(
        self,
        stations: Sequence[Station],
        entries: Sequence[InChannel | None],
        plane: DataPlane,
    ) -> None:
        self._stations = stations
        self._entries = entries
        self._plane = plane
        self._turn = -1
        self._ways: dict[tuple[int, str], Way | None] = {}

    def way(self, place: int, channel: InChannel | None) -> Way | None:
        """Return how a turn passes through from ``place`` on; None: it goes the queued way.

        ``channel``: where its messages come from; None: from the source.
        """
        at = place, "" if channel is None else channel.port
        if at not in self._ways:
            if channel is None and self._stations[place].turns(None) is None:
                return None  # there are no values yet, or they are not pulled
            self._ways[at] = self._make(place, channel)
        way = self._ways[at]
        if way is None:
            return None
        self._turn += 1
        links = len(self._stations) - 1
        return way if may_pass(self._turn, links, way.each_ns, idle=way.idle) else None

    def _make(self, place: int, channel: InChannel | None) -> Way | None:
        stations = self._stations[place:]
        entries = [entry for entry in self._entries[place:] if entry is not None]
        turns = [stations[0].turns(channel)]
        turns += [at.turns(entry) for at, entry in zip(stations[1:], entries, strict=True)]
        found = [each for each in turns if each is not None]
        if len(found) < len(stations):
            return None
        return Way(stations, channel, entries, found, self._plane)
