"""There are three ways to append to a lane, two of them made for speed: they may not differ.

`Lane.push` is the plain one; the emitter of a port with one edge (`dflow.worker.context`) spells it
out; the loops for what is returned or yielded (`dflow.worker.emitting`) append chunks, and look at
the bytes after each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from itertools import cycle
from operator import length_hint

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dflow.errors import EncodeError
from dflow.flow.batch import MAX_BATCH, MAX_BATCH_BYTES, Lane
from dflow.flow.credit import ReceiveWindow, SendWindow
from dflow.flow.local_edge import LocalEdge
from dflow.graph.plan import EdgePlan
from dflow.message import Priority
from dflow.wire.codec import Codec
from dflow.worker.context import Direct, LocalDirect, _emit_locally, _emit_to_lane
from dflow.worker.emitting import call_each, emit_directly, emit_locally
from dflow.worker.plane import Gate

CANNOT_TRAVEL = -1


class Bench:
    """A lane with credit that comes back at some attends, as ``returns`` says, in turn."""

    def __init__(self, capacity: int, max_bytes: int, returns: list[bool]) -> None:
        self.window = SendWindow(capacity, max_bytes)
        self.lane = Lane([self.window])
        self.direct = Direct(self.lane, CODEC, self.attend, nullcontext())
        self.attends: list[tuple[int, int]] = []
        self.cuts: list[bytes] = []
        self._returns = cycle(returns)

    def attend(self) -> None:
        """Flush, as the data plane does, and take in a report if there is one."""
        self.attends.append((self.lane.offered, self.lane.queued_bytes))
        self.cut()
        if next(self._returns):
            self.window.report(self.window.sent, self.window.sent_bytes, self.window.sent)
            self.lane.update()
            self.cut()

    def cut(self) -> None:
        """Send what has credit."""
        for _, payloads, _ in self.lane.cut():
            self.cuts += payloads

    @property
    def everything(self) -> tuple[list[bytes], int]:
        """Return all payloads in order, and how many bytes the lane believes they have."""
        return self.cuts + self.lane.pending[self.lane.head :], self.lane.queued_bytes

    @property
    def overdue(self) -> bool:
        """Whether attention is wanted that nobody gave."""
        lane = self.lane
        return len(lane.pending) >= lane.mark or lane.queued_bytes >= lane.byte_mark

    @property
    def state(self) -> tuple[list[bytes], int, list[tuple[int, int]], int, int]:
        """Return what is pending, the bytes ever queued, and where attention was asked."""
        lane = self.lane
        return lane.pending, lane.queued_bytes, self.attends, lane.flushed, lane.flushed_bytes


class Sizes(Codec):
    """Makes a payload of as many bytes as the value says."""

    def __init__(self) -> None:
        super().__init__()
        self.pack = self.encode

    def expect_large(self) -> None:
        """Everything is bytes here."""

    def encode(self, value: int) -> bytes:
        """Return a payload of ``value`` bytes."""
        if value == CANNOT_TRAVEL:
            raise EncodeError("a value that cannot travel")
        return b"x" * value


CODEC = Sizes()
encode = CODEC.encode


def push(bench: Bench, sizes: list[int], turn: int) -> None:
    """Append with `Lane.push`, as the emitter of several edges does."""
    for size in sizes:
        with suppress(EncodeError):
            if bench.lane.push(encode(size)):
                bench.attend()


def emit(bench: Bench, sizes: list[int], turn: int) -> None:
    """Append with the emitter of a port that has one edge."""
    emitter = _emit_to_lane(bench.direct)
    for size in sizes:
        with suppress(EncodeError):
            emitter(size)


def loop(bench: Bench, sizes: list[int], turn: int) -> None:
    """Append with the loop for results, ``turn`` of them at a time."""
    results: Iterator[int] = iter(sizes)
    over = False
    while not over:
        with suppress(EncodeError):
            over = emit_directly(bench.direct, results, Gate(), turn)[1]


def call(bench: Bench, sizes: list[int], turn: int) -> None:
    """Append with the loop for what a handler returns, ``turn`` messages at a time."""
    for begin in range(0, len(sizes), turn):
        each = iter(sizes[begin : begin + turn])
        emitter = _emit_to_lane(bench.direct)  # a single message goes this way
        while length_hint(each):
            try:
                call_each(lambda size: size, each, emitter, bench.direct, Gate())
            except EncodeError:  # ends the turn, and with that everything is looked at
                if bench.overdue:
                    bench.attend()


Way = Callable[[Bench, list[int], int], None]
runs = st.tuples(st.integers(1, 2 * MAX_BATCH), st.integers(1, 300))
large = st.tuples(st.integers(1, 3), st.integers(1, 2 * MAX_BATCH_BYTES))
refused = st.tuples(st.just(1), st.just(CANNOT_TRAVEL))


@pytest.mark.parametrize("way", [emit, loop, call])
@given(
    capacity=st.integers(1, 3 * MAX_BATCH),
    max_bytes=st.integers(1, 4 * MAX_BATCH_BYTES),
    returns=st.lists(st.booleans(), min_size=1, max_size=4),
    sizes=st.lists(st.one_of(runs, large, refused), max_size=6),
    turn=st.integers(1, MAX_BATCH + 1),
)
@example(8, 1 << 20, [False], [(3 * MAX_BATCH, 4)], 100)
@example(1 << 20, 1000, [True], [(1, MAX_BATCH_BYTES + 1), (30, 100)], 7)
def test_every_way_to_append_leaves_the_same_and_asks_for_attention_at_the_same_messages(
    way: Way,
    capacity: int,
    max_bytes: int,
    returns: list[bool],
    sizes: list[tuple[int, int]],
    turn: int,
) -> None:
    expanded = [size for count, size in sizes for _ in range(count)]
    plain, inlined = Bench(capacity, max_bytes, returns), Bench(capacity, max_bytes, returns)
    push(plain, expanded, turn)
    way(inlined, expanded, turn)
    if way is not emit and max(expanded, default=0) * MAX_BATCH > min(max_bytes, MAX_BATCH_BYTES):
        assert inlined.everything == plain.everything  # bytes are looked at a chunk later
        assert not inlined.overdue
    else:
        assert inlined.state == plain.state


class Pulse:
    """Cuts the lane at the values it is told, as the pulse thread may at any moment."""

    def __init__(self, bench: Bench, at: set[int]) -> None:
        self._bench = bench
        self._at = at

    def each(self, sizes: list[int | None]) -> Iterator[int | None]:
        """Yield ``sizes``."""
        for number, size in enumerate(sizes):
            if number in self._at:
                self._bench.cut()
            yield size


@given(
    capacity=st.integers(1, 3 * MAX_BATCH),
    max_bytes=st.integers(1, 4 * MAX_BATCH_BYTES),
    returns=st.lists(st.booleans(), min_size=1, max_size=4),
    sizes=st.lists(st.one_of(runs, large, refused, st.tuples(st.just(3), st.none())), max_size=6),
    turn=st.integers(1, MAX_BATCH + 1),
    at=st.sets(st.integers(0, 1500), max_size=5),
)
def test_a_cut_in_the_middle_of_a_chunk_loses_nothing_and_all_bytes_are_counted(
    capacity: int,
    max_bytes: int,
    returns: list[bool],
    sizes: list[tuple[int, int | None]],
    turn: int,
    at: set[int],
) -> None:
    expanded = [size for count, size in sizes for _ in range(count)]
    bench = Bench(capacity, max_bytes, returns)
    results = Pulse(bench, at).each(expanded)
    over = False
    taken = failed = 0
    while not over:
        try:
            used, over = emit_directly(bench.direct, results, Gate(), turn)
            taken += used
        except EncodeError:
            failed += 1
    emitted = [size for size in expanded if size is not None and size != CANNOT_TRAVEL]
    payloads, queued_bytes = bench.everything
    assert [len(payload) for payload in payloads] == emitted
    assert queued_bytes == sum(emitted)
    assert failed == expanded.count(CANNOT_TRAVEL)
    assert not bench.overdue


@pytest.mark.parametrize("late", [object(), np.zeros(1 << 14)], ids=["unsendable", "large"])
@pytest.mark.parametrize("loop", ["call", "pull"])
def test_what_raises_after_it_changed_its_last_result_has_emitted_that_once(
    loop: str, late: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dflow.wire.codec.ext_types_made", [])  # other tests may have made some
    bench = Bench(64, 1 << 20, [True])
    direct = Direct(bench.lane, Codec(), bench.attend, nullcontext())
    shared: dict[str, object] = {}

    def handle(number: int) -> dict[str, object]:
        shared["number"] = number
        if number == 20:
            shared["late"] = late
            raise ValueError("of the handler")
        return shared

    each = iter(list(range(21)))  # enough for a chunk of several
    ways: dict[str, Callable[[], object]] = {
        "call": lambda: call_each(handle, each, lambda value: None, direct, Gate()),
        "pull": lambda: emit_directly(direct, map(handle, each), Gate(), 99),
    }
    with pytest.raises(ValueError, match="of the handler"):
        ways[loop]()
    assert [direct.codec.decode(payload) for payload in bench.everything[0]] == [
        {"number": number} for number in range(20)
    ]


# --- inside a worker ------------------------------------------------------------------------------

PLAN = EdgePlan(
    0, "a.out->b.in", "a", "out", "b", "in", "block", 8, 1 << 20, Priority.NORMAL, False, local=True
)


class LocalBench:
    """An edge inside a worker whose receiver takes all at some attends, as ``returns`` says."""

    def __init__(self, capacity: int, returns: list[bool]) -> None:
        self.window = ReceiveWindow(capacity, 1 << 20)
        self.edge = LocalEdge(PLAN, 0, self.window)
        self.direct = LocalDirect(self.edge, self.attend)
        self.attends: list[int] = []
        self.handed_over: list[int | None] = []
        self._returns = cycle(returns)

    def attend(self) -> None:
        """Flush, as the data plane does."""
        self.attends.append(self.edge.offered)
        self.flush()
        if next(self._returns):
            self.window.taken = self.window.received
            self.flush()

    def flush(self) -> None:
        """Hand over what there is room for."""
        for cut in self.edge.flush(0):
            self.handed_over += cut.payloads
            self.window.receive(self.window.received, len(cut.payloads), 0)


@given(
    capacity=st.integers(1, 3 * MAX_BATCH),
    returns=st.lists(st.booleans(), min_size=1, max_size=4),
    count=st.integers(0, 5 * MAX_BATCH),
    nothing=st.integers(2, 9),
    turn=st.integers(1, MAX_BATCH + 1),
)
def test_both_ways_to_hand_over_do_the_same(
    capacity: int, returns: list[bool], count: int, nothing: int, turn: int
) -> None:
    values = [None if number % nothing == 1 else number for number in range(count)]
    plain, inlined = LocalBench(capacity, returns), LocalBench(capacity, returns)
    emitter = _emit_locally(plain.direct)
    for value in values:
        if value is not None:
            emitter(value)
    results: Iterator[int | None] = iter(values)
    taken, over = 0, False
    while not over:
        used, over = emit_locally(inlined.direct, results, Gate(), turn)
        taken += used
    assert taken == count
    assert inlined.attends == plain.attends
    assert inlined.handed_over == plain.handed_over
    assert inlined.edge.pending == plain.edge.pending
