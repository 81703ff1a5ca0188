"""Two data planes and a stranger, over real sockets in one process."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Iterator
from typing import Any, cast

import pytest

from dflow import Graph
from dflow.flow.out_edge import OutEdge
from dflow.graph.plan import WorkerId
from dflow.message import EXTERNAL, Priority
from dflow.options import DEFAULT_CAPACITY, DEFAULT_MAX_BYTES
from dflow.stats import NodeStats
from dflow.transport.endpoint import close_context, fresh_endpoint
from dflow.transport.link import OutLink
from dflow.wire import frames as f
from dflow.worker import inbound
from dflow.worker.outbound import CATCH_UP_EVERY
from dflow.worker.plane import DataPlane
from tests.unit.plane_net import EPOCH, TOKEN, Net, both, count, emit, left, raw, right


@pytest.fixture(params=["inproc", "ipc", "tcp"])
def net(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    """Give a net over each transport; its sockets are gone afterwards."""
    run_dir = str(tmp_path_factory.mktemp("n"))
    endpoints = {
        "inproc": lambda: f"inproc://{secrets.token_hex(6)}",
        "ipc": lambda: fresh_endpoint(run_dir),
        "tcp": lambda: fresh_endpoint("", "127.0.0.1"),
    }
    made = Net(endpoints[request.param])
    yield made
    for plane in made.made:
        plane.close()
    for socket in made.sockets:
        socket.close(0)
    close_context()


only_inproc = pytest.mark.parametrize("net", ["inproc"], indirect=True)


def test_messages_arrive_in_order_and_credit_comes_back(net: Net) -> None:
    a, b = net.connected()
    emit(a, 1, 2, 3, 4, 5, 6)  # two more than the window
    emit(b, "x")
    net.until(lambda: count(net, 0) == 4 and count(net, 1) == 1)
    assert a.gate.shut
    assert a.outbound.blocked
    assert a.outbound.unsent
    assert not b.gate.shut
    first = net.received(0)
    net.both.inbound.grant(idle=True)
    net.until(lambda: a.outbound.edges[0].windows[0].taken == 4)
    a.pump()
    net.until(lambda: count(net, 0) == 6)
    assert first + net.received(0) == [1, 2, 3, 4, 5, 6]
    assert net.received(1) == ["x"]
    assert net.violations == {"both": [], "left": [], "right": []}


class Backlog:
    """A link with reports that have arrived and were not taken in."""

    number = 0

    def __init__(self) -> None:
        self.reports: deque[bytes] = deque()

    def receive(self) -> bytes | None:
        """Return the oldest."""
        return self.reports.popleft() if self.reports else None


@only_inproc
def test_sender_that_looks_once_for_every_two_reports_does_not_get_ever_further_behind(
    net: Net,
) -> None:
    a, _ = net.connected()
    link, left = Backlog(), []
    for _ in range(200):
        link.reports += [f.pack_credit(0, EPOCH, 0, 0, 0)] * 2
        a.outbound.receive(cast(OutLink, link))
        left.append(len(link.reports))
    assert max(left) <= 2 * CATCH_UP_EVERY
    assert max(left[:50]) == max(left)


def test_the_end_of_every_sender_exhausts_the_receiver(net: Net) -> None:
    a, b = net.connected()
    emit(a, 1)
    a.end("left")
    net.until(lambda: net.both.inbound.channels[0].end_at == 1)
    inputs = net.both.inbound.inputs["both"]
    seen = [inputs.exhausted]
    b.end("right")
    net.until(lambda: net.both.inbound.channels[1].end_at == 0)
    seen.append(inputs.exhausted)  # a message still waits
    assert net.received(0) == [1]
    assert [*seen, inputs.exhausted] == [False, False, True]
    assert inputs.fed


@only_inproc
@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"token": "of another run"}, "wrong token"),
        ({"epoch": EPOCH - 1}, "expected epoch 5, got 4"),
    ],
)
def test_a_hello_with_a_wrong_token_or_epoch_is_refused_with_the_reason(
    net: Net, wrong: dict[str, Any], reason: str
) -> None:
    stale = net.sender("right", **wrong)
    net.until(lambda: net.violations["right"])
    assert not stale.outbound.welcomed
    assert reason in net.violations["right"][0]
    assert "edge right.out->both.in, channel 1: refused" in net.violations["right"][0]
    assert net.both.inbound.strangers == 1
    assert net.violations["both"] == []


@only_inproc
def test_a_hello_for_a_channel_that_does_not_end_here_is_refused(net: Net) -> None:
    stranger = net.stranger()
    stranger.send(f.pack_hello(7, EPOCH, TOKEN))
    refused = net.answer(stranger)
    assert (refused.kind, refused.channel) == (f.REFUSED, 7)
    assert f.parse_text(refused) == "channel 7 is not open to this peer"


@only_inproc
def test_a_second_peer_cannot_take_over_a_channel(net: Net) -> None:
    a, _ = net.connected()
    stranger = net.stranger()
    stranger.send(f.pack_hello(0, EPOCH, TOKEN))
    assert net.answer(stranger).kind == f.REFUSED
    emit(a, "still mine")
    net.until(lambda: count(net, 0) == 1)
    assert net.violations["both"] == []


GARBAGE = {
    "empty": b"",
    "short": b"df\x01",
    "magic": b"xx" + bytes(40),
    "version": b"df\x09\x02" + bytes(40),
    "kind": b"df\x01\x63" + bytes(40),
    "text": b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n" * 3,
    "batch": f.pack_batch(0, EPOCH, 0, [b"\x01"], 0),
    "end": f.pack_end(1, EPOCH, 0, 0),
    "credit": f.pack_credit(0, EPOCH, 1, 1, 1),
    "huge": f.pack_batch(0, EPOCH, 0, [b"x" * 3_000_000], 0),
}


@only_inproc
@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_a_stranger_is_refused_counted_and_ignored_from_then_on(net: Net, garbage: bytes) -> None:
    a = net.sender("left")
    net.until(lambda: a.outbound.welcomed)
    stranger = net.stranger()
    stranger.send(garbage)
    assert net.answer(stranger).kind == f.REFUSED
    stranger.send(f.pack_hello(1, EPOCH, TOKEN))  # too late, though all is right with it
    emit(a, 1)
    net.quiet()
    assert net.both.inbound.channels[1].peer is None
    assert net.both.inbound.strangers == 1
    assert net.violations["both"] == []
    assert net.received(0) == [1]


@only_inproc
def test_a_flood_of_strangers_is_forgotten_but_no_peer_of_the_run(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbound, "_MOST_STRANGERS", 3)
    a, _ = net.connected()
    raw(a, b"nonsense")
    net.until(lambda: net.violations["both"])
    strangers = [net.stranger() for _ in range(9)]
    for stranger in strangers:
        stranger.send(b"nonsense")
        assert net.answer(stranger).kind == f.REFUSED
    assert len(net.both.inbound._banned) == 4
    raw(a, f.pack_batch(0, EPOCH, 0, [b"\x01"], 0))
    strangers[0].send(b"nonsense")  # forgotten, so refused once more
    strangers[-1].send(b"nonsense")
    net.quiet()
    assert (net.received(0), net.both.inbound.strangers) == ([], 10)


@only_inproc
def test_a_message_of_several_frames_is_counted_and_dropped(net: Net) -> None:
    a, _ = net.connected()
    net.stranger().send_multipart([b"a", b"b"])
    net.until(lambda: net.both.inbound.strangers == 1)
    emit(a, 1)
    net.until(lambda: count(net, 0) == 1)


BROKEN = {
    "garbage": (b"\xff" * 50, "magic"),
    "gap": (f.pack_batch(0, EPOCH, 3, [b"\x01"], 0), "expected sequence 0, got 3"),
    "overrun": (f.pack_batch(0, EPOCH, 0, [b"\x01"] * 5, 0), "at most 4 messages"),
    "epoch": (f.pack_batch(0, EPOCH + 1, 0, [b"\x01"], 0), "expected epoch 5, got 6"),
    "early end": (f.pack_end(0, EPOCH, 1, 0), "END expected after 0"),
    "report": (f.pack_credit(0, EPOCH, 0, 0, 0), "expected a batch, END or ASK"),
    "other channel": (f.pack_batch(1, EPOCH, 0, [b"\x01"], 0), "not opened by this peer"),
    "hello again": (f.pack_hello(0, EPOCH, TOKEN), "not open to this peer"),
}


@only_inproc
@pytest.mark.parametrize(("frame", "expected"), BROKEN.values(), ids=BROKEN)
def test_a_planned_peer_that_breaks_the_protocol_is_reported_and_others_flow_on(
    net: Net, frame: bytes, expected: str
) -> None:
    a, b = net.connected()
    raw(a, frame)
    net.until(lambda: net.violations["both"] and net.violations["left"])
    (violation,) = net.violations["both"]
    assert violation.startswith("edge left.out->both.in: ")
    assert expected in violation
    assert expected in net.violations["left"][0]  # the peer is told why
    raw(a, f.pack_batch(0, EPOCH, 0, [b"\x01"], 0))  # and ignored from then on
    emit(b, "fine")
    net.quiet()
    assert net.received(1) == ["fine"]
    stats = {one.channel: one for one in net.both.stats(NodeStats()).ins}
    assert (stats[0].malformed, stats[0].received, stats[1].malformed) == (1, 0, 0)


@only_inproc
@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (f.pack_credit(0, EPOCH, 9, 9, 0), "expected taken <= 0"),
        (f.pack_credit(1, EPOCH, 0, 0, 0), "expected channel 0, got 1"),
        (f.pack_batch(0, EPOCH, 0, [b"\x01"], 0), "expected a credit report"),
        (b"nonsense", "expected at least"),
    ],
    ids=["impossible", "other channel", "batch", "garbage"],
)
def test_a_receiver_that_breaks_the_protocol_is_reported(
    net: Net, frame: bytes, expected: str
) -> None:
    net.connected()
    link, peer = net.both.inbound.channels[0].peer
    assert link.send(peer, frame)
    net.until(lambda: net.violations["left"])
    assert expected in net.violations["left"][0]


@only_inproc
def test_reports_are_owed_until_an_idle_receiver_has_granted(net: Net) -> None:
    a, _ = net.connected()
    emit(a, 1)
    net.until(lambda: count(net, 0) == 1)
    owing = [net.both.inbound.grant(idle=False)]
    net.received(0)
    owing.append(net.both.inbound.grant(idle=False))  # a quarter of the window: not yet
    owing.append(net.both.inbound.grant(idle=True))
    owing.append(net.both.inbound.grant(idle=False))
    assert owing == [False, True, False, False]


@only_inproc
def test_inputs_that_were_dropped_stay_in_the_books(net: Net) -> None:
    a, _ = net.connected()
    emit(a, 1, 2)
    net.until(lambda: count(net, 0) == 2)
    net.both.inbound.inputs["both"].drop()
    (row, _) = net.both.stats(NodeStats()).ins
    assert (row.received, row.delivered) == (2, 0)
    assert not net.both.inbound.channels[0].inbox


@only_inproc
def test_senders_count_what_they_offered_sent_and_heard(net: Net) -> None:
    a, _ = net.connected()
    emit(a, 1, 2, 3, 4, 5)
    stats = a.stats(NodeStats())
    assert (stats.offered, stats.unsent, stats.peak) == ({0: 5}, {0: 1}, {0: 5})
    assert [(row.channel, row.sent, row.taken) for row in stats.outs] == [(0, 4, 0)]


# --- messages from outside ------------------------------------------------------------------------


def outside(net: Net) -> DataPlane:
    """Return the launching process's plane with an edge to ``both``."""
    handle = net.plane(EXTERNAL)
    number = net.plan.external_channel("both", "in", 0)
    edge = OutEdge(9, "run->both.in", [number], DEFAULT_CAPACITY, DEFAULT_MAX_BYTES)
    handle.outbound.add(edge, [[number, net.bound[int(Priority.NORMAL)]]])
    return handle


