"""A worker that is asked what it knows of itself: it answers at once, busy or idle."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from dflow import Input, Node
from dflow.clock import CLOCK
from dflow.errors import ProtocolError
from dflow.wire import control as c
from dflow.worker.dump import dump
from dflow.worker.state import Phase, WorkerState
from tests.unit.worker.test_loop import MakeStage, receiving, stage

__all__ = ["stage"]

GO_ON = threading.Event()
AT_WORK = threading.Event()


class Holds(Node):
    """Holds its message until the test lets go."""

    numbers = Input(int)

    @numbers.handler
    def handle(self, x: int) -> None:
        """Wait."""
        AT_WORK.set()
        GO_ON.wait()


def test_a_worker_answers_while_its_handler_blocks(stage: MakeStage) -> None:
    GO_ON.clear()
    AT_WORK.clear()
    one = receiving(stage, Holds())
    one.run()
    one.send(10, end=True)
    assert AT_WORK.wait(10)
    one.say(c.Dump(7))
    one.expect(c.Stats)  # counters of the same moment come first
    dumped = one.expect(c.Dumped)
    GO_ON.set()
    one.stop()
    told = json.loads(dumped.text)
    assert dumped.request == 7
    assert "GO_ON.wait()" in told["stacks"]
    assert abs(told["at_s"] - CLOCK.wall_s()) < 60


def test_a_part_that_cannot_be_read_is_left_out_and_the_rest_is_told() -> None:
    def changes_under_me() -> dict[str, Any]:
        raise RuntimeError("dictionary changed size during iteration")

    told = json.loads(dump(changes_under_me, CLOCK))
    assert told["standing"] is None
    assert told["no_standing"].startswith("RuntimeError")
    assert told["stacks"]
    assert told["process"]["rss_kb"] > 0


def test_a_worker_remembers_what_it_went_through() -> None:
    state = WorkerState()
    state.handle(c.Assign("a", 0, "r", 1), 1.0)
    for now in (2.0, 3.0):
        state.handle(c.Ping(), now)
    with pytest.raises(ProtocolError):
        state.handle(c.Run(), 4.0)
    state.handle(c.Abort("why"), 5.0)
    assert state.phase is Phase.STOPPED
    assert [(line.at_s, line.what) for line in state.story.lines()] == [
        (1.0, "Assign: joining -> bound"),
        (4.0, "Run: refused while bound"),
        (5.0, "Abort: bound -> stopped"),
    ]


def test_no_story_tells_what_a_message_said() -> None:
    state = WorkerState()
    state.handle(c.Assign("a", 0, "r", 1, "", "", {"secret": "hunter2"}), 1.0)
    state.handle(c.Abort("hunter2"), 2.0)
    assert "hunter2" not in str(state.story.rows())
