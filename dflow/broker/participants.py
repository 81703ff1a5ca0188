"""Who takes part in a run: one record each, and the decision who may join as whom.

A participant is first known by the routing id its peer got from the ROUTER socket, once its
Hello was admitted. The record keeps the story of its steps, so that an illegal message can be
reported with how it came to that.
"""

from __future__ import annotations

import hmac
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush

from dflow.broker.lifecycle import ENDED, HELD, PARTICIPANT, Move, Phase, Role, Step, advance
from dflow.broker.tally import Tally
from dflow.errors import ProtocolError
from dflow.graph.plan import Plan, WorkerId, grouped
from dflow.message import EXTERNAL
from dflow.stats import WorkerStats
from dflow.wire.control import Hello

__all__ = ["Participant", "Participants", "are_endpoints"]

_STORY_LENGTH = 16


@dataclass(slots=True)
class Participant:
    """One worker or the handle; ``worker`` is the host of all nodes that are fused in it.

    ``must_drain``: the run is not drained before it is. ``fed``: planned edges end at it, so
    it drains when they do; one that is not fed has to be told. ``final``: ``stats`` are its
    last word. ``ran``: it was told to run, so it may have moved messages. ``killed``: we had it
    killed, so its exit is no news; ``ended_how``: its exit, in words. ``tally``:
    counts its steps; none for the handle.
    """

    worker: WorkerId
    role: Role
    level: int
    must_drain: bool
    fed: bool
    fused_with: tuple[str, ...] = ()
    step: Step = Step.ABSENT
    key: bytes | None = None
    pid: int = 0
    host: str = ""
    endpoints: Mapping[int, str] = field(default_factory=dict)
    stats: WorkerStats = field(default_factory=WorkerStats)
    final: bool = False
    ran: bool = False
    exited: bool = False
    killed: bool = False
    ended_how: str = ""
    last_seen_s: float = 0.0
    unreachable: bool = False
    tally: Tally | None = None
    _story: deque[str] = field(default_factory=lambda: deque(maxlen=_STORY_LENGTH))

    @property
    def ended(self) -> bool:
        """Whether it owes the run nothing but to leave."""
        return self.step in ENDED

    @property
    def drained(self) -> bool:
        """Whether its inputs are exhausted and all it emitted is on the wire."""
        return self.step is Step.DRAINED

    @property
    def lost(self) -> bool:
        """Whether it is gone without a last word on the messages it moved."""
        return self.step is Step.GONE and self.ran and not self.final

    @property
    def title(self) -> str:
        """Its name, with those of the nodes that end with it."""
        others = f" (fused with {', '.join(self.fused_with)})" if self.fused_with else ""
        return f"{self.worker}{others}"

    def move(self, move: Move) -> None:
        """Take one step; raises ProtocolError with its story, changing nothing, if illegal."""
        before = self.step
        try:
            self.step = advance(PARTICIPANT[self.role], before, move, str(self.worker))
        except ProtocolError as error:
            story = ", ".join(self._story) or "nothing"
            raise ProtocolError(f"{error}; before that: {story}") from None
        self._story.append(move.value)
        if self.tally is not None:
            self.tally.moved(self.level, before, self.step)


