"""What must hold after each step of a run, whatever its graph is and whatever goes wrong.

Each check compares what two parts know that do not share their counters: the two ends of a channel,
an edge and its windows, a worker and those it is connected with. So a mistake in one of them shows
where it happens, and not at the end, when the books do not balance.

`Invariants.look` is called after each step with the participant that made it; it looks only at what
has changed since, for it is called some ten thousand times a second. `Invariants.glance` asks now
and then who rests. Nothing here changes anything.

| name | what must hold |
|---|---|
| ``order`` | what lies in an inbox follows what was taken, without a gap |
| ``loss`` | nothing arrived, was taken, done or reported that was not sent, arrived, taken, done |
| ``depth`` | neither end of a channel holds more than its window |
| ``credit`` | the counters of a channel never go back |
| ``books`` | each edge has as many messages as it was offered; at the end, both ends agree |
| ``life`` | a worker starts, runs and stops when those before or behind it have |
| ``deadlock`` | nobody rests for long while there is something that only it could do |
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from dflow.flow.in_edge import InChannel
from dflow.flow.local_edge import LocalEdge
from dflow.flow.queue_edge import QueueEdge
from dflow.graph.plan import EdgePlan, Plan, WorkerId
from dflow.message import EXTERNAL
from dflow.report import RunReport
from dflow.testing.lives import Lives
from dflow.worker.plane import DataPlane
from dflow.worker.state import Phase

__all__ = ["COMPLETE", "Broken", "Invariants", "Seen", "channel_name"]

PATIENCE_NS = 5_000_000_000
"""How long something may lie still before it is asked who could take it."""

STARVING_NS = 30_000_000_000
"""How long a sender may wait for credit that is its own, if no report is lost."""

GLANCE_NS = 1_000_000_000
"""How often that is asked."""

COMPLETE = ("finished", "drained")
_DROPPED = (Phase.STOPPING, Phase.STOPPED, Phase.GONE)
"""Phases in which what lay in an inbox may have been given up."""


@dataclass(frozen=True, slots=True)
class Broken:
    """An invariant that does not hold: ``where``, and when (virtual time).

    ``channels`` are the numbers of those concerned.
    """

    invariant: str
    where: str
    expected: str
    got: str
    now_ns: int
    channels: tuple[int, ...] = ()

    def __str__(self) -> str:
        """Return one sentence."""
        return (
            f"{self.invariant}: {self.where}: expected {self.expected}, got {self.got},"
            f" at {self.now_ns / 1e9:.9f} s"
        )


@dataclass(slots=True)
class Seen:
    """One participant as it can be observed. ``phase`` is None for the launching process.

    ``excused``: it has a reason to rest that is not dflow's: user code is under way or waits, it is
    paused, has not got its turn, or has no processor. ``aborted``: the run is cut short.
    """

    worker: WorkerId
    plane: DataPlane
    phase: Phase | None = None
    alive: bool = True
    excused: bool = False
    aborted: bool = False

    def taken(self) -> int:
        """Return how many messages it has taken."""
        return sum([channel.window.taken for channel in self.plane.inbound.channels.values()])


class _Sender(NamedTuple):
    """The sender's end of a channel, as it is now; it only grows."""

    sent: int
    sent_bytes: int
    taken: int
    taken_bytes: int
    done: int


class _Receiver(NamedTuple):
    """The receiver's end of a channel, as it is now; it only grows."""

    received: int
    taken: int
    done: int


_UNSENT = _Sender(0, 0, 0, 0, 0)
_EMPTY = _Receiver(0, 0, 0)


