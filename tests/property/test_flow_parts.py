"""What a sender's queues are made of, each against a plain model: lines, ids, keys, allowances.

`tests.property.test_flow_queue_edge` drives them together, through the edge; here each alone meets
orders of calls that no edge makes.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dflow.flow import ids as ids_module
from dflow.flow.allowance import GROWTH, Allowance
from dflow.flow.asking import FIRST_NS, MOST_NS, Doubt
from dflow.flow.credit import SendWindow
from dflow.flow.ids import Ids
from dflow.flow.keyed_lane import KeyedLane
from dflow.flow.keys import DoneByKey, KeyCounts
from dflow.flow.news import Completions
from dflow.flow.waiting import Item, LimitedLine, Line

keys = st.sampled_from([b"a", b"b", b"c"])
FEW = settings(max_examples=40, stateful_step_count=30, deadline=None)


class Lines(RuleBasedStateMachine):
    """A line, with a limit for each key or without, against a list."""

    @initialize(limit=st.integers(0, 2))
    def open(self, limit: int) -> None:
        """Make the line."""
        self.limit = limit
        self.line: Line = LimitedLine(limit) if limit else Line()
        self.model: list[Item] = []
        self.flying: Counter[bytes | None] = Counter()
        self.tags = 0

    @rule(key=keys, size=st.integers(0, 9), tagged=st.booleans())
    def push(self, key: bytes, size: int, tagged: bool) -> None:
        """A message waits."""
        self.tags += 1
        item = Item(bytes(size), 0, key, tag=(self.tags, 0) if tagged else None)
        self.line.push(item)
        self.model.append(item)

    @rule()
    def send(self) -> None:
        """What goes next goes."""
        item = self.line.next
        if item is not None:
            self.line.send(item)
            self.model.remove(item)
            self.flying[item.key] += 1

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        """Any message is taken out."""
        item = data.draw(st.sampled_from(self.model))
        self.line.remove(item)
        self.model.remove(item)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), size=st.integers(0, 9))
    def replace(self, data: st.DataObject, size: int) -> None:
        """Any message becomes another."""
        self.line.replace(data.draw(st.sampled_from(self.model)), bytes(size))

    @rule(key=keys)
    def done(self, key: bytes) -> None:
        """A message of a key is done."""
        if self.flying[key]:
            self.flying[key] -= 1
            self.line.done(key)

    @invariant()
    def is_as_the_list(self) -> None:
        """Order, sizes, the newest of each key, and who may go next."""
        if not hasattr(self, "line"):
            return
        line, model = self.line, self.model
        assert len(line) == len(model)
        assert line.size_bytes == sum(len(item.payload) for item in model)
        assert line.oldest is (model[0] if model else None)
        assert line.first_tag == next((i.tag[0] for i in model if i.tag is not None), None)
        for key in (b"a", b"b", b"c"):
            assert line.newest(key) is next((i for i in reversed(model) if i.key == key), None)
        free = [i for i in model if not self.limit or self.flying[i.key] < self.limit]
        assert line.next is (free[0] if free else None)


TestLines = Lines.TestCase
TestLines.settings = FEW


class Counted(RuleBasedStateMachine):
    """Messages of keys, from offered to done, lost or rejected."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = KeyCounts()
        self.model: dict[bytes, list[int]] = {}  # waiting, in flight, done, rejected
        self.met: set[bytes] = set()

    def row(self, key: bytes) -> list[int]:
        return self.model.setdefault(key, [0, 0, 0, 0])

    @rule(key=keys, refused=st.booleans())
    def offer(self, key: bytes, refused: bool) -> None:
        """A message is let in, or is not."""
        (self.counts.rejected if refused else self.counts.offered)(key, key.decode())
        self.row(key)[3 if refused else 0] += 1
        self.met.add(key)

    @rule(key=keys, lost=st.booleans())
    def leave(self, key: bytes, lost: bool) -> None:
        """A waiting message is sent, or lost."""
        if self.row(key)[0]:
            (self.counts.lost if lost else self.counts.sent)(key)
            self.row(key)[0] -= 1
            self.row(key)[1] += not lost

    @rule(key=keys)
    def done(self, key: bytes) -> None:
        """A message in flight is done."""
        if self.row(key)[1]:
            self.counts.done(key)
            self.row(key)[1] -= 1
            self.row(key)[2] += 1

    @invariant()
    def says_what_is_true(self) -> None:
        """Every key that was ever met is told of; the busiest first."""
        told = self.counts.busiest()
        found = {k.key: [k.waiting, k.in_flight, k.done, k.rejected] for k in told}
        assert found == {repr(key.decode()): self.model[key] for key in self.met}
        busy = [k.waiting + k.in_flight for k in told]
        assert busy == sorted(busy, reverse=True)


