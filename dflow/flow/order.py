"""Order across the replicas of a node: numbers at its inputs, tags on its results, one merge.

Each input of an ordered node has a number. Its replica handles inputs in ascending number and
tags what it emits with (number, place): the k-th result of that input on that output. When an input
is done, it says on every channel of the edge how many results there were. So the receiver need not
wait for a result that does not exist: it delivers what carries the expected number, and goes on
to the next one when the expected is complete and delivered.

Channels are ordered in themselves, so a merge holds back only what arrived, and nothing is held
for longer than the slowest replica takes. Memory is bounded by the windows of the channels and by
how far the sender lets replicas run ahead.

Sorting by time stamps was rejected (clocks differ), and so was a buffer of a fixed size (a filter
or a slow replica empties or fills any).
"""

from __future__ import annotations

from collections import deque
from itertools import islice

from dflow.errors import ProtocolError
from dflow.wire.notes import Notes

__all__ = ["Merge", "Origin"]

MAX_HELD = 1 << 22
"""Completions that are kept: more than any sender runs ahead. Nothing else bounds them."""

UNTAGGED = -1
"""Tag of what was emitted outside the order: by a hook, a tick, a control handler."""


class Origin:
    """One input while its results are made: its ``number``, and how many each output brought.

    ``number`` is None for what stands outside the order.
    """

    __slots__ = ("_counts", "number")

    def __init__(self, number: int | None) -> None:
        self.number = number
        self._counts: dict[str, int] = {}

    def tag(self, output: str) -> tuple[int, int] | None:
        """Return (number, place) for the next result on ``output``."""
        if self.number is None:
            return None
        place = self._counts.get(output, 0)
        self._counts[output] = place + 1
        return self.number, place


