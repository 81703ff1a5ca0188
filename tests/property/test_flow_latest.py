"""An edge with policy latest in memory: a `QueueEdge` and the fresh `InChannel` of each receiver.

What a receiver asks for, because what it has may be out of date, is credit it has lent: the sender
must never send more than the receiver lets in, whatever becomes of the message at hand meanwhile.
Batches arrive in order and are never lost; credit reports may be lost, repeated and overtaken.
"""

from __future__ import annotations

from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dflow.flow.in_edge import STALE_NS, InChannel
from dflow.flow.queue_edge import EdgeCode, QueueEdge
from dflow.wire import frames as f
from dflow.wire.codec import Codec
from tests.unit.queue_edges import FIRST, edge_plan

EPOCH = 7
CODEC = Codec()
LATER_NS = 10 * STALE_NS


class LatestPair(RuleBasedStateMachine):
    """What both ends know, what is under way, and what was emitted and handed out."""

    @initialize(receivers=st.integers(1, 3), keyed=st.booleans())
    def open(self, receivers: int, keyed: bool) -> None:
        """Make the two ends."""
        plan = edge_plan(policy="latest", keyed=keyed)
        numbers = range(FIRST, FIRST + receivers)
        key = (lambda value: value % 3) if keyed else None
        self.edge = QueueEdge(plan, numbers, EdgeCode(CODEC.encode, CODEC.decode, key))
        self.ends = {
            n: InChannel(
                n, plan.id, "in", plan.priority, plan.window, plan.max_bytes, EPOCH,
                reports=plan.reports, fresh=True,
            )
            for n in numbers
        }  # fmt: skip
        self.wires: dict[int, deque[bytes]] = {n: deque() for n in numbers}
        self.reports: list[f.Frame] = []
        self.hands: dict[int, list[int]] = {n: [] for n in numbers}  # not done yet
        self.got: dict[int, list[int]] = {n: [] for n in numbers}
        self.emitted = 0

    # --- the sender ------------------------------------------------------------------------------

    @rule(many=st.integers(1, 3))
    def emit(self, many: int) -> None:
        """Emit messages, and send what has credit."""
        for _ in range(many):
            self.edge.offer(CODEC.encode(self.emitted), self.edge.place(self.emitted), 0)
            self.emitted += 1
        self._flush()

    def _flush(self) -> None:
        for number, first, payloads, _ in self.edge.flush(0):
            self.wires[number].append(f.pack_batch(number, EPOCH, first, payloads, 1))

    @rule(data=st.data(), keep=st.booleans())
    def hear(self, data: st.DataObject, keep: bool) -> None:
        """Let the sender hear of some report, perhaps an old one, perhaps again."""
        if self.reports:
            at = data.draw(st.integers(0, len(self.reports) - 1))
            self._hear(self.reports[at] if keep else self.reports.pop(at))
            self._flush()

    def _hear(self, report: f.Frame) -> None:
        taken, taken_bytes, done = f.parse_credit(report)
        self.edge.on_credit(report.channel, taken, taken_bytes, done, f.parse_beyond(report))

    # --- the receivers ---------------------------------------------------------------------------

    @rule(data=st.data())
    def arrive(self, data: st.DataObject) -> None:
        """Take one frame off one wire; raises if the receiver does not let it in."""
        ready = [n for n, wire in self.wires.items() if wire]
        if ready:
            self._arrive(data.draw(st.sampled_from(ready)))

    def _arrive(self, number: int) -> None:
        self.ends[number].accept(f.parse(self.wires[number].popleft()))

    @rule(data=st.data())
    def refresh(self, data: st.DataObject) -> None:
        """Ask for what is newer than what is here."""
        stale = [n for n, end in self.ends.items() if end.stale(LATER_NS)]
        if stale:
            number = data.draw(st.sampled_from(stale))
            self.ends[number].refresh()
            self._report(number)

    @rule(data=st.data(), begun=st.booleans(), returns=st.booleans())
    def turn(self, data: st.DataObject, begun: bool, returns: bool) -> None:
        """Have a turn, which may end before anything has begun, or before a handler returns."""
        ready = [n for n, end in self.ends.items() if end.inbox]
        if ready:
            self._turn(data.draw(st.sampled_from(ready)), begun, returns)

    def _turn(self, number: int, begun: bool, returns: bool) -> None:
        end = self.ends[number]
        first = end.window.taken
        batch = end.inbox[0]
        end.take(int(begun))
        if begun:
            self.got[number] += CODEC.decode_batch(batch.body, batch.count)
            self.hands[number].append(first)
        if begun and returns:
            self._return(number, -1)

    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        """Let some handler return."""
        busy = [n for n, hands in self.hands.items() if hands]
        if busy:
            number = data.draw(st.sampled_from(busy))
            self._return(number, data.draw(st.integers(0, len(self.hands[number]) - 1)))

    def _return(self, number: int, at: int) -> None:
        self.ends[number].finish_one(self.hands[number].pop(at))

    @rule(data=st.data())
    def grant(self, data: st.DataObject) -> None:
        """Report what is owed."""
        number = data.draw(st.sampled_from(list(self.ends)))
        if self.ends[number].window.due(idle=True):
            self._report(number)

    def _report(self, number: int) -> None:
        self.reports.append(f.parse(self.ends[number].credit_frame()))

    # --- what always holds -----------------------------------------------------------------------

    @invariant()
    def no_more_than_one_waits(self) -> None:
        """Neither at the sender, for each queue, nor at a receiver."""
        if hasattr(self, "edge"):
            assert self.edge.waiting <= len(self.ends)
            assert all(end.depth == len(end.inbox) <= 1 for end in self.ends.values())

    def teardown(self) -> None:
        """At the end the newest message arrives, none came twice, and the books balance."""
        if not hasattr(self, "edge"):
            return
        for _ in range(10):
            self._flush()
            for number, end in self.ends.items():
                while self.hands[number]:
                    self._return(number, 0)
                while self.wires[number]:
                    self._arrive(number)
                while end.inbox:
                    self._turn(number, True, True)
                self._report(number)
                self._hear(self.reports.pop())
        assert self.edge.settled
        superseded = sum(end.superseded for end in self.ends.values())
        delivered = sorted(value for got in self.got.values() for value in got)
        assert self.emitted == len(delivered) + superseded + self.edge.fates.dropped
        assert delivered == sorted(set(delivered))
        assert all(got == sorted(got) for got in self.got.values())
        if self.emitted:
            assert delivered[-1] == self.emitted - 1


LatestPair.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestLatestPair = LatestPair.TestCase
