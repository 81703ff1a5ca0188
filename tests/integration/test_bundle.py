"""Failure bundles of real runs: what they hold, what the doctor says, and what they cost."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest

from dflow import CoordinatorDied, Graph, RunError, WorkerDied
from dflow.bundle.doctor import diagnose
from dflow.bundle.folder import Bundle, read
from tests.integration.flows import endless, keep, swallow
from tests.integration.test_cli import dflow, flows, started
from tests.support import eventually

__all__ = ["flows"]

pytestmark = pytest.mark.timeout(60)


def only(folder: Path) -> Bundle:
    (path,) = folder.iterdir()
    return read(str(path))


def after_death(kind: type[RunError], victim: str, folder: Path) -> RunError:
    """Kill a process of a run with a bundle in ``folder``; return the error of the run."""
    run = Graph("deadly", endless() >> keep() >> swallow()).start(bundle=str(folder))
    eventually(lambda: run.status().edges[1].delivered > 0)
    os.kill(run.pids[victim], signal.SIGKILL)
    with pytest.raises(kind) as failed:
        run.wait()
    return failed.value


def test_a_killed_worker_leaves_a_bundle_that_says_so(tmp_path: Path) -> None:
    error = after_death(WorkerDied, "keep[0]", tmp_path)
    bundle = only(tmp_path)
    assert error.__notes__ == [
        f"failure bundle: {bundle.path}\nread it with: dflow doctor {bundle.path}"
    ]
    assert getattr(error.report, "bundle", None) == bundle.path
    found = diagnose(bundle)
    assert found.missing == []
    assert {p.name: p.bad for p in found.processes} == {
        "endless[0]": False, "keep[0]": True, "swallow[0]": False, "run[0]": False,
    }  # fmt: skip
    first = [
        trouble.what for trouble in found.troubles[:2]
    ]  # its link may break before it is reaped
    assert any(what.startswith("keep[0] exited: killed by SIGKILL") for what in first)
    for name in ("endless[0]", "swallow[0]", "coordinator", "run[0]"):
        assert "File " in bundle.text(f"processes/{name}/stacks.txt")
    assert "keep[0]" in bundle.data("counters.json")


def test_a_stuck_sink_is_named_with_its_line_and_the_full_edge(flows: Path) -> None:
    with started(
        flows, "run", "--bundle", "flows.py:stuck", "--no-progress", "--drain-timeout", "0.5"
    ) as run:
        eventually(lambda: "stuck" in dflow(flows, "status").stdout, within_s=20)
        live = dflow(flows, "bundle", "-o", "live")
        assert live.returncode == 0, live.stderr
        assert Path(live.stdout.strip()).parent == flows / "live"
        run.process.send_signal(signal.SIGINT)
        assert run.ended() == 4
    (path,) = flows.glob("dflow-stuck-*")
    shown = dflow(flows, "doctor", str(path))
    assert "drain_timeout: the drain deadline of 0.5 s has passed" in shown.stdout
    assert re.search(r"sleeps\[0\] +answered, at flows.py:\d+ in sleeps", shown.stdout)
    assert f"dflow doctor {path}" in run.err.read_text()
    looked = json.loads(dflow(flows, "doctor", live.stdout.strip(), "--json").stdout)
    assert looked["diagnosis"]["ended_by"] == ""


def test_python_writes_one_of_a_live_run_and_what_is_known_after_its_end(tmp_path: Path) -> None:
    with Graph("live", endless() >> keep() >> swallow()).start() as run:
        during = read(run.bundle(tmp_path))
        run.stop()
        run.wait()
    after = read(run.bundle(tmp_path))
    assert "processes/run[0]/stacks.txt" in during.files
    assert after.data("report.json")["balances"]
    assert (during.path, after.path) == (f"{after.path[:-2]}", f"{during.path}-2")


def test_a_run_whose_coordinator_was_killed_leaves_what_the_launching_process_knew(
    tmp_path: Path,
) -> None:
    error = after_death(CoordinatorDied, "coordinator", tmp_path)
    bundle = only(tmp_path)
    assert bundle.path in error.__notes__[0]
    assert diagnose(bundle).kind == "process_died"
    assert "made by the launching process alone" in " ".join(diagnose(bundle).missing)


def test_a_full_disk_changes_nothing_but_that_there_is_no_bundle(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    error = after_death(WorkerDied, "swallow[0]", tmp_path / "file")
    assert getattr(error, "__notes__", []) == []
    assert "no failure bundle: expected to write a bundle of about" in capfd.readouterr().err