class Invariants:
    """Of one run; `look` after each step, `conclude` at its end.

    ``starving_ns``: how long a sender may wait for credit that is its own; where reports are lost,
    that is as long as it takes until it has asked for them often enough.
    """

    def __init__(self, plan: Plan, starving_ns: int = STARVING_NS) -> None:
        self._starving_ns = starving_ns
        self._plan = plan
        self._edges: dict[int, EdgePlan] = {e.index: e for e in (*plan.edges, *plan.external_edges)}
        self._ways = plan.ways
        self._senders: dict[int, _Sender] = {}
        self._receivers: dict[int, _Receiver] = {}
        self._met: set[WorkerId] = set()
        self._windows: dict[int, Any] = {}
        self._channels: dict[int, InChannel] = {}
        self._moved_ns: dict[int, int] = {}  # when the receiver's end of a channel last changed
        self._sent_ns: dict[int, int] = {}
        self._lives = Lives(plan)
        self._glanced_ns = 0

    def look(self, who: Seen, now_ns: int) -> Broken | None:
        """Return what ``who`` has broken in the step it has just made, or None."""
        return next(self._step(who, now_ns), None)

    def died(self, worker: WorkerId) -> None:
        """Note that the process of ``worker`` has ended."""
        self._lives.died(worker)

    def due(self, now_ns: int) -> bool:
        """Whether it is time for `glance`."""
        return now_ns - self._glanced_ns > GLANCE_NS

    def glance(self, everybody: Mapping[WorkerId, Seen], now_ns: int) -> Broken | None:
        """Return who rests without a reason, or None; `Seen.excused` must be up to date."""
        self._glanced_ns = now_ns
        return next(self._resting(everybody, now_ns), None)

    def _meet(self, who: Seen) -> None:
        """Learn where the counters of a participant's senders are."""
        self._met.add(who.worker)
        for edge in who.plane.outbound.edges:
            if not isinstance(edge, LocalEdge):
                self._windows |= dict(zip(edge.channels, edge.windows, strict=True))

    def _step(self, who: Seen, now: int) -> Iterator[Broken]:
        if who.worker not in self._met:
            self._meet(who)
        for channel in who.plane.inbound.channels.values():
            window = channel.window
            now_is = (window.received, window.taken, window.done)
            if now_is != self._receivers.get(channel.number, _EMPTY):  # a plain one costs less
                seen = _Receiver(*now_is)
                yield from self._receiver(channel, seen, now)
                if who.phase not in _DROPPED:
                    yield from self._inbox(channel, seen, now)
                self._receivers[channel.number] = seen
                self._channels[channel.number] = channel
                self._moved_ns[channel.number] = now
        for edge in who.plane.outbound.edges:
            if isinstance(edge, LocalEdge):
                continue  # it has no counters of its own
            changed = False
            for number, own in zip(edge.channels, edge.windows, strict=True):
                its_now = (own.sent, own.sent_bytes, own.taken, own.taken_bytes, own.done)
                if its_now != self._senders.get(number, _UNSENT):
                    changed = True
                    told = _Sender(*its_now)
                    yield from self._sender(number, own, told, now)
                    self._senders[number] = told
                    self._windows[number] = own
                    self._sent_ns[number] = now
            if changed:
                yield from self._offered(edge, now)
        if who.phase is not None:
            found = self._lives.look(who.worker, who.phase, who.taken, aborted=who.aborted)
            for expected, got in found:
                yield Broken("life", str(who.worker), expected, got, now)

    def _broken(self, invariant: str, number: int, expected: str, got: str, now: int) -> Broken:
        return Broken(invariant, channel_name(self._plan, number), expected, got, now, (number,))

    # --- one end of a channel -------------------------------------------------------------------

    def _receiver(self, channel: InChannel, seen: _Receiver, now: int) -> Iterator[Broken]:
        number, window = channel.number, channel.window
        before = self._receivers.get(number, _EMPTY)
        if seen.received < before.received or seen.taken < before.taken or seen.done < before.done:
            yield self._broken("credit", number, f"at least {before}", str(seen), now)
        if not seen.done <= seen.taken <= seen.received:
            yield self._broken("loss", number, "done <= taken <= received", str(seen), now)
        passed = channel.expired + channel.withdrawn + channel.superseded
        if passed > seen.taken:
            got = f"{passed} passed over of {seen.taken} taken"
            yield self._broken("loss", number, "no more than were taken", got, now)
        room = window.capacity + 1 if channel.fresh else window.capacity
        if seen.received - seen.taken > room:
            got = f"{seen.received - seen.taken} in the inbox"
            yield self._broken("depth", number, f"at most {room}", got, now)
        sent = self._sent(number)
        if sent is not None and seen.received > sent:
            got = f"{seen.received} received of {sent} sent"
            yield self._broken("loss", number, "nothing that was not sent", got, now)
        if channel.end_at is not None and seen.received != channel.end_at:
            got = f"{seen.received} received"
            yield self._broken("loss", number, f"{channel.end_at} before the end", got, now)

    def _inbox(self, channel: InChannel, seen: _Receiver, now: int) -> Iterator[Broken]:
        expected = seen.taken
        for batch in list(channel.inbox):
            first = batch.headers.sequence + batch.position
            if first != expected:
                yield self._broken(
                    "order", channel.number, f"message {expected} next", f"message {first}", now
                )
                return
            expected = batch.headers.sequence + batch.count
        if expected != seen.received:
            got = f"the last is {expected - 1}"
            yield self._broken(
                "order", channel.number, f"{seen.received} received in all", got, now
            )

    def _sent(self, number: int) -> int | None:
        """Return how many messages a channel's sender has sent, if it has counters of its own."""
        own = self._windows.get(number)
        if own is not None:
            return int(own.sent)
        edge = self._edges[self._ways[number][0]]
        return None if edge.local or edge.sender == EXTERNAL else 0

    def _sender(self, number: int, own: Any, told: _Sender, now: int) -> Iterator[Broken]:
        before = self._senders.get(number, _UNSENT)
        if any(a < b for a, b in zip(told, before, strict=True)):
            yield self._broken("credit", number, f"at least {before}", str(told), now)
        if not told.done <= told.taken <= told.sent:
            yield self._broken("loss", number, "done <= taken <= sent", str(told), now)
        if told.sent - told.taken > own.capacity:
            got = f"{told.sent - told.taken} sent and not taken"
            yield self._broken("depth", number, f"at most {own.capacity}", got, now)
        if told.sent_bytes - told.taken_bytes > own.max_bytes and told.sent - told.taken > 1:
            got = f"{told.sent_bytes - told.taken_bytes} bytes sent and not taken"
            yield self._broken("depth", number, f"at most {own.max_bytes}", got, now)
        channel = self._channels.get(number)
        if channel is not None:
            window = channel.window
            ahead = 1 if channel.fresh else 0  # lent: asked for before the one here is done
            if told.taken > window.taken + ahead or told.done > window.done:
                got = f"{told.taken} taken and {told.done} done as its sender knows"
                expected = f"at most {window.taken} and {window.done}"
                yield self._broken("credit", number, expected, got, now)
            if window.received > told.sent:
                got = f"{window.received} received of {told.sent} sent"
                yield self._broken("loss", number, "nothing that was not sent", got, now)

    def _offered(self, edge: Any, now: int) -> Iterator[Broken]:
        sent = sum([window.sent for window in edge.windows])
        fates = edge.fates.total if isinstance(edge, QueueEdge) else 0
        if edge.offered != edge.waiting + sent + fates:
            got = f"{edge.waiting} waiting, {sent} sent, {fates} given up"
            yield Broken(
                "books", f"edge {edge.id}", f"{edge.offered} in all, as many as were emitted", got,
                now, tuple(edge.channels),
            )  # fmt: skip

    # --- nobody waits for ever ------------------------------------------------------------------

    def _resting(self, everybody: Mapping[WorkerId, Seen], now: int) -> Iterator[Broken]:
        """Yield the channel at which a chain of those who wait ends without a reason."""
        running = (Phase.RUNNING, Phase.ENDING, Phase.FLUSHING)
        for number, channel in self._channels.items():
            receiver = everybody.get(self._ways[number][2])
            if receiver is None or not receiver.alive or receiver.phase not in running:
                continue
            if channel.deliverable and now - self._moved_ns[number] > PATIENCE_NS:
                yield from self._waits(receiver, everybody, [f"{channel.depth} wait"], number, now)
        for who in everybody.values():
            if who.alive and who.phase in running and not who.excused:
                for edge in who.plane.outbound.edges:
                    if not isinstance(edge, LocalEdge) and (edge.waiting or edge.full):
                        yield from self._starved(edge, everybody, now)

    def _waits(
        self, who: Seen, everybody: Mapping[WorkerId, Seen], way: list[str], number: int, now: int
    ) -> Iterator[Broken]:
        """Yield who rests although a message waits for it and nothing is in its way."""
        if who.excused or who.plane.outbound.blocked:
            return  # if somebody behind it rests, that is found there
        yield self._broken(
            "deadlock", number, f"{who.worker} to take a message", ", ".join(way), now
        )

    def _starved(self, edge: Any, everybody: Mapping[WorkerId, Seen], now: int) -> Iterator[Broken]:
        """Yield an edge that waits for credit although its receivers have done everything."""
        for number, own in zip(edge.channels, edge.windows, strict=True):
            channel = self._channels.get(number)
            receiver = everybody.get(self._ways[number][2])
            if receiver is None or not receiver.alive or receiver.excused:
                return
            moved = max(self._moved_ns.get(number, 0), self._sent_ns.get(number, 0))
            done = 0 if channel is None else channel.window.done
            if done != own.sent or now - moved <= self._starving_ns:
                return
        yield Broken(
            "deadlock", f"edge {edge.id}", "credit for what its receivers have done",
            f"a sender without credit, {edge.waiting} messages waiting", now, tuple(edge.channels),
        )  # fmt: skip

    # --- the end --------------------------------------------------------------------------------

    def conclude(
        self, report: RunReport, everybody: Iterable[Seen], now_ns: int
    ) -> Sequence[Broken]:
        """Return what is broken at the end of the run."""
        found = [Broken("books", "report", "books that balance", text, now_ns)
                 for text in report.imbalances]  # fmt: skip
        if report.outcome in COMPLETE:
            found += [broken for who in everybody for broken in self._delivered(who, now_ns)]
        return found

    def _delivered(self, who: Seen, now: int) -> Iterator[Broken]:
        for channel in who.plane.inbound.channels.values():
            if channel.external or self._edges[self._ways[channel.number][0]].sender == EXTERNAL:
                continue  # what came after the node had ended was refused
            sent = self._sent(channel.number)
            window = channel.window
            if window.done != window.received or (sent is not None and sent != window.received):
                got = f"{window.received} received, {window.taken} taken, {window.done} done"
                expected = f"all {sent if sent is not None else window.received} sent to be done"
                yield self._broken("books", channel.number, expected, got, now)


def channel_name(plan: Plan, number: int) -> str:
    """Return ``edge a.out->b.in, a[0] to b[1]``; the processes are those of the replicas."""
    edge, sender, receiver = plan.ways[number]
    planned = (*plan.edges, *plan.external_edges)
    found = next(each.id for each in planned if each.index == edge)
    return f"edge {found}, {sender} to {receiver}"
