"""``dflow simulate``: what it prints, and with which exit code it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dflow.cli.app import cli
from dflow.flow.credit import SendWindow

FLOW = """
from dflow import Graph, edge, sink, source

@source
def numbers():
    yield from range(30)

@sink(on_error="stop")
def store(x: int) -> None:
    if x == LIMIT:
        raise ValueError("as told")

LIMIT = {limit}
graph = Graph("flow", numbers() >> edge(capacity=4) >> store())
"""


def simulate(tmp_path: Path, *options: str, limit: int = -1) -> Result:
    """Simulate a graph whose sink raises at ``limit``."""
    file = tmp_path / "flow.py"
    file.write_text(FLOW.format(limit=limit))
    return CliRunner().invoke(cli, ["simulate", f"{file}:graph", *options])


def test_one_run_prints_its_report_and_its_seed(tmp_path: Path) -> None:
    result = simulate(tmp_path, "--seed", "7")
    assert result.exit_code == 0
    assert "books balance: 30 sent = 30 delivered" in result.output
    assert "flow, seed 7: 1 finished" in result.output


def test_many_runs_are_counted_and_the_last_leaves_its_trace(tmp_path: Path) -> None:
    trace = tmp_path / "trace.txt"
    options = ("--seed", "1", "--count", "3", "--drop-reports", "0.1", "--trace", str(trace))
    result = simulate(tmp_path, *options, "--json")
    told = json.loads(result.output)
    assert (told["ok"], told["outcomes"], told["seed"]) == (True, {"finished": 3}, 1)
    assert "BATCH" in trace.read_text()


def test_a_run_that_fails_is_told_with_its_seed(tmp_path: Path) -> None:
    result = simulate(tmp_path, "--seed", "3", "--count", "5", limit=9)
    assert result.exit_code == 1
    assert "seed 3: HookFailed" in result.output
    assert "as told" in result.output


def test_a_worker_that_was_to_be_killed_is_no_failure(tmp_path: Path) -> None:
    result = simulate(tmp_path, "--seed", "1", "--count", "4", "--kill-workers", "1")
    assert result.exit_code == 0


def test_a_broken_promise_is_told_with_as_few_faults_as_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SendWindow, "room", property(lambda self: 100))
    result = simulate(tmp_path, "--seed", "1", "--stall-workers", "2", "--json")
    assert result.exit_code == 1
    told = json.loads(result.output)
    assert told["error"]["kind"] == "SimulationFailed"
    assert told["error"]["message"].startswith("depth: edge numbers.out->store.in")
    assert "Stall" not in told["error"]["message"]
