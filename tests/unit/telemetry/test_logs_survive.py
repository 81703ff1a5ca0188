"""Whatever user code logs, and whatever its handlers do, nothing of it ends a run."""

from __future__ import annotations

import io
import json
import logging
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
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
    logs.configure_worker(records.append, WorkerId("square", 1), "r-7", "TRACE")
    return records


class Mute:
    """Something that cannot be shown in any way."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


def test_a_logger_whose_name_is_no_unicode_does_not_end_the_worker(sent: list[Log]) -> None:
    logging.getLogger("name\ud800").warning("text \ud800")
    assert (sent[0].name, sent[0].message) == ("name\\ud800", "text \\ud800")
    assert control.decode(control.encode(sent[0])) == sent[0]


def test_a_level_of_ones_own_can_travel(sent: list[Log]) -> None:
    logger.level("odd\ud800\n", no=25)
    logger.log("odd\ud800\n", "hello")
    assert control.decode(control.encode(sent[0])) == sent[0]


def test_a_line_that_is_no_number_is_none(sent: list[Log]) -> None:
    logs._Intercept().handle(
        logging.makeLogRecord({"name": "app", "levelno": 20, "levelname": "INFO", "lineno": None})
    )
    assert sent[0].line == 0


def test_arguments_that_cannot_be_shown_at_all_lose_only_themselves(sent: list[Log]) -> None:
    record = logging.makeLogRecord({"msg": "bad %s", "args": (Mute(),), "levelname": "ERROR"})
    logs._Intercept().handle(record)
    assert sent[0].message == "<str> with arguments that cannot be shown"


def test_extras_without_end_are_cut(sent: list[Log]) -> None:
    endless: list[Any] = []
    endless.append(endless)
    many = {f"k{i}": i for i in range(10_000)}
    logger.bind(endless=endless, huge="x" * 10**6, **many).info("hello")
    assert len(sent[0].extra) == 101
    assert str(sent[0].extra["…"]).endswith(" more")
    assert len(str(sent[0].extra["huge"])) < 2000
    assert control.decode(control.encode(sent[0])) == sent[0]


def test_a_handler_of_the_users_that_raises_does_not_stop_what_dflow_says(
    sent: list[Log],
) -> None:
    def broken(message: object) -> None:
        raise OSError(28, "No space left on device")

    logger.add(broken, catch=False)
    logs.say(logger, "ERROR", "a handler raised {}: {1} <red>")
    assert [record.message for record in sent] == ["a handler raised {}: {1} <red>"]
    assert sent[0].name == __name__  # the caller's place, not that of `say`


class Full(io.StringIO):
    """A file on a disk that is full."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


class Busy(io.StringIO):
    """What Python says when a signal handler prints while print is at work."""

    def write(self, text: str) -> int:
        raise RuntimeError("reentrant call inside <_io.BufferedWriter name='<stderr>'>")


@pytest.mark.parametrize("stream", [Full(), Busy()])
def test_a_stderr_that_cannot_be_written_is_survived(
    stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    logs.configure_coordinator("json", "INFO")
    logger.info("hello")


def test_a_record_without_a_node_of_its_own_gets_the_one_that_speaks(sent: list[Log]) -> None:
    logs.name_speakers(lambda: "cube")
    logger.info("plain")
    logger.bind(node="square").info("bound")
    logging.getLogger("lib").warning("of a library")
    assert [record.extra["node"] for record in sent] == ["cube", "square", "cube"]


def test_if_nobody_knows_who_speaks_it_is_the_worker(sent: list[Log]) -> None:
    logs.name_speakers(lambda: "")
    logger.info("plain")
    assert sent[0].extra["node"] == "square"


def test_life_is_told_in_fields_to_machines_and_in_a_sentence_to_people(
    capsys: pytest.CaptureFixture[str],
) -> None:
    labels = {"event": "run.draining", "phase": "draining", "within_s": 5.0}
    logs.configure_coordinator("json", "INFO", "r-7")
    logger.bind(**labels).info("draining for up to 5 s")
    told = json.loads(capsys.readouterr().err)
    assert (told["event"], told["phase"], told["run_id"]) == ("run.draining", "draining", "r-7")
    assert told["extra"] == {"within_s": 5.0}
    logs.configure_coordinator("human", "INFO", "r-7")
    logger.bind(**labels).info("draining for up to 5 s")
    assert capsys.readouterr().err.endswith(" draining for up to 5 s\n")


def test_a_workers_own_field_of_that_name_stays_where_it_was(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure_coordinator("json", "INFO")
    logs.emit_remote(Log("INFO", 1.0, "hi", "app", 3, {"event": "mine"}), "a[0]")
    assert json.loads(capsys.readouterr().err)["extra"] == {"event": "mine"}


ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=20)
SIMPLE: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT | st.binary(max_size=9)
)
SIMPLE |= st.builds(Mute)
ANYTHING = st.recursive(
    SIMPLE, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3)
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=ANY_TEXT,
    message=ANY_TEXT,
    extra=st.dictionaries(ANY_TEXT, ANYTHING, max_size=4),
    line=SIMPLE,
    style=st.sampled_from(["json", "human"]),
)
def test_any_record_travels_and_every_json_line_parses(
    name: str, message: str, extra: dict[str, Any], line: Any, style: str, sent: list[Log]
) -> None:
    def odd(record: Any) -> None:
        record["name"], record["line"] = name, line

    sent.clear()
    extra.pop("self", None)
    logger.bind(**extra).patch(odd).info("{}", message)
    arrived = control.decode(control.encode(sent[0]))
    assert isinstance(arrived, Log)
    stream = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        render = logs._render_json if style == "json" else logs._render_human
        patch.setattr(logs, "_render", render)
        logs.emit_remote(arrived, "square[1]")
    stream.getvalue().encode()
    if style == "json":
        assert stream.getvalue().count("\n") == 1
        json.loads(stream.getvalue())
