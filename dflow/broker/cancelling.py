"""Cancelling a message that is somewhere in the run: who has it, and what became of it there.

Only its sender knows a message by its id. So a search has two steps, which overlap: every
worker is asked to `Find` it, and withdraws what still waits there; for each copy that has left,
it names channel and sequence, and the receiver of that channel is told to `Cancel` it. The reply
goes out when all have answered, or with what is known when some have died or take too long.

    CancelRequest ──▶ Find to every worker ──▶ Found ──▶ Cancel to receivers ──▶ Outcome ──▶ CancelReply

A launching process that sent the message itself knows where the copies are and names them; its
search begins with `Cancel`. A message may have copies (several edges, or a broadcast): the reply
is the `strongest` of their outcomes. Late, repeated or unasked answers
change nothing.
"""  # noqa: E501  # a picture

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dflow.broker.events import Instruction, Send
from dflow.errors import ProtocolError
from dflow.graph.plan import ChannelPlan, WorkerId
from dflow.message import Cancelled, strongest
from dflow.wire import control as c

__all__ = ["ANSWER_S", "Cancelling"]

ANSWER_S = 5.0
"""How long a search waits for workers that do not answer."""

Reach = Callable[[WorkerId], bytes | None]


@dataclass(slots=True)
class _Search:
    """One request; ``asked`` have not answered `Find`, ``aimed`` owe so many `Outcome`."""

    key: bytes
    request: int
    deadline: float
    outcome: Cancelled = Cancelled.UNKNOWN
    asked: set[WorkerId] = field(default_factory=set)
    aimed: Counter[WorkerId] = field(default_factory=Counter)

    @property
    def settled(self) -> bool:
        """Whether nobody owes an answer any more, so that the reply can go out."""
        return not self.asked and not self.aimed

    def learn(self, outcome: Cancelled) -> None:
        """Take in what became of one copy; the strongest outcome stays."""
        self.outcome = strongest((self.outcome, outcome))


class Cancelling:
    """Every search under way.

    ``channels``: every channel by its number, between worker processes. ``reach`` returns the
    routing id of a participant that can answer now, or None for one that cannot (any more).
    """

    def __init__(self, channels: Mapping[int, ChannelPlan], reach: Reach) -> None:
        self._channels = channels
        self._reach = reach
        self._searches: dict[int, _Search] = {}
        self._number = 0

    def __len__(self) -> int:
        return len(self._searches)

    def next_timer(self) -> float | None:
        """Return when the first search is given up, or None."""
        return min((search.deadline for search in self._searches.values()), default=None)

    def ask(
        self, key: bytes, asked: c.CancelRequest, who: WorkerId, workers: Iterable[WorkerId],
        now: float,
    ) -> list[Instruction]:  # fmt: skip
        """Begin the search that ``who``, at ``key``, asks for.

        ``workers`` may have emitted the message. Raises ProtocolError for malformed rows.
        """
        targets = self._targets(asked.rows, who)
        self._number += 1
        search = self._searches[self._number] = _Search(key, asked.request, now + ANSWER_S)
        if asked.rows:
            return self._aim(self._number, search, targets) + self._conclude()
        todo: list[Instruction] = []
        for worker in workers:
            reached = self._reach(worker)
            if reached is not None:
                search.asked.add(worker)
                todo.append(Send(reached, c.Find(self._number, asked.id)))
        return todo + self._conclude()

    def answered(self, who: WorkerId, answer: c.Found | c.Outcome) -> list[Instruction]:
        """Take in what a sender knows, or a receiver did.

        Raises ProtocolError, changing nothing, for nonsense.
        """
        return self._found(who, answer) if isinstance(answer, c.Found) else self._done(who, answer)

    def _found(self, who: WorkerId, answer: c.Found) -> list[Instruction]:
        outcome, targets = _outcome(who, answer.outcome), self._targets(answer.rows, who)
        search = self._searches.get(answer.request)
        if search is None or who not in search.asked:
            return []
        search.asked.remove(who)
        search.learn(outcome)
        return self._aim(answer.request, search, targets) + self._conclude()

    def _done(self, who: WorkerId, answer: c.Outcome) -> list[Instruction]:
        outcome = _outcome(who, answer.outcome)
        search = self._searches.get(answer.request)
        if search is None or not search.aimed[who]:
            return []
        search.aimed[who] -= 1
        search.aimed += Counter()  # drops those that owe nothing any more
        search.learn(outcome)
        return self._conclude()

    def check(self, now: float) -> list[Instruction]:
        """Wait no longer for who cannot answer any more, nor for anybody after `ANSWER_S`."""
        for search in self._searches.values():
            for who in [*search.asked, *search.aimed]:
                if now >= search.deadline or self._reach(who) is None:
                    search.asked.discard(who)
                    del search.aimed[who]
        return self._conclude()

    def _aim(
        self, number: int, search: _Search, targets: Sequence[tuple[WorkerId, int, int]]
    ) -> list[Instruction]:
        todo: list[Instruction] = []
        for receiver, channel, sequence in targets:
            reached = self._reach(receiver)
            if reached is not None:
                search.aimed[receiver] += 1
                todo.append(Send(reached, c.Cancel(number, channel, sequence)))
        return todo

    def _conclude(self) -> list[Instruction]:
        settled = [number for number, search in self._searches.items() if search.settled]
        ended = [self._searches.pop(number) for number in settled]
        return [Send(s.key, c.CancelReply(s.request, s.outcome.value)) for s in ended]

    def _targets(self, rows: Sequence[Any], sender: WorkerId) -> list[tuple[WorkerId, int, int]]:
        """Return (receiver, channel, sequence) of each row, all checked."""
        targets = []
        for row in rows:
            match row:
                case [int(number), int(sequence)] if sequence >= 0 and number in self._channels:
                    channel = self._channels[number]
                case _:
                    raise ProtocolError(f"{sender}: expected [channel, sequence], got {row!r:.80}")
            if channel.sender != sender:
                raise ProtocolError(f"{sender}: channel {number} belongs to {channel.sender}")
            targets.append((channel.receiver, number, sequence))
        return targets


def _outcome(who: WorkerId, value: str) -> Cancelled:
    try:
        return Cancelled(value)
    except ValueError:
        known = ", ".join(outcome.value for outcome in Cancelled)
        raise ProtocolError(f"{who}: expected one of {known}, got {value[:40]!r}") from None
