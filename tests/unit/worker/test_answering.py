"""A worker that is asked to cancel messages: it answers at once, busy or idle."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from dflow import Context, Graph, Input, Node, sink
from dflow.stats import WorkerStats
from dflow.wire import control as c
from tests.support import eventually
from tests.unit.worker.test_loop import MakeStage, Stage, feed, receiving, stage

__all__ = ["stage"]

GO_ON = threading.Event()
SEEN: list[Any] = []


class Held(Node):
    """Holds each message until the test lets go, and tells whether it was still wanted."""

    numbers = Input(int)

    def on_start(self, ctx: Context) -> None:
        """Remember where to ask."""
        self.ctx = ctx

    @numbers.handler
    def handle(self, x: int) -> None:
        """Wait."""
        SEEN.append(x)
        GO_ON.wait()
        SEEN.append((x, self.ctx.cancelled))


@pytest.fixture(autouse=True)
def fresh() -> None:
    GO_ON.clear()
    SEEN.clear()


def ask(one: Stage, sequence: int, channel: int = 0) -> str:
    """Ask to cancel a message; return the outcome."""
    one.say(c.Cancel(sequence + 100, channel, sequence))
    outcome = one.expect(c.Outcome)
    assert outcome.request == sequence + 100
    return outcome.outcome


def counts(stats: WorkerStats) -> tuple[int, ...]:
    (row,) = stats.ins
    return row.received, row.delivered, row.done, row.cancelled


def test_a_busy_worker_cancels_what_is_queued_and_tells_the_handler_at_work(
    stage: MakeStage,
) -> None:
    one = receiving(stage, Held())
    one.run()
    one.send(10, 11, 12, 13)
    eventually(lambda: SEEN == [10])
    assert ask(one, 2) == "cancelled"
    assert ask(one, 0) == "handling"
    assert ask(one, 9) == "cancelled"  # it has not come yet
    GO_ON.set()
    eventually(lambda: len(SEEN) == 6)
    assert SEEN == [10, (10, True), 11, (11, False), 13, (13, False)]
    assert ask(one, 1) == "done"
    one.send(end=True)
    assert counts(one.stop()) == (4, 3, 4, 1)


def test_an_idle_worker_answers_too(stage: MakeStage) -> None:
    one = receiving(stage, Held())
    one.run()
    assert ask(one, 1) == "cancelled"
    GO_ON.set()
    one.send(10, 11, 12, end=True)
    assert counts(one.stop()) == (3, 2, 3, 1)
    assert [x for x in SEEN if isinstance(x, int)] == [10, 12]


def test_a_channel_that_is_not_there_has_no_such_message(stage: MakeStage) -> None:
    one = receiving(stage, Held())
    one.run()
    assert ask(one, 0, channel=77) == "unknown"
    one.send(end=True)
    one.stop()


def test_a_worker_that_has_not_emitted_an_id_says_so(stage: MakeStage) -> None:
    @sink
    def show(x: int) -> None: ...

    one = stage(Graph("g", feed() >> show().options(name="subject")), "subject", "feed")
    one.run()
    one.say(c.Find(5, "nobody's"))
    assert one.expect(c.Found) == c.Found(5, "unknown", [])
    one.send(end=True)
    one.stop()


# --- pausing -------------------------------------------------------------------------------


def test_a_busy_worker_confirms_a_pause_at_once_and_begins_nothing_more(stage: MakeStage) -> None:
    one = receiving(stage, Held())
    one.run()
    one.send(10, 11)
    eventually(lambda: SEEN == [10])
    one.say(c.Pause("subject", 1, 7))
    assert one.expect(c.Held) == c.Held(7)
    GO_ON.set()
    eventually(lambda: (10, False) in SEEN)
    assert one.expect(c.Held) == c.Held(7)  # by the main thread, too: no harm
    assert [x for x in SEEN if isinstance(x, int)] == [10]
    one.say(c.Pause("subject", 0))
    eventually(lambda: (11, False) in SEEN)
    one.send(end=True)
    one.stop()


def test_an_idle_worker_confirms_a_pause_and_takes_nothing_until_it_goes_on(
    stage: MakeStage,
) -> None:
    one = receiving(stage, Held())
    one.run()
    GO_ON.set()
    one.say(c.Pause("subject", 1, 3))
    assert one.expect(c.Held) == c.Held(3)
    one.send(10, 11, end=True)
    one.say(c.Cancel(1, 0, 1))  # it has looked at the wire since
    assert one.expect(c.Outcome).outcome == "cancelled"
    assert SEEN == []
    one.say(c.Pause("subject", 0))
    one.stop()
    assert SEEN == [10, (10, False)]
