"""Nobody waits for ever: who leaves lying what only it could take, and when nothing happens at all.

Asked about once a second of virtual time, of everybody, whoever made the last step: those who rest
make none. Where the counters of a channel tell it, `Invariants` does; here is what they cannot
tell: frames that nobody has looked at, reports that nobody has sent, and a run in which nothing
whatever goes on, for whatever reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from dflow.broker.lifecycle import Phase as RunPhase
from dflow.flow.local_edge import LocalEdge
from dflow.graph.plan import WorkerId
from dflow.testing.invariants import PATIENCE_NS, STARVING_NS, Broken, Seen
from dflow.why import explain
from dflow.worker.state import Phase

if TYPE_CHECKING:
    from dflow.testing.agent import Worker
    from dflow.testing.world import World

__all__ = ["Standstill"]

OWING_NS = 500_000_000
"""How long somebody who rests may owe a report; its sender asks after a second."""

DOUBTING_NS = 90_000_000_000
"""How long nothing may happen where something was lost: senders ask a minute apart in the end."""

_AT_WORK = (Phase.RUNNING, Phase.ENDING, Phase.FLUSHING)


class Standstill:
    """Of one world; `look` every second or so."""

    def __init__(self, world: World) -> None:
        self._world = world
        faults = world.faults
        lossy = faults.drop_reports or faults.cut_links or faults.kill_workers or faults.exactly
        patience_ns = DOUBTING_NS if lossy else STARVING_NS
        self._patience_ns = patience_ns + 4 * int(faults.delay_s[1] * 1e9)
        self._mark: object = None
        self._moved_ns = 0
        self._lying: dict[int, tuple[object, int]] = {}  # by link: its oldest frame, since when
        self._owing: dict[int, tuple[object, int]] = {}  # by channel: its counters, since when

    def look(self, everybody: Mapping[WorkerId, Seen], now: int) -> Broken | None:
        """Return who keeps others waiting without a reason; `Seen.excused` must be up to date."""
        for who in everybody.values():
            if who.alive and not who.excused and who.phase in _AT_WORK:
                found = next(self._left_lying(who, now), None)
                if found is not None:
                    return found
        return self._nothing_happens(now)

    def _left_lying(self, who: Seen, now: int) -> Iterator[Broken]:
        plane = who.plane
        for link in (*plane.inbound.links.values(), *plane.outbound.links.values()):
            inbox: Any = getattr(link, "inbox", None)
            oldest = inbox[0] if inbox else None
            if self._since(self._lying, id(link), oldest, now) > PATIENCE_NS and inbox:
                got = f"{len(inbox)} that it has not looked at for {PATIENCE_NS / 1e9:g} s"
                yield Broken("deadlock", str(who.worker), "it to take in frames", got, now)
        for number, channel in plane.inbound.channels.items():
            window = channel.window
            owed = window.done - window.reported_done
            counters = (window.taken, window.done, window.reported_done)
            since_ns = self._since(self._owing, number, counters, now)
            if owed and channel.peer is not None and since_ns > OWING_NS:
                where = f"edge {channel.edge_id}, {who.worker}"
                got = f"{owed} done that its sender was not told of for {since_ns / 1e9:g} s"
                yield Broken("deadlock", where, "it to report what is done", got, now, (number,))

    @staticmethod
    def _since(known: dict[int, tuple[object, int]], key: int, what: object, now: int) -> int:
        """Return for how long ``what`` has been there, as far as it was looked at."""
        before = known.get(key)
        if before is None or (before[0] is not what and before[0] != what):
            known[key] = (what, now)
            return 0
        return now - before[1]

    def _nothing_happens(self, now: int) -> Broken | None:
        world = self._world
        mark = self._everything()
        excused = world.state.phase is RunPhase.FINISHED or any(
            self._busy(worker, now) for worker in world.workers.values() if worker.process.alive
        )
        if mark != self._mark or excused:
            self._mark, self._moved_ns = mark, now
            return None
        if now - self._moved_ns <= self._patience_ns:
            return None
        why = explain(world.state.status())
        got = f"nothing since {self._moved_ns / 1e9:.3f} s: {why.summary}\n{why.text}".rstrip()
        expected = f"something to happen within {self._patience_ns / 1e9:.0f} s"
        return Broken("deadlock", f"run, {world.state.phase.value}", expected, got, now)

    def _everything(self) -> object:
        """Return what is different whenever anything has happened but questions and statistics."""
        world = self._world
        moved = 0
        phases = []
        for worker in world.workers.values():
            replica = worker.replica
            phases.append(None if replica is None else replica.loop.state.phase)
            if replica is not None:
                plane = replica.plane
                for channel in plane.inbound.channels.values():
                    moved += channel.window.received + channel.window.taken + channel.window.done
                for edge in plane.outbound.edges:
                    moved += edge.offered
                    if not isinstance(edge, LocalEdge):
                        moved += sum([w.sent + w.taken + w.done for w in edge.windows])
        spent = sum([worker.process.cpu_ns for worker in world.workers.values()])
        alive = sum([worker.process.alive for worker in world.workers.values()])
        return world.state.phase, phases, moved, spent, alive, len(world.network.faults)

    def _busy(self, worker: Worker, now: int) -> bool:
        """Whether a worker has a reason that nothing happens, which is not dflow's."""
        process, replica = worker.process, worker.replica
        if process.stalled_until > now or any(task.sleeping for task in process.tasks):
            return True
        if replica is None:
            return False
        return replica.work.held or (replica.work.active and not replica.plane.outbound.blocked)
