"""A queued edge: what each policy does, what its notes say, ids, order, keys."""

from __future__ import annotations

from typing import Any

import pytest

from dflow.errors import EdgeFull
from dflow.flow.allowance import TARGET_NS, Allowance
from dflow.flow.keys import MAX_IDLE, MAX_SHOWN, KeyCounts
from dflow.message import Cancelled, Priority
from dflow.stats import Fates, KeyStats
from dflow.wire.notes import NO_NOTES, Notes
from tests.unit.queue_edges import FIRST, MS, Wired, edge_plan


def sent(wired: Wired) -> list[Any]:
    """Send what has credit; return the values, in order."""
    return [value for _, values in wired.flush() for value in values]


def notes(wired: Wired) -> list[Notes]:
    """Send what has credit; return what the frames say."""
    cuts = wired.edge.flush(wired.now)
    for cut in cuts:
        wired.ends[cut.channel].arrive(cut)
    return [cut.notes for cut in cuts]


# --- policies -----------------------------------------------------------------------------------


def test_drop_keeps_what_came_first() -> None:
    wired = Wired(edge_plan(policy="drop", capacity=3))
    wired.emit(*range(5))
    assert wired.drain() == [0, 1, 2]
    assert wired.edge.fates == Fates(dropped=2)


def test_drop_oldest_keeps_what_came_last() -> None:
    wired = Wired(edge_plan(policy="drop_oldest", capacity=3))
    wired.emit(*range(5))
    assert wired.drain() == [2, 3, 4]
    assert wired.edge.fates == Fates(dropped=2)


def test_a_slow_consumer_s_queue_is_where_the_oldest_can_be_dropped() -> None:
    wired = Wired(edge_plan(policy="drop_oldest", capacity=64))
    got = []
    for number in range(1000):
        wired.now += MS
        wired.emit(number)
        wired.flush()
        if number % 100 == 99:
            got.append(wired.handle())
    # one in hand, at most 64 behind: never more than one more that could not be dropped any more
    ages = [number * 100 + 99 - value for number, value in enumerate(got)]
    assert max(ages[2:]) <= 100 + 64


def test_coalesce_is_a_left_fold_in_the_order_of_emitting() -> None:
    wired = Wired(edge_plan(policy="coalesce", capacity=2), merge=lambda a, b: f"({a}{b})")
    wired.emit(*"abcde")
    assert wired.drain() == ["a", "(((bc)d)e)"]
    assert wired.edge.fates == Fates(coalesced=3)


def test_coalesce_merges_only_messages_of_one_key() -> None:
    plan = edge_plan(policy="coalesce", capacity=2, keyed=True)
    wired = Wired(plan, key=lambda value: value[0], merge=lambda a, b: [a[0], *a[1:], *b[1:]])
    wired.emit(["x", 1], ["y", 2], ["x", 3], ["y", 4])
    assert wired.drain() == [["x", 1, 3], ["y", 2, 4]]


@pytest.mark.parametrize("result", ["raises", "cannot travel"])
def test_a_merge_that_fails_keeps_both_messages(result: str) -> None:
    def merge(a: int, b: int) -> object:
        if result == "raises":
            raise ValueError("no")
        return object()

    wired = Wired(edge_plan(policy="coalesce", capacity=2), merge=merge)
    seen: list[tuple[BaseException, str]] = []
    wired.edge.on_merge_error = lambda error, where: seen.append((error, where))
    wired.emit(1, 2, 3)
    assert wired.drain() == [2, 3]
    assert wired.edge.fates == Fates(dropped=1, errors=1)
    assert [where for _, where in seen] == ["coalesce of a.out->b.in"]


def test_reject_names_edge_capacity_and_depth() -> None:
    wired = Wired(edge_plan(policy="reject", capacity=2))
    refused = wired.emit(1, 2, 3)
    assert isinstance(refused, EdgeFull)
    assert (refused.edge, refused.capacity, refused.depth) == ("a.out->b.in", 2, 2)
    assert wired.drain() == [1, 2]
    assert (wired.edge.offered, wired.edge.emitted, wired.edge.fates.rejected) == (3, 2, 1)


def test_block_is_full_when_credit_has_run_out_and_loses_nothing() -> None:
    wired = Wired(edge_plan(capacity=2))
    full = []
    for number in range(4):
        full.append(wired.edge.full)
        wired.emit(number)
    assert full == [False, False, True, True]
    assert wired.drain() == [0, 1, 2, 3]
    assert not wired.edge.full


@pytest.mark.parametrize("policy", ["drop", "drop_oldest", "coalesce", "reject", "latest"])
def test_no_other_policy_makes_the_sender_wait(policy: str) -> None:
    wired = Wired(edge_plan(policy=policy, capacity=1), merge=lambda a, b: b)
    wired.emit(1, 2, 3)
    wired.flush()
    assert not wired.edge.full


