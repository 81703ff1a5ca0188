"""Logs: whatever a worker says arrives whole, a JSON line parses, and nothing raises."""

from __future__ import annotations

import io
import json
import logging
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loguru import logger

from dflow.graph.plan import WorkerId
from dflow.telemetry import logs
from dflow.wire import control
from dflow.wire.control import Log

pytestmark = pytest.mark.usefixtures("own_logging")


@pytest.fixture
def sent() -> list[Log]:
    """Records of this process, which is now worker ``square[1]``."""
    records: list[Log] = []
    logs.configure_worker(records.append, WorkerId("square", 1), "r-7", "DEBUG")
    return records


def log(message: str = "hello", **changes: object) -> Log:
    fields = {"level": "INFO", "time_s": 1.5, "name": "app", "line": 3, "extra": {}, **changes}
    return Log(message=message, **fields)  # type: ignore[arg-type]  # checked by the tests' use


def test_a_record_carries_its_worker_run_place_and_bound_context(sent: list[Log]) -> None:
    logger.bind(batch=4).warning("half {}", "full")
    (record,) = sent
    assert (record.level, record.message) == ("WARNING", "half full")
    assert record.extra == {"run_id": "r-7", "node": "square", "replica": 1, "batch": 4}
    assert (record.name, record.line > 0) == (__name__, True)


def test_stdlib_logging_is_not_lost_and_keeps_its_place(sent: list[Log]) -> None:
    logging.getLogger("their.module").info("read %d rows", 3)
    (record,) = sent
    assert (record.level, record.message, record.name) == ("INFO", "read 3 rows", "their.module")


def test_the_users_script_goes_by_the_name_its_user_knows(sent: list[Log]) -> None:
    exec("from loguru import logger; logger.info('hi')", {"__name__": "__dflow_main__"})
    assert sent[0].name == "__main__"


def test_stdlib_arguments_that_do_not_fit_are_shown(sent: list[Log]) -> None:
    app = logging.getLogger("app")
    record = app.makeRecord("app", logging.ERROR, "app.py", 1, "%d rows", ("three",), None)
    logs._Intercept().handle(record)  # not through the root: pytest's handlers there raise
    assert sent[0].message == "'%d rows' % ('three',)"


def test_a_stdlib_level_of_ones_own_becomes_the_nearest(sent: list[Log]) -> None:
    logging.getLogger("app").log(34, "odd")
    assert sent[0].level == "WARNING"


def test_records_below_the_level_are_not_sent() -> None:
    records: list[Log] = []
    logs.configure_worker(records.append, WorkerId("a"), "r", "WARNING")
    logger.info("quiet")
    logging.getLogger("app").info("quiet")
    assert records == []


def test_an_exception_arrives_with_its_traceback_and_without_values(sent: list[Log]) -> None:
    secret = "payload of a stranger"
    try:
        raise ValueError(len(secret))
    except ValueError:
        logger.exception("handler failed")
    text = sent[0].message
    assert text.startswith("handler failed\nTraceback")
    assert text.endswith("ValueError: 21")
    assert "test_logs.py" in text
    assert secret not in text.replace(f'secret = "{secret}"', "")


def test_braces_and_markup_are_text(sent: list[Log]) -> None:
    logging.getLogger("app").info("{0} <red>{x}</red> %")
    assert sent[0].message == "{0} <red>{x}</red> %"


def test_every_record_can_travel(sent: list[Log]) -> None:
    class Bad:
        def __str__(self) -> str:
            raise RuntimeError

    logger.bind(bad=Bad(), big=2**80, nan=float("nan"), where=b"\xff", ok=1.5).info("\udcff")
    extra = dict(sent[0].extra)
    assert extra["bad"] == "<Bad>"
    assert extra["big"] == str(2**80)
    assert extra["ok"] == 1.5
    assert control.decode(control.encode(sent[0])) == sent[0]


def test_a_huge_message_is_cut_and_says_so(sent: list[Log]) -> None:
    logger.info("{}", "x" * 1_000_000)
    assert len(sent[0].message) < 70_000
    assert sent[0].message.endswith("(1000000 characters)")


def test_a_sender_that_fails_does_not_reach_the_user() -> None:
    def broken(record: Log) -> None:
        raise ConnectionError(record.message)

    logs.configure_worker(broken, WorkerId("a"), "r", "INFO")
    logger.info("still here")
    logging.getLogger("app").warning("still here")


def test_file_handlers_of_the_user_stay_and_console_handlers_go(
    capsys: pytest.CaptureFixture[str],
) -> None:
    file, console = io.StringIO(), logging.StreamHandler(sys.stderr)
    logging.getLogger().addHandler(console)
    logger.remove()
    logger.add(file, format="{message}")
    logger.add(sys.stderr, format="twice {message}")
    records: list[Log] = []
    logs.configure_worker(records.append, WorkerId("a"), "r", "INFO")
    logger.info("once")
    logging.getLogger("app").warning("once")
    assert [record.message for record in records] == ["once", "once"]
    assert file.getvalue().splitlines() == ["once", "once"]
    assert capsys.readouterr() == ("", "")


def test_the_coordinator_writes_remote_and_own_records_in_order(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure_coordinator("human", "INFO")
    logs.emit_remote(log("first\nand more", extra={"run_id": "r", "row": 9}), "square[0]")
    logger.info("second")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith("INFO     square[0] app:3 first")
    assert lines[1] == "    and more row=9"
    assert lines[2].split()[1:3] == ["INFO", "coordinator"]
    assert "\x1b" not in "".join(lines)


def test_a_terminal_gets_colour_unless_it_says_no(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def written() -> str:
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        logs.configure_coordinator("human", "INFO")
        logs.emit_remote(log(level="ERROR"), "a[0]")
        return terminal.getvalue()

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[31m" in written()
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in written()


def test_json_has_one_flat_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure_coordinator("json", "INFO")
    extra = {"run_id": "r", "node": "square", "replica": 0, "row": 9}
    logs.emit_remote(log("a\nb", extra=extra), "square[0]")
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:01.500000+00:00",
        "level": "INFO",
        "worker": "square[0]",
        "run_id": "r",
        "node": "square",
        "replica": 0,
        "message": "a\nb",
        "name": "app",
        "line": 3,
        "extra": {"row": 9},
    }


def test_a_dead_stderr_is_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    for stream in (closed, None):
        monkeypatch.setattr(sys, "stderr", stream)
        logs.configure_coordinator("human", "INFO")
        closed.close()
        logs.emit_remote(log(), "a[0]")


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()


@given(
    message=st.text(st.characters(exclude_categories=())),
    time_s=st.floats(),
    extra=st.dictionaries(st.text(), PLAIN | st.lists(PLAIN)),
    style=st.sampled_from(["json", "human"]),
)
def test_any_record_is_rendered_and_json_always_parses(
    message: str, time_s: float, extra: dict[str, object], style: str
) -> None:
    stream = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        logs.configure_coordinator(style, "INFO")
        logs.emit_remote(log(message, time_s=time_s, extra=extra), "square[0]")
    if style == "json":
        json.loads(stream.getvalue())
        assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().endswith("\n")
