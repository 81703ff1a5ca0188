"""Ending a run early: drain loses nothing, abort is at once, deadlines hold, signals work."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dflow import Context, DrainTimeout, Graph, Input, Node, Output, sink, source
from tests.integration.flows import (
    count,
    ended_by,
    endless,
    keep,
    python,
    swallow,
    write_line,
)
from tests.support import eventually

pytestmark = pytest.mark.timeout(40)


# --- drain --------------------------------------------------------------------------------


def test_stop_drains_and_nothing_that_was_emitted_is_lost() -> None:
    middle, last = keep(), keep()
    with Graph("drain", endless() >> middle >> last).start(results=last) as run:
        values = run.results()
        found = [next(values) for _ in range(5000)]
        run.stop()
        found += values
        report = run.wait(20)
    assert found == list(range(len(found)))
    assert report.outcome == "drained"
    assert report.balances
    assert report.totals["abandoned"] == 0
    assert report.node("endless").emitted == len(found)


def test_on_end_and_on_stop_run_after_a_drain(tmp_path: Path) -> None:
    class Closes(Node):
        inp = Input(int)
        out = Output(str)

        @inp.handler
        def handle(self, x: int) -> None: ...

        def on_end(self) -> str:
            return "end"

        def on_stop(self) -> None:
            (tmp_path / "stopped").touch()

    closes = Closes()
    with Graph("drain", endless() >> closes).start(results=closes) as run:
        run.stop()
        assert list(run.results()) == ["end"]
        assert run.wait(20).balances
    assert (tmp_path / "stopped").exists()


def test_leaving_the_with_block_drains() -> None:
    with Graph("with", endless() >> swallow()).start() as run:
        pass
    assert run.report is not None
    assert run.report.outcome == "drained"
    assert run.report.balances


def test_source_that_blocks_before_it_returns_its_values_is_interrupted(tmp_path: Path) -> None:
    @source
    def prepares() -> list[int]:
        (tmp_path / "preparing").touch()
        time.sleep(1000)
        return [1]

    with Graph("prepare", prepares() >> swallow()).start() as run:
        eventually((tmp_path / "preparing").exists)
    assert run.report is not None
    assert run.report.outcome == "drained"
    assert run.report.balances


def test_generator_of_a_drained_source_is_closed_so_that_it_can_clean_up(tmp_path: Path) -> None:
    @source
    def cleans_up() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            (tmp_path / "clean").touch()

    source_node = cleans_up()
    with Graph("close", source_node).start(results=source_node) as run:
        assert next(run.results()) == 1  # a generator that never began has nothing to clean up
    assert (tmp_path / "clean").exists()


@pytest.mark.parametrize("kind", ["sleep", "async", "lock"])
def test_source_that_blocks_for_long_is_interrupted_by_a_drain(kind: str) -> None:
    @source
    def sleeps() -> Iterator[int]:
        yield 1
        time.sleep(1000)
        yield 2

    @source
    async def sleeps_async() -> AsyncIterator[int]:
        import asyncio

        yield 1
        await asyncio.sleep(1000)
        yield 2

    @source
    def waits() -> Iterator[int]:
        import threading

        yield 1
        threading.Event().wait(1000)
        yield 2

    blocked = {"sleep": sleeps, "async": sleeps_async, "lock": waits}[kind]
    last = keep()
    with Graph("blocked", blocked() >> last).start(results=last) as run:
        values = run.results()
        assert next(values) == 1
        began = time.monotonic()
        run.stop()
        assert list(values) == []
        report = run.wait(10)
    assert time.monotonic() - began < 5
    assert report.outcome == "drained"
    assert report.balances


def test_hooks_of_an_interrupted_run_are_not_interrupted_themselves(tmp_path: Path) -> None:
    log = tmp_path / "log"

    class SlowToEnd(Node):
        out = Output(int)

        def produce(self, ctx: Context) -> Iterator[int]:
            while True:
                yield 1

        def on_end(self) -> None:
            time.sleep(0.8)
            write_line(log, "ended")

        def on_stop(self) -> None:
            time.sleep(0.8)
            write_line(log, "stopped")

    with Graph("slow", SlowToEnd() >> swallow()).start():
        pass
    assert log.read_text().splitlines() == ["ended", "stopped"]


def test_source_may_end_by_itself_when_it_is_asked_to_stop() -> None:
    @source
    def polite(ctx: Context) -> Iterator[str]:
        while not ctx.stopping:
            yield "more"
        yield "last words"

    last = keep()
    with Graph("polite", polite() >> last).start(results=last) as run:
        values = run.results()
        assert next(values) == "more"
        run.stop()
        assert set(values) <= {"more", "last words"}
        assert run.wait(10).balances


def test_drain_reaches_every_source_and_may_be_asked_for_twice() -> None:
    graph = Graph("sources", [endless(), endless(), count(10)] >> keep() >> swallow())
    with graph.start() as run:
        run.stop()
        run.stop()
        report = run.wait(20)
        run.stop()
    assert report.outcome == "drained"
    assert report.balances


# --- wait ---------------------------------------------------------------------------------


def test_wait_with_a_timeout_leaves_the_run_alone() -> None:
    with Graph("wait", endless() >> swallow()).start() as run:
        with pytest.raises(TimeoutError, match="goes on"):
            run.wait(0.01)
        assert run.phase == "running"
        assert run.report is None
        run.stop()
        report = run.wait(20)
        assert run.wait() is not None
    assert report.balances


# --- abort --------------------------------------------------------------------------------


def test_abort_ends_at_once_and_counts_what_was_abandoned(tmp_path: Path) -> None:
    @sink
    def stuck(x: int) -> None:
        write_line(tmp_path / "reached", x)
        time.sleep(1000)

    run = Graph("abort", endless() >> stuck()).start()
    eventually((tmp_path / "reached").exists)
    began = time.monotonic()
    run.abort("enough")
    report = run.wait(20)
    assert time.monotonic() - began < 5
    assert report.outcome == "aborted"
    assert report.error is not None
    assert "enough" in report.error
    assert report.balances, report.imbalances
    assert report.totals["abandoned"] > 0
    assert run.phase == "finished"


def test_leaving_the_with_block_by_an_exception_aborts() -> None:
    run = Graph("with", endless() >> swallow()).start()
    with pytest.raises(ZeroDivisionError), run:
        raise ZeroDivisionError
    assert run.report is not None
    assert run.report.outcome == "aborted"
    assert run.report.balances


def test_on_stop_is_called_after_an_abort(tmp_path: Path) -> None:
    class Closes(Node):
        inp = Input(int)

        @inp.handler
        def handle(self, x: int) -> None: ...

        def on_stop(self) -> None:
            (tmp_path / "stopped").touch()

    run = Graph("abort", endless() >> Closes()).start()
    run.abort()
    assert run.wait(20).outcome == "aborted"
    assert (tmp_path / "stopped").exists()


# --- drain deadline -----------------------------------------------------------------------


def test_drain_deadline_ends_a_stuck_handler_and_names_edges_and_workers(tmp_path: Path) -> None:
    @sink
    def stuck(x: int) -> None:
        write_line(tmp_path / "reached", x)
        time.sleep(1000)

    run = Graph("deadline", endless() >> stuck()).start(drain_timeout_s=0.3)
    eventually((tmp_path / "reached").exists)
    began = time.monotonic()
    run.stop()
    with pytest.raises(DrainTimeout) as caught:
        run.wait(20)
    assert time.monotonic() - began < 8
    text = str(caught.value)
    assert "0.3 s" in text
    assert "endless.out->stuck.in" in text
    assert "stuck[0]" in text
    report = ended_by(caught.value)
    assert report.outcome == "drain_timeout"
    assert report.edges[0].abandoned > 0


def test_handler_that_ignores_the_interrupt_is_killed_in_the_end(tmp_path: Path) -> None:
    @sink
    def stubborn(x: int) -> None:
        write_line(tmp_path / "reached", x)
        while True:
            try:
                time.sleep(1000)
            except BaseException:  # noqa: BLE001 - what a test of stubbornness needs
                continue

    run = Graph("stubborn", endless() >> stubborn()).start(drain_timeout_s=0.2)
    eventually((tmp_path / "reached").exists)
    run.stop()
    with pytest.raises(DrainTimeout) as caught:
        run.wait(30)
    assert "stubborn[0]" in str(caught.value)
    assert caught.value.report is not None


# --- signals ------------------------------------------------------------------------------

SCRIPT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's & and nohup ignore it
from pathlib import Path
from dflow import Graph, sink, source
import dflow

here = Path(sys.argv[1])

@source
def forever():
    number = 0
    while True:
        yield number
        number += 1

@sink
def show(x, stuck):
    if x == 0:
        (here / "running").touch()
        if stuck:
            import time
            time.sleep(1000)

if __name__ == "__main__":
    report = Graph("signals", forever() >> show(sys.argv[2] == "stuck")).run()
    print("balances" if report.balances else "DOES NOT BALANCE", report.outcome)
"""


