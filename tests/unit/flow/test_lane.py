"""A lane: when it asks for attention, how it cuts batches, and what it never loses."""

from __future__ import annotations

import threading

import pytest

from dflow.flow.allowance import Allowance
from dflow.flow.batch import MAX_BATCH, MAX_BATCH_BYTES, Lane
from dflow.flow.credit import SendWindow

WIDE = 1 << 30


def numbered(count: int, start: int = 0) -> list[bytes]:
    """Return ``count`` payloads of 4 bytes."""
    return [number.to_bytes(4, "big") for number in range(start, start + count)]


def cut(lane: Lane) -> list[tuple[int, list[bytes]]]:
    """Return what can be sent now: (window index, payloads)."""
    return [(index, payloads) for index, payloads, _ in lane.cut()]


def pushes_until_attention(lane: Lane, size: int = 4, limit: int = 10_000) -> int:
    """Return how many messages go in before the lane asks to be looked at."""
    return next(n for n in range(1, limit) if lane.push(b"x" * size))


@pytest.mark.parametrize(
    ("capacity", "expected"), [(1, 1), (5, 5), (2048, MAX_BATCH), (8192, 2 * MAX_BATCH)]
)
def test_attention_is_asked_at_a_full_batch_or_when_credit_ends(
    capacity: int, expected: int
) -> None:
    assert pushes_until_attention(Lane([SendWindow(capacity, WIDE)])) == expected


