"""Whole participants with a hostile peer: scripts of frames, reports and control messages.

No sockets and no processes: a link is a fake that hands over what the script says, so that a
whole conversation takes a millisecond. After every step the books must be right: counters
in order, windows kept, what is remembered bounded, and nothing but valid frames sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, cast

from dflow import Graph, latest, node, sink, source
from dflow.broker import events as e
from dflow.broker.lifecycle import Phase
from dflow.broker.state import CoordinatorState
from dflow.errors import DecodeError, ProtocolError
from dflow.flow.in_edge import InChannel
from dflow.flow.local_edge import LocalEdge
from dflow.flow.out_edge import OutEdge
from dflow.flow.queue_edge import QueueEdge
from dflow.graph.plan import Plan, WorkerId
from dflow.message import Cancelled, Priority
from dflow.options import RunOptions
from dflow.report import RunReport
from dflow.transport.link import InLink, OutLink
from dflow.transport.poller import Poller
from dflow.wire import control as c
from dflow.wire import frames as f
from dflow.wire.codec import Codec
from dflow.wire.notes import Notes, pack_notes
from dflow.worker.inbound import _MOST_STRANGERS, Inbound
from dflow.worker.outbound import Outbound
from dflow.worker.state import WorkerState
from tests.fuzz import samples
from tests.fuzz.mutations import Chunk, pack, unpack
from tests.fuzz.promise import Target
from tests.unit.broker_pair import HANDLE, TOKEN, Fake, make_plan

__all__ = ["PEERS"]

EPOCH = 3
_CODEC = Codec(samples.TYPES)
_FIXED_BYTES = 12 << 20  # of a participant and all it may keep in its windows
_BUFFER = memoryview(bytes(64 << 10)).toreadonly()


@source
def feed() -> Iterator[int]:
    """Never called."""
    yield 0


@node
def work(x: int) -> int:
    """Never called."""
    return x


@sink
def gather(x: int) -> None:
    """Never called."""


def _graph() -> Graph:
    """Return a graph in which a sink is fed in every way there is."""
    graph = Graph("hostile")
    plain, newest, dated, numbers = (feed().options(name=n) for n in ("p", "n", "d", "o"))
    ordered = work().options(name="ordered", replicas=2, ordered=True)
    end, kept = gather().options(name="end"), gather().options(name="kept")
    graph.connect(plain, end, capacity=4, max_bytes=4096)
    graph.connect(newest, end, policy=latest())
    graph.connect(dated, end, capacity=3, ttl_s=5.0, priority=Priority.HIGH)
    graph.connect(numbers, ordered, capacity=4)
    graph.connect(ordered, end, capacity=4)
    graph.connect(plain, kept, policy="drop_oldest", capacity=5)
    graph.connect(numbers, kept, key=lambda x: x % 3, capacity=4)
    return graph


GRAPH = _graph()
PLAN: Plan = GRAPH.plan()
ME = {"sink": WorkerId("end"), "ordered": WorkerId("ordered", 1)}


class _In:
    """Where frames arrive; ``sent`` is what peers were answered."""

    shared = True

    def __init__(self) -> None:
        self.next: tuple[bytes, bytes, list[memoryview]] | None = None

    def receive(self) -> Any:
        found, self.next = self.next, None
        return found

    def send(self, peer: bytes, frame: bytes) -> bool:
        f.parse(frame)
        return True


class _Receiver:
    """A participant that is sent frames, and handles what may be handled."""

    def __init__(self, me: WorkerId) -> None:
        self.violations: list[str] = []
        self.link = _In()
        self.inbound = Inbound(
            PLAN, me, cast(Poller, None), token=TOKEN, epoch=EPOCH,
            on_violation=self.violations.append,
        )  # fmt: skip
        self.node = self.inbound.inputs[me.node]
        self.planned = self.node.open

    def play(self, script: bytes) -> None:
        for actor, data in unpack(script):
            match actor >> 5:
                case 5:
                    self.handle()
                case 6:
                    self.inbound.grant(idle=bool(actor & 1))
                case 7:
                    self.cancel(data)
                case buffers:
                    beside = [_BUFFER] * max(0, buffers - 2)
                    self.link.next = bytes((actor & 31,)), data, beside
                    self.inbound.receive(cast(InLink, self.link))
            self.check()
        while any(channel.deliverable for channel in self.node.channels):
            self.handle()
            self.check()

    def handle(self) -> None:
        """Do with the next messages what a dispatcher does."""
        channel = self.inbound.ready.pop()
        if channel is None or not channel.inbox:
            return
        batch = channel.inbox[0]
        if batch.values is None:
            try:
                batch.values = _CODEC.decode_each(batch.body, batch.count, batch.buffers)
            except DecodeError:
                batch.values = [None] * batch.count
        most = batch.count
        if channel.picky:
            why, most = channel.pick(most, 10**18)
            if why is not None:
                channel.pass_over(why, most)
                self.inbound.offer(channel)
                return
        numbers = channel.numbers(min(most, batch.count - batch.position))
        assert all(number is None or 0 <= number < 1 << 63 for number in numbers)
        channel.take(len(numbers))
        channel.finish(len(numbers))
        self.inbound.offer(channel)

    def cancel(self, data: bytes) -> None:
        number, sequence = (*data, 0, 0)[:2]
        found = self.inbound.find(number)
        if found is not None and sequence >= found.window.taken:
            found.cancel(sequence)

    def check(self) -> None:
        for channel in self.inbound.channels.values():
            _check_channel(channel)
        ended = sum(not ch.external and ch.end_at is not None for ch in self.node.channels)
        assert self.node.open == self.planned - ended
        assert len(self.inbound._banned) <= _MOST_STRANGERS + len(self.inbound.channels) + 32
        assert len(self.violations) <= len(self.inbound.channels)


def _check_channel(channel: InChannel) -> None:
    window = channel.window
    assert 0 <= window.done <= window.taken <= window.received
    assert window.received - window.taken <= window.capacity + window.lent + channel.fresh
    assert 0 <= window.taken_bytes <= window.received_bytes
    assert sum(batch.count - batch.position for batch in channel.inbox) == channel.depth
    assert all(window.done < sequence < window.taken for sequence in window.beyond)
    if channel.merge is not None:
        assert channel.merge.held <= 1 << 17


def _frames_to(me: WorkerId) -> list[Chunk]:
    """Return what well-behaved peers say: each opens its channel, sends, and ends."""
    found: list[Chunk] = []
    payloads = samples.values()
    mine = [ch for ch in (*PLAN.channels, *PLAN.external_channels) if ch.receiver == me]
    edges = {edge.index: edge for edge in (*PLAN.edges, *PLAN.external_edges)}
    for peer, channel in enumerate(mine):
        edge, number = edges[channel.edge], channel.number
        found.append((peer, f.pack_hello(number, EPOCH, TOKEN)))
        for batch in range(3):
            said = Notes()
            if edge.numbered:
                said = Notes(numbers=[2 * batch])
            elif edge.tagged:
                tag = 2 * batch + peer % 2
                said = Notes(tags=[tag], places=[0], completed=[tag], counts=[1])
            elif edge.ttl_s is not None:
                said = Notes(ages_ns=[5])
            one = [payloads[(batch + 7 * peer) % len(payloads)]]
            found.append((peer, _frame(number, batch, one, said)))
            found += [(0xA0, b""), (0xC1, b"")]
        found.append((peer, f.pack_end(number, EPOCH, 3, 7)))
    return found


def _frame(number: int, sequence: int, payloads: list[bytes], notes: Notes) -> bytes:
    if not notes:
        return f.pack_batch(number, EPOCH, sequence, payloads, 7)
    return f.pack_noted(number, EPOCH, sequence, payloads, 7, pack_notes(notes))


def _inbound_seeds(name: str) -> list[bytes]:
    me = ME[name]
    every = _frames_to(me)
    first = every[0][1]
    floods = [(peer, f.pack_hello(0, EPOCH, "guess")) for peer in range(32)]
    large = [(0, first), (64 + 32, every[1][1]), (0xA0, b"")]
    return [
        pack(every),
        pack(every[:4]),
        pack(floods),
        pack(large),
        pack([(0xE0, b"\0\1"), *every]),
    ]


def _to_sink(script: bytes) -> None:
    _Receiver(ME["sink"]).play(script)


def _to_ordered(script: bytes) -> None:
    _Receiver(ME["ordered"]).play(script)


# --- a sender, whose receivers lie --------------------------------------------------------------


class _Out:
    """Where frames leave: ``sent`` counts those that are no HELLO."""

    shared = False

    def __init__(self, number: int) -> None:
        self.number = number
        self.next: bytes | None = None
        self.sent = 0

    def send(self, frame: bytes) -> None:
        self.sent += f.parse(frame).count

    def receive(self) -> bytes | None:
        found, self.next = self.next, None
        return found


class _Sender:
    """A participant with an edge of each kind, all of whose receivers are hostile."""

    def __init__(self, me: WorkerId) -> None:
        self.violations: list[str] = []
        inbound = Inbound(
            PLAN, me, cast(Poller, None), token=TOKEN, epoch=EPOCH, on_violation=print
        )
        self.outbound = Outbound(
            PLAN, me, cast(Poller, None), inbound, token=TOKEN, epoch=EPOCH,
            edge_key=GRAPH.edge_key, on_violation=self.violations.append, codec=_CODEC,
        )  # fmt: skip
        self.links = {n: _Out(n) for edge in self.outbound.edges for n in edge.channels}
        self.outbound.links = cast("dict[int, OutLink]", self.links)
        self.outbound._unwelcomed |= self.links.keys()
        self.emitted = 0

    def play(self, script: bytes) -> None:
        for actor, data in unpack(script):
            link = self.links.get(actor) or list(self.links.values())[actor % len(self.links)]
            if actor < 192:
                link.next = data
                self.outbound.receive(cast(OutLink, link))
            elif actor < 224:
                self.emit(min(len(data), 6) + 1)
            else:
                self.outbound.pump()
            self.check()
        self.outbound.pump()
        self.outbound.end(self.outbound.edges)

    def emit(self, count: int) -> None:
        """Emit as a node does that waits while an edge is full."""
        for _ in range(count):
            if self.outbound.blocked:
                return
            self.emitted += 1
            for edge in self.outbound.edges:
                payload = _CODEC.encode(self.emitted)
                if isinstance(edge, OutEdge):
                    lane, key = edge.route(self.emitted, _CODEC.encode)
                    lane.push(payload, key)
                elif isinstance(edge, QueueEdge):
                    edge.offer(payload, edge.place(self.emitted), 5)

    def check(self) -> None:
        for edge in self.outbound.edges:
            assert not isinstance(edge, LocalEdge)
            for number, window in zip(edge.channels, edge.windows, strict=True):
                assert 0 <= window.done <= window.taken <= window.sent
                assert 0 <= window.taken_bytes <= window.sent_bytes
                assert window.sent - window.taken <= window.capacity
                assert self.links[number].sent == window.sent
            fates = edge.fates.total if isinstance(edge, QueueEdge) else 0
            sent = sum(window.sent for window in edge.windows)
            assert edge.offered == edge.waiting + sent + fates
            assert edge.offered == self.emitted


def _from(name: str) -> Any:
    def run(script: bytes) -> None:
        _Sender(WorkerId(name)).play(script)

    return run


def _outbound_seeds() -> list[bytes]:
    chunks: list[Chunk] = [(n, f.pack_credit(n, EPOCH, 0, 0, 0)) for n in range(16)]
    sent = [*chunks, (192, b"123"), (224, b"")]
    more: list[Chunk] = []
    for number in range(16):
        more.append((number, f.pack_credit(number, EPOCH, 2, 2, 1, [3])))
        more.append((number, f.pack_closed(number, EPOCH, 3, 3, 3)))
    refused = [(number, f.pack_refused(number, EPOCH, "no")) for number in range(16)]
    back = [(n, f.pack_credit(n, EPOCH, 1, 1, 1)) for n in range(16)]
    again = [*sent, *more, (200, b"12345"), (255, b""), *back]
    return [pack(sent), pack(again), pack([*sent, *back, *more]), pack(refused)]


# --- the coordinator, and a worker it tells things ----------------------------------------------

_TEST_PLAN = make_plan([("a", "b"), ("b", "c")], {"b": 2}, results=["c"])
_OPTIONS = RunOptions(start_timeout_s=20.0, drain_timeout_s=5.0)
_FAKES = [Fake(worker) for worker in (*_TEST_PLAN.workers, HANDLE)]
_KEYS = [fake.key for fake in _FAKES] + [b"stranger", b"observer"]
_MOST_TICKS = 400
_BY_HAND = 255  # the first actor of a script in which no agent owns the workers


def _coordinator(script: bytes) -> None:
    """Everybody joins; then peers say what the script says, and the run is ended."""
    chunks = unpack(script)
    managed = not chunks or chunks[0][0] != _BY_HAND
    state = CoordinatorState(_TEST_PLAN, _OPTIONS, "r", TOKEN, managed=managed)
    now = 0.0
    finished: list[RunReport] = []

    def feed_it(event: e.Event) -> None:
        for todo in state.handle(event, now):
            if isinstance(todo, e.Send):
                assert type(c.decode(c.encode(todo.message))) is type(todo.message)
            elif isinstance(todo, e.Finish):
                finished.append(todo.report)
        state.validate_state()

    for fake in _FAKES:
        feed_it(e.Received(fake.key, fake.hello()))
    for actor, data in chunks:
        now += (actor >> 5) * 0.3
        key = _KEYS[(actor & 31) % len(_KEYS)]
        most = c.MAX_CONTROL_BYTES if state.knows(key) else c.MAX_STRANGER_BYTES
        try:
            event: e.Event = e.Received(key, c.decode(data, most))
        except ProtocolError as error:
            event = e.Garbled(key, str(error))
        feed_it(event)
    c.encode(c.StatusReply(1, state.status().to_dict()))
    feed_it(e.AbortRequested("enough"))
    for _ in range(_MOST_TICKS):
        due = state.next_timer()
        if due is None:
            break
        now = max(now, due)
        feed_it(e.Tick())
    assert state.phase is Phase.FINISHED
    (report,) = finished
    assert RunReport.from_dict(report.to_dict()).outcome == report.outcome
    str(report)


def _coordinator_seeds() -> list[bytes]:
    everybody = range(len(_FAKES))
    words: list[c.Control] = [
        c.Bound({int(Priority.NORMAL): "ipc:///x"}), c.Linked(), c.Started(), c.Started(),
        c.Started(), c.Drained(), c.Stopped([]), c.Stopped([]),
    ]  # fmt: skip
    healthy: list[Chunk] = [(who, c.encode(word)) for word in words for who in everybody]
    look: list[Chunk] = [
        (6, c.encode(c.Hello("observer", TOKEN, 1, "h"))), (6, c.encode(c.StatusRequest(5))),
        (5, c.encode(c.Hello("worker", "wrong", 1, "h"))),
    ]  # fmt: skip
    asked: list[Chunk] = [
        (4, c.encode(message))
        for message in [
            c.PauseRequest(1, "b", 1), c.CancelRequest(2, "id", []), c.DrainNodeRequest(3, "b"),
            c.Locate(4, "b", "in"), c.StatusRequest(5), c.DrainRequest(3.0),
        ]
    ]  # fmt: skip
    answers: list[Chunk] = [
        (1, c.encode(c.Held(1))), (1, c.encode(c.Found(1, Cancelled.UNKNOWN.value, []))),
        (2, c.encode(c.Found(1, Cancelled.DONE.value, [[3, 5]]))),
        (3, c.encode(c.Outcome(1, Cancelled.CANCELLED.value))),
    ]  # fmt: skip
    counted = [(who, message) for who in everybody for message in samples.controls()[-2:]]
    any_of: list[Chunk] = [(i % 7, message) for i, message in enumerate(samples.controls())]
    running = healthy[: 5 * len(_FAKES)]
    scripts = [healthy, [*running, *asked, *answers], [*look, *running, *counted, *look],
               [*running, *any_of], [(64 + 5, b"junk")] * 8]  # fmt: skip
    return [pack(script) for script in (*scripts, [(_BY_HAND, b""), *healthy])]


def _worker(script: bytes) -> None:
    """A coordinator says anything in any order."""
    state = WorkerState()
    for _, data in unpack(script):
        with suppress(ProtocolError):
            message = c.decode(data)
            before = state.phase, state.started
            try:
                state.handle(message)
            except ProtocolError:
                assert (state.phase, state.started) == before


def _worker_seeds() -> list[bytes]:
    words: list[c.Control] = [
        c.Assign("a", 0, "r", 1), c.Link([[3, "ipc:///x"]]), c.Start(), c.Run(), c.Pause("a", 1, 2),
        c.DrainNode("a"), c.Drain(), c.Stop(), c.Exit(),
    ]  # fmt: skip
    every: list[Chunk] = [(0, message) for message in samples.controls()]
    return [pack([(0, c.encode(word)) for word in words]), pack(every)]


PEERS = [
    Target("to_sink", _to_sink, lambda: _inbound_seeds("sink"), (), _FIXED_BYTES, values=True,
           script=True),
    Target("to_ordered", _to_ordered, lambda: _inbound_seeds("ordered"), (), _FIXED_BYTES,
           values=True, script=True),
    Target("from_source", _from("p"), _outbound_seeds, (), _FIXED_BYTES, script=True),
    Target("from_keyed", _from("o"), _outbound_seeds, (), _FIXED_BYTES, script=True),
    Target("from_latest", _from("n"), _outbound_seeds, (), _FIXED_BYTES, script=True),
    Target("coordinator", _coordinator, _coordinator_seeds, (), _FIXED_BYTES, values=True,
           script=True),
    Target("worker", _worker, _worker_seeds, (), _FIXED_BYTES, values=True, script=True),
]  # fmt: skip