@contextmanager
def signalled_script(tmp_path: Path, mode: str) -> Iterator[subprocess.Popen[str]]:
    path = tmp_path / "signals.py"
    path.write_text(SCRIPT)
    with python(path, tmp_path, mode) as process:
        eventually((tmp_path / "running").exists, within_s=20)
        yield process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_or_sigterm_drains_and_the_script_goes_on(
    tmp_path: Path, number: signal.Signals
) -> None:
    with signalled_script(tmp_path, "free") as process:
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert out == "balances drained\n"
    assert "Traceback" not in err
    assert process.returncode == 0


def test_ctrl_c_twice_stops_now_with_a_keyboard_interrupt(tmp_path: Path) -> None:
    with signalled_script(tmp_path, "stuck") as process:
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)  # it drains, and the handler is stuck
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert time.monotonic() - began < 6
    assert process.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in err


SLOW_START = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from pathlib import Path
from dflow import Graph, Node, Output

class Slow(Node):
    out = Output(int)

    def on_start(self):
        Path(sys.argv[1], "running").touch()
        try:
            time.sleep(1000)
        finally:
            Path(sys.argv[1], "interrupted").touch()
            time.sleep(1000)

    def produce(self):
        yield 1

if __name__ == "__main__":
    Graph("slow", Slow()).run()
"""


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_while_a_run_starts_ends_it_and_leaves_nothing(tmp_path: Path, times: int) -> None:
    path = tmp_path / "slow.py"
    path.write_text(SLOW_START)
    with python(path, tmp_path) as process:
        eventually((tmp_path / "running").exists, within_s=20)
        process.send_signal(signal.SIGINT)
        if times == 2:
            eventually((tmp_path / "interrupted").exists, within_s=20)
            process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
    assert process.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in err
