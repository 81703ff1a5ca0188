"""What the coordinator's process adds to a bundle, and that it never raises."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dflow.bundle import keeper
from dflow.bundle.folder import read
from dflow.bundle.keeper import Keeper
from dflow.graph.plan import WorkerId
from dflow.telemetry.recent import RECENT
from dflow.wire.control import Log
from tests.unit.broker_pair import TOKEN, chain
from tests.unit.bundle.made import failed


@pytest.fixture(autouse=True)
def no_logs() -> Iterator[None]:
    RECENT.clear()
    yield
    RECENT.clear()


def made(run_dir: str = "") -> Keeper:
    return Keeper(run_dir, TOKEN, lambda: '{"stacks": "thread MainThread"}')


def log(text: str, time_s: float) -> Log:
    return Log("INFO", time_s, text, "flows", 1, {})


def test_fused_nodes_have_one_log_in_the_order_of_time() -> None:
    plan = replace(chain("a", "b", "c"), fused=(("a", "b"),))
    RECENT.note(log("second", 2.0), "b[0]")
    RECENT.note(log("first", 1.0), "a[0]")
    RECENT.note(log("third", 3.0), "coordinator")
    files = made().files(replace(failed(), plan=plan))
    lines = [line.split()[-1] for line in files["processes/a[0]/log.txt"].splitlines()]
    assert lines == ["first", "second"]
    assert files["processes/coordinator/log.txt"].endswith(" third\n")


def test_a_worker_that_crashed_is_there_with_the_stacks_it_left(tmp_path: Path) -> None:
    (tmp_path / "stacks-100").write_text("Fatal Python error: Segmentation fault\n")
    files = made(str(tmp_path)).files(failed())
    told = files["processes/b[0]/stacks.txt"]
    assert told.startswith("left when it crashed (faulthandler):\nFatal Python error")


def test_what_was_seen_from_outside_is_in_the_next_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "seen_from_outside", lambda pid, run_dir: f"saw {pid}")
    one = made()
    one.probe([(WorkerId("c"), 7), (WorkerId("a"), 0)])
    files = one.files(replace(failed(), words={}))
    assert files["processes/c[0]/stacks.txt"] == "saw 7"
    assert "processes/a[0]/stacks.txt" not in files


def test_a_bundle_is_kept_where_the_options_say(tmp_path: Path) -> None:
    case = replace(failed(), options={"bundle": str(tmp_path)})
    path, error = made().keep(case)
    assert (path, error) == (str(tmp_path / "dflow-test-r1"), "")
    assert read(path).problems == []


@pytest.mark.parametrize("error", [OSError("no"), RuntimeError("no"), RecursionError("no")])
def test_whatever_goes_wrong_is_told_and_nothing_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(keeper, "environment", fails)
    path, why = made().keep(replace(failed(), options={"bundle": str(tmp_path)}))
    assert (path, why) == ("", f"{type(error).__name__}: no")
