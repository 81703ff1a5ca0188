"""Overflow policies across processes: what is kept, what is counted, and that nobody is hampered.

A consumer that has to be slow waits for a file, so nothing depends on how fast the machine is; but
for the age of what is handled with ``latest``, which is a promise about time.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dflow import EdgeFull, Graph, Input, Node, Output, Priority, coalesce, source
from dflow.report import FATES, EdgeReport, EdgeStatus
from dflow.runtime import Run
from tests.integration.flows import (
    Inlet,
    await_file,
    collect,
    count,
    keep,
    run_checked,
    swallow,
    write_line,
)
from tests.support import eventually

pytestmark = pytest.mark.timeout(60)

LONG_S = 30.0
N = 3000
every_capacity = pytest.mark.parametrize("capacity", [1, 2, 8, 64, 1024])
PERIOD_S = 0.1
LATE_S = 0.005
MACHINE_S = 0.25
"""What a machine that is shared with other tests may add to a single measurement."""


class Gated(Node):
    """Handles its first message only when a file exists; passes everything on.

    Another file says that it has a message in hand.
    """

    into = Input(Any, required=False)
    out = Output(required=False)

    def __init__(self, gate: Path) -> None:
        self.gate = gate

    @into.handler
    def handle(self, x: Any) -> Any:
        self.gate.with_suffix(".held").touch()
        await_file(self.gate)
        return x


class Careful(Node):
    """Emits numbers on an edge that may refuse them; says how often it did."""

    into = Input(int)
    out = Output(int)
    refused = Output(int)

    @into.handler
    def handle(self, x: int) -> None:
        try:
            self.out.emit(x)
        except EdgeFull:
            self.refused.emit(x)


@source
def paced(n: int, hertz: float) -> Iterator[tuple[int, int]]:
    """Yield (number, nanoseconds of the clock) at a steady rate."""
    began = time.monotonic()
    for number in range(n):
        time.sleep(max(0.0, began + number / hertz - time.monotonic()))
        yield number, time.monotonic_ns()


class Slow(Node):
    """Takes so long for each message; writes down its number, and in ns how old it was when its
    turn came, and how long the one before it really took.
    """

    into = Input(Any)

    def __init__(self, log: Path, seconds: float) -> None:
        self.log = log
        self.seconds = seconds
        self.took_ns = 0

    @into.handler
    def handle(self, x: tuple[int, int]) -> None:
        number, emitted_ns = x
        began_ns = time.monotonic_ns()
        write_line(self.log, f"{number} {began_ns - emitted_ns} {self.took_ns}")
        time.sleep(self.seconds)
        self.took_ns = time.monotonic_ns() - began_ns


def add(waiting: int, new: int) -> int:
    """Merge by adding up."""
    return waiting + new


def fussy(waiting: int, new: int) -> int:
    """Merge by adding up, but for a number that cannot be merged."""
    if new == 13:
        raise ValueError("13 cannot be merged")
    return waiting + new


def edge_of(run: Run, edge: str) -> EdgeStatus:
    """Return an edge as it is now."""
    return next(e for e in run.status().edges if e.id == edge)


def offered(run: Run, edge: str, messages: int) -> None:
    """Wait until so many messages were emitted onto an edge."""

    def seen() -> bool:
        return any(e.id == edge and e.sent >= messages for e in run.status().edges)

    eventually(seen, within_s=LONG_S, what=f"{messages} messages on {edge}")


def behind_a_gate(tmp_path: Path, n: int, **options: Any) -> tuple[list[Any], Any]:
    """Emit 0 to n - 1 to a consumer that stands still; return what it got, and the edge's books."""
    graph = Graph("gated")
    into = Gated(tmp_path / "gate")
    graph.connect(count(n), into, **options)
    with graph.start(results=[into]) as run:
        offered(run, "count.out->gated.into", n)
        stands = edge_of(run, "count.out->gated.into")
        assert stands.depth <= stands.capacity
        (tmp_path / "gate").touch()
        got = list(run.results())
        report = run.wait(LONG_S)
    assert report.balances, report.imbalances
    return got, report.edge("count.out->gated.into")


