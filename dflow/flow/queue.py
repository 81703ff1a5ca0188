"""What waits for some channels of an edge, and what its policy does when there is too much.

*Depth* is what counts against ``capacity``: what waits here and what waits at a receiver. Which of
the messages in flight wait there depends on the policy: with one that asks for a message only
when hands are free (`EdgePlan.reports` "ready") none does; with those that choose among what waits
(drop_oldest, coalesce) all but the one a receiver has at hand; with the others all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dflow.flow.allowance import SHARED_NS, TARGET_NS, Allowance
from dflow.flow.batch import MAX_BATCH
from dflow.flow.credit import SendWindow
from dflow.flow.waiting import Item, Line
from dflow.graph.plan import EdgePlan

__all__ = ["EdgeCode", "Fate", "Queue"]


@dataclass(frozen=True, slots=True)
class EdgeCode:
    """What an edge needs of user code and codec: ``key`` and ``merge`` may be None.

    ``pack`` makes a payload of a value, where that is not `encode` (which keys are made with).
    """

    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]
    key: Callable[[Any], Any] | None = None
    merge: Callable[[Any, Any], Any] | None = None
    pack: Callable[[Any], Any] | None = None


Fate = str
"""Name of a field of `dflow.stats.Fates`."""


class Queue:
    """A line, and the credit of the channels it leads to (``channels``: their positions).

    ``lose(item, fate)`` is called for every message that will not be sent, waiting or not;
    ``failed(error)`` for what a merge raised.
    """

    __slots__ = (
        "_capacity", "_chooses", "_code", "_counts_flying", "_failed", "_lose", "_max_bytes",
        "_policy", "_ttl_ns", "allowances", "channels", "first", "line", "mark", "peak", "windows",
    )  # fmt: skip

    def __init__(
        self,
        plan: EdgePlan,
        line: Line,
        channels: Sequence[int],
        windows: Sequence[SendWindow],
        code: EdgeCode,
        lose: Callable[[Item, Fate], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self.line = line
        self.channels = tuple(channels)
        self.windows = tuple(windows)
        self.first = 0  # whose turn it is among channels with equal credit
        self.mark = 1  # messages at which emit has the wire looked at
        self.peak = 0
        self._policy = plan.policy
        self._code = code
        self._lose = lose
        self._failed = failed
        self._max_bytes = plan.max_bytes
        # a number that was given away must arrive: then the receiver drops what is too old
        numbered = plan.numbered_by_offer
        self._ttl_ns = None if plan.ttl_s is None or numbered else int(plan.ttl_s * 1e9)
        self._chooses = plan.policy in ("drop_oldest", "coalesce")
        self._counts_flying = plan.reports != "ready"
        self._capacity = 1 if plan.policy == "latest" else plan.capacity
        self.allowances: tuple[Allowance, ...] = ()
        if plan.reports != "ready" and (self._chooses or plan.numbered or plan.shared):
            most, least, target = plan.window, plan.slots, SHARED_NS
            if self._chooses:  # at least half of what waits does so here
                most = min(most, 1 + plan.capacity // 2 // len(self.channels))
                least, target = 1, TARGET_NS
            self.allowances = tuple(Allowance(most, least, target) for _ in self.channels)

    # --- how full --------------------------------------------------------------------------------

    @property
    def depth(self) -> int:
        """Messages that wait, here or at a receiver."""
        if not self._counts_flying:
            return len(self.line)
        own = 1 if self._chooses else 0
        return len(self.line) + sum([max(0, w.sent - w.taken - own) for w in self.windows])

    def over(self, size_bytes: int) -> bool:
        """Whether one more message of that size would be too many."""
        if self.depth >= self._capacity:
            return True
        return len(self.line) > 0 and self.line.size_bytes + size_bytes > self._max_bytes

    @property
    def full(self) -> bool:
        """Whether a sender that waits for credit should wait now."""
        waiting, waiting_bytes = len(self.line), self.line.size_bytes
        if not self._counts_flying:
            return waiting >= self._capacity or waiting_bytes >= self._max_bytes
        room, room_bytes = self._credit
        return room <= waiting or room_bytes <= waiting_bytes

    @property
    def stuck(self) -> bool:
        """Whether a message waits that has no credit."""
        room, room_bytes = self._credit
        return room < len(self.line) or room_bytes < self.line.size_bytes

    @property
    def _credit(self) -> tuple[int, int]:
        """Messages and bytes that may be sent now, by all channels together."""
        room = sum([max(w.room, 0) for w in self.windows])
        return room, sum([max(w.room_bytes, 0) for w in self.windows])

    def rooms(self) -> list[int]:
        """Return how many messages may leave by each channel now."""
        rooms = [w.room if w.room_bytes > 0 else 0 for w in self.windows]
        if self.allowances:
            rooms = [
                min(room, allowance.size - (w.sent - w.taken))
                for room, allowance, w in zip(rooms, self.allowances, self.windows, strict=True)
            ]
        return rooms

    def adapt(self, now: int) -> None:
        """Allow as many in flight as the receivers' reports say they need."""
        for allowance, w in zip(self.allowances, self.windows, strict=False):
            allowance.look(w.taken, w.sent - w.taken, now)

    def sending(self, channel: int, now: int) -> None:
        """Note that something is about to leave by a channel (its position)."""
        if self.allowances:
            at = self.channels.index(channel)
            self.allowances[at].sending(self.windows[at].sent - self.windows[at].taken, now)

    def update(self) -> None:
        """Say when emit should have the wire looked at next."""
        waiting = len(self.line)
        room = sum([max(room, 0) for room in self.rooms()])
        self.mark = waiting + MAX_BATCH if room <= waiting else min(waiting + MAX_BATCH, room)

    # --- what happens to a message ---------------------------------------------------------------

    def admit(self, item: Item, now: int) -> bool:
        """Let ``item`` wait, or do as the policy says; return whether it waits."""
        line = self.line
        if self._policy == "block":  # noted before it shrinks: by a flush, or a report
            line.push(item)
            return True
        self.expire(now)
        if self.over(len(item.payload)):
            if self._policy in ("drop", "reject"):
                self._lose(item, "dropped")
                return False
            if self._policy == "coalesce" and self._merge(item):
                return False
        line.push(item)
        while len(line) > 1 and self._beyond():
            oldest = line.oldest
            assert oldest is not None  # there are two
            self.drop(oldest, "dropped")
        self.note_peak()
        return True

    def note_peak(self) -> None:
        """Remember how deep it is, if it never was deeper."""
        self.peak = max(self.peak, self.depth)

    def _beyond(self) -> bool:
        return self.depth > self._capacity or self.line.size_bytes > self._max_bytes

    def _merge(self, item: Item) -> bool:
        """Merge ``item`` into the newest that waits; False if there is none, or it failed."""
        last = self.line.newest(item.key)
        code = self._code
        if last is None or code.merge is None:
            return False
        try:
            merged = code.merge(code.decode(last.payload), code.decode(item.payload))
            payload = (code.pack or code.encode)(merged)
        except Exception as error:  # noqa: BLE001  # user code may raise anything
            self._failed(error)
            return False
        self.line.replace(last, payload)
        last.emitted_ns = item.emitted_ns
        self._lose(item, "coalesced")
        return True

    def drop(self, item: Item, fate: Fate) -> None:
        """Take out a waiting item that will not be sent."""
        self.line.remove(item)
        self._lose(item, fate)

    def expire(self, now: int) -> None:
        """Drop what has waited for longer than it may."""
        if self._ttl_ns is None:
            return
        while (item := self.line.oldest) is not None and now - item.emitted_ns > self._ttl_ns:
            self.drop(item, "expired")
