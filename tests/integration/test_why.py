"""Real runs that are stuck say why: what a replica does is read off live workers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from dflow import DrainTimeout, Graph, edge, node, sink, source
from dflow.runtime import Run
from dflow.why import Why
from tests.integration.flows import await_file, count
from tests.integration.test_cli import dflow, flows
from tests.support import eventually

__all__ = ["flows"]

pytestmark = pytest.mark.timeout(60)

LET_GO_S = 0.2
"""What a drain may take that cannot succeed."""


@node
def double(x: int) -> int:
    """Pass on."""
    return 2 * x


@sink
def hold(x: int, gate: str) -> None:
    """Keep the first message until the file is there."""
    await_file(Path(gate))


@source
def one_then_silence(gate: str) -> Any:
    """Emit one value, and wait for a file."""
    yield 1
    await_file(Path(gate))


def stuck_line(gate: Path) -> Graph:
    """Return a graph whose sink holds its first message."""
    parts = count(10**6) >> double() >> edge(capacity=8) >> hold(str(gate))
    return Graph("line", parts)


def await_why(run: Run, text: str, *, stuck: bool = True) -> Why:
    """Return why the run does not get on, once that says ``text``."""
    found: list[Why] = []

    def says() -> bool:
        found[:] = [run.why()]
        said = "\n".join(chain.line for chain in found[0].chains)
        return text in said and found[0].stuck is stuck

    eventually(says, within_s=20.0)
    return found[0]


def kinds(why: Why) -> list[str]:
    """Return what the first chain leads over, from its cause on."""
    return [link.name for link in why.chains[0].links]


def tell_why(run: Run, flows: Path) -> None:
    """Ask in Python and on the terminal."""
    why = await_why(run, ", at ")
    assert kinds(why) == [
        "hold[0]", "double.out->hold.in", "double[0]", "count.out->double.in", "count[0]",
    ]  # fmt: skip
    assert "is handling one message of double.out->hold.in for" in why.text
    assert re.search(r", at \w+\.py:\d+ in \w+ → edge", why.chains[0].line)
    shown = dflow(flows, "status", "--why")
    assert shown.returncode == 0, shown.stderr
    assert "held up by hold:" in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 79
    told = json.loads(dflow(flows, "status", "--why", "--json").stdout)
    assert told["why"]["stuck"] is True
    assert told["status"]["nodes"][-1]["doing"][0]["what"] == "handler"


def test_a_stuck_sink_is_told_in_python_on_the_terminal_and_at_the_drains_deadline(
    tmp_path: Path, flows: Path
) -> None:
    run = stuck_line(tmp_path / "gate").start(drain_timeout_s=LET_GO_S)
    with pytest.raises(DrainTimeout) as caught, run:
        tell_why(run, flows)
    text = str(caught.value)
    assert "still busy: double[0], hold[0]\nwho waited for whom:\n  hold (pid " in text


def test_a_paused_node_and_results_that_nobody_reads() -> None:
    doubled = double()
    graph = Graph("line", count(10**6) >> doubled)
    with graph.start(results=[doubled]) as run:
        await_why(run, "the launching process has not read results")
        run.pause("double")
        await_why(run, "double is paused")
        run.abort()


def test_a_fan_in_with_an_input_that_does_not_end(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    merge, idle = double(), one_then_silence(str(gate))
    graph = Graph("fan_in", [count(10) >> merge, idle >> merge])
    with graph.start() as run:
        why = await_why(run, "for a message, or the end", stuck=False)
        assert kinds(why)[:2] == ["one_then_silence[0]", "double[0]"]
        assert "(count has ended)" in why.text
        gate.touch()


def test_fused_nodes_wait_for_the_one_whose_code_runs(tmp_path: Path) -> None:
    parts = count(10**6), double(), hold(str(tmp_path / "gate"))
    graph = Graph("fused", parts[0] >> parts[1] >> parts[2])
    graph.fuse(*parts)
    with graph.start() as run:
        why = await_why(run, "which runs in the same worker")
        assert kinds(why)[0] == "hold[0]"
        run.abort()