class Participants:
    """Every participant of one run, by worker and by routing id.

    ``workers``: all but the handle, in topological order. ``levels``: the same by topological
    depth, in the order in which they start, and stop; ``told``: how many of them were told to.
    """

    def __init__(self, plan: Plan, token: str, *, with_handle: bool, managed: bool) -> None:
        self._token = token
        self._managed = managed
        self._plan = plan
        self._fingerprint = plan.fingerprint
        self._by_key: dict[bytes, Participant] = {}
        self._all: dict[WorkerId, Participant] = {}
        for worker in plan.workers:
            nodes = [member.node for member in plan.members(worker)]
            fed = all(plan.in_edges(node) for node in nodes)
            level = plan.worker_levels[worker.node]
            self._all[worker] = Participant(worker, Role.WORKER, level, True, fed, tuple(nodes[1:]))
        self.workers = tuple(self._all.values())
        by_level = grouped(self.workers, lambda p: p.level)
        levels = [by_level[level] for level in sorted(by_level)]
        self.levels = {Move.START: levels, Move.STOP: levels[::-1]}
        self.told: Counter[Move] = Counter()
        self.tally = Tally(p.level for p in self.workers)
        for p in self.workers:
            p.tally = self.tally
        self._places = {p.worker: place for place, p in enumerate(self.workers)}
        self._free = list(self._places.values())  # a heap; those taken by name are still in it
        self.handle: Participant | None = None
        if with_handle:
            fed = bool(plan.in_edges(EXTERNAL))
            level = 1 + max((node.level for node in plan.nodes), default=-1)
            self.handle = Participant(WorkerId(EXTERNAL), Role.HANDLE, level, fed, fed)
            self._all[self.handle.worker] = self.handle

    def __iter__(self) -> Iterator[Participant]:
        return iter(self._all.values())

    def of(self, node: str) -> list[Participant]:
        """Return the workers that run a replica of ``node``."""
        return [self._all[host] for host in self._plan.hosts(node) if host.node != EXTERNAL]

    def running(self, node: str) -> dict[WorkerId, bytes]:
        """Return the workers that run ``node`` and have not drained, with their routing ids."""
        found = [p for p in self.of(node) if p.step is Step.RUNNING]
        return {p.worker: p.key for p in found if p.key is not None}

    def reach(self, worker: WorkerId) -> bytes | None:
        """Return the routing id of one that runs, or has drained; None: it cannot answer now."""
        p = self._all.get(worker)
        return p.key if p is not None and p.step in (Step.RUNNING, Step.DRAINED) else None

    def get(self, worker: WorkerId) -> Participant | None:
        """Return the participant, or None if the plan has no such replica."""
        return self._all.get(worker)

    def by_key(self, key: bytes) -> Participant | None:
        """Return who speaks from this routing id, or None for a stranger."""
        return self._by_key.get(key)

    def stats(self) -> dict[WorkerId, WorkerStats]:
        """Return the latest counters of everyone."""
        return {p.worker: p.stats for p in self}

    def lost(self) -> set[WorkerId]:
        """Return those that are gone without a last word."""
        return {p.worker for p in self if p.lost}

    def why_not_trusted(self, hello: Hello) -> str:
        """Return "" for a peer that knows the run's token, else what to tell it."""
        if hmac.compare_digest(hello.token.encode(), self._token.encode()):
            return ""
        return "token: not the one of this run; use the join URL this run printed"

    def admit(self, key: bytes, hello: Hello, now: float) -> Participant | str:
        """Return who the peer ``key`` is from now on, or why it may not take part."""
        if stranger := self.why_not_trusted(hello):
            return stranger
        if hello.fingerprint and hello.fingerprint != self._fingerprint:
            return (
                f"graph: expected fingerprint {self._fingerprint}, got {hello.fingerprint}; "
                f"both sides need the same version of the graph's module and of dflow"
            )
        found = self._place(hello)
        if isinstance(found, str):
            return found
        if found.step is not Step.ABSENT:
            return f"{found.worker} is already taken"
        found.move(Move.JOINED)
        found.key, found.pid, found.host = key, hello.pid, hello.host
        found.last_seen_s = now
        self._by_key[key] = found
        return found

    def admit_late(self, key: bytes, hello: Hello) -> bool:
        """Let the handle in although the run is ending: it must still hear how it ended."""
        handle = self.handle
        good = not self.why_not_trusted(hello) and hello.role == Role.HANDLE.value
        if not good or not self.handle_is_late:
            return False
        if handle is not None:
            handle.key = key
            self._by_key[key] = handle
        return True

    @property
    def handle_is_late(self) -> bool:
        """Whether a handle takes part, has not joined yet, and may still do so."""
        return self.handle is not None and self.handle.key is None and not self.handle.exited

    def forget_late_handle(self) -> None:
        """Wait no longer for a handle that has not joined."""
        if self.handle is not None and self.handle_is_late:
            self.handle.exited = True

    def vacate(self, p: Participant) -> None:
        """Forget who took this place, so that another may; legal before anybody is linked."""
        p.move(Move.VACATE)
        if p.key is not None:
            del self._by_key[p.key]
        p.key, p.endpoints, p.unreachable = None, {}, False
        heappush(self._free, self._places[p.worker])

    def problems(self, phase: Phase) -> Iterator[str]:
        """Yield every invariant that is broken while the run is in ``phase``."""
        yield from self.tally.problems((p.level, p.step) for p in self.workers)
        for p in self:
            held = p.step in HELD[phase] or (p.role is Role.HANDLE and p.step is Step.RUNNING)
            if not held:
                yield f"{p.worker} is {p.step.value} while {phase.value}"
            if p.key is not None and self.by_key(p.key) is not p:
                yield f"{p.worker}: its routing id belongs to another"
            if (p.key is None) != (p.step is Step.ABSENT) and not p.ended:
                yield f"{p.worker} is {p.step.value} with routing id {p.key!r}"

    def _place(self, hello: Hello) -> Participant | str:
        if hello.role == Role.HANDLE.value:
            return self.handle or "this coordinator serves no launching process"
        if hello.role != Role.WORKER.value:
            return f"role: expected 'worker' or 'handle', got {hello.role!r}"
        if hello.node:
            worker = WorkerId(hello.node, hello.replica)
            found = self._all.get(worker)
            if found is None or found.role is not Role.WORKER:
                return f"the graph has no replica {worker}"
            return found
        if self._managed:
            return "this run starts its own workers; none may join by hand"
        while self._free:
            first = self.workers[self._free[0]]
            if first.step is Step.ABSENT:
                return first
            heappop(self._free)
        return f"all {len(self.workers)} replicas are taken"


def are_endpoints(endpoints: Mapping[int, str]) -> bool:
    """Whether a peer's ``Bound`` maps band numbers to endpoints."""
    return all(isinstance(b, int) and isinstance(e, str) for b, e in endpoints.items())
