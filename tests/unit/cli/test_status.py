"""``dflow status``: which run is meant, and what the screen shows."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from dflow.cli.app import cli
from dflow.cli.screen import screen
from dflow.launch import rundir
from dflow.launch.rundir import LiveRun
from dflow.report import EdgeStatus, KeyStatus, NodeStatus, RunStatus
from dflow.telemetry.choice import edges_worth_showing, nodes_worth_showing

STATUS = RunStatus(
    "orders",
    "3f2a91bc",
    "running",
    75.0,
    nodes=(
        NodeStatus("shop", "source", 1, 0, 12_345, 0, ("running",)),
        NodeStatus("work", "node", 3, 12_000, 11_990, 7, ("running", "drained", "running")),
        NodeStatus("ship", "sink", 1, 11_000, 0, 0, ("running",), paused=True),
        NodeStatus("run", "external", 1, 0, 0, 0, ("running",)),
    ),
    edges=(
        EdgeStatus("shop.out->work.in", 12_345, 12_000, 60, 64, "drop", 20, 43, 12_000, 11_999,
                   dropped=285),
        EdgeStatus("work.out->ship.in", 11_990, 11_000, 4, 2_048, "block", 3, 4, 11_000, 10_999,
                   oldest_s=2.25, keys=(KeyStatus("ann", 3, 2, 1, 9, 4), KeyStatus("bob", 1, 1))),
    ),
)  # fmt: skip


def shown(status: RunStatus, *, keys: bool = False) -> list[str]:
    """Return the lines of the screen."""
    console = Console(width=200, file=None)
    with console.capture() as capture:
        console.print(screen(status, keys=keys))
    return [line.rstrip() for line in capture.get().splitlines()]


def large(count: int) -> RunStatus:
    """Return a long chain: one node has an error, one has drained, one has much to do."""
    nodes = [NodeStatus(f"n{i}", "node", 1, workers=("running",)) for i in range(count)]
    nodes[7] = replace(nodes[7], errors=2)
    nodes[9] = replace(nodes[9], workers=("drained",))
    edges = [EdgeStatus(f"n{i}.out->n{i + 1}.in", capacity=100) for i in range(count - 1)]
    edges[4] = replace(edges[4], depth=90)
    edges[2] = replace(edges[2], oldest_s=3.0)
    return replace(STATUS, nodes=tuple(nodes), edges=tuple(edges))


def test_of_a_large_run_the_rows_are_shown_that_stand_out() -> None:
    status = large(1000)
    assert [node.name for node in nodes_worth_showing(status, 3)] == ["n5", "n7", "n9"]
    edges = edges_worth_showing(status.edges, 2)
    assert [edge.id for edge in edges] == ["n2.out->n3.in", "n4.out->n5.in"]


def test_a_small_run_is_shown_whole() -> None:
    assert nodes_worth_showing(STATUS, 3) == list(STATUS.nodes[:3])
    assert edges_worth_showing(STATUS.edges, 2) == list(STATUS.edges)


def test_the_screen_says_what_it_leaves_out() -> None:
    console = Console(width=200, file=None)
    with console.capture() as capture:
        console.print(screen(large(1000), most=2))
    lines = capture.get().splitlines()
    beginnings = [line.split()[0] if line.strip() else "" for line in lines]
    edges = ["n2.out->n3.in", "n4.out->n5.in"]
    assert beginnings == ["orders", "", "node", "n7", "n9", "and", "", "edge", *edges, "and"]
    assert lines[5].rstrip() == "and 998 nodes that stand out less; --all"
    assert lines[-1].rstrip() == "and 997 edges that stand out less; --all"


def test_the_screen_shows_nodes_and_edges_and_leaves_out_what_is_empty() -> None:
    assert shown(STATUS) == [
        "orders (3f2a91bc)  running for 1 min 15 s  1 paused",
        "",
        "node  state                 replicas  handled  emitted  errors",
        "shop  running                      1        0   12,345       0",
        "work  2 running, 1 drained         3   12,000   11,990       7",
        "ship  paused                       1   11,000        0       0",
        "",
        "edge               policy    depth  waiting  in flight   taken    done  oldest  dropped",
        "shop.out->work.in  drop      60/64       20         43  12,000  11,999              285",
        "work.out->ship.in  block   4/2,048        3          4  11,000  10,999   2.2 s        0",
    ]


def test_keys_are_shown_when_asked_for() -> None:
    assert shown(STATUS, keys=True)[-3:] == [
        "edge               key  depth  waiting  in flight  done  rejected",
        "work.out->ship.in  ann      3        2          1     9         4",
        "                   bob      1        1          0     0         0",
    ]
    without = RunStatus("g", "r", "running", 1.0, edges=(EdgeStatus("a->b"),))
    assert shown(without, keys=True)[-1] == "no edge counts by key"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.254, "0.25 s"), (12.34, "12.3 s"), (119.6, "2 min 0 s"), (7_260, "2 h 1 min")],
)
def test_times_are_told_as_people_do(seconds: float, text: str) -> None:
    assert shown(RunStatus("g", "r", "draining", seconds))[0] == f"g (r)  draining for {text}"


# --- which run -----------------------------------------------------------------------------


def dflow(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["status", *arguments], prog_name="dflow")


@pytest.fixture
def two_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs, neither of which answers."""
    began = time.time() - 5
    runs = [
        LiveRun(run_id, graph, "token", 4711, began, "/nowhere")
        for run_id, graph in (("aa11", "orders"), ("ab22", "squares"))
    ]
    monkeypatch.setattr(rundir, "live_runs", lambda: runs)


@pytest.mark.parametrize("run", [[], ["aa11"]])
def test_without_any_run_it_says_so(run: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rundir, "live_runs", list)
    result = dflow(*run)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: no run of yours is under way on this host; start one")


@pytest.mark.usefixtures("two_runs")
@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([], 2, "2 runs are under way; name one:\n  aa11  orders        5 s  agent 4711\n  ab22"),
        (["a"], 2, "2 runs begin with 'a'; say more:\n  aa11"),
        (["ab23"], 1, "no run 'ab23'; did you mean 'ab22'?; under way:\n  aa11"),
        (["zz"], 1, "no run 'zz'; under way:\n  aa11"),
    ],
)
def test_a_run_that_is_not_clear_gets_the_list(arguments: list[str], code: int, says: str) -> None:
    result = dflow(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert says in result.stderr
    answer = json.loads(dflow(*arguments, "--json").stdout)
    assert answer["exit_code"] == code
    assert says in answer["error"]["message"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["aa11", "--join", "tcp://127.0.0.1:1"], "give either a RUN or --join"),
        (["--join", "127.0.0.1:1"], "expected an address like tcp://10.0.0.5:7000"),
        (["--join", "tcp://127.0.0.1:1"], "set DFLOW_TOKEN"),
        (["--join", "tcp://127.0.0.1:1", "--token", "short"], "at least 8 characters"),
    ],
)
def test_wrong_usage_is_told(
    arguments: list[str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DFLOW_TOKEN", raising=False)
    result = dflow(*arguments)
    assert result.exit_code == 2
    assert says in result.stderr


def test_a_coordinator_that_does_not_answer_is_taken_to_be_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = LiveRun("aa11", "orders", "token", 4711, 0.0, str(tmp_path))
    monkeypatch.setattr(rundir, "live_runs", lambda: [run])
    monkeypatch.setattr("dflow.launch.observer.ANSWER_S", 0.2)
    result = dflow()
    assert result.exit_code == 1
    assert "no answer within 0.2 s; the run has ended, or its coordinator" in result.stderr