TestCounted = Counted.TestCase
TestCounted.settings = FEW


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(keys, st.integers(0, 3)), max_size=60))
def test_keys_are_counted_done_in_the_order_in_which_they_were_pushed(
    steps: list[tuple[bytes, int]],
) -> None:
    window = SendWindow(1000, 1 << 20)
    lane, counts = KeyedLane(window), DoneByKey()
    pushed: list[bytes] = []
    done = 0
    for key, finish in steps:
        lane.push(b"x", key)
        pushed.append(key)
        lane.cut(0)
        done = min(len(pushed), done + finish)
        counts.add(lane.finish(done), [lane])
        counts.add(lane.finish(done - 1), [lane])  # an old report
        waiting, flying = lane.under_way()
        assert waiting + flying == pushed[done:]
        assert lane.undone == len(pushed) - done
    told = {k.key: (k.done, k.in_flight + k.waiting) for k in counts.busiest([lane], bytes.decode)}
    before, after = Counter(pushed[:done]), Counter(pushed[done:])
    assert told == {repr(k.decode()): (before[k], after[k]) for k in {*before, *after}}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("xyz"), st.booleans()), max_size=40), st.integers(1, 4))
def test_ids_find_what_is_not_done_and_remember_some_of_what_is(
    steps: list[tuple[str, bool]], most: int
) -> None:
    ids, model, over = Ids(), [], deque[str]()
    before, ids_module.MAX_REMEMBERED = ids_module.MAX_REMEMBERED, most
    try:
        for name, add in steps:
            if add:
                model.append(Item(b"", 0, id=name))
                ids.add(model[-1])
                ids.add(Item(b"", 0))  # one without an id
            elif (item := next((i for i in model if i.id == name), None)) is not None:
                model.remove(item)
                ids.forget(item)
                if name in over:
                    over.remove(name)
                over.append(name)
            while len(over) > most:
                over.popleft()
            for each in "xyz":
                assert list(ids.of(each)) == [i for i in model if i.id == each]
                assert ids.over(each) == (each in over)
    finally:
        ids_module.MAX_REMEMBERED = before


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 3), max_size=20),
    st.integers(1, 3),
    st.lists(st.tuples(st.integers(0, 2), st.none() | st.integers(0, 25)), max_size=30),
)
def test_every_channel_is_told_of_every_completion_once_in_order_and_not_too_soon(
    results: list[int], channels: int, asks: list[tuple[int, int | None]]
) -> None:
    news = Completions(channels)
    for number, count in enumerate(results):
        for _ in range(count):
            news.result(number)
        news.complete(number)
    told: list[list[tuple[int, int]]] = [[] for _ in range(channels)]
    for channel, before in asks:
        if channel < channels:
            now = news.tell(channel, before)
            assert all(before is None or number < before for number, _ in now)
            told[channel] += now
    assert bool(news) == any(len(one) < len(results) for one in told)
    for channel, one in enumerate(told):
        assert one + news.tell(channel, None) == list(enumerate(results))
    assert not news


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 64),
    st.integers(1, 8),
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 40), st.integers(0, 10**8)), max_size=30),
)
def test_an_allowance_keeps_its_bounds_and_grows_no_faster_than_it_may(
    most: int, least: int, steps: list[tuple[int, int, int]]
) -> None:
    allowance, now, taken = Allowance(most, least), 0, 0
    low = min(least, most)
    for count, in_flight, passed in steps:
        now += passed
        before = allowance.size
        allowance.sending(in_flight, now)
        taken += count
        allowance.look(taken, in_flight, now)
        assert low <= allowance.size <= max(most, low)
        assert allowance.size <= GROWTH * before
        assert allowance.size >= min(before, max(low, before // 2))
        if not count:
            assert allowance.size == before


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["send", "report", "end", "look"]),
                          st.integers(0, 3 * FIRST_NS)), max_size=40))  # fmt: skip
def test_a_sender_asks_only_when_it_has_heard_nothing_for_long_and_ever_more_seldom(
    steps: list[tuple[str, int]],
) -> None:
    window, now, ended, quiet_since, last, after = SendWindow(100, 100), 0, False, 0, None, 0
    doubt = Doubt(window)
    for what, passed in steps:
        now += passed
        if what == "send" and not ended:
            window.spend(1, 1)
        elif what == "report":
            window.report(window.sent, window.sent_bytes, window.sent)
        ended = ended or what == "end"
        known = (window.sent, window.done, ended)
        settled = window.done == window.sent and not ended
        asks = doubt.due(now, ended=ended)
        if known != last or settled:
            assert not asks
            last, quiet_since, after = known, now, FIRST_NS
        else:
            assert asks == (now >= quiet_since + after)
            if asks:
                quiet_since, after = now, min(2 * after, MOST_NS)


def test_a_line_forgets_what_has_left_it() -> None:
    line: Any = LimitedLine(1)
    items = [Item(b"x", 0, bytes((n,))) for n in range(50)]
    for item in items:
        line.push(item)
    for item in items:
        line.send(item)
        line.done(item.key)
    assert (len(line), line.next, len(line._keys), len(line._order)) == (0, None, 0, 0)