@pytest.mark.parametrize("policy", ["drop", "drop_oldest", "coalesce", "reject"])
def test_bytes_count_against_room_as_messages_do(policy: str) -> None:
    plan = edge_plan(policy=policy, capacity=1000, max_bytes=100)
    wired = Wired(plan, merge=lambda a, b: b)
    wired.emit(*[b"x" * 38] * 3)
    assert wired.edge.waiting == 2
    assert wired.edge.fates.total == 1


def test_copies_go_to_every_replica_and_are_counted_each() -> None:
    wired = Wired(edge_plan(broadcast=True, priority=Priority.CONTROL), 3)
    wired.emit("stop")
    assert wired.flush() == [(FIRST, ["stop"]), (FIRST + 1, ["stop"]), (FIRST + 2, ["stop"])]
    assert (wired.edge.offered, wired.edge.emitted) == (3, 1)


@pytest.mark.parametrize(
    ("changes", "prompt"),
    [({}, False), ({"priority": Priority.CONTROL}, True), ({"policy": "latest"}, True)],
)
def test_control_and_latest_are_to_leave_at_once(changes: dict[str, Any], prompt: bool) -> None:
    wired = Wired(edge_plan(**changes))
    place = wired.edge.place(1)
    assert wired.edge.offer(b"\x01", place, 0) is prompt


# --- too old ------------------------------------------------------------------------------------


def test_what_has_waited_too_long_is_dropped_and_counted() -> None:
    wired = Wired(edge_plan(capacity=1, ttl_s=0.010))
    wired.emit(1, 2)
    wired.flush()
    wired.now += 10 * MS
    wired.emit(3)
    wired.now += 1 * MS
    assert wired.handle() == 1
    assert wired.drain() == [3]
    assert wired.edge.fates == Fates(expired=1)


def test_ages_travel_with_the_messages() -> None:
    wired = Wired(edge_plan(ttl_s=1.0))
    wired.emit(1)
    wired.now += 5 * MS
    wired.emit(2)
    wired.now += 1 * MS
    assert notes(wired) == [Notes(ages_ns=[6 * MS, 1 * MS])]


def test_what_is_too_old_makes_room() -> None:
    wired = Wired(edge_plan(policy="drop", capacity=2, ttl_s=0.010))
    wired.emit(1, 2)
    wired.now += 11 * MS
    wired.emit(3)
    assert wired.drain() == [3]
    assert wired.edge.fates == Fates(expired=2)


# --- order --------------------------------------------------------------------------------------


def test_numbers_are_given_when_messages_leave() -> None:
    wired = Wired(edge_plan(numbered=True, capacity=64), 2)
    wired.emit(*range(4))
    assert [note.numbers for note in notes(wired)] == [[0], [1]]  # one each, until they report
    for number in wired.ends:
        wired.now += MS // 10
        wired.handle(number)
    assert [number for note in notes(wired) for number in note.numbers] == [2, 3]


def test_with_a_key_numbers_follow_the_order_of_emitting() -> None:
    wired = Wired(edge_plan(numbered=True, keyed=True, capacity=8), 2, key=lambda value: value)
    ways = {at: [v for v in range(20) if wired.edge.place(v).queues[0].channels == (at,)]
            for at in (0, 1)}  # fmt: skip
    first, second = ways[0][0], ways[1][0]
    wired.emit(first, second, first, first, second)
    numbers: dict[int, list[int]] = {n: [] for n in wired.ends}
    while wired.edge.waiting:
        for cut in wired.edge.flush(wired.now):
            wired.ends[cut.channel].arrive(cut)
            numbers[cut.channel] += cut.notes.numbers
        for number, end in wired.ends.items():
            if end.inbox:
                wired.handle(number)
    assert numbers == {FIRST: [0, 2, 3], FIRST + 1: [1, 4]}


def test_nobody_runs_ahead_of_a_stuck_replica_by_more_than_all_windows() -> None:
    wired = Wired(edge_plan(numbered=True, capacity=4), 2)
    wired.emit(*range(100))
    handled = []
    for _ in range(50):
        wired.flush()
        if wired.ends[FIRST + 1].inbox:
            handled.append(wired.handle(FIRST + 1))  # the other one never returns
        wired.now += MS // 10
    assert len(handled) <= 8
    assert wired.edge.waiting >= 100 - 9


def test_tags_and_untagged_messages_are_never_in_one_batch() -> None:
    wired = Wired(edge_plan(tagged=True))
    wired.emit("a", tag=(0, 0))
    wired.emit("b", tag=(0, 1))
    wired.emit("tick")
    wired.emit("c", tag=(2, 0))
    assert notes(wired) == [
        Notes(tags=[0, 0], places=[0, 1]),
        NO_NOTES,
        Notes(tags=[2], places=[0]),
    ]


