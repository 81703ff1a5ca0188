"""What user code is given: the context, hooks in their order, ticks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from dflow import Context, Graph, Input, Node, Output, Priority, node, sink, source
from tests.integration.flows import await_file, collect, count, keep, run_checked, write_line

pytestmark = pytest.mark.timeout(30)


# --- Context ------------------------------------------------------------------------------


def test_context_names_the_place_and_describes_the_message() -> None:
    @node
    def where(x: int, ctx: Context) -> Any:
        assert ctx.headers is not None
        return [ctx.node, ctx.replica, ctx.run_id, ctx.headers.edge, ctx.headers.sent_ns > 0]

    last = where()
    graph = Graph("where", count(1) >> last)
    with graph.start(results=last) as run:
        (value,) = run.results()
        report = run.wait(20)
    assert value == ["where", 0, run.run_id, "count.out->where.in", True]
    assert report.balances


def test_context_emits_on_named_outputs() -> None:
    @node(outputs={"rejected": str})
    def check(x: int, ctx: Context) -> int | None:
        if x % 3 == 0:
            ctx.emit(f"no {x}", "rejected")
            return None
        ctx.emit(x)
        return -x

    checked, good, bad = check(), keep(), keep()
    graph = Graph("named", count(6) >> checked >> good)
    graph.connect(checked.rejected, bad)
    with graph.start(results=[good, bad]) as run:
        assert list(run.results(good)) == [1, -1, 2, -2, 4, -4, 5, -5]
        assert list(run.results(bad)) == ["no 0", "no 3"]
        report = run.wait(20)
    assert report.balances
    assert report.node("check").emitted == 10


def test_source_function_emits_on_named_outputs() -> None:
    @source(outputs={"odd": int})
    def both(ctx: Context) -> Iterator[int]:
        for number in range(10):
            if number % 2:
                ctx.emit(number, "odd")
            else:
                yield number

    numbers, odd = both(), keep()
    graph = Graph("source_ports", numbers >> keep())
    graph.connect(numbers.odd, odd)
    values, report = collect(graph, odd)
    assert values == [1, 3, 5, 7, 9]
    assert report.edge("both.out->keep.in").delivered == 5


def test_metrics_of_all_replicas_add_up_in_the_report() -> None:
    @node
    def measure(x: int, ctx: Context) -> None:
        ctx.metrics.count("messages")
        ctx.metrics.count("weight", x)
        ctx.metrics.gauge("level", 7)

    measured = measure().options(replicas=2)
    graph = Graph("metrics")
    graph.connect(count(100), measured, capacity=4)
    metrics = run_checked(graph).node("measure").metrics
    assert metrics["messages"] == 100
    assert metrics["weight"] == sum(range(100))
    assert metrics["level"] in (7, 14)


def test_context_log_reaches_the_users_stderr_with_the_worker_named(
    capfd: pytest.CaptureFixture[str],
) -> None:
    @sink
    def tell(x: int, ctx: Context) -> None:
        ctx.log.warning("saw {}", x)

    run_checked(Graph("log", count(2) >> tell()))
    lines = [line for line in capfd.readouterr().err.splitlines() if "saw" in line]
    assert len(lines) == 2
    assert "saw 0" in lines[0]
    assert "tell[0]" in lines[0]
    assert "WARNING" in lines[0]


# --- hooks --------------------------------------------------------------------------------


class Step(Node):
    """Writes down when its hooks are called."""

    inp = Input(int)
    out = Output(int)

    def __init__(self, label: str, log: Path) -> None:
        self.label = label
        self.log = log
        self.handled = False

    def on_start(self) -> None:
        write_line(self.log, f"start {self.label}")

    @inp.handler
    def handle(self, x: int) -> int:
        if not self.handled:
            write_line(self.log, f"handle {self.label}")
        self.handled = True
        return x

    def on_end(self) -> None:
        write_line(self.log, f"end {self.label}")

    def on_stop(self) -> None:
        write_line(self.log, f"stop {self.label}")


class First(Node):
    """A source that writes down when it runs."""

    out = Output(int)

    def __init__(self, log: Path) -> None:
        self.log = log

    def on_start(self) -> None:
        write_line(self.log, "start source")

    def produce(self) -> Iterator[int]:
        write_line(self.log, "produce")
        yield from range(10)

    def on_end(self) -> None:
        write_line(self.log, "end source")

    def on_stop(self) -> None:
        write_line(self.log, "stop source")


def test_hooks_are_called_in_topological_order_and_back(tmp_path: Path) -> None:
    log = tmp_path / "log"
    a, b = Step("a", log), Step("b", log)
    run_checked(Graph("hooks", First(log) >> a >> b))
    lines = log.read_text().splitlines()
    assert lines[:3] == ["start source", "start a", "start b"]
    assert lines[3] == "produce"
    assert [line for line in lines if line.startswith("end")] == ["end source", "end a", "end b"]
    assert lines[-3:] == ["stop b", "stop a", "stop source"]
    for label in "ab":
        assert lines.index(f"handle {label}") < lines.index(f"end {label}")


class Summary(Node):
    """Emits at the end only: more than the window of its edge, in the way it is told."""

    inp = Input(int)
    out = Output(int)

    def __init__(self, how: str, n: int) -> None:
        self.how = how
        self.n = n
        self.total = 0

    @inp.handler
    def add(self, x: int) -> None:
        self.total += x

    def on_end(self) -> Any:
        return getattr(self, self.how)()

    def emit(self) -> None:
        for number in range(self.n):
            self.out.emit(self.total + number)

    def generator(self) -> Iterator[int]:
        for number in range(self.n):
            yield self.total + number

    async def async_generator(self) -> AsyncIterator[int]:
        for number in range(self.n):
            yield self.total + number

    async def coroutine(self) -> None:
        self.emit()


@pytest.mark.parametrize("how", ["emit", "generator", "async_generator", "coroutine"])
def test_on_end_may_emit_more_than_the_window(how: str) -> None:
    last = keep()
    summary = Summary(how, 2000)
    graph = Graph("on_end", count(10) >> summary)
    graph.connect(summary, last, capacity=4)
    values, report = collect(graph, last)
    assert values == [45 + n for n in range(2000)]
    assert report.edge("summary.out->keep.in").delivered == 2000


def test_returned_value_of_a_hook_is_emitted() -> None:
    class Greeter(Node):
        inp = Input(int)
        out = Output(str)

        def on_start(self) -> str:
            return "hello"

        @inp.handler
        def pass_on(self, x: int) -> str:
            return str(x)

        async def on_end(self) -> str:
            return "bye"

    greeter, last = Greeter(), keep()
    values, _ = collect(Graph("greet", count(2) >> greeter >> last), last)
    assert values == ["hello", "0", "1", "bye"]


@pytest.mark.parametrize("kind", ["source", "node"])
def test_on_start_may_emit_more_than_the_window_and_comes_first(kind: str) -> None:
    class Eager(Node):
        out = Output(int)

        def on_start(self) -> Iterator[int]:
            yield from range(500)

    class EagerSource(Eager):
        def produce(self) -> Iterator[int]:
            yield from range(500, 600)

    class EagerNode(Eager):
        inp = Input(int)

        @inp.handler
        def handle(self, x: int) -> int:
            return 500 + x

    eager = EagerSource() if kind == "source" else EagerNode()
    last = keep()
    graph = Graph("eager")
    if isinstance(eager, EagerNode):
        graph.connect(count(100), eager.inp)
    graph.connect(eager.out, last, capacity=4)
    values, _ = collect(graph, last)
    assert values == list(range(600))


# --- ticks --------------------------------------------------------------------------------


class Ticker(Node):
    """Emits on every tick and writes a file after the third."""

    inp = Input(int)
    out = Output(str)

    def __init__(self, third: Path) -> None:
        self.third = third
        self.ticks = 0

    @inp.handler
    def handle(self, x: int) -> str:
        return f"message {x}"

    def on_tick(self) -> str:
        self.ticks += 1
        if self.ticks == 3:
            self.third.touch()
        return f"tick {self.ticks}"


@source
def one_then_wait(path: Path) -> Iterator[int]:
    yield 0
    await_file(path)


def test_on_tick_is_called_while_no_message_comes(tmp_path: Path) -> None:
    third = tmp_path / "third"
    ticker, last = Ticker(third).options(tick_s=0.01), keep()
    values, report = collect(Graph("ticks", one_then_wait(third) >> ticker >> last), last)
    ticks = [value for value in values if value.startswith("tick")]
    assert ticks == [f"tick {n}" for n in range(1, len(ticks) + 1)]
    assert len(ticks) >= 3
    assert report.node("ticker").ticks == len(ticks)
    assert "message 0" in values


class Restless(Node):
    """A long burst for each message, with ticks and control messages that emit in between."""

    inp = Input(int)
    control = Input(int, priority=Priority.CONTROL)
    out = Output(tuple)

    @inp.handler
    def burst(self, x: int) -> Iterator[tuple[str, int]]:
        for number in range(5000):
            yield "burst", number

    @control.handler
    def change(self, x: int) -> Iterator[tuple[str, int]]:
        for number in range(5):
            yield "control", 10 * x + number

    def on_tick(self) -> Iterator[tuple[str, int]]:
        yield "tick", 0
        yield "tick", 1


def test_ticks_and_control_messages_do_not_disturb_a_burst_that_waits_for_credit() -> None:
    restless, last = Restless().options(tick_s=0.001), keep()
    graph = Graph("restless")
    graph.connect(count(1), restless.inp)
    graph.connect(restless, last, capacity=8)
    with graph.start(results=[last]) as run:
        values = run.results()
        found = [next(values)]
        for number in range(20):
            run.send(restless.control, number)
        found += values
        report = run.wait(20)
    assert report.balances, report.imbalances
    assert [n for kind, n in found if kind == "burst"] == list(range(5000))
    sent = report.edge("run->restless.control").delivered
    assert [n for kind, n in found if kind == "control"] == [
        10 * x + n for x in range(sent) for n in range(5)
    ]
    assert [n for kind, n in found if kind == "tick"] == [0, 1] * report.node("restless").ticks
