"""The coordinator against anything: random graphs, orders, faults, and plain nonsense.

Three ways to be unkind to it. Well-behaved workers (the real `WorkerState`) whose messages
interleave in every way, with deaths and requests thrown in; peers that say anything at any
time; and single events at every phase. Whatever happens, the invariants hold after every event
and the run ends, in bounded time, with a report.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from dflow.broker import events as e
from dflow.broker.lifecycle import Phase
from dflow.broker.state import CoordinatorState
from dflow.broker.timers import GRACE_S
from dflow.graph.plan import Plan, WorkerId
from dflow.message import Cancelled, Priority
from dflow.options import RunOptions
from dflow.report import RunReport
from dflow.wire import control as c
from dflow.worker import state as w
from tests.unit.broker_pair import HANDLE, TOKEN, Fake, make_plan

OPTIONS = RunOptions(start_timeout_s=20.0, drain_timeout_s=5.0)
ORDER = list(Phase)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Return any small graph, with replicas."""
    size = draw(st.integers(1, 4))
    names = [f"n{i}" for i in range(size)]
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    edges = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=5)) if pairs else []
    linked = {name for edge in edges for name in edge}
    replicas = {name: draw(st.integers(1, 2)) for name in names}
    return make_plan(sorted(edges), replicas, extra=[n for n in names if n not in linked])


@dataclass
class Peer:
    """A worker process: the real machine, what it was sent, and what it sent."""

    worker: WorkerId
    machine: w.WorkerState = field(default_factory=w.WorkerState)
    inbox: deque[c.Control] = field(default_factory=deque)
    outbox: deque[c.Control] = field(default_factory=deque)
    hooks: deque[str] = field(default_factory=deque)
    can_end: bool = False
    told_to_end: bool = False
    ended: bool = False
    dead: bool = False
    hangs: bool = False