@only_inproc
def test_the_outside_may_send_until_the_node_ends(net: Net) -> None:
    handle = outside(net)
    net.until(lambda: handle.outbound.welcomed)
    emit(handle, "hello")
    number = net.plan.external_channel("both", "in", 0)
    net.until(lambda: number in net.both.inbound.channels and count(net, number) == 1)
    assert net.received(number) == ["hello"]
    net.both.end("both")
    net.until(lambda: handle.outbound.edges[0].closed)
    assert net.violations[EXTERNAL] == []


@only_inproc
def test_an_outside_that_breaks_the_protocol_does_not_end_the_run(net: Net) -> None:
    handle = outside(net)
    net.until(lambda: handle.outbound.welcomed)
    raw(handle, b"?" * 60)
    net.until(lambda: net.violations[EXTERNAL])
    assert net.violations["both"] == []


@only_inproc
def test_who_comes_from_outside_after_the_end_is_told_that_it_is_closed(net: Net) -> None:
    net.both.end("both")
    handle = outside(net)
    net.until(lambda: handle.outbound.edges[0].closed)
    assert net.violations == {"both": [], EXTERNAL: []}


# --- life -----------------------------------------------------------------------------------------


@only_inproc
def test_closing_twice_is_harmless(net: Net) -> None:
    net.both.close()
    net.both.close()
    assert net.both.closed


def test_a_receiver_listens_once_a_band() -> None:
    graph = Graph("bands")
    a, b, c = left(), right(), both()
    graph.connect(a, c, priority=Priority.HIGH)
    graph.connect(b, c, priority=Priority.LOW)
    plane = DataPlane(
        graph.plan(), WorkerId("both"), token=TOKEN, epoch=1, edge_key=graph.edge_key,
        on_violation=lambda text: None,
    )  # fmt: skip
    bound = plane.inbound.bind(lambda: f"inproc://{secrets.token_hex(6)}")
    plane.close()
    close_context()
    assert set(bound) == {int(Priority.HIGH), int(Priority.LOW)}
