"""The command line without a run: words, JSON, and exit codes that mean something."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dflow.cli.app import cli
from dflow.cli.exits import exit_of_error
from dflow.cli.run import write_report
from dflow.errors import GraphError, HookFailed, OptionError, StartError, WorkerDied
from dflow.launch import preload
from dflow.report import RunReport

ROOT = Path(__file__).parents[3]
VERBS = ("run", "simulate", "validate", "graph", "status", "coordinator", "worker")
FLOWS = """
from dflow import Graph, node, sink, source

@source
def numbers():
    yield 1

@node
def text(x: int) -> str:
    return str(x)

@sink
def show(x: int) -> None:
    print(x)

graph = Graph("squares", numbers() >> show())
bad = Graph("bad", numbers() >> text() >> show(), text() >> show())
"""


@pytest.fixture(autouse=True)
def flows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """``flows.py`` in the working directory."""
    (tmp_path / "flows.py").write_text(FLOWS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(preload._Preloading, "loaded", None)
    monkeypatch.delenv("DFLOW_TOKEN", raising=False)
    yield tmp_path
    sys.modules.pop("flows", None)


def dflow(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, prog_name="dflow")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example_and_json(verb: str) -> None:
    result = dflow(verb, "--help")
    assert result.exit_code == 0
    assert f"dflow {verb} " in result.output.split("Examples:")[1].split("Options:")[0]
    assert "--json" in result.output


def test_the_help_explains_targets_and_exit_codes() -> None:
    output = dflow("--help").output
    assert "flows.py:graph" in output
    assert "130  ended by Ctrl-C" in output


def test_a_mistyped_verb_is_told_the_nearest() -> None:
    result = dflow("vaildate", "flows.py:graph")
    assert result.exit_code == 2
    assert "no verb 'vaildate'; did you mean 'validate'?" in result.stderr


def test_a_valid_graph_is_counted() -> None:
    result = dflow("validate", "flows.py:graph")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "squares: 2 nodes, 1 edges, 2 workers, no problems\n"


def test_all_problems_of_a_graph_are_listed_at_once() -> None:
    result = dflow("validate", "flows.py:bad")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "graph 'bad' has 3 problems" in result.stderr
    assert "text_2.in: nothing is connected" in result.stderr


def test_problems_as_json_have_their_three_parts() -> None:
    result = dflow("validate", "flows.py:bad", "--json")
    answer = json.loads(result.stdout)
    assert result.exit_code == answer["exit_code"] == 2
    assert answer["ok"] is False
    assert len(answer["problems"]) == 3
    assert set(answer["problems"][0]) == {"where", "what", "next_step", "text"}


@pytest.mark.parametrize("verb", ["validate", "run", "graph", "coordinator"])
def test_an_error_as_json_is_one_object_on_stdout(verb: str) -> None:
    token = ("--token", "long enough") if verb == "coordinator" else ()
    result = dflow(verb, "flows.py:grph", "--json", *token)
    answer = json.loads(result.stdout)
    assert result.exit_code == answer["exit_code"] == 2
    assert answer["error"]["kind"] == "GraphError"
    assert "did you mean 'graph'?" in answer["error"]["message"]


def test_code_that_raises_when_imported_is_a_failed_start(flows: Path) -> None:
    (flows / "broken.py").write_text("value = 1 / 0\n")
    result = dflow("run", "broken.py:graph")
    assert result.exit_code == 3
    assert "ZeroDivisionError" in result.stderr


@pytest.mark.parametrize(
    ("style", "start"), [("mermaid", "flowchart"), ("dot", 'digraph "squares"'), ("svg", "<svg")]
)
def test_a_graph_is_drawn(style: str, start: str) -> None:
    result = dflow("graph", "flows.py:graph", "--format", style)
    assert result.exit_code == 0
    assert result.stdout.startswith(start)
    assert not result.stdout.endswith("\n\n")


def test_a_drawing_goes_to_a_file(flows: Path) -> None:
    result = dflow("graph", "flows.py:graph", "--format", "svg", "-o", "flows.svg")
    assert (result.exit_code, result.stdout) == (0, "")
    assert (flows / "flows.svg").read_text().startswith("<svg")


def test_a_file_that_cannot_be_written_is_a_usage_error() -> None:
    result = dflow("graph", "flows.py:graph", "-o", "no/such/dir/flows.txt")
    assert result.exit_code == 2
    assert "No such file or directory" in result.stderr


def test_the_plan_as_json_has_nodes_edges_and_fingerprint() -> None:
    answer = json.loads(dflow("graph", "flows.py:graph", "--json").stdout)
    assert [node["name"] for node in answer["nodes"]] == ["numbers", "show"]
    assert answer["edges"][0]["id"] == "numbers.out->show.in"
    assert answer["fingerprint"]


def test_an_option_out_of_range_is_a_usage_error() -> None:
    result = dflow("run", "flows.py:graph", "--drain-timeout", "-3")
    assert result.exit_code == 2
    assert "expected seconds >= 0, got -3.0" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("coordinator", "flows.py:graph", "--listen", "7000", "--token", "long enough"), "tcp://"),
        (("coordinator", "flows.py:graph"), "set DFLOW_TOKEN"),
        (("coordinator", "flows.py:graph", "--token", "abc"), "expected at least 8 characters"),
        (("worker", "--join", "tcp://127.0.0.1:7000"), "set DFLOW_TOKEN"),
        (
            ("worker", "--join", "tcp://127.0.0.1", "--token", "long enough"),
            "got 'tcp://127.0.0.1'",
        ),
        (("worker", "--join", "tcp://h:x", "--token", "long enough"), "got 'tcp://h:x'"),
        (("worker", "--join", "tcp://h:1", "--token", "abc"), "expected at least 8 characters"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(
    arguments: tuple[str, ...], message: str
) -> None:
    result = dflow(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize("verb", ["run", "coordinator"])
@pytest.mark.parametrize(
    ("file", "why"), [("no/such/dir/r.json", "No such file"), (".", "is a directory")]
)
def test_a_report_that_cannot_be_written_is_refused_before_the_run(
    verb: str, file: str, why: str
) -> None:
    result = dflow(verb, "flows.py:graph", "--report", file)
    assert result.exit_code == 2
    assert why in result.stderr


def test_a_report_is_not_made_nor_emptied_before_the_run(flows: Path) -> None:
    (flows / "old.json").write_text("kept")
    for file in ("old.json", "new.json"):
        assert dflow("run", "flows.py:bad", "--report", file).exit_code == 2
    assert (flows / "old.json").read_text() == "kept"
    assert not (flows / "new.json").exists()


@pytest.mark.parametrize(("code", "ends"), [(0, 1), (4, 4), (143, 143)])
def test_a_run_whose_report_was_lost_does_not_end_well(
    flows: Path, capsys: pytest.CaptureFixture[str], code: int, ends: int
) -> None:
    made = report("finished")
    assert write_report(made, str(flows), code) == ends
    assert f"error: the report could not be written to {flows}" in capsys.readouterr().err
    assert write_report(made, str(flows / "r.json"), code) == code
    assert write_report(made, None, code) == code


def report(outcome: str, kind: str | None = None) -> RunReport:
    return RunReport("g", "r", outcome, 0.0, 1.0, 1.0, "why" if kind else None, kind)


@pytest.mark.parametrize(
    ("error", "signal", "code"),
    [
        (GraphError("x"), None, 2),
        (OptionError("x"), None, 2),
        (StartError("x"), None, 3),
        (StartError("x", report("failed", "start_failed")), None, 3),
        (WorkerDied("x", report("failed", "worker_died")), None, 1),
        (WorkerDied("x", report("failed", "worker_died")), 2, 1),
        (HookFailed("x"), None, 1),
        (KeyboardInterrupt(), None, 130),
    ],
)
def test_every_error_has_its_exit_code(error: BaseException, signal: int | None, code: int) -> None:
    assert exit_of_error(error, signal) == code


@pytest.mark.parametrize("module", ["dflow.cli", "dflow.__main__"])
def test_being_imported_costs_the_processes_of_a_run_nothing(module: str) -> None:
    script = (
        f"import sys, {module}; print([m for m in ('click', 'rich', 'zmq') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout == "[]\n"