def books_at_rest(got: list[int], edge: EdgeReport, capacity: int, lost: str) -> None:
    """Everything was delivered or lost in the way ``lost``, and there never was too much."""
    fates = {fate: getattr(edge, fate) for fate in FATES if getattr(edge, fate)}
    assert fates == {"delivered": len(got), lost: N - len(got)}
    assert edge.sent == N
    assert edge.peak == capacity


@every_capacity
def test_drop_delivers_what_came_first(tmp_path: Path, capacity: int) -> None:
    got, edge = behind_a_gate(tmp_path, N, policy="drop", capacity=capacity)
    assert got == list(range(capacity))
    books_at_rest(got, edge, capacity, "dropped")


@every_capacity
def test_drop_oldest_delivers_what_came_last(tmp_path: Path, capacity: int) -> None:
    got, edge = behind_a_gate(tmp_path, N, policy="drop_oldest", capacity=capacity)
    assert got[0] == 0  # in the consumer's hands
    assert got[1:] == list(range(N - capacity, N))
    books_at_rest(got, edge, capacity, "dropped")


@every_capacity
def test_latest_delivers_the_newest(tmp_path: Path, capacity: int) -> None:
    got, edge = behind_a_gate(tmp_path, N, policy="latest", capacity=capacity)
    assert got[-1] == N - 1
    assert len(got) <= 2  # the other was in the consumer's hands; until it was, a newer replaced it
    assert got == sorted(got)
    books_at_rest(got, edge, 1, "dropped")


@every_capacity
def test_coalesce_conserves_the_sum(tmp_path: Path, capacity: int) -> None:
    got, edge = behind_a_gate(tmp_path, N, policy=coalesce(add), capacity=capacity)
    assert got[:capacity] == list(range(capacity))  # only the newest that waits is merged into
    assert got[capacity:] == [sum(range(capacity, N))]
    books_at_rest(got, edge, capacity, "coalesced")


@every_capacity
def test_reject_delivers_what_was_not_refused(tmp_path: Path, capacity: int) -> None:
    graph = Graph("gated")
    careful, into = Careful(), Gated(tmp_path / "gate")
    graph.connect(count(N), careful)
    graph.connect(careful.out, into, policy="reject", capacity=capacity)
    with graph.start(results=[into]) as run:
        offered(run, "careful.out->gated.into", N)
        (tmp_path / "gate").touch()
        got = list(run.results())
        report = run.wait(LONG_S)
    assert report.balances, report.imbalances
    assert got == list(range(capacity))
    assert report.node("careful").errors == 0  # the handler caught them
    books_at_rest(got, report.edge("careful.out->gated.into"), capacity, "rejected")


@every_capacity
def test_block_makes_the_source_wait_and_loses_nothing(tmp_path: Path, capacity: int) -> None:
    n = 100 + 4 * capacity
    graph = Graph("gated")
    into = Gated(tmp_path / "gate")
    graph.connect(count(n), into, capacity=capacity)
    name = "count.out->gated.into"
    with graph.start(results=[into]) as run:
        offered(run, name, capacity)
        stands = edge_of(run, name)
        assert stands.depth <= stands.capacity == capacity
        (tmp_path / "gate").touch()
        got = list(run.results())
        report = run.wait(LONG_S)
    assert report.balances, report.imbalances
    assert got == list(range(n))
    edge = report.edge(name)
    assert edge.sent == edge.delivered == n
    assert edge.peak <= 2 * capacity  # a source is asked for no more once the window is full


def test_a_merge_that_raises_ends_nothing(tmp_path: Path) -> None:
    got, edge = behind_a_gate(tmp_path, 100, policy=coalesce(fussy), capacity=1)
    assert edge.merge_errors == edge.dropped == 1
    assert got == [0, sum(range(13, 100))]  # 1 to 12 gave way to what could not be merged


def test_what_waited_too_long_is_not_delivered(tmp_path: Path) -> None:
    graph = Graph("stale")
    into = Gated(tmp_path / "gate")
    graph.connect(count(100), into, ttl_s=0.05, capacity=1000)
    with graph.start(results=[into]) as run:
        offered(run, "count.out->gated.into", 100)
        time.sleep(0.06)  # what is measured is the passing of time
        (tmp_path / "gate").touch()
        got = list(run.results())
        report = run.wait(LONG_S)
    assert report.balances, report.imbalances
    edge = report.edge("count.out->gated.into")
    assert got in ([0], [])  # nothing at all if it was stale when the worker first looked
    assert (edge.expired, edge.delivered) == (100 - len(got), len(got))


