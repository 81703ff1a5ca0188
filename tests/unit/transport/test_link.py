"""The two ends of a data socket, and waiting for them."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from dflow.errors import OptionError, ProtocolError
from dflow.transport import link
from dflow.transport.endpoint import bind_router, close_context, context, fresh_endpoint
from dflow.transport.link import InLink, OutLink
from dflow.transport.poller import ConnectionWatch, Poller, Wakeup
from tests.support import unheard

PATIENCE_S = 5.0


@pytest.fixture(params=["ipc", "tcp"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[OutLink, InLink]]:
    """Give a sender and a receiver of one channel."""
    receiver = InLink(fresh_endpoint(str(tmp_path), {"tcp": "127.0.0.1"}.get(request.param)), 100)
    sender = OutLink(3, receiver.endpoint)
    yield sender, receiver
    sender.close()
    receiver.close()
    close_context()


def readable(*links: OutLink | InLink) -> None:
    """Wait until every link has something to read."""
    for end in links:
        assert end.socket.poll(int(PATIENCE_S * 1000)), "expected a frame, got none in time"


@pytest.mark.parametrize("size", [1, 64 * 1024, 256 * 1024, 5_000_000])
def test_frames_go_both_ways_unchanged(pair: tuple[OutLink, InLink], size: int) -> None:
    sender, receiver = pair
    assert receiver.receive() is None
    assert sender.receive() is None
    sender.send(b"x" * size)
    readable(receiver)
    received = receiver.receive()
    assert received is not None
    peer, frame, buffers = received
    assert frame == b"x" * size
    assert not buffers
    assert receiver.send(peer, b"report")
    readable(sender)
    assert sender.receive() == b"report"
    assert sender.number == 3


def test_a_report_to_a_peer_that_is_gone_is_a_value_not_an_error(
    pair: tuple[OutLink, InLink],
) -> None:
    assert not pair[1].send(b"nobody", b"report")


@pytest.mark.parametrize("sizes", [[1], [64 * 1024] * 3, [5_000_000, 300_000]])
def test_buffers_arrive_with_their_frame_and_can_not_be_changed(
    pair: tuple[OutLink, InLink], sizes: list[int]
) -> None:
    sender, receiver = pair
    sent = [memoryview(bytes([at]) * size) for at, size in enumerate(sizes)]
    sender.send_with(b"frame", sent)
    sender.send(b"next")
    readable(receiver)
    received = receiver.receive()
    assert received is not None
    assert received[1] == b"frame"
    assert [bytes(buffer) for buffer in received[2]] == [bytes(buffer) for buffer in sent]
    assert all(buffer.readonly for buffer in received[2])
    readable(receiver)
    following = receiver.receive()
    assert following is not None
    assert following[1:] == (b"next", ())


def test_too_many_buffers_are_an_error_that_loses_nothing_else(
    pair: tuple[OutLink, InLink], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "MAX_BUFFERS", 2)
    sender, receiver = pair
    sender.socket.send_multipart([b"frame", b"1", b"2", b"3"])
    sender.send(b"good")
    readable(receiver)
    with pytest.raises(ProtocolError, match="at most 2 buffers"):
        receiver.receive()
    readable(receiver)
    received = receiver.receive()
    assert received is not None
    assert received[1] == b"good"


def test_credit_and_not_zeromq_limits_a_sender(pair: tuple[OutLink, InLink]) -> None:
    sender, receiver = pair
    for number in range(500):  # five times the receiver's high-water mark
        sender.send(number.to_bytes(2, "big"))
    got: list[int] = []
    while len(got) < 500:
        readable(receiver)
        received = receiver.receive()
        assert received is not None
        got.append(int.from_bytes(received[1], "big"))
    assert got == list(range(500))


def test_a_context_may_end_while_large_frames_are_on_their_way(tmp_path: Path) -> None:
    rng = random.Random(7)
    for _ in range(50):
        receiver = InLink(fresh_endpoint(str(tmp_path)), 100)
        senders = [OutLink(number, receiver.endpoint) for number in range(3)]
        senders.append(OutLink(3, unheard()))
        for _ in range(rng.randrange(20)):
            rng.choice(senders).send(bytes(rng.randrange(1, 600_000)))
            if rng.random() < 0.3:
                receiver.receive()
        close_context()


def test_two_threads_may_lend_their_first_frames_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "_lending_pid", 0)
    made: list[bytes] = []
    monkeypatch.setattr(zmq, "Frame", lambda data, copy: made.append(data))
    both = threading.Barrier(2)

    def lend() -> None:
        sender = OutLink(0, unheard())
        both.wait(PATIENCE_S)
        sender.send(bytes(300_000))
        sender.close()

    threads = [threading.Thread(target=lend) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    close_context()
    assert len(made) == 1


def test_listening_where_one_cannot_is_an_option_error() -> None:
    with pytest.raises(OptionError, match="cannot listen there"):
        InLink("ipc:///no/such/directory/x", 10)
    close_context()


# --- waiting --------------------------------------------------------------------------------------


def test_what_came_with_something_that_was_received_is_not_slept_over(
    pair: tuple[OutLink, InLink],
) -> None:
    sender, receiver = pair
    poller = Poller()
    poller.add(receiver.socket, receiver)
    for frame in (b"first", b"second"):
        sender.send(frame)
    heard: list[bytes] = []
    while len(heard) < 2:
        assert poller.wait(PATIENCE_S) == [receiver]
        received = receiver.receive()
        heard += [received[1]] if received is not None else []  # woken up, and not for a message
    assert heard == [b"first", b"second"]
    assert poller.wait(0) == []


def test_waiting_returns_the_tags_of_what_can_be_read(pair: tuple[OutLink, InLink]) -> None:
    sender, receiver = pair
    wakeup = Wakeup()
    poller = Poller()
    poller.add(wakeup.fd)
    poller.add(receiver.socket, receiver)
    assert poller.wait(0) == []
    sender.send(b"x")
    assert poller.wait(PATIENCE_S) == [receiver]
    wakeup.set()
    assert set(poller.wait(None)) == {receiver, wakeup.fd}
    assert len(poller.descriptors) == 2
    wakeup.close()


def test_another_thread_ends_a_wait() -> None:
    wakeup = Wakeup()
    poller = Poller()
    poller.add(wakeup.fd)
    thread = threading.Thread(target=wakeup.set)
    thread.start()
    assert poller.wait(None) == [wakeup.fd]
    thread.join()
    wakeup.close()


def test_wakeups_are_forgotten_when_cleared_and_only_then() -> None:
    wakeup = Wakeup()
    poller = Poller()
    poller.add(wakeup.fd)
    wakeup.clear()  # nothing there: no error
    for _ in range(3):
        wakeup.set()
    wakeup.clear([])  # it was not what ended the wait
    assert poller.wait(0) == [wakeup.fd]
    wakeup.clear([wakeup.fd])
    assert poller.wait(0) == []
    wakeup.close()


def test_setting_never_blocks_however_often() -> None:
    wakeup = Wakeup()
    for _ in range(100_000):  # more than a pipe holds
        wakeup.set()
    wakeup.close()


def test_a_wakeup_set_after_it_was_closed_reaches_nobody() -> None:
    wakeup = Wakeup()
    wakeup.close()
    wakeup.close()
    next_one = Wakeup()  # gets the same descriptors
    poller = Poller()
    poller.add(next_one.fd)
    wakeup.set()
    assert poller.wait(0) == []
    next_one.close()


def test_a_wait_is_rounded_up_to_the_next_millisecond() -> None:
    poller = Poller()
    dealer = context().socket(zmq.DEALER)
    poller.add(dealer)
    assert poller.wait(0.0001) == []
    dealer.close(0)
    close_context()


def test_an_oversized_frame_never_arrives_and_costs_only_its_sender_the_connection(
    tmp_path: Path,
) -> None:
    limit = 1000
    router, endpoint = bind_router(f"ipc://{tmp_path}/r", hwm=10, max_frame_bytes=limit)
    greedy, modest = (context().socket(zmq.DEALER) for _ in range(2))
    watch = ConnectionWatch(greedy)
    for dealer, name in ((greedy, b"greedy"), (modest, b"modest")):
        dealer.setsockopt(zmq.ROUTING_ID, name)
        dealer.connect(endpoint)
    greedy.send(b"x" * (limit + 1))
    while watch.socket.poll(int(PATIENCE_S * 1000)) and watch.connected():
        pass  # the handshake comes first, then the end of the connection
    modest.send(b"x" * limit)
    assert router.poll(int(PATIENCE_S * 1000))
    assert router.recv_multipart() == [b"modest", b"x" * limit]
    assert not router.poll(0)
    for socket in (router, greedy, modest, watch.socket):
        socket.close(0)
    close_context()
