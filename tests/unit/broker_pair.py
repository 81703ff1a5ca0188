"""A coordinator and simple fake participants, connected in memory: no sockets, no clock.

`Fleet` delivers messages in the order they were sent. A test makes participants misbehave by
setting what they do not answer, or by feeding events of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from dflow.broker.case import Case
from dflow.broker.events import (
    Event,
    Finish,
    Hand,
    Keep,
    Kept,
    KillWorker,
    Probe,
    Received,
    Relay,
    Say,
    Send,
    WorkerExited,
)
from dflow.broker.events import Tick as Tick
from dflow.broker.lifecycle import Phase
from dflow.broker.state import CoordinatorState
from dflow.graph.plan import EdgePlan, NodePlan, Plan, WorkerId, external_edge_id
from dflow.message import EXTERNAL, Priority
from dflow.options import DEFAULT_CAPACITY, RunOptions
from dflow.report import RunReport
from dflow.stats import InChannelStats, NodeStats, OutChannelStats, WorkerStats
from dflow.wire import control as c

__all__ = ["HANDLE", "TOKEN", "Fake", "Fleet", "chain", "diamond", "flow", "make_plan"]

TOKEN = "token-of-the-run"
HANDLE = WorkerId(EXTERNAL)
NORMAL = int(Priority.NORMAL)


def make_plan(
    edges: Sequence[tuple[str, str]],
    replicas: dict[str, int] | None = None,
    results: Iterable[str] = (),
    extra: Iterable[str] = (),
) -> Plan:
    """Return the plan of a graph given as (sender, receiver) pairs in topological order.

    ``results``: nodes whose output goes to the launching process; ``extra``: nodes without
    edges, fed from outside only.
    """
    edges = [*edges, *((node, EXTERNAL) for node in results)]
    names = list(dict.fromkeys([n for edge in edges for n in edge] + list(extra)))
    senders, receivers = {a for a, _ in edges}, {b for _, b in edges}
    level = dict.fromkeys(names, 0)
    for _ in names:
        for a, b in edges:
            level[b] = max(level[b], level[a] + 1)
    sized = replicas or {}
    nodes = [_node(n, n in senders, n in receivers or n in extra, sized.get(n, 1), level[n])
             for n in names]  # fmt: skip
    planned = [
        EdgePlan(
            i, f"{a}.out->{b}.in", a, "out", b, "in", "block", 8, 1 << 20, Priority.NORMAL, False
        )
        for i, (a, b) in enumerate(edges)
    ]
    nodes.sort(key=lambda n: n.level)
    outside = [
        EdgePlan(
            len(planned) + i, external_edge_id(name, "in"), EXTERNAL, "", name, "in", "block",
            DEFAULT_CAPACITY, 1 << 20, Priority.NORMAL, False,
        )
        for i, name in enumerate(n.name for n in nodes if n.inputs and n.kind != "external")
    ]  # fmt: skip
    return Plan("test", tuple(nodes), tuple(planned), tuple(outside))


def _node(name: str, sends: bool, receives: bool, replicas: int, level: int) -> NodePlan:
    kind = "external" if name == EXTERNAL else "node" if receives and sends else "sink"
    kind = "source" if not receives else kind
    bands = (NORMAL,) if receives else ()
    return NodePlan(
        name, kind, replicas, level, ("in",) * receives, ("out",) * sends, input_bands=bands
    )


def chain(*names: str, **replicas: int) -> Plan:
    """Return the plan of ``a >> b >> c``."""
    return make_plan(list(pairwise(names)), replicas)


def diamond() -> Plan:
    """Return the plan of ``a >> [b, c] >> d`` with two replicas of ``b``."""
    return make_plan([("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")], {"b": 2})


_ANSWERS: dict[type[c.Control], Callable[[Fake], c.Control]] = {
    c.Assign: lambda fake: c.Bound({NORMAL: f"ipc:///{fake.worker}"}),
    c.Link: lambda fake: c.Linked(),
    c.Start: lambda fake: c.Started(),
    c.Stop: lambda fake: c.Stopped(fake.stats.to_wire()),
    c.Abort: lambda fake: c.Stopped(fake.stats.to_wire()),
}
KEPT = Kept("/bundles/one")


@dataclass
class Fake:
    """A participant that answers at once; ``mute``: message types it leaves unanswered.

    ``endless``: it drains only when told to.
    """

    worker: WorkerId
    stats: WorkerStats = field(default_factory=WorkerStats)
    mute: set[type[c.Control]] = field(default_factory=set)
    endless: bool = False
    words_of_itself: str = "{}"
    heard: list[c.Control] = field(default_factory=list)

    @property
    def key(self) -> bytes:
        """Its routing id."""
        return f"key:{self.worker}".encode()

    def hello(self, **changes: Any) -> c.Hello:
        """Return its first word."""
        role = "handle" if self.worker == HANDLE else "worker"
        known: dict[str, Any] = {
            "role": role,
            "token": TOKEN,
            "pid": 100,
            "host": "here",
            "node": self.worker.node,
            "replica": self.worker.replica,
        }
        return c.Hello(**known | changes)

    def hear(self, message: c.Control) -> list[c.Control]:
        """Return what it says to ``message``."""
        self.heard.append(message)
        if type(message) in self.mute:
            return []
        if isinstance(message, (c.Run, c.Drain)):
            drains = not self.endless if isinstance(message, c.Run) else self.endless
            return [c.Drained()] if drains else []
        if isinstance(message, c.Pause) and message.request:
            return [c.Held(message.request)]
        if isinstance(message, c.Dump):
            return [c.Stats(self.stats.to_wire()), c.Dumped(message.request, self.words_of_itself)]
        answer = _ANSWERS.get(type(message))
        return [answer(self)] if answer is not None else []

    def words(self) -> list[str]:
        """Return the names of the messages it heard, without pings."""
        return [type(m).__name__ for m in self.heard if not isinstance(m, c.Ping)]


class Fleet:
    """A coordinator with a fake for every participant."""

    def __init__(
        self,
        plan: Plan,
        *,
        with_handle: bool = False,
        managed: bool = True,
        options: RunOptions | None = None,
        graph_ref: str = "",
    ) -> None:
        self.now = 100.0
        self.state = CoordinatorState(
            plan,
            options or RunOptions(),
            "r1",
            TOKEN,
            graph_ref=graph_ref,
            with_handle=with_handle,
            managed=managed,
            now=self.now,
            wall_s=1_000.0,
        )
        workers = [*plan.workers, *([HANDLE] if with_handle else [])]
        self.fakes = {worker: Fake(worker) for worker in workers}
        self.by_key = {fake.key: fake for fake in self.fakes.values()}
        self.managed = managed
        self.unkillable = False
        self.said: list[Say] = []
        self.relayed: list[Relay] = []
        self.sent: list[tuple[WorkerId | bytes, c.Control]] = []
        self.killed: list[WorkerId] = []
        self.phases: list[Phase] = [self.state.phase]
        self.report: RunReport | None = None
        self.cases: list[Case] = []
        self.handed: list[Hand] = []
        self.probed: list[WorkerId] = []
        self.kept: Kept | None = KEPT
        self._events: deque[Event] = deque()

    def count(self, messages: int) -> None:
        """Give every fake the counters of a run with so many messages."""
        for worker, stats in flow(self.state.plan, messages).items():
            if worker in self.fakes:
                self.fakes[worker].stats = stats

    def fake(self, node: str, replica: int = 0) -> Fake:
        """Return one participant."""
        return self.fakes[WorkerId(node, replica)]

    def join(self, *workers: WorkerId) -> None:
        """Have participants (default: all) say hello, and everything that follows."""
        for worker in workers or tuple(self.fakes):
            fake = self.fakes[worker]
            self._events.append(Received(fake.key, fake.hello()))
        self.settle()

    def say(self, fake: Fake, message: c.Control) -> None:
        """Have a participant say something, and everything that follows."""
        self.feed(Received(fake.key, message))

    def feed(self, event: Event) -> None:
        """Feed one event, and everything that follows."""
        self._events.append(event)
        self.settle()

    def advance(self, seconds: float, step_s: float = 1.0) -> None:
        """Let time pass, with everything that follows."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + step_s)
            self.feed(Tick())

    def exit(self, worker: WorkerId, code: int | None = 0, signal: str | None = None) -> None:
        """Have the agent report the exit of a worker."""
        self.feed(WorkerExited(worker, 100, code, signal))

    def settle(self) -> None:
        """Deliver until nothing is under way."""
        while self._events:
            for instruction in self.state.handle(self._events.popleft(), self.now):
                self._carry_out(instruction)
            self.state.validate_state()
            if self.state.phase is not self.phases[-1]:
                self.phases.append(self.state.phase)

    def _carry_out(self, instruction: object) -> None:
        match instruction:
            case Send(key, message):
                message = c.decode(c.encode(message))
                fake = self.by_key.get(key)
                self.sent.append((fake.worker if fake else key, message))
                if fake is not None:
                    self._events.extend(Received(key, answer) for answer in fake.hear(message))
                    if isinstance(message, c.Exit) and self.managed and c.Exit not in fake.mute:
                        self._events.append(WorkerExited(fake.worker, 100, 0, None))
            case KillWorker(worker):
                self.killed.append(worker)
                if not self.unkillable:
                    self._events.append(WorkerExited(worker, 100, None, "SIGKILL"))
            case Relay():
                self.relayed.append(instruction)
            case Say():
                self.said.append(instruction)
            case Probe(silent):
                self.probed += [worker for worker, _ in silent]
            case Keep(case):
                self.cases.append(case)
                if self.kept is not None:
                    self._events.append(self.kept)
            case Hand():
                self.handed.append(instruction)
            case Finish(report):
                assert self.report is None
                self.report = report

    def order(self, kind: type[c.Control]) -> list[str]:
        """Return who was sent messages of a kind, in order."""
        return [str(to) for to, message in self.sent if isinstance(message, kind)]

    def warnings(self) -> list[str]:
        """Return what the coordinator warned of."""
        return [say.text for say in self.said if say.level in ("WARNING", "ERROR")]

    def ended(self) -> RunReport:
        """Return the report of a run that is over."""
        assert self.report is not None, f"the run is still {self.state.phase.value}"
        return self.report