def test_a_channel_hears_of_a_complete_input_after_everything_of_it() -> None:
    wired = Wired(edge_plan(tagged=True, capacity=1), 2)
    for place in range(3):
        wired.emit("x", tag=(5, place))
    wired.edge.complete(4)
    wired.edge.complete(5)
    first = notes(wired)
    assert first == [
        Notes(tags=[5], places=[0], completed=[4], counts=[0]),
        Notes(tags=[5], places=[1], completed=[4], counts=[0]),
    ]
    news = [wired.edge.news]
    assert wired.edge.end() == []
    wired.handle(FIRST)
    assert notes(wired) == [
        Notes(tags=[5], places=[2], completed=[5], counts=[3]),
        Notes(completed=[5], counts=[3]),
    ]
    news.append(wired.edge.news)
    assert news == [True, False]
    assert wired.edge.end() == [(FIRST, 2), (FIRST + 1, 1)]


def test_an_input_without_results_is_told_without_messages() -> None:
    wired = Wired(edge_plan(tagged=True), 2)
    wired.edge.complete(0)
    wired.edge.complete(1)
    assert notes(wired) == [Notes(completed=[0, 1], counts=[0, 0])] * 2


# --- limits for each key ------------------------------------------------------------------------


def limited(limit: int = 1, channels: int = 1, slots: int = 2, **changes: Any) -> Wired:
    """Return an edge with a limit; a message's first letter is its key."""
    plan = edge_plan(keyed=True, limit=limit, slots=slots, **changes)
    return Wired(plan, channels, key=lambda value: value[0])


def test_a_stuck_key_holds_up_nobody_else() -> None:
    wired = limited()
    wired.emit("a1", "a2", "a3", "b1", "b2")
    assert sent(wired) == ["a1", "b1"]
    end = wired.ends[FIRST]
    end.take()  # a1 is stuck
    end.handle()
    wired.report()
    assert sent(wired) == ["b2"]
    end.window.finish(0)
    wired.report()
    assert sent(wired) == ["a2"]


def test_any_replica_with_hands_free_gets_the_next_message_of_a_key() -> None:
    wired = limited(channels=2, slots=1)
    wired.emit("a1", "a2", "b1")
    assert wired.flush() == [(FIRST, ["a1"]), (FIRST + 1, ["b1"])]
    wired.ends[FIRST].take()
    wired.handle(FIRST + 1)
    assert wired.flush() == []  # a1 is not done
    wired.ends[FIRST].window.finish(0)
    wired.report(FIRST)
    assert [number for number, _ in wired.flush()] == [FIRST]


def test_in_order_a_stuck_key_is_not_left_behind_by_more_than_the_capacity() -> None:
    wired = limited(numbered=True, capacity=8)
    wired.emit("a", *[f"b{number}" for number in range(30)])
    wired.flush()
    end = wired.ends[FIRST]
    end.take()  # a is stuck
    for _ in range(30):
        if end.inbox:
            end.handle()
        wired.report()
        wired.flush()
    assert end.window.received == 8
    end.window.finish(0)
    wired.report()
    assert wired.flush()


def test_a_limited_edge_is_full_when_so_much_waits() -> None:
    wired = limited(capacity=2)
    wired.emit("a1", "a2")
    wired.flush()
    assert not wired.edge.full
    wired.emit("a3")
    assert wired.edge.full


# --- ids ----------------------------------------------------------------------------------------


def test_what_waits_is_withdrawn_and_the_others_keep_their_order() -> None:
    wired = Wired(edge_plan())
    for number in range(5):
        wired.emit(number, id=f"m{number}")
    assert wired.edge.withdraw("m2") == (Cancelled.CANCELLED, [])
    assert wired.edge.withdraw("m2") == (Cancelled.DONE, [])
    assert wired.drain() == [0, 1, 3, 4]
    assert wired.edge.fates == Fates(cancelled=1)
    assert wired.edge.offered == 5


def test_where_a_message_was_sent_is_known_until_it_is_done() -> None:
    wired = Wired(edge_plan())
    wired.emit("a", "b")
    wired.emit("c", id="c")
    wired.flush()
    assert wired.edge.withdraw("c") == (Cancelled.UNKNOWN, [(FIRST, 2)])
    wired.drain()
    assert wired.edge.withdraw("c") == (Cancelled.DONE, [])
    assert wired.edge.withdraw("d") == (Cancelled.UNKNOWN, [])