class World:
    """Every process of one run; `acts` lists what could happen next."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.now = 0.0
        self.state = CoordinatorState(plan, OPTIONS, "r", TOKEN, with_handle=False)
        self.peers = {Fake(worker).key: Peer(worker) for worker in plan.workers}
        for key, peer in self.peers.items():
            peer.outbox.append(Fake(peer.worker).hello())
            assert key == Fake(peer.worker).key
        self.exits: deque[e.WorkerExited] = deque()
        self.report: RunReport | None = None
        self.phases = [Phase.WAITING]
        self.started: list[str] = []
        self.stopped: list[str] = []

    def acts(self) -> list[tuple[str, bytes]]:
        """Return everything that could happen next."""
        found = [("exit", b"")] if self.exits else []
        for key, peer in self.peers.items():
            found += [("speak", key)] if peer.outbox else []
            if peer.dead:
                continue
            if peer.hooks:  # user code has the thread: nothing is heard meanwhile
                found += [] if peer.hangs else [("hook", key)]
            elif peer.inbox:
                found.append(("hear", key))
            if peer.machine.phase is w.Phase.RUNNING and self._inputs_ended(peer):
                found.append(("end", key))
        return found

    def _inputs_ended(self, peer: Peer) -> bool:
        senders = {edge.sender for edge in self.plan.in_edges(peer.worker.node)}
        if not senders:
            return peer.told_to_end or self.plan.by_name[peer.worker.node].kind == "source"
        return all(p.ended for p in self.peers.values() if p.worker.node in senders)

    def do(self, act: tuple[str, bytes]) -> None:
        """Let one thing happen."""
        what, key = act
        if what == "exit":
            self.feed(self.exits.popleft())
            return
        peer = self.peers[key]
        match what:
            case "speak":
                self.feed(e.Received(key, peer.outbox.popleft()))
            case "hear":
                message = peer.inbox.popleft()
                self._run(peer, peer.machine.handle(message))
            case "hook":
                self._run(peer, peer.machine.handle(w.HookReturned(peer.hooks.popleft())))
            case "end":
                self._run(peer, peer.machine.handle(w.Simple.EXHAUSTED))

    def _run(self, peer: Peer, instructions: list[w.Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case w.Bind():
                    peer.outbox.append(c.Bound({int(Priority.NORMAL): f"ipc:///{peer.worker}"}))
                case w.OpenChannels():
                    self._run(peer, peer.machine.handle(w.Simple.WELCOMED))
                case w.CallHook(name):
                    peer.hooks.append(name)
                    if name == "on_start":
                        self.started.append(peer.worker.node)
                    if name == "on_stop":
                        self.stopped.append(peer.worker.node)
                case w.Say(message):
                    peer.outbox.append(message)
                case w.EndChannels():
                    peer.ended = True
                case w.CloseInputs():
                    peer.told_to_end = True
                case w.Leave():
                    self.die(peer, 0, None)
        if peer.machine.phase is w.Phase.FLUSHING and not instructions:
            self._run(peer, peer.machine.handle(w.Simple.FLUSHED))

    def die(self, peer: Peer, code: int | None, signal: str | None) -> None:
        """End a process; the agent will tell."""
        if not peer.dead:
            peer.dead = True
            self.exits.append(e.WorkerExited(peer.worker, 1, code, signal))

    def feed(self, event: e.Event) -> None:
        """Give the coordinator one event and carry out what it says."""
        for instruction in self.state.handle(event, self.now):
            match instruction:
                case e.Send(key, message) if not self.peers[key].dead:
                    self.peers[key].inbox.append(message)
                case e.KillWorker(worker):
                    self.die(self.peers[Fake(worker).key], None, "SIGKILL")
                case e.Finish(report):
                    self.report = report
        self.state.validate_state()
        if self.state.phase is not self.phases[-1]:
            self.phases.append(self.state.phase)

    def tick(self) -> None:
        """Let time pass to the next timer."""
        due = self.state.next_timer()
        if due is not None:
            self.now = max(self.now, due)
            self.feed(e.Tick())

    def finish(self, data: st.DataObject) -> RunReport:
        """Let everything happen, in any order, until the run is over."""
        for _ in range(5000):
            if self.report is not None:
                return self.report
            acts = self.acts()
            if acts:
                self.do(acts[0] if len(acts) == 1 else data.draw(st.sampled_from(acts)))
            else:
                self.tick()
        raise AssertionError(f"the run never ended; it is {self.state.phase.value}")


def levels(plan: Plan, nodes: list[str]) -> list[int]:
    """Return the topological depth of each node."""
    return [plan.by_name[node].level for node in nodes]


@settings(max_examples=150)
@given(plans(), st.data())
def test_in_any_order_of_messages_a_healthy_run_starts_and_stops_in_order(
    plan: Plan, data: st.DataObject
) -> None:
    world = World(plan)
    if any(node.kind != "source" and not plan.in_edges(node.name) for node in plan.nodes):
        while world.state.phase is not Phase.RUNNING:  # only a drain ends what is fed from outside
            world.do(data.draw(st.sampled_from(world.acts())))
        world.feed(e.DrainRequested())
    report = world.finish(data)
    assert report.outcome in ("finished", "drained")
    assert levels(plan, world.started) == sorted(levels(plan, world.started))
    assert levels(plan, world.stopped) == sorted(levels(plan, world.stopped), reverse=True)
    assert len(world.started) == len(world.stopped) == len(plan.workers)
    assert world.phases == sorted(world.phases, key=ORDER.index)
    assert not world.state.ignored


@settings(max_examples=200)
@given(plans(), st.data())
def test_a_run_ends_with_a_report_whatever_dies_and_whatever_is_asked(
    plan: Plan, data: st.DataObject
) -> None:
    world = World(plan)
    for _ in range(data.draw(st.integers(0, 25))):
        acts = world.acts()
        if acts:
            world.do(data.draw(st.sampled_from(acts)))
    peer = data.draw(st.sampled_from(sorted(world.peers)))
    match data.draw(st.sampled_from(["kill", "abort", "drain", "fail", "hang"])):
        case "kill":
            world.die(world.peers[peer], None, "SIGKILL")
        case "abort":
            world.feed(e.AbortRequested("enough"))
        case "drain":
            world.feed(e.DrainRequested(3.0))
        case "fail":
            world.feed(e.Received(peer, c.Failed("handler", "ValueError", "")))
            world.feed(e.DrainRequested(3.0))  # who has not joined cannot fail
        case "hang":
            world.peers[peer].hangs = True
            world.feed(e.DrainRequested(3.0))
    begun = world.now
    report = world.finish(data)
    assert world.now - begun <= OPTIONS.start_timeout_s + OPTIONS.drain_timeout_s + 4 * GRACE_S
    assert (report.error is None) == (report.outcome in ("finished", "drained"))
    assert report.balances
    assert all(peer.dead for peer in world.peers.values())


PLAN = make_plan([("a", "b"), ("b", "c")], {"b": 2}, results=["c"])
KEYS = [Fake(worker).key for worker in (*PLAN.workers, HANDLE)] + [b"stranger"]


def _hellos() -> st.SearchStrategy[c.Control]:
    return st.builds(
        c.Hello,
        role=st.sampled_from(["worker", "handle", "?"]),
        token=st.sampled_from([TOKEN, TOKEN, TOKEN, "wrong"]),
        pid=st.just(1),
        host=st.just("h"),
        node=st.sampled_from(["a", "b", "c", "run", "", "x"]),
        replica=st.integers(0, 1),
    )


_STATS = st.sampled_from([[], [1], [[1, 2, 3, 4, 5, {}], {0: 1}, {}, {}, [[0, 1, 1, 1, 1]], []]])
_ROWS: st.SearchStrategy[list[object]] = st.sampled_from([[], [[0, 5]], [[3, 0], [5, 1]], [7]])
_OUTCOMES = st.sampled_from([*(outcome.value for outcome in Cancelled), "?"])
_MESSAGES = st.one_of(
    _hellos(),
    st.builds(c.Bound, st.just({int(Priority.NORMAL): "ipc:///x"})),
    st.builds(c.Stopped, _STATS),
    st.builds(c.Stats, _STATS),
    st.builds(c.Failed, st.sampled_from(["on_start", "link"]), st.just("E"), st.just("")),
    st.builds(c.DrainRequest, st.sampled_from([0.0, 3.0, -1.0])),
    st.builds(c.AbortRequest, st.just("r")),
    st.builds(c.StatusRequest, st.just(1)),
    st.builds(c.PauseRequest, st.just(1), st.sampled_from(["a", "b", "x", ""]), st.integers(0, 1)),
    st.builds(c.CancelRequest, st.integers(1, 3), st.just("id"), _ROWS),
    st.builds(c.Found, st.integers(0, 3), _OUTCOMES, _ROWS),
    st.builds(c.Held, st.integers(0, 3)),
    st.builds(c.Dumped, st.integers(0, 2), st.just("{}")),
    st.builds(c.DumpRequest, st.just(1)),
    st.builds(c.Outcome, st.integers(0, 3), _OUTCOMES),
    st.builds(c.DrainNodeRequest, st.just(1), st.sampled_from("abcx")),
    st.builds(c.Locate, st.just(1), st.sampled_from("abcx"), st.just("in")),
    st.builds(
        c.Log, st.just("INFO"), st.just(0.0), st.just("m"), st.just("n"), st.just(1), st.just({})
    ),
    st.sampled_from([c.Linked(), c.Started(), c.Drained(), c.Heartbeat(), c.Exit(), c.Ping()]),
)
_EVENTS: st.SearchStrategy[e.Event] = st.one_of(
    st.builds(e.Received, st.sampled_from(KEYS), _MESSAGES),
    st.builds(e.Received, st.sampled_from(KEYS), _MESSAGES),
    st.builds(e.Garbled, st.sampled_from(KEYS), st.just("bad")),
    st.builds(e.Unreachable, st.sampled_from(KEYS)),
    st.builds(
        e.WorkerExited,
        st.sampled_from([*PLAN.workers, HANDLE, WorkerId("x")]),
        st.just(1),
        st.sampled_from([0, 1, None]),
        st.sampled_from([None, "SIGKILL"]),
    ),
    st.builds(e.DrainRequested, st.sampled_from([None, 0.0, 2.0])),
    st.builds(e.AbortRequested, st.just("r")),
    st.builds(e.Kept, st.sampled_from(["", "/b"]), st.sampled_from(["", "full"])),
    st.just(e.Tick()),
)


@settings(max_examples=200)
@given(
    st.lists(st.tuples(_EVENTS, st.sampled_from([0.0, 0.1, 1.0, 4.0])), max_size=60),
    st.integers(0, 8),
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, "/b"]),
)
def test_nonsense_in_any_order_never_breaks_an_invariant_and_the_run_can_be_ended(
    events: list[tuple[e.Event, float]],
    along: int,
    managed: bool,
    with_handle: bool,
    bundle: str | None,
) -> None:
    options = replace(OPTIONS, bundle=bundle)
    state = CoordinatorState(PLAN, options, "r", TOKEN, with_handle=with_handle, managed=managed)
    finished = 0
    now = 0.0

    def feed(event: e.Event) -> None:
        nonlocal finished
        over = state.phase is Phase.FINISHED
        todo = state.handle(event, now)
        finished += sum(isinstance(one, e.Finish) for one in todo)
        assert not (over and todo)
        for one in todo:
            if isinstance(one, e.Send):
                assert c.decode(c.encode(one.message)) == one.message
        state.validate_state()

    for event in _first_steps(along, with_handle=with_handle):
        feed(event)
    for event, later_s in events:
        now += later_s
        feed(event)
    feed(e.AbortRequested("enough"))
    for _ in range(200):
        due = state.next_timer()
        if due is None:
            break
        now = max(now, due)
        feed(e.Tick())
    assert (state.phase, finished) == (Phase.FINISHED, 1)
    assert state.report is not None
    assert RunReport.from_dict(state.report.to_dict()) == state.report


def _first_steps(count: int, *, with_handle: bool) -> list[e.Event]:
    """Return the events that bring a healthy run ``count`` words along."""
    workers = [*PLAN.workers, *([HANDLE] if with_handle else [])]
    words: list[c.Control] = [
        c.Bound({int(Priority.NORMAL): "ipc:///x"}), c.Linked(), c.Started(), c.Started(),
        c.Started(), c.Drained(), c.Stopped([]), c.Stopped([]),
    ]  # fmt: skip
    fakes = [Fake(worker) for worker in workers]
    found: list[e.Event] = [e.Received(f.key, f.hello()) for f in fakes] if count else []
    for word in words[: max(0, count - 1)]:
        found += [e.Received(fake.key, word) for fake in fakes]
    return found
