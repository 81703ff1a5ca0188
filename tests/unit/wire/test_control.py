"""Control messages: every one survives the trip, everything else is a `ProtocolError`."""

from __future__ import annotations

import tracemalloc
from dataclasses import fields
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dflow.errors import ProtocolError
from dflow.wire import control

KINDS: list[Any] = sorted(
    (
        cls
        for cls in vars(control).values()
        if isinstance(cls, type) and issubclass(cls, control.Control) and cls is not control.Control
    ),
    key=lambda cls: cls.code,
)
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(0, 9), inner),
    max_leaves=8,
)
BY_TYPE: dict[str, st.SearchStrategy[Any]] = {
    "str": st.text(),
    "int": st.integers(0, 2**64 - 1),
    "float": st.floats(-1e15, 1e15),
    "list[Any]": st.lists(plain),
    "Mapping[int, str]": st.dictionaries(st.integers(0, 3), st.text()),
    "Mapping[str, Any]": st.dictionaries(st.text(), plain),
}


def messages_of(cls: Any) -> st.SearchStrategy[Any]:
    return st.builds(cls, **{f.name: BY_TYPE[str(f.type)] for f in fields(cls)})


def wire(*values: Any) -> bytes:
    packed: bytes = msgpack.packb(list(values))
    return packed


@pytest.mark.parametrize("cls", KINDS, ids=lambda cls: cls.__name__)
@settings(max_examples=20)
@given(data=st.data())
def test_every_message_survives_the_trip(cls: Any, data: st.DataObject) -> None:
    message = data.draw(messages_of(cls))
    decoded = control.decode(control.encode(message))
    assert type(decoded) is cls
    assert decoded == message


def test_codes_are_unique_and_public() -> None:
    assert len({cls.code for cls in KINDS}) == len(KINDS) > 25
    assert {cls.__name__ for cls in KINDS} <= set(control.__all__)


@pytest.mark.parametrize(
    ("message", "golden"),
    [
        (control.Heartbeat(), "92 01 08"),
        (control.Bound({2: "ipc://x"}), "93 01 02 81 02 a7 6970633a2f2f78"),
        (
            control.Failed("on_start", "E", "tb", "n"),
            "96 01 09 a8 6f6e5f7374617274 a1 45 a2 7462 a1 6e",
        ),
        (control.Locate(7, "n", "in"), "95 01 17 07 a1 6e a2 696e"),
    ],
)
def test_messages_have_the_bytes_of_version_1(message: control.Control, golden: str) -> None:
    assert control.encode(message) == bytes.fromhex(golden)


def test_text_with_lone_surrogates_is_escaped_and_not_an_error() -> None:
    sent = control.Failed("handler", "bad name \udcff", "")
    assert control.decode(control.encode(sent)) == control.Failed("handler", "bad name \\udcff", "")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "malformed"),
        (b"\xc1", "malformed"),
        (wire(1, 8)[:-1], "malformed"),
        (wire(1, 8) + b"x", "malformed"),
        (wire(), "malformed"),
        (wire(1), "malformed"),
        (msgpack.packb({"version": 1}), "malformed"),
        (msgpack.packb(5), "malformed"),
        (wire(1, 99), "malformed"),
        (wire(1, [8]), "malformed"),
        (wire(2, 8), "expected version 1, got 2"),
        (wire(None, 8), "malformed"),
        (wire(1, 8, 1), "Heartbeat: expected 0 fields, got 1"),
        (wire(1, 23, 1, "n"), "Locate: expected 3 fields, got 2"),
        (wire(1, 23, "1", "n", "p"), "Locate.request: expected int, got str"),
        (wire(1, 23, True, "n", "p"), "Locate.request: expected int, got bool"),
        (wire(1, 23, 1, b"n", "p"), "Locate.node: expected str, got bytes"),
        (wire(1, 20, None), "DrainRequest.timeout_s: expected float, got NoneType"),
        (wire(1, 2, []), "Bound.endpoints: expected Mapping[int, str], got list"),
        (wire(1, 6, {}), "Stopped.stats: expected list[Any], got dict"),
        (wire(1, 6, [msgpack.ExtType(1, b"x")]), "malformed"),
        (bytes(control.MAX_CONTROL_BYTES + 1), "expected at most 16777216 bytes"),
    ],
)
def test_malformed_messages_are_refused_with_a_reason(data: bytes, says: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        control.decode(data)
    assert says in str(caught.value)


def test_a_stranger_cannot_make_the_coordinator_allocate_what_it_does_not_send() -> None:
    data = b"\xdd\x00\x00\x40\x00" * 1000 + bytes(20_000)
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            control.decode(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000


@given(st.binary() | st.lists(plain).map(lambda rest: wire(1, *rest)))
def test_any_bytes_are_a_message_or_a_protocol_error(data: bytes) -> None:
    try:
        message = control.decode(data)
    except ProtocolError:
        return
    assert control.decode(control.encode(message)) == message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 1e16, 2**63])
def test_a_time_nobody_can_compute_with_is_refused(value: float) -> None:
    with pytest.raises(ProtocolError, match="seconds: expected a time, got"):
        control.decode(wire(1, control.Turn.code, value))


def test_numbers_that_became_too_large_for_64_bits_travel_as_the_largest_there_are() -> None:
    sent = control.StatusReply(1, {"sent": 3 * 2**64, "left": -(3**50), "fine": 2**64 - 1})
    got = control.decode(control.encode(sent))
    assert got == control.StatusReply(1, {"sent": 2**64 - 1, "left": -(2**63), "fine": 2**64 - 1})
    with pytest.raises(TypeError, match="expected plain data, got set"):
        control.encode(control.StatusReply(1, {"x": {1}}))


def test_how_long_a_message_may_be_depends_on_who_sends_it() -> None:
    long = control.encode(control.AbortRequest("x" * control.MAX_STRANGER_BYTES))
    assert isinstance(control.decode(long), control.AbortRequest)
    with pytest.raises(ProtocolError, match=f"at most {control.MAX_STRANGER_BYTES} bytes"):
        control.decode(long, control.MAX_STRANGER_BYTES)


def test_what_is_nested_so_deep_that_nobody_could_show_it_is_refused() -> None:
    deep: Any = []
    for _ in range(900):
        deep = [deep]
    for message in [wire(1, 7, deep), wire(1, 26, 1, "id", deep), wire(deep, 8), wire(1, 8, deep)]:
        with pytest.raises(ProtocolError):
            control.decode(message)
    row: Any = {"rows": [[{"k": [1, [2]]}]]}
    said = control.StatusReply(1, {"x" * 100: row})
    assert control.decode(control.encode(said)) == said
