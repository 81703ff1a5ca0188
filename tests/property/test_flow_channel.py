"""One edge in memory: an `OutEdge`, its channels as queues, and an `InChannel` for each.

Batches arrive in order and are never lost (ZeroMQ's promise on a living connection); credit
reports may be lost, repeated and overtaken, which the protocol has to survive by itself. The
values are encoded and decoded for real, so what is compared is what a handler would see.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from dflow.flow.in_edge import InChannel
from dflow.flow.out_edge import OutEdge
from dflow.message import Priority
from dflow.wire import frames as f
from dflow.wire.codec import Codec

EPOCH = 7
FIRST = 40  # channel numbers need not begin at 0
CODEC = Codec()

Message = tuple[int, int, bytes]  # number, key, padding


class ChannelPair(RuleBasedStateMachine):
    """What both ends know, what is under way, and what the user gave and got."""

    @initialize(
        capacity=st.integers(1, 6),
        max_bytes=st.integers(10, 90),
        receivers=st.integers(1, 3),
        keyed=st.booleans(),
        shared=st.booleans(),
    )
    def open(
        self, capacity: int, max_bytes: int, receivers: int, keyed: bool, shared: bool
    ) -> None:
        """Make the two ends; of a shared edge, each has only what is worked off soon."""
        self.reporting = "prompt" if shared else "half"
        self.capacity, self.max_bytes = capacity, max_bytes
        numbers = range(FIRST, FIRST + receivers)
        key = (lambda message: message[1]) if keyed else None
        least = 2 if shared else 0
        self.edge = OutEdge(
            0, "a.out->b.in", numbers, capacity, max_bytes, key, CODEC.decode, least
        )
        self.ends = {n: self._receiver(n) for n in numbers}
        self.wires: dict[int, deque[bytes]] = {n: deque() for n in numbers}
        self.reports: list[f.Frame] = []
        self.given: list[Message] = []
        self.got: dict[int, list[Message]] = {n: [] for n in numbers}
        self.now = 0
        self.sent_at: dict[int, int] = {}  # of each message, when it was put on the wire
        self.on_channel: dict[int, list[Message]] = {n: [] for n in numbers}

    def _receiver(self, number: int) -> InChannel:
        return InChannel(
            number, "a.out->b.in", "in", Priority.NORMAL, self.capacity, self.max_bytes, EPOCH,
            reports=self.reporting,
        )  # fmt: skip

    # --- the sender ---------------------------------------------------------------------------

    @rule(key=st.integers(0, 4), padding=st.integers(0, 40))
    def emit(self, key: int, padding: int) -> None:
        """Emit a message; some are larger than the whole byte window."""
        message = (len(self.given), key, b"x" * padding)
        self.given.append(message)
        lane, encoded_key = self.edge.route(message, CODEC.encode)
        lane.push(CODEC.encode(message), encoded_key)

    @rule()
    def flush(self) -> None:
        """Put on the wire whatever has credit."""
        self._flush()

    def _flush(self) -> int:
        self.now += 1
        cuts = self.edge.flush(self.now)
        for number, first, payloads, _ in cuts:
            messages = [CODEC.decode(payload) for payload in payloads]
            self.on_channel[number] += messages
            self.sent_at |= dict.fromkeys([message[0] for message in messages], self.now)
            self.wires[number].append(f.pack_batch(number, EPOCH, first, payloads, 1))
        return len(cuts)

    # --- the receivers ------------------------------------------------------------------------

    @rule(data=st.data())
    def arrive(self, data: st.DataObject) -> None:
        """Take one frame off one wire, if there is any."""
        ready = [n for n, wire in self.wires.items() if wire]
        if ready:
            self._arrive(data.draw(st.sampled_from(ready)))

    def _arrive(self, number: int) -> None:
        self.ends[number].accept(f.parse(self.wires[number].popleft()))

    @rule(data=st.data(), most=st.integers(1, 4))
    def take(self, data: st.DataObject, most: int) -> None:
        """Hand some messages of one inbox to the handler."""
        ready = [n for n, end in self.ends.items() if end.inbox]
        if ready:
            self._take(data.draw(st.sampled_from(ready)), most)

    def _take(self, number: int, most: int) -> None:
        end = self.ends[number]
        batch = end.inbox[0]
        values = CODEC.decode_batch(batch.body, batch.count)
        taken = values[batch.position : batch.position + most]
        self.got[number].extend(taken)
        end.take(len(taken))

    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        """A handler returns."""
        ready = [n for n, end in self.ends.items() if end.window.done < end.window.taken]
        if ready:
            self.ends[data.draw(st.sampled_from(ready))].finish(1)

    # --- reports: lost, repeated, out of order -------------------------------------------------

    @rule(data=st.data(), idle=st.booleans())
    def report(self, data: st.DataObject, idle: bool) -> None:
        """A receiver reports when it must, or when it is idle."""
        due = [end for end in self.ends.values() if end.window.due(idle=idle)]
        if due:
            self.reports.append(f.parse(data.draw(st.sampled_from(due)).credit_frame()))

    @precondition(lambda self: self.reports)
    @rule(data=st.data(), keep=st.booleans())
    def hear(self, data: st.DataObject, keep: bool) -> None:
        """Any report arrives; if it is kept, it will arrive again."""
        at = data.draw(st.integers(0, len(self.reports) - 1))
        self._hear(self.reports[at] if keep else self.reports.pop(at))

    def _hear(self, frame: f.Frame) -> None:
        self.edge.on_credit(frame.channel, *f.parse_credit(frame))

    @precondition(lambda self: self.reports)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        """A report is lost."""
        del self.reports[data.draw(st.integers(0, len(self.reports) - 1))]

    # --- liveness --------------------------------------------------------------------------------

    @rule()
    def settle(self) -> None:
        """Once every receiver is idle and was heard, what is pending can be cut."""
        self._become_idle()
        assert not self.edge.full or self.edge.waiting
        pending = self.edge.waiting
        cut = self._flush()
        assert cut or not pending
        assert self.edge.waiting < pending or not pending

    def _become_idle(self) -> None:
        for number, end in self.ends.items():
            while self.wires[number]:
                self._arrive(number)
            while end.inbox:
                self._take(number, end.inbox[0].count)
            end.finish(end.window.taken - end.window.done)
            self._hear(f.parse(end.credit_frame()))
            assert not end.window.due(idle=True)

    # --- what is always true ----------------------------------------------------------------------

    @invariant()
    def windows_are_respected(self) -> None:
        """At most the window is outstanding, or one large message alone."""
        for window in self.edge.windows:
            outstanding = window.sent - window.taken
            outstanding_bytes = window.sent_bytes - window.taken_bytes
            assert 0 <= outstanding <= self.capacity
            assert outstanding_bytes <= self.max_bytes or outstanding == 1

    @invariant()
    def books_balance(self) -> None:
        """Every message is waiting, on a wire, in an inbox, or with the handler."""
        edge = self.edge
        assert edge.offered == len(self.given)
        assert edge.offered == sum(w.sent for w in edge.windows) + edge.waiting
        for number, window in zip(edge.channels, edge.windows, strict=True):
            end = self.ends[number]
            flying = sum(f.parse(frame).count for frame in self.wires[number])
            assert window.sent == end.window.received + flying
            assert end.depth == sum(batch.count - batch.position for batch in end.inbox)
            assert window.done <= window.taken <= end.window.taken == len(self.got[number])

    @invariant()
    def each_channel_is_in_order(self) -> None:
        """What arrives is a part of what was given, in its order, nothing twice."""
        for got in self.got.values():
            numbers = [number for number, _, _ in got]
            assert numbers == sorted(set(numbers))
        everything = [message for got in self.got.values() for message in got]
        assert len(everything) == len({number for number, _, _ in everything})
        assert all(self.given[number] == (number, *rest) for number, *rest in everything)

    @invariant()
    def a_key_stays_with_one_replica(self) -> None:
        """No key is seen by two receivers."""
        if self.edge.key is not None:
            owners = {(message[1], n) for n, got in self.got.items() for message in got}
            assert len(owners) == len({key for key, _ in owners})

    @invariant()
    def keys_are_counted(self) -> None:
        """What is told of each key is what the sender can know of its messages."""
        edge = self.edge
        counts: dict[int, list[int]] = {}
        for number, window in zip(edge.channels, edge.windows, strict=True):
            for at, message in enumerate(self.on_channel[number]):
                counts.setdefault(message[1], [0, 0, 0])[2 if at < window.done else 1] += 1
        for message in self.given:
            if message[0] not in self.sent_at:
                counts.setdefault(message[1], [0, 0, 0])[0] += 1
        told = {k.key: [k.waiting, k.in_flight, k.done] for k in edge.queue_stats(self.now).keys}
        assert told == ({} if edge.key is None else {repr(k): c for k, c in counts.items()})

    @invariant()
    def the_oldest_has_an_age(self) -> None:
        """It is at least the time since it was sent; nothing is older than its first flush."""
        undone = [
            message[0]
            for number, window in zip(self.edge.channels, self.edge.windows, strict=True)
            for message in self.on_channel[number][window.done :]
        ]
        age = round(self.edge.queue_stats(self.now).oldest_s * 1e9)
        if undone:
            assert age >= self.now - min(self.sent_at[number] for number in undone)
        if self.edge.settled:
            assert age == 0
        assert age <= self.now

    def teardown(self) -> None:
        """At the end everything arrives, once, and every receiver sees the end."""
        if not hasattr(self, "edge"):
            return
        while self.edge.waiting:
            self.settle()
        self._become_idle()
        assert sorted(m for got in self.got.values() for m in got) == self.given
        assert self.edge.settled
        assert not self.edge.full
        for number, sent in self.edge.end():
            self.ends[number].accept_end(f.parse(f.pack_end(number, EPOCH, sent, 2)))
        assert all(end.exhausted for end in self.ends.values())
        assert self.edge.end() == []


def _machine() -> Any:
    case = ChannelPair.TestCase
    case.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
    return case


TestChannelPair = _machine()
