"""What `Invariants` finds: both ends of a channel as they are, then with one counter wrong."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dflow import Graph, node, sink, source
from dflow.flow.in_edge import InChannel
from dflow.flow.out_edge import OutEdge
from dflow.graph.plan import Plan, WorkerId
from dflow.report import EdgeReport, RunReport
from dflow.testing.invariants import Broken, Invariants, Seen
from dflow.testing.lives import Lives
from dflow.wire.frames import pack_batch, pack_end, parse, parse_credit
from dflow.worker.state import Phase

SECOND = 1_000_000_000


@source
def numbers() -> Any:
    """Yield nothing: it is never run."""
    yield from ()


@node
def middle(x: int) -> int:
    """Pass on."""
    return x


@sink
def store(x: int) -> None:
    """Swallow."""


class Pair:
    """A source and a sink, with one channel of four messages between them."""

    def __init__(self) -> None:
        self.plan = Graph("pair", numbers() >> store()).plan()
        self.out = OutEdge(0, "numbers.out->store.in", [0], 4, 1000)
        self.into = InChannel(0, self.out.id, "in", self.plan.edges[0].priority, 4, 1000, 1)
        self.sender = self._seen("numbers", [self.out], {})
        self.receiver = self._seen("store", [], {0: self.into})
        self.everybody = {who.worker: who for who in (self.sender, self.receiver)}
        self.watch_anew()
        self.wire: list[bytes] = []

    def watch_anew(self) -> None:
        """Forget what was seen so far; both have started."""
        self.invariants = Invariants(self.plan)
        for phase in (Phase.READY, Phase.RUNNING):
            for who in self.everybody.values():
                who.phase = phase
                nothing: Any = SimpleNamespace(
                    outbound=SimpleNamespace(edges=()), inbound=SimpleNamespace(channels={})
                )
                idle = Seen(who.worker, nothing, phase)
                assert self.invariants.look(idle, 0) is None
        self.invariants._met.clear()  # so far it has met nobody who has edges

    @staticmethod
    def _seen(name: str, edges: list[Any], channels: dict[int, InChannel]) -> Seen:
        outbound = SimpleNamespace(edges=edges, blocked=False)
        plane: Any = SimpleNamespace(outbound=outbound, inbound=SimpleNamespace(channels=channels))
        return Seen(WorkerId(name), plane, Phase.RUNNING)

    def send(self, count: int) -> None:
        """Emit messages and put on the wire what has credit."""
        for number in range(count):
            self.out.lanes[0].push(b"%c" % number, b"")
        self.flush()

    def flush(self) -> None:
        """Put on the wire what has credit."""
        self.wire += [pack_batch(0, 1, cut.first, cut.payloads, 0) for cut in self.out.flush(0)]

    def arrive(self) -> None:
        """Let all that is on the wire arrive."""
        for frame in self.wire:
            self.into.accept(parse(frame))
        self.wire.clear()

    def handle(self, count: int) -> None:
        """Handle so many messages."""
        self.into.take(count)
        self.into.finish(count)

    def report(self) -> None:
        """Let the sender hear of it."""
        self.out.on_credit(0, *parse_credit(parse(self.into.credit_frame())))

    def look(self, now: int = 0) -> Broken | None:
        """Look at both."""
        return (
            self.invariants.look(self.sender, now)
            or self.invariants.look(self.receiver, now)
            or self.invariants.glance(self.everybody, now)
        )


def run_report(outcome: str, edge: EdgeReport) -> RunReport:
    """Return a report with one edge."""
    return RunReport("pair", "1", outcome, 0.0, 1.0, 1.0, edges=(edge,))


def test_nothing_is_broken_while_messages_pass_and_credit_returns() -> None:
    """An honest channel, at each of its steps."""
    pair = Pair()
    for _ in range(5):
        pair.send(3)
        assert pair.look() is None
        pair.arrive()
        assert pair.look() is None
        pair.handle(1)
        assert pair.look() is None
        pair.handle(2)
        pair.report()
        assert pair.look() is None
    pair.into.accept_end(parse(pack_end(0, 1, 15, 0)))
    assert pair.look() is None
    report = run_report("finished", EdgeReport("e", 15, 15, wired=15, received=15))
    assert not pair.invariants.conclude(report, pair.everybody.values(), 0)


def test_a_lost_batch_leaves_a_gap_in_the_inbox() -> None:
    """The counters agree, but what lies there does not follow what was taken."""
    pair = Pair()
    pair.send(1)
    pair.send(1)
    pair.arrive()
    pair.into.inbox.popleft()
    broken = pair.look()
    assert broken is not None
    assert (broken.invariant, broken.channels) == ("order", (0,))
    assert "expected message 0 next, got message 1, at 0.000000000 s" in str(broken)


def test_a_batch_that_lies_there_twice_is_out_of_order() -> None:
    """As a duplicated frame would be, if it were accepted."""
    pair = Pair()
    pair.send(1)
    pair.arrive()
    pair.into.inbox.append(pair.into.inbox[0])
    pair.into.window.received += 1
    broken = pair.look()
    assert broken is not None
    assert broken.invariant == "loss"
    assert "2 received of 1 sent" in broken.got


@pytest.mark.parametrize(
    ("counter", "invariant"),
    [("taken", "loss"), ("done", "loss"), ("received", "loss")],
)
def test_a_receiver_that_counts_too_much_is_found(counter: str, invariant: str) -> None:
    """Nothing can be taken that has not arrived, nor done that was not taken."""
    pair = Pair()
    pair.send(2)
    pair.arrive()
    assert pair.look() is None
    setattr(pair.into.window, counter, 4)
    broken = pair.look()
    assert broken is not None
    assert broken.invariant == invariant


def test_credit_that_was_never_given_is_found() -> None:
    """The sender believes more to be taken than the receiver has taken."""
    pair = Pair()
    pair.send(3)
    pair.arrive()
    pair.handle(1)
    pair.report()
    assert pair.look() is None
    pair.out.windows[0].taken = 2
    broken = pair.look()
    assert broken is not None
    assert broken.invariant == "credit"


def test_a_counter_that_goes_back_is_found() -> None:
    """They only grow."""
    pair = Pair()
    pair.send(3)
    pair.arrive()
    pair.handle(2)
    assert pair.look() is None
    pair.into.window.done = 1
    broken = pair.look()
    assert broken is not None
    assert broken.invariant == "credit"


def test_more_than_a_window_is_found_at_either_end() -> None:
    """Four messages are the window."""
    pair = Pair()
    pair.send(4)
    pair.arrive()
    assert pair.look() is None
    pair.out.windows[0].sent = 5
    broken = pair.look()
    assert broken is not None
    assert broken.invariant == "depth"
    pair = Pair()
    pair.into.window.received = 5
    broken = pair.look()
    assert broken is not None
    assert broken.invariant == "depth"


def test_a_message_that_leaves_an_edge_uncounted_is_found() -> None:
    """Offered is what waits and what was sent."""
    pair = Pair()
    pair.send(6)
    assert pair.look() is None
    pair.out.windows[0].sent = 3
    pair.out.windows[0].sent_bytes = 3
    pair.watch_anew()
    broken = pair.look()
    assert broken is not None
    assert (broken.invariant, broken.where) == ("books", "edge numbers.out->store.in")


def test_a_lost_report_that_nobody_repeats_is_a_deadlock() -> None:
    """All is done, and the sender waits for credit all the same."""
    pair = Pair()
    pair.send(6)
    pair.arrive()
    pair.handle(4)
    pair.into.credit_frame()  # lost on its way
    assert pair.look(1) is None
    assert pair.look(20 * SECOND) is None
    broken = pair.look(200 * SECOND)
    assert broken is not None
    assert broken.invariant == "deadlock"
    assert broken.got == "a sender without credit, 2 messages waiting"


def test_a_message_that_nobody_takes_is_a_deadlock_unless_the_node_has_a_reason() -> None:
    """Code that takes its time is one."""
    pair = Pair()
    pair.send(1)
    pair.arrive()
    pair.receiver.excused = True
    assert pair.look(1) is None
    assert pair.look(8 * SECOND) is None
    pair.receiver.excused = False
    broken = pair.look(20 * SECOND)
    assert broken is not None
    assert broken.invariant == "deadlock"
    assert "expected store[0] to take a message" in str(broken)


def test_what_a_complete_run_left_behind_is_found() -> None:
    """At the end all is done that was sent."""
    pair = Pair()
    pair.send(2)
    pair.arrive()
    pair.handle(1)
    assert pair.look() is None
    report = run_report("finished", EdgeReport("e", 2, 2, wired=2, received=2))
    (broken,) = pair.invariants.conclude(report, pair.everybody.values(), 0)
    assert broken.got == "2 received, 1 taken, 1 done"
    assert not pair.invariants.conclude(
        run_report("aborted", EdgeReport("e", 2, 1, abandoned=1, wired=2, received=2)),
        pair.everybody.values(), 0,
    )  # fmt: skip


def test_books_that_do_not_balance_are_found() -> None:
    """Whatever the outcome."""
    pair = Pair()
    report = run_report("aborted", EdgeReport("e", sent=3, delivered=2, wired=3, received=2))
    found = pair.invariants.conclude(report, (), 0)
    assert [broken.invariant for broken in found] == ["books"]


# --- lives ---------------------------------------------------------------------------


def three() -> Plan:
    """Return a chain of three."""
    return Graph("three", numbers() >> middle() >> store()).plan()


def live(lives: Lives, *steps: tuple[str, Phase]) -> list[str]:
    """Return what was wrong with some steps."""
    return [
        f"{expected}, {got}"
        for name, phase in steps
        for expected, got in lives.look(WorkerId(name), phase, lambda: 0)
    ]


def test_starting_down_and_stopping_up_the_graph_is_in_order() -> None:
    """As the coordinator does it."""
    names = ("numbers", "middle", "store")
    up = tuple(reversed(names))
    steps = [(name, phase) for name in names for phase in (Phase.STARTING, Phase.READY)]
    steps += [(name, phase) for phase in (Phase.RUNNING, Phase.DRAINED) for name in names]
    steps += [(name, phase) for name in up for phase in (Phase.STOPPING, Phase.STOPPED)]
    assert live(Lives(three()), *steps) == []


def test_each_step_out_of_order_is_found() -> None:
    """Starting before those above, running before all are ready, stopping before those below."""
    assert live(Lives(three()), ("middle", Phase.STARTING)) == [
        "numbers[0] started before it, numbers[0] joining"
    ]
    ready = [("numbers", Phase.READY), ("middle", Phase.READY)]
    assert live(Lives(three()), *ready, ("numbers", Phase.RUNNING)) == [
        "every worker ready before any runs, store[0] joining"
    ]
    names = ("numbers", "middle", "store")
    drained = [(name, phase) for phase in (Phase.READY, Phase.DRAINED) for name in names]
    for phase in (Phase.STOPPING, Phase.STOPPED):  # one may do both in one step
        assert live(Lives(three()), *drained, ("middle", phase)) == [
            "store[0] stopped before it, store[0] drained"
        ]


def test_messages_before_the_run_and_after_the_stop_are_found() -> None:
    """A worker takes messages while it runs."""
    lives = Lives(three())
    early = next(lives.look(WorkerId("store"), Phase.READY, lambda: 1))
    assert early == ("no message before the run", "1 taken while ready")
    list(lives.look(WorkerId("store"), Phase.STOPPING, lambda: 3))
    (late,) = lives.look(WorkerId("store"), Phase.STOPPING, lambda: 4)
    assert late == ("no message after on_stop has begun", "4 taken")