@pytest.mark.alone
def test_latest_is_never_older_than_one_period_and_never_goes_back(tmp_path: Path) -> None:
    log = tmp_path / "log"
    graph = Graph("camera")
    graph.connect(paced(800, 1000.0), Slow(log, PERIOD_S), policy="latest", capacity=8)
    run_checked(graph)
    rows = [tuple(map(int, line.split())) for line in log.read_text().splitlines()]
    numbers = [number for number, _, _ in rows]
    ages_s = [age / 1e9 for _, age, _ in rows]
    late_s = [(age - took) / 1e9 for _, age, took in rows]  # a handler that stood still stood still
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == 799
    assert len(numbers) >= 5
    assert statistics.median(ages_s) <= PERIOD_S + LATE_S
    assert max(late_s) <= LATE_S + MACHINE_S


def test_emit_raises_where_there_is_no_room_and_the_handler_may_catch_it(tmp_path: Path) -> None:
    graph = Graph("careful")
    careful, into = Careful(), Gated(tmp_path / "gate")
    graph.connect(count(100), careful)
    graph.connect(careful.out, into, policy="reject", capacity=10)
    with graph.start(results=[into, careful.refused]) as run:
        refused: list[int] = []
        for number in run.results(careful.refused):
            refused.append(number)
            if len(refused) == 90:
                (tmp_path / "gate").touch()
        got = list(run.results(into))
        report = run.wait(LONG_S)
    assert report.balances, report.imbalances
    assert got == list(range(10))
    assert refused == list(range(10, 100))
    edge = report.edge("careful.out->gated.into")
    assert (edge.sent, edge.rejected, edge.delivered) == (100, 90, 10)


def test_run_send_is_refused_at_capacity_and_says_how_much_there_is(tmp_path: Path) -> None:
    into = Gated(tmp_path / "gate")
    graph = Graph("outside")
    graph.add(into)
    graph.accept(into, policy="reject", capacity=10)
    with graph.start() as run:
        for number in range(10):
            run.send(into, number)
        with pytest.raises(EdgeFull, match=r"run->gated\.into: .* 10 waiting of 10") as refused:
            run.send(into, 10)
        assert (refused.value.capacity, refused.value.depth) == (10, 10)
        (tmp_path / "gate").touch()
        eventually(lambda: _is_taken(run, into), within_s=LONG_S, what="room")
    report = run.report
    assert report is not None
    assert report.balances, report.imbalances
    edge = report.edge("run->gated.into")
    assert edge.delivered == edge.sent - edge.rejected == 11


def _is_taken(run: Run, into: Node) -> bool:
    try:
        run.send(into, 11)
    except EdgeFull:
        return False
    return True


@pytest.mark.parametrize("policy", ["drop", "drop_oldest", "latest", "coalesce"])
def test_run_send_follows_the_policy_of_its_input(tmp_path: Path, policy: str) -> None:
    into = Gated(tmp_path / "gate")
    graph = Graph("outside")
    graph.add(into)
    graph.accept(into, policy=coalesce(add) if policy == "coalesce" else policy, capacity=2)
    with graph.start(results=[into]) as run:
        run.send(into, 0)  # until it is in hand, a newer one may replace it
        eventually((tmp_path / "gate.held").exists, within_s=LONG_S, what="0 in its hands")
        for number in range(1, 10):
            run.send(into, number)
        (tmp_path / "gate").touch()
        run.stop()
        got = list(run.results())
    expected = {"drop": [0, 1], "drop_oldest": [0, 8, 9], "latest": [0, 9], "coalesce": [0, 1, 44]}
    if policy == "latest" and len(got) == 3 and got == sorted(got):
        del got[1]  # was asked for because 0 seemed old already; replaced if 9 comes in time
    assert got == expected[policy]
    assert run.report is not None
    assert run.report.balances, run.report.imbalances


