"""Looks at a simulated run after each of its steps, and says which invariant it broke."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from dflow.broker.lifecycle import Phase
from dflow.graph.plan import WorkerId
from dflow.message import EXTERNAL
from dflow.testing.invariants import COMPLETE, STARVING_NS, Broken, Invariants, Seen
from dflow.testing.standstill import Standstill
from dflow.worker.state import Phase as Working

if TYPE_CHECKING:
    from dflow.report import RunReport
    from dflow.testing.world import Worker, World

__all__ = ["Watcher"]

PATIENT_NS = 3600 * 10**9
"""Where reports are lost, senders ask again and again, a minute apart in the end."""

_CUT_SHORT = (Phase.ABORTING, Phase.LEAVING, Phase.FINISHED)


class Watcher:
    """Of one world. ``broken`` is the first invariant that did not hold; the world ends with it."""

    def __init__(self, world: World) -> None:
        self._world = world
        lossy = world.faults.drop_reports > 0 or len(world.faults.exactly) > 0
        self._invariants = Invariants(world.plan, PATIENT_NS if lossy else STARVING_NS)
        self._standstill = Standstill(world)
        self._seen: dict[WorkerId, Seen] = {}
        self._by_main = {worker.main: worker for worker in world.workers.values()}
        world.observe(self._look)

    def _look(self) -> None:
        world = self._world
        kernel = world.kernel
        task = kernel.last
        if task is None or world.broken is not None:
            return
        if self._invariants.due(kernel.now):  # whoever makes a step: those who rest make none
            self._glance()
        elif task.process.name == EXTERNAL:
            self._look_at_launcher()
        worker = self._by_main.get(task)
        if worker is None or worker.replica is None or world.broken is not None:
            return  # what a pulse thread did is seen when the worker goes on
        me = worker.me
        seen = self._seen.get(me)
        if seen is None:
            seen = self._seen[me] = Seen(me, worker.replica.plane)
        seen.phase = worker.replica.loop.state.phase
        seen.aborted = world.state.phase in _CUT_SHORT
        if seen.phase is not Working.RUNNING:
            self._bury()
        world.broken = self._invariants.look(seen, kernel.now)

    def _bury(self) -> None:
        for worker in self._world.workers.values():
            if not worker.process.alive:
                self._invariants.died(worker.me)

    def _glance(self) -> None:
        world = self._world
        for seen in self._seen.values():
            if seen.phase is not None:
                self._excuse(seen, world.workers[seen.worker])
        now = world.kernel.now
        world.broken = self._invariants.glance(self._seen, now) or self._standstill.look(
            self._seen, now
        )

    def _look_at_launcher(self) -> None:
        world = self._world
        handle = None if world.launching is None else world.launching.handle
        if handle is not None:
            me = WorkerId(EXTERNAL)
            seen = self._seen.setdefault(me, Seen(me, handle.plane, excused=True))
            seen.aborted = world.state.phase in _CUT_SHORT
            world.broken = self._invariants.look(seen, world.kernel.now)

    def _excuse(self, seen: Seen, worker: Worker) -> None:
        """Note whether a worker has a reason of its own to rest."""
        process, replica = worker.process, worker.replica
        seen.alive = process.alive
        seen.excused = (
            process.stalled_until > self._world.kernel.now
            or any(task.sleeping for task in process.tasks)
            or replica is None
            or not replica.plane.lock.locked()  # user code is under way
            or replica.work.held
            or replica.work.active
        )

    def conclude(self) -> Broken | None:
        """Return what is broken at the end of the run, or None."""
        world = self._world
        if world.broken is None and world.report is not None:
            found = self._invariants.conclude(world.report, self._seen.values(), world.kernel.now)
            world.broken = found[0] if found else next(self._uncounted(world.report), None)
        return world.broken

    def _uncounted(self, report: RunReport) -> Iterator[Broken]:
        """Yield where the edges counted something else than came from and to user code."""
        world = self._world
        taps = world.taps
        if taps is None or report.outcome not in COMPLETE:
            return
        offered: Counter[int] = Counter()
        for worker in world.workers.values():
            if worker.replica is not None:
                for edge in worker.replica.plane.outbound.edges:
                    offered[edge.index] += edge.emitted
        for planned in world.plan.edges:
            emitted = taps.emitted(planned.sender, planned.output)
            if (
                planned.policy == "block"
                and planned.ttl_s is None
                and offered[planned.index] != emitted
            ):
                got = f"{offered[planned.index]} on the edge"
                expected = f"all {emitted} messages that were emitted"
                yield Broken("loss", f"edge {planned.id}", expected, got, world.kernel.now)
        delivered: Counter[str] = Counter()
        for row in report.edges:
            delivered[row.id.partition("->")[2].rpartition(".")[0]] += row.delivered
        for node in report.nodes:
            given, owed = taps.given(node.name), delivered[node.name]
            sound = not world.graph.nodes[node.name].outputs and not node.errors
            if sound and given != owed:
                expected = f"all {owed} delivered messages to be handled"
                yield Broken("loss", node.name, expected, f"{given}", world.kernel.now)
