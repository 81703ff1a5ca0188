"""Who is paused, and which replicas have yet to hear of it.

Whoever pauses a node is answered when every replica has confirmed, so that nothing is begun
afterwards. A replica that dies is not waited for, nor one that takes longer than `HEARD_S`: it
will hear of it before it looks at its next message.
"""

from __future__ import annotations

from dataclasses import dataclass

from dflow.broker.events import Instruction, Send
from dflow.broker.participants import Participants
from dflow.graph.plan import WorkerId
from dflow.wire import control as c

__all__ = ["HEARD_S", "Pausing"]

HEARD_S = 3.0
"""How long a replica may take to confirm."""


@dataclass(slots=True)
class _Awaited:
    key: bytes
    request: int
    owing: set[WorkerId]
    deadline: float


class Pausing:
    """The paused nodes of one run, by name: ``paused``."""

    def __init__(self, roll: Participants) -> None:
        self.paused: set[str] = set()
        self._roll = roll
        self._awaited: dict[int, _Awaited] = {}
        self._number = 0

    def __len__(self) -> int:
        """How many wait for an answer."""
        return len(self._awaited)

    def pause(self, node: str, key: bytes, request: int, now: float) -> list[Instruction]:
        """Tell the replicas of ``node``; the peer ``key`` is answered once all have heard."""
        self.paused.add(node)
        self._number += 1
        told = self._roll.running(node)
        self._awaited[self._number] = _Awaited(key, request, set(told), now + HEARD_S)
        word = c.Pause(node, 1, self._number)
        return [*(Send(reached, word) for reached in told.values()), *self._conclude()]

    def resume(self, node: str) -> list[Instruction]:
        """Let ``node`` go on, whether it is paused or not."""
        self.paused.discard(node)
        return [Send(key, c.Pause(node, 0)) for key in self._roll.running(node).values()]

    def resume_all(self) -> list[Instruction]:
        """Let every paused node go on."""
        return [todo for node in sorted(self.paused) for todo in self.resume(node)]

    def heard(self, who: WorkerId, number: int) -> list[Instruction]:
        """Take in that a replica takes no more data; unasked news change nothing."""
        if number in self._awaited:
            self._awaited[number].owing.discard(who)
        return self._conclude()

    def next_timer(self) -> float | None:
        """Return when somebody has been waited for long enough, or None."""
        return min((one.deadline for one in self._awaited.values()), default=None)

    def check(self, now: float) -> list[Instruction]:
        """Wait no longer for who cannot answer any more, nor for anybody after `HEARD_S`."""
        for one in self._awaited.values():
            gone = {who for who in one.owing if self._roll.reach(who) is None}
            one.owing = set() if now >= one.deadline else one.owing - gone
        return self._conclude()

    def _conclude(self) -> list[Instruction]:
        settled = [number for number, one in self._awaited.items() if not one.owing]
        ended = [self._awaited.pop(number) for number in settled]
        return [Send(one.key, c.Answer(one.request, "")) for one in ended]
