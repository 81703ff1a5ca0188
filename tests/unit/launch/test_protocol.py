"""The private pipes: framing, events, and what happens to garbage."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dflow.errors import ProtocolError
from dflow.graph.plan import WorkerId
from dflow.launch.pipe import Pipe
from dflow.launch.protocol import (
    COORDINATOR,
    AgentGone,
    Done,
    Event,
    Exited,
    Failed,
    Forked,
    Frames,
    RunDir,
    Started,
    Warned,
    pack,
    pack_event,
    parse_event,
    signal_name,
)

EVENTS: list[Event] = [
    RunDir("/tmp/dflow-x"),
    Forked(COORDINATOR, 12),
    Started(),
    Warned("look"),
    Failed("no", "Traceback …"),
    Exited(WorkerId("a/b", 3), 12, None, 9),
    Exited(WorkerId("a/b", 3), 12, 0, None),
    Done(),
]


@pytest.mark.parametrize("event", EVENTS, ids=repr)
def test_event_survives_the_pipe(event: Event) -> None:
    (message,) = Frames().feed(pack_event(event))
    assert parse_event(message) == event


def test_exit_is_what_the_coordinator_was_promised() -> None:
    assert pack_event(Exited(WorkerId("n", 1), 12, None, 9)) == pack(
        {"exited": ["n", 1, 12, None, 9]}
    )


@given(st.lists(st.binary(max_size=300), max_size=5), st.integers(1, 64))
def test_messages_are_the_same_however_the_stream_is_cut(bodies: list[bytes], step: int) -> None:
    stream = b"".join(pack({"job": body}) for body in bodies)
    frames = Frames()
    found = [
        message
        for start in range(0, len(stream), step)
        for message in frames.feed(stream[start : start + step])
    ]
    assert found == [{"job": body} for body in bodies]


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x93\x01\x02\x03", b"\x80", b"\x82\xa1a\x01"])
def test_malformed_message_is_a_protocol_error(body: bytes) -> None:
    with pytest.raises(ProtocolError, match="pipe: "):
        Frames().feed(len(body).to_bytes(4, "little") + body)


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"unknown": 1},
        {"forked": ["n", 0]},
        {"exited": 3},
        {"started": False},
        {"exited": ["n", 0, 1, "0", None]},
    ],
    ids=repr,
)
def test_unknown_event_is_a_protocol_error(message: dict[str, object]) -> None:
    with pytest.raises(ProtocolError, match="expected an event of the agent"):
        parse_event(message)


def test_the_last_event_is_never_sent() -> None:
    with pytest.raises(ProtocolError):
        pack_event(AgentGone(True, 0, None))


def test_signals_are_named() -> None:
    assert signal_name(9) == "signal SIGKILL"
    assert signal_name(250) == "signal 250"
    assert Exited(COORDINATOR, 1, 3, None).cause == "exit code 3"


def test_pipe_says_when_the_other_end_is_gone() -> None:
    left, right = Pipe.pair()
    assert right.send_message({"warned": "a"})
    assert right.send_message({"warned": "b"})
    right.close()
    assert left.receive() == {"warned": "a"}
    assert left.receive() == {"warned": "b"}
    assert left.receive() is None
    assert left.closed_by_peer
    assert not left.send_message({"warned": "c"})
    left.close()


def test_pipe_gives_all_complete_messages_at_once() -> None:
    left, right = Pipe.pair()
    right.send(pack({"a": 1}) + pack({"b": 2}) + pack({"c": 3})[:3])
    assert left.available() == [{"a": 1}, {"b": 2}]
    assert left.available() == []
    assert not left.closed_by_peer
    right.send(pack({"c": 3})[3:])
    assert left.available() == [{"c": 3}]
    left.close()
    right.close()
