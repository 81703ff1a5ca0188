"""What every replica does now, by the last word of its worker: numbers on the wire, names here.

Whoever wants to know why a run does not get on needs to know when each was last heard of, too: a
process that was stopped, or whose code holds the interpreter, says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from dflow.broker.lifecycle import Step
from dflow.broker.participants import Participant, Participants
from dflow.graph.plan import Plan, WorkerId
from dflow.message import EXTERNAL
from dflow.report import ReplicaStatus
from dflow.stats import Doing, WorkerStats

__all__ = ["what_all_do"]

_SILENT_STEPS = frozenset(
    step.value for step in (Step.ABSENT, Step.STOPPED, Step.LEAVING, Step.GONE)
)
"""At these nobody is expected to say anything."""

_Item = TypeVar("_Item")
_NOTHING, _NO_STATS = Doing(), WorkerStats()


def what_all_do(
    plan: Plan,
    roll: Participants,
    counted: Mapping[WorkerId, WorkerStats],
    steps: Mapping[WorkerId, str],
    now: float,
) -> tuple[dict[str, tuple[ReplicaStatus, ...]], ReplicaStatus | None]:
    """Return what each replica of every node does, and what the launching process does.

    ``counted`` and ``steps`` are of every participant, ``now`` is seconds on the clock of the
    run. What was going on at the last word is taken to go on since.
    """

    def of(replica: WorkerId) -> ReplicaStatus:
        p = roll.get(plan.host(replica))
        if p is None:
            return ReplicaStatus(str(replica))
        stats = counted.get(p.worker, _NO_STATS)
        work = stats.node if replica == p.worker else stats.fused.get(replica.node)
        said = _NOTHING if work is None else work.doing
        return _status(plan, p, replica, said, steps.get(p.worker, p.step.value), now)

    doing = {
        node.name: tuple(of(WorkerId(node.name, number)) for number in range(node.replicas))
        for node in plan.nodes
        if node.name != EXTERNAL
    }
    return doing, None if roll.handle is None else of(roll.handle.worker)


def _status(
    plan: Plan, p: Participant, replica: WorkerId, said: Doing, step: str, now: float
) -> ReplicaStatus:
    if step == Step.ABSENT.value:
        return ReplicaStatus(str(replica), step)
    silent = step in _SILENT_STEPS
    heard_s = 0.0 if silent else max(0.0, now - p.last_seen_s)
    if silent or not said.what:
        return ReplicaStatus(str(replica), step, heard_s=heard_s, pid=p.pid)
    return ReplicaStatus(
        str(replica),
        step,
        said.what,
        round(said.for_s + heard_s, 3),
        said.busy,
        round(heard_s, 3),
        p.pid,
        said.place,
        said.tasks,
        said.number,
        _edge_ids(plan, said.edges),
        _others(plan, said.channels, str(replica)),
    )


def _edge_ids(plan: Plan, numbers: Sequence[int]) -> tuple[str, ...]:
    found = [_at(plan.edges, plan.external_edges, number) for number in numbers]
    return tuple(edge.id for edge in found if edge is not None)


def _others(plan: Plan, channels: Sequence[int], me: str) -> tuple[str, ...]:
    """Return the replicas at the other ends of ``channels``."""
    found = [_at(plan.channels, plan.external_channels, number) for number in channels]
    ends = [str(end) for ch in found if ch is not None for end in (ch.sender, ch.receiver)]
    return tuple(dict.fromkeys(end for end in ends if end != me))


def _at(planned: Sequence[_Item], outside: Sequence[_Item], number: int) -> _Item | None:
    """Return what has this number; those from outside follow those that are planned."""
    beyond = number - len(planned)
    if beyond < 0:
        return planned[number]
    return outside[beyond] if beyond < len(outside) else None
