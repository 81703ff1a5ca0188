"""The plugin by which a failing test leaves its runs' bundles, seen from outside."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONFTEST = """
from tests import bundles

def pytest_configure(config):
    bundles.install(config)
    bundles.install(config)
"""
TESTS = """
import os
from pathlib import Path

import pytest

from dflow import runtime


class FakeRun:
    report = None
    phase = "running"

    def bundle(self, folder):
        (Path(folder) / "dflow-live").mkdir(parents=True)


def leaves(name):
    folder = Path(os.environ["DFLOW_BUNDLE"]) / name
    folder.mkdir(parents=True)


def test_passes():
    leaves("dflow-failed-on-purpose")


@pytest.mark.parametrize("word", ["a/b", "..", "x" * 300])
def test_fails(word, record_property):
    record_property("DFLOW_SEED", 4321)
    record_property("other", "thing")
    leaves("dflow-one")
    raise AssertionError("the reason")


def test_without_runs():
    raise AssertionError("the reason")


def test_fails_while_a_run_goes_on():
    test_fails_while_a_run_goes_on.run = FakeRun()
    runtime.RUNS.add(test_fails_while_a_run_goes_on.run)
    raise AssertionError("the reason")


@pytest.fixture
def broken():
    yield
    raise RuntimeError("at the end")


def test_whose_end_fails(broken):
    leaves("dflow-two")
"""


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Run the tests above; return what was printed, and the directory for bundles."""
    folder = tmp_path_factory.mktemp("session")
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_them.py").write_text(TESTS)
    kept = folder / "kept"
    environment = os.environ | {"DFLOW_BUNDLES": str(kept), "PYTHONPATH": str(ROOT)}
    environment["DFLOW_BUNDLE"] = "as it was"
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)],
        capture_output=True, text=True, env=environment, check=False, cwd=folder,
    )  # fmt: skip
    return ended.stdout, kept


def test_a_failing_test_keeps_its_bundles_and_says_where(session: tuple[str, Path]) -> None:
    printed, kept = session
    folder = kept / "test_them_test_fails_a_b"
    assert (folder / "dflow-one").is_dir()
    assert f"{folder}/test.txt\n  dflow doctor {folder}/dflow-one\n" in printed


def test_it_is_told_how_to_repeat_it_and_why_it_failed(session: tuple[str, Path]) -> None:
    told = (session[1] / "test_them_test_fails_a_b" / "test.txt").read_text()
    assert told.startswith("test_them.py::test_fails[a/b]\n")
    assert "repeat it with: DFLOW_SEED=4321 pytest 'test_them.py::test_fails[a/b]'" in told
    assert "the reason" in told


def test_runs_that_still_go_on_are_dumped(session: tuple[str, Path]) -> None:
    assert (session[1] / "test_them_test_fails_while_a_run_goes_on" / "dflow-live").is_dir()


def test_a_failure_after_the_test_counts_too(session: tuple[str, Path]) -> None:
    assert (session[1] / "test_them_test_whose_end_fails" / "dflow-two").is_dir()


def test_nothing_of_a_passing_test_is_left_and_no_name_leads_elsewhere(
    session: tuple[str, Path],
) -> None:
    names = sorted(entry.name for entry in session[1].iterdir())
    assert len(names) == 5
    assert not [name for name in names if "purpose" in name or name.startswith(".")]
    assert all(len(name) <= 100 for name in names)
    assert "5 failed, 2 passed, 1 error" in session[0]