class _Line:
    """What one channel has brought and nobody has taken: (tag, place) of each message."""

    __slots__ = ("completed", "ended", "last", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[tuple[int, int]] = deque()
        self.last = (-1, 0)  # of what carries a tag
        self.completed = -1  # the newest input this channel said was complete
        self.ended = False

    @property
    def first(self) -> int:
        """The first tag that waits here; `UNTAGGED` if none does."""
        for tag, _ in self.waiting:
            if tag != UNTAGGED:
                return tag
        return UNTAGGED


class Merge:
    """The channels of one tagged edge at one of its receivers, put in order.

    Channels are named by their position. ``numbering``: the receiver is ordered itself, so each
    message gets the number it has in the merged stream of all receivers together.
    """

    __slots__ = ("_before", "_completed", "_lines", "_numbering", "edge_id", "expected")

    def __init__(self, edge_id: str, channels: int, *, numbering: bool = False) -> None:
        self.edge_id = edge_id
        self.expected = 0  # the smallest input number that may still bring a result
        self._numbering = numbering
        self._lines = [_Line() for _ in range(channels)]
        self._before = 0  # results of all inputs before the expected one
        self._completed: dict[int, tuple[int, int]] = {}  # of those beyond: (results, channel)

    # --- what arrives ----------------------------------------------------------------------------

    def check(self, channel: int, notes: Notes) -> None:
        """Raise `ProtocolError` if ``notes`` cannot be true; changes nothing."""
        line = self._lines[channel]
        last = line.last
        least = max(self.expected, line.completed + 1)
        for tag, place in zip(notes.tags, notes.places, strict=True):
            if tag < least or (tag, place) <= last:
                raise ProtocolError(
                    f"edge {self.edge_id}: expected a result after {max(last, (least - 1, 0))}, "
                    f"got ({tag}, {place})"
                )
            last = (tag, place)
        if len(self._completed) + len(notes.completed) > MAX_HELD:
            raise ProtocolError(f"edge {self.edge_id}: expected at most {MAX_HELD} inputs ahead")
        completed = line.completed
        for number in notes.completed:
            if number <= completed:
                raise ProtocolError(
                    f"edge {self.edge_id}: expected a completion after {completed}, got {number}"
                )
            completed = number

    def accept(self, channel: int, messages: int, notes: Notes) -> None:
        """Note a batch of ``messages`` that passed `check`; without tags, it passes unordered."""
        line = self._lines[channel]
        if notes.tags:
            line.waiting.extend(zip(notes.tags, notes.places, strict=True))
            line.last = line.waiting[-1]
        else:
            line.waiting.extend([(UNTAGGED, 0)] * messages)
        for number, count in zip(notes.completed, notes.counts, strict=True):
            if number >= self.expected:
                self._completed[number] = (count, channel)
            line.completed = number
        self._advance()

    def end(self, channel: int) -> None:
        """Note that nothing more comes by ``channel``."""
        self._lines[channel].ended = True
        self._advance()

    # --- what may be handled ---------------------------------------------------------------------

    def available(self, channel: int, most: int) -> int:
        """Return how many of the first ``most`` messages of ``channel`` may be handled now."""
        found = 0
        expected = self.expected
        for tag, _ in islice(self._lines[channel].waiting, most):
            if tag != UNTAGGED:
                while expected < tag and self._over(expected, channel):
                    expected += 1
                if tag > expected:
                    break
            found += 1
        return found

    def numbers(self, channel: int, count: int) -> list[int | None]:
        """Return the numbers of the first ``count`` messages, which must be `available`.

        None for what is outside the order.
        """
        found: list[int | None] = []
        expected, before = self.expected, self._before
        for tag, place in islice(self._lines[channel].waiting, count):
            if tag == UNTAGGED:
                found.append(None)
                continue
            while expected < tag:
                before += self._completed[expected][0]
                expected += 1
            found.append(before + place)
        return found

    def took(self, channel: int, count: int) -> None:
        """Note that the first ``count`` messages of ``channel`` were handled."""
        waiting = self._lines[channel].waiting
        for _ in range(count):
            waiting.popleft()
        self._advance()

    def ready(self) -> list[int]:
        """Return the channels of which something may be handled now."""
        return [i for i in range(len(self._lines)) if self.available(i, 1)]

    @property
    def awaited(self) -> tuple[int, list[int]]:
        """The number of the input whose results come next, and the channels that may bring them."""
        number = self.expected
        return number, [
            place
            for place, line in enumerate(self._lines)
            if not line.ended and line.completed < number and line.last[0] <= number
        ]

    @property
    def held(self) -> int:
        """Completions kept for later: inputs beyond the expected one."""
        return len(self._completed)

    # --- the expected number ---------------------------------------------------------------------

    def _over(self, number: int, channel: int) -> bool:
        """Whether ``number`` is complete, and no channel but ``channel`` has results of it."""
        said = self._completed.get(number)
        return said is not None and (said[1] == channel or self._lines[said[1]].first != number)

    def _advance(self) -> None:
        """Move on to the first number that may still bring a result."""
        while True:
            said = self._completed.get(self.expected)
            if said is not None:
                if self._lines[said[1]].first == self.expected:
                    return
                del self._completed[self.expected]
                self._before += said[0]
                self.expected += 1
            elif (after := self._after_gap()) is not None:
                for number in self._said_before(after):
                    self._before += self._completed.pop(number)[0]
                self.expected = after
            else:
                return

    def _said_before(self, after: int) -> list[int]:
        """Return the inputs before ``after`` of which a completion is kept.

        Not by counting up to it, unless it is near: how far it is, a peer says.
        """
        said = self._completed
        if after - self.expected > len(said):
            return [number for number in said if number < after]
        return [number for number in range(self.expected, after) if number in said]

    def _after_gap(self) -> int | None:
        """Return the number to go on with when nobody can bring the expected one any more.

        Channels are ascending: one that has ended, or whose first result or last completion is
        beyond the expected number, brings none. None while one may. To number what follows, the
        completions must be known, too, and these come after the results.
        """
        smallest: int | None = None
        for line in self._lines:
            least = line.first
            if not line.ended:
                told = line.completed + 1
                if least == UNTAGGED or (self._numbering and told < least):
                    least = told
            if least == UNTAGGED:
                continue
            if least <= self.expected:
                return None
            smallest = least if smallest is None else min(smallest, least)
        return smallest