def flow(plan: Plan, count: int) -> dict[WorkerId, WorkerStats]:
    """Return honest counters of a run in which each replica emitted ``count`` on each edge."""
    share: dict[int, int] = {}
    for edge in plan.edges:
        width = plan.by_name[edge.receiver].replicas
        for channel in (ch for ch in plan.channels if ch.edge == edge.index):
            place = channel.receiver.replica
            share[channel.number] = count // width + (place < count % width)
    stats: dict[WorkerId, WorkerStats] = {}
    for worker in (*plan.workers, HANDLE):
        outs = [(ch, share[ch.number]) for ch in plan.channels if ch.sender == worker]
        ins = [(ch, share[ch.number]) for ch in plan.channels if ch.receiver == worker]
        edges = {ch.edge for ch, _ in outs}
        stats[worker] = WorkerStats(
            node=NodeStats(handled=sum(n for _, n in ins), emitted=count, busy_ns=10**9),
            offered=dict.fromkeys(edges, count),
            unsent=dict.fromkeys(edges, 0),
            peak=dict.fromkeys(edges, 3),
            outs=tuple(OutChannelStats(ch.number, n, n * 10, n, n) for ch, n in outs),
            ins=tuple(InChannelStats(ch.number, n, n, n) for ch, n in ins),
        )
    return stats
