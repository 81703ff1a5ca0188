"""Many workers played by one process: the real control protocol, and nothing behind it.

Each simulated worker has a DEALER socket and a routing id of its own and says what a worker says:
Hello, Bound, Linked, Started, then statistics and a heartbeat each interval, Held when it is to
pause, Drained, Stopped. Its counters grow as those of a busy worker would. One `epoll` watches all
sockets, so that what the fleet costs grows with what is said and not with who is silent.

The graph is many chains of four nodes, a worker each; a chain is never split between two fleets,
so a worker drains when the one before it has.
"""

from __future__ import annotations

import select
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from multiprocessing.sharedctypes import Synchronized

import zmq

from dflow import Graph, node, sink, source
from dflow.graph.plan import Plan, WorkerId
from dflow.message import Priority
from dflow.wire import control as c

__all__ = ["CHAIN", "TOKEN", "Fleet", "build_graph", "run_fleet"]

CHAIN = 4
"""Nodes of a chain."""

TOKEN = "token-of-the-benchmark"

RATE = 20_000
"""Messages a second that each simulated worker claims to handle."""

LATEST_S = 0.02
"""The fleet speaks this often: each time the share of its workers that is due."""


@source
def origin() -> int:
    """Never called: nothing of the user's runs here."""
    return 0


@node
def step(value: int) -> int:
    """Never called."""
    return value


@sink
def end(value: int) -> None:
    """Never called."""


