"""Two ordered stages in memory: real edges, channels and merges, everything else at random.

Whatever is emitted, sent, delivered, reported or handled next, the sink gets every result in
order, nothing gets stuck while there is something to do, and what a merge keeps stays bounded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dflow.flow.in_edge import InChannel
from dflow.flow.order import Merge, Origin
from dflow.flow.queue_edge import EdgeCode, QueueEdge
from dflow.graph.plan import EdgePlan
from dflow.message import Priority
from dflow.wire.codec import Codec
from dflow.wire.frames import pack_batch, pack_end, pack_noted, parse, parse_beyond, parse_credit
from dflow.wire.notes import pack_notes

CODEC = Codec()


@dataclass
class Shape:
    """How one pipeline looks."""

    inputs: int
    capacity: int
    first: int  # replicas of the first ordered stage
    second: int
    keyed: bool


class Edge:
    """One edge between replicas: senders' halves, receivers' halves, and what is under way."""

    def __init__(
        self,
        senders: int,
        receivers: int,
        capacity: int,
        *,
        key: bool = False,
        numbering: bool = False,
        **how: Any,
    ) -> None:
        plan = EdgePlan(
            0, "a.out->b.in", "a", "out", "b", "in", "block", capacity, 1 << 20,
            Priority.NORMAL, key, **how,
        )  # fmt: skip
        self.channels: dict[tuple[int, int], InChannel] = {}
        self.wires: dict[tuple[int, int], deque[bytes]] = {}
        code = EdgeCode(CODEC.encode, CODEC.decode, (lambda x: x[0] % 5) if key else None)
        self.senders: list[QueueEdge] = []
        for sender in range(senders):
            numbers = [sender * receivers + receiver for receiver in range(receivers)]
            self.senders.append(QueueEdge(plan, numbers, code))
            for receiver, number in enumerate(numbers):
                self.wires[sender, receiver] = deque()
                self.channels[sender, receiver] = InChannel(
                    number, plan.id, "in", plan.priority, plan.window, plan.max_bytes, 1,
                    numbered=plan.numbered, reports=plan.reports,
                )  # fmt: skip
        self.merges = [
            self._merge(senders, receiver, numbering=numbering)
            for receiver in range(receivers if plan.tagged else 0)
        ]
        self.ending: set[int] = set()
        self.over = [False] * senders

    def _merge(self, senders: int, receiver: int, *, numbering: bool) -> Merge:
        merge = Merge("a.out->b.in", senders, numbering=numbering)
        siblings = tuple(self.channels[sender, receiver] for sender in range(senders))
        for channel in siblings:
            channel.join(merge, siblings)
        return merge

    def into(self, receiver: int) -> list[InChannel]:
        """Return the channels of a receiver."""
        return [channel for (_, to), channel in self.channels.items() if to == receiver]

    def offer(self, sender: int, value: Any, tag: tuple[int, int] | None = None) -> None:
        """Emit."""
        edge = self.senders[sender]
        edge.offer(CODEC.encode(value), edge.place(value), 0, tag=tag)

    def flush(self, sender: int) -> bool:
        """Send what has credit, and END after the last; return whether anything was sent."""
        edge = self.senders[sender]
        sent = False
        for number, first, payloads, notes in edge.flush(0):
            said = pack_notes(notes)
            frame = (
                pack_noted(number, 1, first, payloads, 0, said)
                if said
                else pack_batch(number, 1, first, payloads, 0)
            )
            self._wire(number).append(frame)
            sent = True
        if sender in self.ending:
            for number, count in edge.end():
                self._wire(number).append(pack_end(number, 1, count, 0))
                sent = True
        return sent

    def _wire(self, number: int) -> deque[bytes]:
        receivers = len(self.senders[0].channels)
        return self.wires[number // receivers, number % receivers]

    def deliver(self, way: tuple[int, int]) -> bool:
        """Let one frame arrive."""
        if not self.wires[way]:
            return False
        frame = parse(self.wires[way].popleft())
        channel = self.channels[way]
        if frame.count or len(frame.notes):
            channel.accept(frame)
        else:
            channel.accept_end(frame)
        return True

    def report(self, way: tuple[int, int]) -> bool:
        """Let a credit report arrive; return whether one was owed."""
        channel = self.channels[way]
        if not channel.window.due(idle=True):
            return False
        frame = parse(channel.credit_frame())
        edge = self.senders[way[0]]
        edge.on_credit(channel.number, *parse_credit(frame), parse_beyond(frame))
        return True


def results(stage: int, value: Sequence[int]) -> list[list[int]]:
    """Return what a stage makes of a value: nothing, one, or several."""
    count = (sum(value) * 7 + stage) % 4
    return [[*value, place] for place in range(count)]


class Pipeline:
    """source -> first (ordered) -> second (ordered) -> sink."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.edges = [
            Edge(1, shape.first, shape.capacity, key=shape.keyed, numbered=True),
            Edge(shape.first, shape.second, shape.capacity, tagged=True, numbering=True),
            Edge(shape.second, 1, shape.capacity, tagged=True),
        ]
        self.emitted = 0
        self.got: list[list[int]] = []

    def source(self) -> bool:
        """Emit a number, or end."""
        edge = self.edges[0]
        if self.emitted < self.shape.inputs:
            if edge.senders[0].full:
                return False
            edge.offer(0, [self.emitted])
            self.emitted += 1
            return True
        return self.end(edge, 0)

    def end(self, edge: Edge, sender: int) -> bool:
        """Let END go out after everything; return whether that is new."""
        new = sender not in edge.ending
        edge.ending.add(sender)
        return new

    def handle(self, stage: int, replica: int) -> bool:
        """Let a replica of a stage handle a message, or end after the last."""
        into, out = self.edges[stage - 1], self.edges[stage]
        channels = into.into(replica)
        if all(channel.exhausted for channel in channels):
            return self.end(out, replica)
        if out.senders[replica].full:
            return False
        channel = next((one for one in channels if one.deliverable), None)
        if channel is None:
            return False
        (number,) = channel.numbers(1)
        origin = Origin(number)
        for result in results(stage, self._take(channel)):
            out.offer(replica, result, origin.tag("out"))
        if number is not None:
            out.senders[replica].complete(number)
        return True

    def sink(self) -> bool:
        """Take a message at the end."""
        for channel in self.edges[2].into(0):
            if channel.deliverable:
                self.got.append(self._take(channel))
                return True
        return False

    def _take(self, channel: InChannel) -> Any:
        batch = channel.inbox[0]
        if batch.values is None:
            batch.values = CODEC.decode_batch(batch.body, batch.count)
        value = batch.values[batch.position]
        channel.take(1)
        channel.finish(1)
        return value

    def actions(self) -> list[Callable[[], bool]]:
        """Return everything that can happen; each says whether it did."""
        found: list[Callable[[], bool]] = [self.source, self.sink]
        found += [partial(self.handle, 1, replica) for replica in range(self.shape.first)]
        found += [partial(self.handle, 2, replica) for replica in range(self.shape.second)]
        for edge in self.edges:
            found += [partial(edge.flush, sender) for sender in range(len(edge.senders))]
            found += [partial(edge.deliver, way) for way in edge.wires]
            found += [partial(edge.report, way) for way in edge.wires]
        return found

    @property
    def held(self) -> int:
        """The most completions a merge keeps."""
        return max(merge.held for edge in self.edges for merge in edge.merges)


randoms = st.builds(Random, st.integers(0, 2**64 - 1))
"""Not `st.randoms`: there each number is a choice of Hypothesis's own, many times as dear."""

shapes = st.builds(
    Shape,
    inputs=st.integers(0, 40),
    capacity=st.sampled_from([1, 2, 3, 8]),
    first=st.integers(2, 3),
    second=st.integers(1, 3),
    keyed=st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(shapes, randoms)
def test_two_ordered_stages_keep_the_order_and_never_get_stuck(shape: Shape, rng: Random) -> None:
    pipeline = Pipeline(shape)
    actions = pipeline.actions()
    weights = [rng.choice((1, 1, 3, 10)) for _ in actions]  # somebody is slow
    most_held = 0
    idle = False
    while not idle:
        for act in rng.choices(actions, weights, k=30):
            act()
        most_held = max(most_held, pipeline.held)
        done = [act() for act in actions]
        idle = not any(done)
    expected = [
        last
        for number in range(shape.inputs)
        for one in results(1, [number])
        for last in results(2, one)
    ]
    assert pipeline.got == expected
    assert all(channel.exhausted for channel in pipeline.edges[2].into(0))
    assert pipeline.held == 0
    assert most_held <= 8 * shape.capacity * max(shape.first, shape.second)
