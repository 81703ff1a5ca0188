"""Exceptions in user code: skipped and told by default, or the end of the run when asked."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from dflow import (
    Context,
    Graph,
    GraphError,
    HookFailed,
    Input,
    Node,
    OptionError,
    Output,
    PortError,
    StartError,
    edge,
    node,
    sink,
    source,
)
from tests.integration.flows import Inlet, collect, count, ended_by, keep, swallow, write_line

pytestmark = pytest.mark.timeout(30)
HERE = Path(__file__).name


@node
def fails_on_odd(x: int) -> int:
    if x % 2:
        raise ValueError(f"boom {x}")  # the line that the log must name
    return x


@node
async def fails_on_odd_async(x: int) -> int:
    return int(fails_on_odd.function(x))


@node
def fails_after_one(x: int) -> Iterator[int]:
    yield x
    fails_on_odd.function(x)


@node
async def fails_after_one_async(x: int) -> AsyncIterator[int]:
    yield x
    fails_on_odd.function(x)


LINE = next(
    number
    for number, line in enumerate(Path(__file__).read_text().splitlines(), 1)
    if "the line that the log must name" in line
)


# --- on_error="skip" ----------------------------------------------------------------------


@pytest.mark.parametrize("make", [fails_on_odd, fails_on_odd_async])
def test_failing_message_is_skipped_counted_and_logged_with_the_users_line(
    make: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    last = make()
    values, report = collect(Graph("skip", count(6) >> last), last)
    assert values == [0, 2, 4]
    assert report.node(last.name).errors == 3
    assert report.node(last.name).handled == 6
    err = capfd.readouterr().err
    assert "ValueError: boom 1" in err
    assert f"{HERE}:{LINE}" in err
    assert "skipped" in err
    assert f"{last.name}[0]" in err


@pytest.mark.parametrize("make", [fails_after_one, fails_after_one_async])
def test_generator_that_fails_keeps_what_it_has_emitted(make: Any) -> None:
    last = make()
    values, report = collect(Graph("skip", count(4) >> last), last)
    assert values == [0, 1, 2, 3]
    assert report.node(last.name).errors == 2


def test_flood_of_errors_is_logged_a_few_times_and_counted_all(
    capfd: pytest.CaptureFixture[str],
) -> None:
    @sink
    def always(x: int) -> None:
        raise RuntimeError("again")

    graph = Graph("flood", count(5000) >> always())
    with graph.start() as run:
        report = run.wait(20)
    assert report.node("always").errors == 5000
    assert report.balances
    logged = [line for line in capfd.readouterr().err.splitlines() if "handler raised" in line]
    assert 5 <= len(logged) <= 20


def test_source_that_raises_ends_and_what_it_emitted_arrives(
    capfd: pytest.CaptureFixture[str],
) -> None:
    @source
    def breaks() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("the disk is gone")

    last = keep()
    values, report = collect(Graph("source", breaks() >> last, count(3) >> last), last)
    assert sorted(values) == [0, 1, 1, 2, 2]
    assert report.node("breaks").errors == 1
    assert "the disk is gone" in capfd.readouterr().err


def test_source_that_raises_before_its_first_value_is_told_as_well(
    capfd: pytest.CaptureFixture[str],
) -> None:
    @source
    def broken() -> list[int]:
        raise LookupError("nothing to list")

    last = keep()
    values, report = collect(Graph("source", broken() >> last), last)
    assert values == []
    assert report.node("broken").errors == 1
    assert "nothing to list" in capfd.readouterr().err


class Hooks(Node):
    """Raises in the hook it is told, and writes down the others."""

    inp = Input(int)
    out = Output(int)

    def __init__(self, log: Path, bad: str = "") -> None:
        self.log = log
        self.bad = bad
        self.options(tick_s=0.01)

    def _hook(self, name: str, ctx: Context) -> None:
        write_line(self.log, f"{name} {ctx.node}")
        if name == self.bad:
            raise RuntimeError(f"bad {name}")

    @inp.handler
    def handle(self, x: int) -> int:
        return x

    def on_start(self, ctx: Context) -> None:
        self._hook("on_start", ctx)

    def on_tick(self, ctx: Context) -> None:
        if self.bad == "on_tick":
            raise RuntimeError("bad on_tick")

    def on_end(self, ctx: Context) -> None:
        self._hook("on_end", ctx)

    def on_stop(self, ctx: Context) -> None:
        self._hook("on_stop", ctx)


@pytest.mark.parametrize("bad", ["on_end", "on_stop"])
def test_hook_that_raises_at_the_end_is_told_and_loses_nothing(
    bad: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    hooks, last = Hooks(tmp_path / "log", bad), keep()
    values, report = collect(Graph("hooks", count(50) >> hooks >> last), last)
    assert values == list(range(50))
    assert report.node("hooks").errors == 1
    err = capfd.readouterr().err
    assert f"bad {bad}" in err
    assert HERE in err


# --- on_error="stop" ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [fails_on_odd, fails_on_odd_async, fails_after_one, fails_after_one_async]
)
def test_stop_ends_the_run_with_the_users_traceback(make: Any) -> None:
    last = make().options(on_error="stop")
    with pytest.raises(HookFailed) as caught:
        Graph("stop", count(100_000) >> last >> swallow()).run()
    text = str(caught.value)
    assert "ValueError: boom 1" in text
    assert f'{HERE}", line {LINE}' in text
    assert f"{last.name}[0]" in text
    assert "dflow/worker" not in text
    report = ended_by(caught.value)
    assert report.outcome == "failed"
    assert report.error_kind == "hook_failed"
    assert report.node(last.name).errors >= 1


def test_stop_ends_the_run_when_a_source_raises() -> None:
    @source
    def breaks() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    with pytest.raises(HookFailed, match="the disk is gone"):
        Graph("stop", breaks().options(on_error="stop") >> swallow()).run()


def test_stop_ends_the_run_when_on_end_raises(tmp_path: Path) -> None:
    hooks = Hooks(tmp_path / "log", "on_end").options(on_error="stop")
    with pytest.raises(HookFailed, match="bad on_end") as caught:
        Graph("stop", count(5) >> hooks >> swallow()).run()
    assert "on_end" in str(caught.value)
    ended_by(caught.value)


def test_stop_ends_the_run_when_on_tick_raises(tmp_path: Path) -> None:
    @source
    def waits(ctx: Context) -> Iterator[int]:
        import threading

        while not ctx.stopping:
            yield 1
            threading.Event().wait(0.01)

    hooks = Hooks(tmp_path / "log", "on_tick").options(on_error="stop")
    with pytest.raises(HookFailed, match="bad on_tick") as caught:
        Graph("stop", waits() >> hooks >> swallow()).run()
    ended_by(caught.value)


# --- on_start -----------------------------------------------------------------------------


class Begins(Node):
    """A source that writes down that it ran."""

    out = Output(int)

    def __init__(self, log: Path) -> None:
        self.log = log

    def produce(self) -> Iterator[int]:
        write_line(self.log, "produce")
        yield 1


def test_on_start_that_raises_means_the_run_never_starts(tmp_path: Path) -> None:
    log = tmp_path / "log"
    first = Hooks(log).options(name="first")
    second = Hooks(log, "on_start").options(name="second")
    third = Hooks(log).options(name="third")
    with pytest.raises(HookFailed) as caught:
        Graph("start", Begins(log) >> first >> second >> third).start()
    text = str(caught.value)
    assert "RuntimeError: bad on_start" in text
    assert HERE in text
    assert "second[0]" in text
    assert log.read_text().splitlines() == [
        "on_start first",
        "on_start second",
        "on_stop first",
    ]
    assert ended_by(caught.value).totals["sent"] == 0


@pytest.mark.alone
def test_on_start_that_takes_too_long_is_a_start_error_that_names_it(tmp_path: Path) -> None:
    class Sleepy(Node):
        inp = Input(int)

        @inp.handler
        def handle(self, x: int) -> None: ...

        def on_start(self) -> None:
            time.sleep(1000)

    began = time.monotonic()
    with pytest.raises(StartError) as caught:
        Graph("sleepy", count(1) >> Sleepy()).start(start_timeout_s=2.0)  # the others start in it
    assert time.monotonic() - began < 9
    assert "sleepy[0]" in str(caught.value)
    assert "2 s" in str(caught.value)


def test_node_whose_init_raises_in_the_worker_is_a_start_error(tmp_path: Path) -> None:
    class OnlyHere(Node):
        inp = Input(int)

        def __init__(self, log: Path) -> None:
            write_line(log, "made")
            if len(log.read_text().splitlines()) > 1:
                raise RuntimeError("not twice")

        @inp.handler
        def handle(self, x: int) -> None: ...

    with pytest.raises(StartError, match="RuntimeError: not twice") as caught:
        Graph("init", count(1) >> OnlyHere(tmp_path / "log")).run()
    assert "only_here[0]: __init__" in str(caught.value)
    assert HERE in str(caught.value)


# --- mistakes of the caller ---------------------------------------------------------------


def test_options_out_of_range_raise_where_they_are_given() -> None:
    with pytest.raises(OptionError, match="replicas"):
        keep().options(replicas=0)
    with pytest.raises(OptionError, match="capacity"):
        edge(capacity=0)
    with pytest.raises(OptionError, match="on_error"):
        keep().options(on_error="ignore")
    graph = Graph("options", count(1) >> swallow())
    with pytest.raises(OptionError, match="transport"):
        graph.start(transport="carrier pigeon")
    with pytest.raises(OptionError, match="did you mean 'transport'"):
        graph.start(transprot="ipc")
    with pytest.raises(OptionError, match="drain_timeout_s"):
        graph.run(drain_timeout_s=-1)


def test_graph_with_problems_does_not_start_anything() -> None:
    @node
    def text(x: str) -> str:
        return x

    graph = Graph("bad", count(1) >> text() >> swallow(), keep())
    with pytest.raises(GraphError) as caught:
        graph.run()
    assert len(caught.value.problems) == 2


def test_emitting_on_an_unknown_port_names_the_known_ones(
    capfd: pytest.CaptureFixture[str],
) -> None:
    @node
    def wrong(x: int, ctx: Context) -> None:
        ctx.emit(x, "outt")

    last = wrong()
    values, report = collect(Graph("wrong", count(1) >> last), last)
    assert values == []
    assert report.node("wrong").errors == 1
    assert "expected an output port ('out'), got 'outt'" in capfd.readouterr().err


def test_sending_to_what_is_not_an_input_raises_at_once() -> None:
    inlet = Inlet()
    with Graph("ports", inlet).start() as run:
        with pytest.raises(PortError, match=r"inlet\.data or inlet\.settings"):
            run.send(inlet, 1)
        with pytest.raises(PortError, match="expected an input"):
            run.send(inlet.out, 1)  # type: ignore[arg-type]  # the mistake under test
        with pytest.raises((PortError, GraphError), match="keep"):
            run.send(keep(), 1)
        with pytest.raises(PortError, match="results"):
            run.results(inlet.out)
        run.stop()
        assert run.wait(20).balances
