"""The note in a run's directory: read as it was written, anything else is no run."""

from __future__ import annotations

import json

import pytest

from dflow.launch.rundir import LiveRun, parse_note

NOTE = {"run_id": "r", "graph": "g", "token": "t", "pid": 5, "started_s": 1.5}


def test_a_note_says_which_run_it_is() -> None:
    run = parse_note(json.dumps(NOTE).encode(), "/tmp/x")
    assert run == LiveRun("r", "g", "t", 5, 1.5, "/tmp/x")


@pytest.mark.parametrize(
    "note",
    [
        b"", b"{", b"[]", b"5", b"\xff", json.dumps(NOTE | {"pid": "x"}).encode(),
        b'{"run_id": "r"}', b"[" * 50_000,
        b'{"run_id": 1, "graph": 1, "token": 1, "pid": 1e999, "started_s": 1}',
    ],
)  # fmt: skip
def test_anything_else_is_no_run(note: bytes) -> None:
    assert parse_note(note, "/tmp/x") is None
