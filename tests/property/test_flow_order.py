"""A merge against a simple model: everything sorted by (input, place), nothing lost or held.

Inputs are dealt to the replicas of an ordered node; each brings some results, which go to one of
several receivers; completions travel some time behind the results. Every receiver merges what
arrives in any interleaving that keeps the channels' own order.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from dflow.flow.order import Merge
from dflow.wire.notes import NO_NOTES, Notes

Result = tuple[int, int]  # input, place


@dataclass
class Batch:
    """One frame of a channel: results, all tagged or all untagged, then completions."""

    messages: list[Result | None] = field(default_factory=list)
    completed: list[Result] = field(default_factory=list)  # input, results

    @property
    def notes(self) -> Notes:
        """What the frame says."""
        tagged = [m for m in self.messages if m is not None]
        if not tagged and not self.completed:
            return NO_NOTES
        return Notes(
            tags=[n for n, _ in tagged],
            places=[place for _, place in tagged],
            completed=[n for n, _ in self.completed],
            counts=[count for _, count in self.completed],
        )


@dataclass
class Stage:
    """What the replicas of an ordered node sent: ``wires[sender][receiver]`` are batches."""

    counts: list[int]
    wires: list[list[deque[Batch]]]
    tagged: list[list[Result]]  # by receiver, in order
    untagged: int = 0


def stage(rng: Random, senders: int, receivers: int, *, lost: float = 0.0) -> Stage:
    """Return a random stage; ``lost``: the part of inputs that are never said to be complete."""
    counts = [rng.choice((0, 1, 1, 1, 2, 5)) for _ in range(rng.randrange(40))]
    made = Stage(
        counts,
        [[deque() for _ in range(receivers)] for _ in range(senders)],
        [[] for _ in range(receivers)],
    )
    owed: list[list[Result]] = [[] for _ in range(senders)]

    def last_batch(sender: int, receiver: int, message: Result | None) -> Batch:
        wire = made.wires[sender][receiver]
        fits = wire and not wire[-1].completed
        if fits and wire[-1].messages and (wire[-1].messages[-1] is None) != (message is None):
            fits = False
        if not fits or rng.random() < 0.3:
            wire.append(Batch())
        return wire[-1]

    def complete(sender: int) -> None:
        for receiver in range(receivers):
            wire = made.wires[sender][receiver]
            if not wire or rng.random() < 0.5:
                wire.append(Batch())
            wire[-1].completed += owed[sender]
        owed[sender] = []

    for number, count in enumerate(counts):
        sender = rng.randrange(senders)
        for place in range(count):
            receiver = rng.randrange(receivers)
            last_batch(sender, receiver, (number, place)).messages.append((number, place))
            made.tagged[receiver].append((number, place))
            if rng.random() < 0.1:
                last_batch(sender, receiver, None).messages.append(None)
                made.untagged += 1
        if rng.random() >= lost:
            owed[sender].append((number, count))
        if rng.random() < 0.4:
            complete(sender)
    for sender in range(senders):
        complete(sender)
    return made


class Receiver:
    """One merge, its channels' messages, and what it delivered."""

    def __init__(self, senders: int, *, numbering: bool) -> None:
        self.merge = Merge("a.out->b.in", senders, numbering=numbering)
        self.inbox: list[deque[Result | None]] = [deque() for _ in range(senders)]
        self.delivered: list[Result] = []
        self.numbers: list[int] = []
        self.passed = 0

    def arrive(self, sender: int, batch: Batch) -> None:
        """Take in a batch."""
        self.merge.check(sender, batch.notes)
        self.merge.accept(sender, len(batch.messages), batch.notes)
        self.inbox[sender].extend(batch.messages)

    def handle(self, rng: Random) -> bool:
        """Handle some of what is ready; return whether anything was."""
        ready = self.merge.ready()
        if not ready:
            return False
        sender = rng.choice(ready)
        count = self.merge.available(sender, rng.randrange(1, 9))
        assert count > 0
        numbers = self.merge.numbers(sender, count)
        for number in numbers:
            message = self.inbox[sender].popleft()
            if message is None:
                assert number is None
                self.passed += 1
            else:
                assert number is not None
                self.delivered.append(message)
                self.numbers.append(number)
        self.merge.took(sender, count)
        return True


def play(
    rng: Random, made: Stage, senders: int, receivers: int, *, numbering: bool
) -> list[Receiver]:
    """Let everything arrive, in any order that keeps each channel's own, and be handled."""
    ends = [Receiver(senders, numbering=numbering) for _ in range(receivers)]
    wires = [(s, r) for s in range(senders) for r in range(receivers)]
    while wires:
        sender, receiver = rng.choice(wires)
        wire = made.wires[sender][receiver]
        if wire:
            ends[receiver].arrive(sender, wire.popleft())
        else:
            wires.remove((sender, receiver))
            ends[receiver].merge.end(sender)
        while rng.random() < 0.6 and ends[receiver].handle(rng):
            pass
    for end in ends:
        while end.handle(rng):
            pass
    return ends


randoms = st.builds(Random, st.integers(0, 2**64 - 1))
"""Not `st.randoms`: there each number is a choice of Hypothesis's own, many times as dear."""
some = st.integers(1, 4)


@given(randoms, some, some, st.booleans())
def test_every_receiver_gets_its_results_in_the_order_of_the_inputs(
    rng: Random, senders: int, receivers: int, numbering: bool
) -> None:
    made = stage(rng, senders, receivers)
    ends = play(rng, made, senders, receivers, numbering=numbering)
    assert [end.delivered for end in ends] == made.tagged
    assert sum(end.passed for end in ends) == made.untagged
    assert not any(end.merge.held for end in ends)


@given(randoms, some, some)
def test_a_message_s_number_is_its_position_among_all_results(
    rng: Random, senders: int, receivers: int
) -> None:
    made = stage(rng, senders, receivers)
    ends = play(rng, made, senders, receivers, numbering=True)
    every = sorted(result for end in ends for result in end.delivered)
    for end in ends:
        assert end.numbers == [every.index(result) for result in end.delivered]


@given(randoms, some, some, st.booleans())
def test_gaps_never_hang(rng: Random, senders: int, receivers: int, numbering: bool) -> None:
    made = stage(rng, senders, receivers, lost=0.3)
    ends = play(rng, made, senders, receivers, numbering=numbering)
    assert [end.delivered for end in ends] == made.tagged
    assert sum(end.passed for end in ends) == made.untagged
