"""The order of lives, judged from outside: who may be where while the others are where they are.

The coordinator keeps this order by what it is told; here it is compared with where each worker is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from dflow.graph.plan import Plan, WorkerId
from dflow.worker.state import Phase

__all__ = ["Lives"]

_ORDER = tuple(Phase)
_AGE = {phase: age for age, phase in enumerate(_ORDER)}
_STARTED = frozenset(_ORDER[_AGE[Phase.READY] :])
_STOPPED = frozenset({Phase.STOPPED, Phase.GONE})
_BEFORE_MESSAGES = frozenset(_ORDER[: _AGE[Phase.RUNNING]])


class Lives:
    """The phases of all workers of a run, as far as they were seen."""

    def __init__(self, plan: Plan) -> None:
        self._phases = dict.fromkeys(plan.workers, Phase.JOINING)
        self._levels = {worker: plan.worker_levels[worker.node] for worker in plan.workers}
        self._stopped_at: dict[WorkerId, int] = {}

    def died(self, worker: WorkerId) -> None:
        """Note that the process of ``worker`` has ended: nobody waits for it any more."""
        self._phases[worker] = Phase.GONE

    def look(
        self, worker: WorkerId, phase: Phase, taken: Callable[[], int], *, aborted: bool = False
    ) -> Iterator[tuple[str, str]]:
        """Return (expected, got) for all that is wrong about ``worker`` being in ``phase`` now.

        ``taken`` tells how many messages it has taken so far. ``aborted``: all stop at once, in no
        order.
        """
        before = self._phases.get(worker)
        if before is phase is Phase.RUNNING or before is None:  # None: it is no worker
            return iter(())
        return self._look(worker, before, phase, taken(), aborted=aborted)

    def _look(
        self, worker: WorkerId, before: Phase, phase: Phase, taken: int, *, aborted: bool
    ) -> Iterator[tuple[str, str]]:
        if phase in _BEFORE_MESSAGES and taken:
            yield "no message before the run", f"{taken} taken while {phase.value}"
        if phase is before:
            if phase is Phase.STOPPING and self._stopped_at.get(worker, taken) != taken:
                yield "no message after on_stop has begun", f"{taken} taken"
            return
        self._phases[worker] = phase
        if aborted or Phase.FAILED in (before, phase):
            return  # all stop at once, wherever they are
        passed = _ORDER[_AGE[before] + 1 : _AGE[phase] + 1]  # several, in one step
        if Phase.STARTING in passed:
            yield from self._all(worker, "started before it", _STARTED, above=True)
        if Phase.RUNNING in passed:
            for other, its in self._phases.items():
                if its not in _STARTED:
                    yield "every worker ready before any runs", f"{other} {its.value}"
        if Phase.STOPPING in passed:
            self._stopped_at[worker] = taken
            yield from self._all(worker, "stopped before it", _STOPPED, above=False)

    def _all(
        self, worker: WorkerId, what: str, fine: frozenset[Phase], *, above: bool
    ) -> Iterator[tuple[str, str]]:
        """Yield who of a level before (or behind) that of ``worker`` is not where it must be."""
        level = self._levels[worker]
        for other, its in self._levels.items():
            if (its < level if above else its > level) and self._phases[other] not in fine:
                yield f"{other} {what}", f"{other} {self._phases[other].value}"
