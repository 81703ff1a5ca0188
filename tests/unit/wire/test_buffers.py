"""What a message with large parts weighs, and what of it is bytes."""

from __future__ import annotations

from dflow.wire.buffers import Buffer, Parcel


def test_a_parcel_weighs_its_buffers_but_only_its_own_bytes_are_joined() -> None:
    parcel = Parcel.of(b"abc", [Buffer(memoryview(b"12345")), Buffer(memoryview(b"67"))])
    assert len(parcel) == 3 + 5 + 2
    assert b"".join([b"<", parcel, b">"]) == b"<abc>"
    assert bytes(parcel) == b"abc"
    assert memoryview(parcel).nbytes == 3
