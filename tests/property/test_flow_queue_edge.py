"""A queued edge against a simple model: nothing lost that is not counted, nothing out of order.

The model keeps what should wait in lists. It is told what was sent and when credit came back, and
says what a message offered now should bring about.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dflow.flow.out_edge import key_slot
from dflow.wire.codec import Codec
from tests.unit.queue_edges import FIRST, Wired, edge_plan

CAPACITIES = (1, 2, 8, 64, 1024)
SHAPES = ("shared", "keyed", "limited", "copied")
Message = list[int]  # numbers, merged ones together; each number's key is its remainder
KEYS = 5


def concatenate(waiting: Message, new: Message) -> Message:
    """Merge as coalesce does; it shows the order it was called in."""
    return waiting + new


class QueueMachine(RuleBasedStateMachine):
    """One edge with one policy, in any shape."""

    policy = "block"

    @initialize(
        capacity=st.sampled_from(CAPACITIES),
        channels=st.integers(1, 3),
        shape=st.sampled_from(SHAPES),
        limit=st.integers(1, 2),
    )
    def open(self, capacity: int, channels: int, shape: str, limit: int) -> None:
        """Make the edge."""
        self.capacity, self.shape, self.limit = capacity, shape, limit
        plan = edge_plan(
            policy=self.policy,
            capacity=capacity,
            keyed=shape in ("keyed", "limited"),
            broadcast=shape == "copied",
            limit=limit if shape == "limited" else 0,
            slots=2,
        )
        key = (lambda value: value[-1] % KEYS) if plan.keyed else None
        merge = concatenate if self.policy == "coalesce" else None
        self.wired = Wired(plan, channels, key=key, merge=merge)
        self.edge = self.wired.edge
        queues = channels if shape in ("keyed", "copied") else 1
        self.waiting: list[list[Message]] = [[] for _ in range(queues)]
        self.flying: dict[int, list[Message]] = {n: [] for n in self.wired.ends}
        self.emitted = 0
        self.lost = 0
        self.delivered: dict[int, list[Message]] = {n: [] for n in self.wired.ends}

    # --- the model -------------------------------------------------------------------------------

    def queue_of(self, number: int) -> int:
        """Return the queue that leads to a channel."""
        return number - FIRST if len(self.waiting) > 1 else 0

    def queues_for(self, key: int) -> list[int]:
        """Return the queues a message goes to."""
        if self.shape == "copied":
            return list(range(len(self.waiting)))
        if self.shape == "keyed":
            return [key_slot(key, len(self.waiting), Codec().encode)]
        return [0]

    def depth(self, queue: int) -> int:
        """Return what counts against the capacity."""
        if self.shape == "limited" or self.policy == "latest":
            return len(self.waiting[queue])
        own = 1 if self.policy in ("drop_oldest", "coalesce") else 0
        flying = [
            max(0, w.sent - w.taken - own)
            for number, w in zip(self.edge.channels, self.edge.windows, strict=True)
            if self.queue_of(number) == queue
        ]
        return len(self.waiting[queue]) + sum(flying)

    @property
    def bound(self) -> int:
        """Return how deep a queue may be."""
        return 1 if self.policy == "latest" else self.capacity

    def admit(self, queue: int, number: int) -> None:
        """Do to the model what the policy promises."""
        line = self.waiting[queue]
        if self.policy == "block" or self.depth(queue) < self.bound:
            line.append([number])
            return
        same = [one for one in line if one[-1] % KEYS == number % KEYS]
        mergeable = same if self.shape in ("keyed", "limited") else line
        self.lost += 1
        if self.policy == "coalesce" and mergeable:
            mergeable[-1].append(number)
        elif self.policy != "drop":
            line.append([number])
            line.pop(0)

    # --- the sender ------------------------------------------------------------------------------

    @rule(many=st.sampled_from((1, 1, 1, 2, 3, 7, 70)), key=st.integers(0, KEYS - 1))
    def emit(self, many: int, key: int) -> None:
        """Emit messages."""
        for _ in range(many):
            number = self.emitted * KEYS + key
            queues = self.queues_for(key)
            full = [q for q in queues if self.depth(q) >= self.bound]
            refused = self.wired.emit([number])
            if self.policy == "reject" and full:
                assert refused is not None
                assert (refused.capacity, refused.depth) == (self.capacity, self.capacity)
                self.lost += 1
                continue
            assert refused is None
            for queue in queues:
                self.admit(queue, number)
            self.emitted += 1

    @rule()
    def flush(self) -> None:
        """Send what has credit."""
        for number, values in self.wired.flush():
            line = self.waiting[self.queue_of(number)]
            for value in values:
                if self.shape == "limited":
                    key = value[-1] % KEYS
                    assert value == next(one for one in line if one[-1] % KEYS == key)
                else:
                    assert value == line[0]
                line.remove(value)
                self.flying[number].append(value)
        if self.policy == "latest":
            assert all(len(line) <= 1 for line in self.waiting)

    # --- the receivers ---------------------------------------------------------------------------

    @rule(data=st.data(), many=st.sampled_from((1, 1, 2, 50)))
    def handle(self, data: st.DataObject, many: int) -> None:
        """Handle some of what arrived at one receiver, and report it sometimes."""
        ready = [n for n, end in self.wired.ends.items() if end.inbox]
        if not ready:
            return
        number = data.draw(st.sampled_from(ready))
        end = self.wired.ends[number]
        for _ in range(min(many, len(end.inbox))):
            value = self.wired.codec.decode(end.handle())
            assert value == self.flying[number].pop(0)
            self.delivered[number].append(value)
        if data.draw(st.booleans()):
            self.wired.report(number)

    @rule(data=st.data())
    def report(self, data: st.DataObject) -> None:
        """A receiver reports what it owes."""
        self.wired.report(data.draw(st.sampled_from(list(self.wired.ends))))

    @rule(passed=st.sampled_from((0, 10**5, 10**7, 10**9)))
    def wait(self, passed: int) -> None:
        """Time passes."""
        self.wired.now += passed

    # --- what always holds -----------------------------------------------------------------------

    @invariant()
    def the_books_balance(self) -> None:
        """Everything offered waits, was sent, or has a fate."""
        if hasattr(self, "edge"):
            edge = self.edge
            assert edge.waiting == sum(map(len, self.waiting))
            sent = sum(window.sent for window in edge.windows)
            assert edge.offered == edge.waiting + sent + edge.fates.total
            assert edge.fates.total == self.lost

    @invariant()
    def no_queue_is_too_deep(self) -> None:
        """Only a sender that is told to wait may go beyond, by what it had at hand."""
        if hasattr(self, "edge") and self.policy != "block":
            assert all(self.depth(queue) <= self.bound for queue in range(len(self.waiting)))
            assert self.edge.peak <= self.bound * len(self.waiting)
            assert not self.edge.full

    @invariant()
    def no_key_has_more_in_flight_than_its_limit(self) -> None:
        """Nor a channel more than its slots."""
        if hasattr(self, "edge") and self.shape == "limited":
            flying = [one[-1] % KEYS for sent in self.flying.values() for one in sent]
            assert all(flying.count(key) <= self.limit for key in range(KEYS))
            assert all(len(sent) <= 2 for sent in self.flying.values())

    def teardown(self) -> None:
        """At the end everything that was not lost arrives, each key in order."""
        if not hasattr(self, "edge"):
            return
        while self.edge.waiting or any(end.inbox for end in self.wired.ends.values()):
            self.flush()
            for number, end in self.wired.ends.items():
                while end.inbox:
                    self.delivered[number].append(self.wired.codec.decode(end.handle()))
                    self.flying[number].pop(0)
                self.wired.report(number)
        for number in self.wired.ends:
            self.wired.report(number)
        assert self.edge.settled
        delivered = sum(map(len, self.delivered.values()))
        assert self.edge.offered == delivered + self.edge.fates.total
        for values in self.delivered.values():
            for key in range(KEYS):
                numbers = [n for value in values for n in value if n % KEYS == key]
                assert numbers == sorted(numbers)
        assert self.edge.end() == [
            (number, len(values)) for number, values in self.delivered.items()
        ]


def _case(policy: str) -> Any:
    machine: Any = type(f"{policy}_machine", (QueueMachine,), {"policy": policy})
    case = machine.TestCase
    case.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
    return case


TestBlock = _case("block")
TestDrop = _case("drop")
TestDropOldest = _case("drop_oldest")
TestLatest = _case("latest")
TestCoalesce = _case("coalesce")
TestReject = _case("reject")


@pytest.mark.parametrize("capacity", CAPACITIES)
def test_the_receiver_gets_the_newest_there_is(capacity: int) -> None:
    wired = Wired(edge_plan(policy="latest", capacity=capacity))
    got = []
    for number in range(100):
        wired.emit(number)
        wired.flush()
        if number % 10 == 9:
            got.append(wired.handle())
            wired.flush()
    assert got == [0, 9, 19, 29, 39, 49, 59, 69, 79, 89]
    assert wired.drain() == [99]
