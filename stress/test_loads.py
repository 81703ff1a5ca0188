"""Bursts, slow consumers and huge messages: nothing lost, memory bounded by the windows."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator

import pytest

from dflow import Graph, Input, Node, Output, edge, node, sink, source
from stress.ledger import Verdict
from stress.memory import MB
from stress.nodes import (
    BASE_MB,
    Checker,
    assert_edges_bounded,
    numbered,
    run_checked,
)

BURST = 10_000
BURST_MESSAGE = bytes(4_000)


class Producer(Node):
    """A source of large messages that notes how much memory it ever needed."""

    out = Output(tuple)

    def __init__(self, count: int, size_bytes: int) -> None:
        self.count = count
        self.size_bytes = size_bytes

    def produce(self) -> Iterator[tuple[str, int, bytes]]:
        """Yield as fast as messages are wanted."""
        for number in range(self.count):
            yield "s", number, number.to_bytes(8) * (self.size_bytes // 8)


@node
def slow_pass(message: tuple[str, int, bytes], pause_s: float) -> tuple[str, int]:
    """Take a while for each message, and check its content."""
    time.sleep(pause_s)
    origin, number, body = message
    if body[:8] != number.to_bytes(8) or body[-8:] != number.to_bytes(8):
        raise ValueError(f"message {number}: expected its number all over, got {body[:8]!r} …")
    return origin, number


def test_producer_a_thousand_times_faster_stays_within_the_windows(scale: int) -> None:
    count, size_bytes, window_bytes = 1_500 * scale, MB // 10, 4 * MB
    producer, checker = Producer(count, size_bytes), Checker()
    slow = slow_pass(0.001)
    graph = Graph("slow", producer >> edge(max_bytes=window_bytes) >> slow >> checker)
    # 150 MB pass through
    within = BASE_MB + 4 * window_bytes / MB
    report, verdict, _ = run_checked(graph, checker, {"producer": within, slow.name: within})
    assert verdict == Verdict({"s": count})
    assert report.edge(f"producer.out->{slow.name}.in").peak <= window_bytes // size_bytes + 2


def test_1000_messages_of_100_kb_are_shared_out_and_none_is_damaged(scale: int) -> None:
    count, size_bytes, window_bytes, replicas = 1_000 * scale, MB // 10, 4 * MB, 3
    producer, checker = Producer(count, size_bytes), Checker()
    digests = digest_all().options(replicas=replicas)
    graph = Graph("hundred", producer >> edge(max_bytes=window_bytes) >> digests >> checker)
    window = 2 * window_bytes / MB
    bounds = {"producer": BASE_MB + replicas * window, digests.name: BASE_MB + window}
    verdict = run_checked(graph, checker, bounds).result
    assert verdict.counts == {"s": count}
    assert (verdict.repeated, verdict.missing) == (0, 0)


@node
def digest_all(message: tuple[str, int, bytes]) -> tuple[str, int]:
    """Raise unless every byte of the message is what was sent."""
    origin, number, body = message
    if body != number.to_bytes(8) * (len(body) // 8):
        raise ValueError(f"message {number}: expected its number all over, got {body[:8]!r} …")
    return origin, number


@node
def burst_yielded(message: tuple[str, int], count: int) -> Iterator[tuple[str, int, bytes]]:
    """Yield a burst for one message."""
    for number in range(count):
        yield message[0], message[1] * count + number, BURST_MESSAGE


class BurstEmitted(Node):
    """Emits a burst for one message, from within an ordinary handler."""

    into = Input(tuple)
    out = Output(tuple)

    def __init__(self, count: int) -> None:
        self.count = count

    @into.handler
    def handle(self, message: tuple[str, int]) -> None:
        """Emit without looking at credit: emit never blocks."""
        for number in range(self.count):
            self.out.emit((message[0], message[1] * self.count + number, BURST_MESSAGE))


@pytest.mark.parametrize("kind", ["yielded", "emitted"])
def test_handler_may_emit_10_000_messages_for_one_input(kind: str, scale: int) -> None:
    count = 5 * scale
    burst = burst_yielded(BURST) if kind == "yielded" else BurstEmitted(BURST)
    checker = Checker()
    graph = Graph("burst", numbered("s", count) >> burst >> edge(capacity=100) >> checker)
    piled_mb = 1.5 * BURST * len(BURST_MESSAGE) / MB if kind == "emitted" else 0
    report, verdict, _ = run_checked(graph, checker, {burst.name: BASE_MB + piled_mb})
    assert verdict == Verdict({"s": count * BURST})
    assert report.node(burst.name).emitted == count * BURST
    # emit cannot wait, so one call's output piles up: of one call, however many there are
    at_once = {f"{burst.name}.out->checker.messages": BURST if kind == "emitted" else 1}
    assert_edges_bounded(graph, report, at_once)


@source
def huge(count: int, size_bytes: int) -> Iterator[bytes]:
    """Yield messages larger than any window."""
    for number in range(count):
        yield bytes([number % 256]) * size_bytes


@node
def digest(body: bytes) -> tuple[str, int, str]:
    """Return what a checker can check of a huge message: its first byte and its hash."""
    return "s", body[0], hashlib.blake2b(body).hexdigest()


@sink
def check_digest(message: tuple[str, int, str], size_bytes: int) -> None:
    """Raise unless the hash is that of the message that was sent."""
    expected = hashlib.blake2b(bytes([message[1]]) * size_bytes).hexdigest()
    if message[2] != expected:
        raise ValueError(f"message {message[1]}: expected {expected}, got {message[2]}")


def test_100_mb_message_passes_alone_through_a_1_mb_window(scale: int) -> None:
    count, size_bytes = scale, 100 * MB
    digested, checker = digest(), Checker()
    graph = Graph("huge", huge(count, size_bytes) >> edge(max_bytes=MB) >> digested)
    graph.connect(digested, checker)
    graph.connect(digested, check_digest(size_bytes))
    alone = size_bytes / MB
    # the first is packed before it is known to be large: value, packer, packed. From then on
    # there are the value and its copy in shared memory, of which `digest` makes bytes again
    bounds = {
        "huge": BASE_MB + 3 * alone,
        digested.name: BASE_MB + 2 * alone,
        "check_digest": BASE_MB + alone,
    }
    report, verdict, _ = run_checked(graph, checker, bounds)
    assert verdict == Verdict({"s": count})
    assert report.edge("huge.out->digest.in").bytes > count * size_bytes