def test_a_full_branch_that_blocks_does_not_starve_or_stall_the_others(tmp_path: Path) -> None:
    n = 1500  # fewer than wait for whoever reads the results one after the other
    graph = Graph("mixed")
    start = count(n)
    blocked, newest, lossy = (keep().options(name=name) for name in ("all", "newest", "lossy"))
    graph.connect(start, blocked, capacity=8)
    graph.connect(start, newest, policy="latest")
    graph.connect(start, lossy, policy="drop_oldest", capacity=8)
    with graph.start(results=[blocked, newest, lossy]) as run:
        got = {name: list(run.results(f"{name}.out")) for name in ("all", "newest", "lossy")}
        report = run.wait(LONG_S)
    assert report.balances, report.imbalances
    assert got["all"] == list(range(n))
    for name in ("newest", "lossy"):
        assert got[name] == sorted(set(got[name]))
        assert got[name][-1] == n - 1


def test_a_stuck_branch_keeps_no_newer_message_from_a_latest_one(tmp_path: Path) -> None:
    n, capacity = 400, 4
    graph = Graph("stuck")
    start = count(n)
    stuck, newest = Gated(tmp_path / "gate"), keep().options(name="newest")
    graph.connect(start, stuck, capacity=capacity)
    graph.connect(start, newest, policy="latest")
    into_stuck, into_newest = "count.out->gated.into", "count.out->newest.in"
    with graph.start(results=[stuck, newest]) as run:
        offered(run, into_stuck, capacity)  # and no more until there is credit
        seen: list[int] = []
        for x in run.results(newest):
            seen.append(x)
            if x >= capacity - 1:
                break

        def quiet() -> bool:
            edge = edge_of(run, into_newest)
            return edge.sent == edge.done + edge.dropped

        eventually(quiet, within_s=LONG_S, what="everything emitted so far handled or replaced")
        emitted = edge_of(run, into_stuck).sent
        assert emitted == edge_of(run, into_newest).sent < n  # the source waits
        while seen[-1] < emitted - 1:
            seen.append(next(run.results(newest)))
        assert edge_of(run, into_stuck).done == 0  # all this while one stands still
        assert edge_of(run, into_stuck).depth == capacity
        (tmp_path / "gate").touch()
        got = list(run.results(stuck))
        seen += run.results(newest)
        report = run.wait(LONG_S)
    assert report.balances, report.imbalances
    assert got == list(range(n))
    assert seen == sorted(set(seen))
    assert seen[-1] == n - 1
    edge = report.edge(into_newest)
    assert (edge.sent, edge.delivered + edge.dropped, edge.delivered) == (n, n, len(seen))


@pytest.mark.parametrize("policy", ["drop", "drop_oldest", "latest", "coalesce", "reject"])
@pytest.mark.parametrize("key", [None, lambda x: x % 10], ids=["any", "keyed"])
def test_the_books_balance_with_replicas_at_both_ends(policy: str, key: Any) -> None:
    graph = Graph("replicas")
    senders = keep().options(replicas=2, on_error="skip")
    receivers = swallow().options(replicas=2)
    chosen = coalesce(add) if policy == "coalesce" else policy
    graph.connect(count(1000), senders)
    graph.connect(senders, receivers, policy=chosen, capacity=4, key=key)
    report = run_checked(graph, log_level="CRITICAL")
    edge = report.edge("keep.out->swallow.in")
    lost = edge.dropped + edge.coalesced + edge.rejected
    assert edge.sent == edge.delivered + lost == 1000
    assert edge.peak <= 4 * (1 if key is None else 2)


def test_a_control_message_reaches_every_replica() -> None:
    graph = Graph("to-all")
    inlets = Inlet().options(replicas=3)
    graph.connect(count(2), inlets.settings, priority=Priority.CONTROL)
    got, report = collect(graph, inlets)
    assert sorted(got) == [("settings", 0)] * 3 + [("settings", 1)] * 3
    assert report.edge("count.out->inlet.settings").copies == 3


def test_a_control_message_from_outside_reaches_every_replica() -> None:
    graph = Graph("to-all")
    inlets = Inlet().options(replicas=3)
    graph.add(inlets)
    with graph.start(results=[inlets]) as run:
        run.send(inlets.settings, "stop")
        run.stop()
        got = list(run.results())
    assert got == [("settings", "stop")] * 3
    assert run.report is not None
    assert run.report.balances, run.report.imbalances


def test_plain_edges_are_what_they_were() -> None:
    graph = Graph("plain")
    middle = keep()
    graph.connect(count(5000), middle)
    values, _ = collect(graph, middle)
    assert values == list(range(5000))
