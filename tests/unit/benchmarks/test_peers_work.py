"""The sinks of the peers' benchmark notice what a carrier may do to a message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.peers import work
from benchmarks.peers.work import Job


def written(job: Job) -> dict[str, Any]:
    files = list(Path(job.folder).glob("seen-*.json"))
    assert len(files) == 1
    found: dict[str, Any] = json.loads(files[0].read_text())
    return found


@pytest.mark.parametrize("kind", work.WORKS)
def test_what_the_source_yields_is_sound_at_the_sink(kind: str, tmp_path: Path) -> None:
    job = Job(kind, 20, str(tmp_path))
    sink = work.sink(job)
    step = work.step(job) or (lambda message: message)
    for message in work.source(job):
        sink.add(step(message))
    assert sink.complete
    sink.finish()
    found = written(job)
    assert found["count"] == 20
    assert found.get("damaged", 0) == 0
    assert found.get("id_sum", 190) == 190


def test_a_frame_that_was_overwritten_is_damaged(tmp_path: Path) -> None:
    job = Job("frames", 4, str(tmp_path))
    sink = work.sink(job)
    for number, frame in enumerate(work.source(job)):
        copy = frame.copy()
        if number == 1:
            copy[-1] ^= 1  # another number at its end
        if number == 2:
            copy[8 + 3 * work.STRIDE] ^= 1
        sink.add(copy)
    sink.finish()
    assert written(job)["damaged"] == 2


def test_a_message_without_its_step_is_damaged(tmp_path: Path) -> None:
    job = Job("small", 2, str(tmp_path))
    sink = work.sink(job)
    for message in work.source(job):
        sink.add(message)
    sink.finish()
    assert written(job)["damaged"] == 2
