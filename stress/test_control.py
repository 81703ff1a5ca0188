"""Control under saturation: settings and questions get through while data fills every window.

The source, two workers and the sink all want a core, the workers' inboxes are full, and so are
their outputs. Ages of control messages are compared with those of data in the same run.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from dflow import Context, Graph, Input, Node, Output, Priority, Run, source
from stress.conftest import Keep
from stress.histogram import Histogram
from stress.ledger import Ledger, Verdict
from stress.nodes import paced, run_checked

REPLICAS = 2
WINDOW = 512
SETTINGS_PER_S = 100
SECONDS = 2
QUESTIONS = 20
OUTSIDE = "outside"
INSIDE = "inside"
FAIR = 4
"""The age of a setting, times this, is less than the median of data: the P99 of settings in the
long form. In the short form their median: other programs may hold up any process for a while."""

Message = tuple[str, int, int]
Ages = tuple[int, Verdict, dict[str, Any]]


@source
def flood(ctx: Context) -> Iterator[Message]:
    """Yield ``("data", number, now)`` until the run is asked to stop."""
    number = 0
    while not ctx.stopping:
        yield "data", number, time.monotonic_ns()
        number += 1


def work(seconds: float) -> None:
    """Use the processor for a while."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


class Worker(Node):
    """Passes data on, enters settings in a ledger, and tells its ages at the end."""

    data = Input(tuple)
    settings = Input(tuple, priority=Priority.CONTROL)
    out = Output(tuple)
    judged = Output(Ages, required=True)

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.ages = {"data": Histogram(), INSIDE: Histogram(), OUTSIDE: Histogram()}

    @data.handler
    def pass_on(self, message: Message) -> None:
        """Pass it on, with some work."""
        self.ages["data"].add(time.monotonic_ns() - message[2])
        work(0.0002)
        self.out.emit(message)

    @settings.handler
    def change(self, message: Message) -> None:
        """Enter it."""
        origin, number, due_ns = message
        self.ages[origin].add(time.monotonic_ns() - due_ns)
        self.ledger.add(origin, number)

    def on_end(self, ctx: Context) -> None:
        """Tell what was found."""
        ages = {name: one.to_dict() for name, one in self.ages.items()}
        self.judged.emit((ctx.replica, self.ledger.verdict(), ages))


class Last(Node):
    """A sink slower than all before it. Its one result: what the workers have told."""

    data = Input(tuple)
    told = Input(Ages)
    judged = Output(list[Ages], required=True)

    def __init__(self) -> None:
        self.all: list[Ages] = []

    @data.handler
    def take(self, message: Message) -> None:
        """Take longer than all workers together."""
        work(0.0003)

    @told.handler
    def hear(self, ages: Ages) -> None:
        """Keep it."""
        self.all.append(ages)

    def on_end(self) -> None:
        """Emit what was told."""
        self.judged.emit(self.all)


def test_settings_and_questions_get_through_while_all_windows_are_full(
    scale: int, long_form: bool, keep: Keep
) -> None:
    settings = SETTINGS_PER_S * SECONDS * scale
    worker, last, graph = Worker().options(replicas=REPLICAS), Last(), Graph("control")
    graph.connect(flood(), worker.data, capacity=WINDOW)
    graph.connect(paced(INSIDE, settings, SETTINGS_PER_S), worker.settings)
    graph.connect(worker.out, last.data, capacity=WINDOW)
    graph.connect(worker.judged, last.told)
    answers, full = Histogram(), []

    def ask_and_tell(run: Run) -> None:
        for number in range(settings):
            run.send(worker.settings, (OUTSIDE, number, time.monotonic_ns()))
            if number % (settings // QUESTIONS) == 0:
                began_ns = time.monotonic_ns()
                edges = {edge.id: edge.depth for edge in run.status().edges}
                answers.add(time.monotonic_ns() - began_ns)
                full.append(edges["flood.out->worker.data"] >= REPLICAS * WINDOW // 2)
            time.sleep(1 / SETTINGS_PER_S)
        run.stop()

    checked = run_checked(graph, last, during=ask_and_tell)
    ages: dict[str, Histogram] = {"data": Histogram(), INSIDE: Histogram(), OUTSIDE: Histogram()}
    for _, verdict, kept in checked.result:
        assert verdict == Verdict({INSIDE: settings, OUTSIDE: settings})
        for name, one in kept.items():
            ages[name].merge(Histogram.from_dict(one))
    keep(ages | {"answers to status": answers}, peaks_mb=checked.peaks_mb)
    assert sorted(replica for replica, _, _ in checked.result) == list(range(REPLICAS))
    assert sum(full) > len(full) // 2, "expected the windows to be full most of the time"
    percent = 99 if long_form else 50
    worst_ns = max(ages[name].percentile_ns(percent) for name in (INSIDE, OUTSIDE))
    assert FAIR * worst_ns < ages["data"].percentile_ns(50)