def build_graph(workers: int) -> Graph:
    """Return chains of `CHAIN` nodes that want ``workers`` processes, connected one by one."""
    graph = Graph("fleet")
    for _ in range(workers // CHAIN):
        nodes = [origin(), *(step() for _ in range(CHAIN - 2)), end()]
        for before, after in pairwise(nodes):
            graph.connect(before, after)
    return graph


@dataclass(slots=True)
class _Worker:
    name: WorkerId
    socket: zmq.Socket[bytes]
    outs: list[int]
    ins: list[int]
    edges: list[int]
    after: _Worker | None = None
    running: bool = False
    ended: bool = False
    due: float = 0.0
    began: float = 0.0
    stats: list[object] = field(default_factory=list)

    def say(self, message: c.Control) -> None:
        """Send one message; never blocks."""
        self.socket.send(c.encode(message))

    def counters(self, now: float) -> list[object]:
        """Return what a worker that handles `RATE` messages a second has counted by now.

        As `WorkerStats.to_wire` says it, without its cost: that of a real worker is not measured.
        """
        lived_s = now - self.began
        count = max(0, int(lived_s * RATE))
        busy_ns = int(lived_s * 2e8)
        return [
            [count, count, 0, 0, busy_ns, {"seen": count}, 0],
            dict.fromkeys(self.edges, count),
            dict.fromkeys(self.edges, 0),
            dict.fromkeys(self.edges, 900),
            [[number, count, count * 40, count, count] for number in self.outs],
            [[number, count, count, count, 0, 0, 0, 0] for number in self.ins],
            {},
            {edge: [0.001, []] for edge in self.edges},
            busy_ns,
            {},
            busy_ns // 20,
        ]


class Fleet:
    """The workers of some chains.

    ``interval_s``: between two reports of each; 0: what the coordinator tells them. ``sent`` counts
    what was sent by all fleets.
    """

    def __init__(
        self,
        endpoint: str,
        plan: Plan,
        workers: Sequence[WorkerId],
        interval_s: float,
        sent: Synchronized[int],
    ) -> None:
        self._sent = sent
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._context.set(zmq.MAX_SOCKETS, len(workers) + 16)
        self._epoll = select.epoll()
        self._interval_s = interval_s
        self._fingerprint = plan.fingerprint
        self._workers = [self._make(endpoint, worker) for worker in workers]
        self._by_fd = {int(one.socket.getsockopt(zmq.FD)): one for one in self._workers}
        for fd in self._by_fd:
            self._epoll.register(fd, select.EPOLLIN | select.EPOLLET)
        by_name = {one.name: one for one in self._workers}
        for channel in plan.channels:
            if channel.sender in by_name:
                sender, receiver = by_name[channel.sender], by_name[channel.receiver]
                sender.outs.append(channel.number)
                sender.edges.append(channel.edge)
                sender.after = receiver
                receiver.ins.append(channel.number)

    def _make(self, endpoint: str, worker: WorkerId) -> _Worker:
        socket: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.ROUTING_ID, str(worker).encode())
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDHWM, 0)
        socket.setsockopt(zmq.RCVHWM, 0)
        socket.connect(endpoint)
        return _Worker(worker, socket, [], [], [])

    def live(self) -> None:
        """Take part in the run until the coordinator has let everybody go."""
        for number, one in enumerate(self._workers):
            one.say(
                c.Hello(
                    "worker", TOKEN, number + 1, "bench", one.name.node, one.name.replica,
                    self._fingerprint,
                )
            )  # fmt: skip
            self._listen(one)
        while not all(one.ended for one in self._workers):
            for fd, _ in self._epoll.poll(LATEST_S):
                self._listen(self._by_fd[fd])
            self._report(time.monotonic())
        for one in self._workers:
            one.socket.close()
        self._context.term()

    def _report(self, now: float) -> None:
        count = 0
        for one in self._workers:
            if one.running and now >= one.due:
                one.due += self._interval_s
                one.say(c.Stats(one.counters(now)))
                one.say(c.Heartbeat())
                self._listen(one)
                count += 2
        with self._sent.get_lock():
            self._sent.value += count

    def _listen(self, one: _Worker) -> None:
        """Read all there is: an edge-triggered descriptor tells of it once.

        Also after each `send`, which may take the news from the descriptor.
        """
        while not one.ended:
            try:
                message = c.decode(one.socket.recv(zmq.NOBLOCK))
            except zmq.Again:
                return
            self._obey(one, message)

    def _obey(self, one: _Worker, message: c.Control) -> None:
        match message:
            case c.Assign():
                self._interval_s = self._interval_s or float(message.options["stats_interval_s"])
                one.say(c.Bound({int(Priority.NORMAL): f"ipc:///tmp/nowhere/{one.name}"}))
            case c.Link():
                one.say(c.Linked())
            case c.Start():
                one.say(c.Started())
            case c.Run():
                now = time.monotonic()
                share = (hash(one.name) % 1000) / 1000  # real workers do not report all at once
                one.running, one.began, one.due = True, now, now + share * self._interval_s
            case c.Pause(_, _, request) if request:
                one.say(c.Held(request))
            case c.Drain():
                self._drained(one)
            case c.Stop() | c.Abort():
                one.running = False
                one.say(c.Stopped(one.counters(time.monotonic())))
            case c.Exit() | c.Refused():
                one.running, one.ended = False, True

    def _drained(self, one: _Worker) -> None:
        """Drain a worker, and the rest of its chain after it."""
        each: _Worker | None = one
        while each is not None:
            each.say(c.Drained())
            self._listen(each)
            each = each.after


def run_fleet(
    endpoint: str,
    workers: int,
    share: tuple[int, int],
    interval_s: float,
    sent: Synchronized[int],
) -> None:
    """Be the ``share`` (number, of how many) of the ``workers``; for a process of its own."""
    plan = build_graph(workers).plan()
    number, parts = share
    mine = [worker for chain in _by_chain(plan)[number::parts] for worker in chain]
    Fleet(endpoint, plan, mine, interval_s, sent).live()


def _by_chain(plan: Plan) -> list[list[WorkerId]]:
    after = {edge.sender: edge.receiver for edge in plan.edges}
    found = []
    for node_plan in plan.nodes:
        if node_plan.kind == "source":
            names = [node_plan.name]
            while names[-1] in after:
                names.append(after[names[-1]])
            found.append([WorkerId(name) for name in names])
    return found