def test_a_copy_that_waits_is_withdrawn_and_one_that_was_sent_is_named() -> None:
    wired = Wired(edge_plan(broadcast=True, capacity=1), 2)
    wired.emit("first")
    wired.flush()
    wired.handle(FIRST)
    wired.emit("second", id="2")
    wired.flush()
    assert wired.edge.withdraw("2") == (Cancelled.CANCELLED, [(FIRST, 1)])


@pytest.mark.parametrize("policy", ["drop_oldest", "latest"])
def test_what_a_policy_lost_counts_as_done(policy: str) -> None:
    wired = Wired(edge_plan(policy=policy, capacity=1))
    wired.emit(1, id="1")
    wired.emit(2, id="2")
    assert wired.edge.withdraw("1") == (Cancelled.DONE, [])


def test_a_number_that_was_given_arrives_though_its_message_is_withdrawn() -> None:
    wired = Wired(edge_plan(numbered=True, keyed=True), key=lambda value: 0)
    wired.emit("a", id="a")
    assert wired.edge.withdraw("a")[0] is Cancelled.CANCELLED
    assert notes(wired) == [Notes(numbers=[0], withdrawn=[0])]
    assert wired.edge.fates.total == 0  # the receiver counts it


# --- what can be read ---------------------------------------------------------------------------


def test_the_age_of_the_oldest_is_told() -> None:
    wired = Wired(edge_plan(capacity=1))
    assert wired.edge.queue_stats(wired.now).oldest_s == 0.0
    wired.emit(1, 2)
    wired.flush()
    wired.now += 1500 * MS
    assert wired.edge.queue_stats(wired.now).oldest_s == 1.5


def test_keys_are_counted_from_end_to_end() -> None:
    wired = limited(policy="reject", capacity=2)
    wired.emit("a1", "b1")
    wired.flush()
    wired.emit("a2", "a3")
    assert wired.emit("a4") is not None
    assert wired.edge.queue_stats(0).keys == (
        KeyStats("'a'", waiting=2, in_flight=1, done=0, rejected=1),
        KeyStats("'b'", waiting=0, in_flight=1, done=0),
    )
    wired.drain()
    assert wired.edge.queue_stats(0).keys == (
        KeyStats("'a'", waiting=0, in_flight=0, done=3, rejected=1),
        KeyStats("'b'", waiting=0, in_flight=0, done=1),
    )


def test_idle_keys_are_forgotten_and_only_the_busiest_are_shown() -> None:
    counts = KeyCounts()
    for number in range(MAX_IDLE + 200):
        counts.offered(b"%d" % number, number)
        counts.sent(b"%d" % number)
        counts.done(b"%d" % number)
    assert len(counts._idle) == MAX_IDLE
    counts.offered(b"busy", "x" * 1000)
    shown = counts.busiest()
    assert len(shown) == MAX_SHOWN
    assert shown[0].waiting == 1
    assert len(shown[0].key) <= 80


# --- how much may be in flight ------------------------------------------------------------------


def allowance_of(cost_ns: int, most: int = 1024, latency_ns: int = 100_000) -> list[int]:
    """Return the allowances of a receiver that takes so long, and reports once a millisecond."""
    allowance, now, taken, in_flight = Allowance(most), 0, 0, 0
    sizes = []
    for _ in range(100):
        allowance.sending(in_flight, now)
        in_flight = allowance.size
        count = max(1, min(in_flight, 1_000_000 // cost_ns))
        now += latency_ns + count * cost_ns
        taken += count
        in_flight -= count
        allowance.look(taken, in_flight, now)
        sizes.append(allowance.size)
    return sizes


def test_a_slow_receiver_has_one_message_at_a_time() -> None:
    assert set(allowance_of(100_000_000)) == {1}


def test_who_may_be_sent_several_at_least_always_may() -> None:
    allowance = Allowance(1024, least=3)
    for report in range(1, 5):
        assert allowance.size == 3
        allowance.look(report, 2, report * 1000 * MS)
    assert Allowance(2, least=3).size == 2


@pytest.mark.parametrize("cost_ns", [1_000, 10_000, 100_000, 1_000_000])
def test_a_fast_receiver_soon_has_several_milliseconds_of_work(cost_ns: int) -> None:
    sizes = allowance_of(cost_ns, most=10_000)
    fair = TARGET_NS // cost_ns
    assert fair // 2 <= sizes[-1] <= fair
    assert sizes[10] >= fair // 4


def test_an_allowance_never_exceeds_the_window_and_shrinks_when_work_gets_heavier() -> None:
    assert max(allowance_of(1_000, most=16)) == 16
    allowance = Allowance(1000)
    allowance.size = 1000
    allowance.sending(0, 0)
    for turn in range(1, 30):
        allowance.look(turn, 900, turn * 100 * MS)
    assert allowance.size == 1
