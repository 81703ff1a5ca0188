"""Queued edges without sockets: plans, a clock, and receivers that a test drives."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from dflow.errors import EdgeFull
from dflow.flow.batch import Cut
from dflow.flow.credit import ReceiveWindow
from dflow.flow.queue_edge import EdgeCode, QueueEdge
from dflow.graph.plan import EdgePlan
from dflow.message import Priority
from dflow.wire.codec import Codec
from dflow.wire.notes import Notes

__all__ = ["FIRST", "MS", "Receiver", "Wired", "edge_plan"]

MS = 1_000_000
FIRST = 40  # channel numbers need not begin at 0

_PLAN = EdgePlan(
    index=3,
    id="a.out->b.in",
    sender="a",
    output="out",
    receiver="b",
    input="in",
    policy="block",
    capacity=8,
    max_bytes=1 << 20,
    priority=Priority.NORMAL,
    keyed=False,
    cancellable=True,
)


def edge_plan(**changes: Any) -> EdgePlan:
    """Return the plan of an edge whose messages wait one by one."""
    return replace(_PLAN, **changes)


class Receiver:
    """The far end of one channel: what arrived, with its notes, and what was handled."""

    def __init__(self, number: int, plan: EdgePlan) -> None:
        self.number = number
        self.window = ReceiveWindow(plan.window, plan.max_bytes, plan.reports)
        self.inbox: deque[tuple[int, bytes]] = deque()
        self.notes: list[Notes] = []
        self.sizes: deque[list[int]] = deque()

    def arrive(self, cut: Cut) -> None:
        """Take in a batch; raises `ProtocolError` if it had no credit."""
        if cut.payloads:
            size = sum(map(len, cut.payloads))
            self.window.receive(cut.first, len(cut.payloads), size)
            self.inbox.extend(enumerate(cut.payloads, cut.first))
            self.sizes.append([len(cut.payloads), size])
        else:
            assert cut.first == self.window.received
            assert cut.notes
        self.notes.append(cut.notes)

    def take(self) -> tuple[int, bytes]:
        """Hand the first message to a handler that does not return yet."""
        sequence, payload = self.inbox.popleft()
        self.window.taken += 1
        self.sizes[0][0] -= 1
        if not self.sizes[0][0]:
            self.window.taken_bytes += self.sizes.popleft()[1]
        return sequence, payload

    def handle(self) -> bytes:
        """Handle the first message."""
        sequence, payload = self.take()
        self.window.finish(sequence)
        return payload


class Wired:
    """A queued edge, its receivers, and a clock in nanoseconds."""

    def __init__(
        self,
        plan: EdgePlan,
        channels: int = 1,
        *,
        key: Callable[[Any], Any] | None = None,
        merge: Callable[[Any, Any], Any] | None = None,
    ) -> None:
        self.codec = Codec()
        numbers = range(FIRST, FIRST + channels)
        code = EdgeCode(self.codec.encode, self.codec.decode, key, merge)
        self.edge = QueueEdge(plan, numbers, code)
        self.ends = {number: Receiver(number, plan) for number in numbers}
        self.now = 0

    def emit(
        self, *values: Any, id: str | None = None, tag: tuple[int, int] | None = None
    ) -> EdgeFull | None:
        """Emit values as a node would, but for the look at the wire; stop at a refusal."""
        for value in values:
            payload, place = self.codec.encode(value), self.edge.place(value)
            refused = self.edge.refusal(place, len(payload))
            if refused is not None:
                return refused
            self.edge.offer(payload, place, self.now, id=id, tag=tag)
        return None

    def flush(self) -> list[tuple[int, list[Any]]]:
        """Send what has credit; return it as (channel number, values) of each batch."""
        sent = []
        for cut in self.edge.flush(self.now):
            self.ends[cut.channel].arrive(cut)
            sent.append((cut.channel, [self.codec.decode(one) for one in cut.payloads]))
        return sent

    def report(self, number: int = FIRST) -> None:
        """Let the sender hear of what a receiver took and did, if anything is owed."""
        end = self.ends[number]
        if end.window.due(idle=True):
            self.edge.on_credit(number, *end.window.report())

    def handle(self, number: int = FIRST) -> Any:
        """Let one message be handled and reported; return it."""
        value = self.codec.decode(self.ends[number].handle())
        self.report(number)
        return value

    def drain(self) -> list[Any]:
        """Flush and handle until nothing is left; return what was handled."""
        handled: list[Any] = []
        while True:
            self.flush()
            ready = [end for end in self.ends.values() if end.inbox]
            if not ready:
                return handled
            handled += [self.handle(end.number) for end in ready]