@pytest.mark.parametrize(
    ("max_bytes", "size", "expected"),
    [(100, 30, 4), (100, 500, 1), (WIDE, 1024, MAX_BATCH_BYTES // 1024)],
)
def test_attention_is_asked_at_a_batch_of_bytes_or_when_byte_credit_ends(
    max_bytes: int, size: int, expected: int
) -> None:
    assert pushes_until_attention(Lane([SendWindow(10_000, max_bytes)]), size) == expected


def test_without_credit_attention_is_asked_once_a_batch_not_once_a_message() -> None:
    lane = Lane([SendWindow(1, WIDE)])
    lane.push(b"x")
    cut(lane)
    assert lane.full
    assert pushes_until_attention(lane) == MAX_BATCH


def test_a_lane_with_credit_for_all_is_not_full() -> None:
    lane = Lane([SendWindow(3, WIDE)])
    assert not lane.full
    for payload in numbered(2):
        lane.push(payload)
    lane.update()
    assert not lane.full
    lane.push(b"last")
    lane.update()
    assert lane.full


@pytest.mark.parametrize(
    ("capacity", "sizes"),
    [(2048, [512, 512, 176]), (8192, [1024, 176])],
)
def test_batches_are_as_large_as_the_window_is_wide(capacity: int, sizes: list[int]) -> None:
    lane = Lane([SendWindow(capacity, WIDE)])
    for payload in numbered(1200):
        lane.push(payload)
    assert [len(payloads) for _, payloads in cut(lane)] == sizes
    assert (lane.offered, lane.flushed, lane.waiting) == (1200, 1200, 0)


def test_a_wide_window_waits_for_the_credit_of_a_whole_batch() -> None:
    window = SendWindow(2048, WIDE)
    lane = Lane([window])
    for payload in numbered(1600):
        lane.push(payload)
    cut(lane)
    assert lane.full  # 448 messages would fit
    window.report(64, 64, 64)
    lane.update()
    assert not lane.full


def test_several_channels_use_what_credit_there_is() -> None:
    lane = Lane([SendWindow(2048, WIDE), SendWindow(2048, WIDE)])
    for payload in numbered(4095):
        lane.push(payload)
    cut(lane)
    assert not lane.full


def test_batches_are_cut_at_64_kib() -> None:
    lane = Lane([SendWindow(10_000, WIDE)])
    for _ in range(5):
        lane.push(b"x" * 30_000)
    assert [len(payloads) for _, payloads in cut(lane)] == [2, 2, 1]


def test_a_message_larger_than_a_batch_travels_alone() -> None:
    lane = Lane([SendWindow(10, WIDE)])
    for payload in (b"a", b"x" * (MAX_BATCH_BYTES + 1), b"b"):
        lane.push(payload)
    assert [len(payloads) for _, payloads in cut(lane)] == [1, 1, 1]


def test_a_message_larger_than_the_window_passes_only_when_nothing_is_outstanding() -> None:
    window = SendWindow(10, 100)
    lane = Lane([window])
    lane.push(b"small")
    lane.push(b"x" * 500)
    lane.push(b"after")
    assert cut(lane) == [(0, [b"small"])]
    window.report(1, 5, 1)
    assert cut(lane) == [(0, [b"x" * 500])]
    assert cut(lane) == []
    window.report(2, 505, 2)
    assert cut(lane) == [(0, [b"after"])]


def test_what_has_no_credit_stays_in_order_for_the_next_cut() -> None:
    window = SendWindow(3, WIDE)
    lane = Lane([window])
    for payload in numbered(7):
        lane.push(payload)
    seen = [payload for _, payloads in cut(lane) for payload in payloads]
    while lane.waiting:
        window.report(window.sent, window.sent_bytes, 0)
        lane.update()
        seen += [payload for _, payloads in cut(lane) for payload in payloads]
    assert seen == numbered(7)


def test_replicas_get_shares_by_their_credit() -> None:
    windows = [SendWindow(8, WIDE) for _ in range(3)]
    windows[1].spend(6, 6)
    lane = Lane(windows)
    for payload in numbered(12):
        lane.push(payload)
    shares = {index: len(payloads) for index, payloads in cut(lane)}
    assert shares == {0: 6, 2: 6}


def test_single_messages_go_round_the_replicas() -> None:
    lane = Lane([SendWindow(100, WIDE) for _ in range(3)])
    receivers = []
    for payload in numbered(6):
        lane.push(payload)
        receivers += [index for index, _ in cut(lane)]
    assert sorted(receivers) == [0, 0, 1, 1, 2, 2]


def shared_lane(capacity: int = 10_000) -> Lane:
    """Return a lane of two replicas, each of which is sent what it works off soon."""
    windows = [SendWindow(capacity, WIDE) for _ in range(2)]
    return Lane(windows, [Allowance(capacity, 2) for _ in windows])


def test_what_replicas_share_waits_for_whoever_is_free() -> None:
    lane = shared_lane()
    slow, fast = lane.windows
    for payload in numbered(1000):
        lane.push(payload)
    now = 0
    assert [(index, len(batch)) for index, batch, _ in lane.cut(now)] == [(0, 2), (1, 2)]
    assert not lane.full
    for _ in range(20):  # a message takes 20 ms, or 10 us
        now += 20_000_000
        taken = min(slow.taken + 1, slow.sent)
        slow.report(taken, 0, taken)
        for _ in range(10):
            now += 10_000 * (fast.sent - fast.taken)
            fast.report(fast.sent, 0, fast.sent)
            lane.cut(now)
    assert not lane.waiting
    assert slow.sent <= 22


def test_who_waits_for_a_free_replica_is_not_asked_about_at_every_message() -> None:
    lane = shared_lane()
    for payload in numbered(600):
        lane.push(payload)
    lane.cut(0)
    assert pushes_until_attention(lane) == MAX_BATCH


def test_a_shared_lane_is_full_when_its_credit_is_used_up_here_and_there() -> None:
    lane = shared_lane(4)
    for payload in numbered(8):
        lane.push(payload)
    lane.cut(0)
    assert lane.waiting == 4
    assert lane.full


def test_a_replica_without_byte_credit_does_not_hold_up_the_others() -> None:
    stuck, free = SendWindow(100, 1000), SendWindow(100, 1000)
    stuck.spend(1, 1000)  # one message holds all its bytes
    free.spend(2, 10)  # more messages, and bytes to spare
    lane = Lane([stuck, free])
    for payload in numbered(4):
        lane.push(payload)
    assert cut(lane) == [(1, numbered(4))]


def test_peak_is_the_most_that_waited_or_flew_at_once() -> None:
    window = SendWindow(4, WIDE)
    lane = Lane([window])
    for payload in numbered(6):
        lane.push(payload)
    cut(lane)
    window.report(4, 16, 4)
    lane.push(b"more")
    cut(lane)
    assert lane.peak == 6


def test_nothing_is_lost_or_repeated_between_two_threads() -> None:
    window = SendWindow(300, WIDE)
    lane = Lane([window])
    total = 20_000
    emitter = threading.Thread(target=lambda: [lane.push(one) for one in numbered(total)])
    emitter.start()  # the main thread emits while the pulse thread flushes
    seen: list[bytes] = []
    while len(seen) < total:
        for _, payloads in cut(lane):
            seen += payloads
        window.report(window.sent, window.sent_bytes, 0)
        lane.update()
    emitter.join()
    assert seen == numbered(total)
    assert (lane.offered, lane.waiting) == (total, 0)


def test_a_cut_between_a_message_and_its_counting_weighs_it_all_the_same() -> None:
    window = SendWindow(10, 1 << 20)
    lane = Lane([window])
    lane.pending += [b"x" * 100, b"y" * 100]  # `push` has come this far in the main thread
    lane.cut()
    assert (window.sent, window.sent_bytes) == (2, 200)
