"""A failing test leaves what is known of its runs: a plugin for pytest, of every suite.

While a test goes on, every run of it, in this process or a child's, that fails leaves its failure
bundle in a directory of its own (``DFLOW_BUNDLE``); so does one whose ``with`` block is left by an
exception, which is what an assertion does. If the test fails, runs that still go on are dumped,
too, and all of it is moved to where it stays, with how to repeat the test (a seed that it drew is
told if it says ``record_property("DFLOW_SEED", seed)``); if it passes, what runs
that failed on purpose have left is removed. ``DFLOW_BUNDLES`` says where (default: .bundles/).
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections import deque
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import pytest

from dflow.bundle.wanted import VARIABLE

__all__ = ["KEPT_IN", "Bundles", "install"]

KEPT_IN = "DFLOW_BUNDLES"
_DEFAULT = Path(__file__).parents[1] / ".bundles"
_TOLD = ("DFLOW_STRESS", "DFLOW_SHARDS", "PYTHONHASHSEED", "DFLOW_SEED")
_MOST_REPORTS = 20
_NAME = "dflow-bundles"


def install(config: pytest.Config) -> None:
    """Have failing tests of this session leave bundles; more than once does no harm."""
    if not config.pluginmanager.has_plugin(_NAME):
        seed = str(getattr(config.option, "hypothesis_seed", ""))
        place = Path(os.environ.get(KEPT_IN) or _DEFAULT)
        config.pluginmanager.register(Bundles(place, seed), _NAME)


class Bundles:
    """``place``: where bundles of failing tests stay; ``kept``: the directories made there."""

    def __init__(self, place: Path, seed: str) -> None:
        self.kept: list[Path] = []
        self._place = place.absolute()
        self._pending = self._place / f".pending-{os.getpid()}"
        self._seed = seed
        self._reports: deque[str] = deque(maxlen=_MOST_REPORTS)
        self._before = os.environ.get(VARIABLE)

    # --- the session ----------------------------------------------------------------------

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        """Have runs leave their bundles here."""
        os.environ[VARIABLE] = str(self._pending)

    def pytest_sessionfinish(self) -> None:
        """Leave nothing but what failing tests left."""
        if self._before is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = self._before
        self._forget()
        if self._place.is_dir() and not any(self._place.iterdir()):
            self._place.rmdir()

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print where they are."""
        if self.kept:
            terminalreporter.section("failure bundles")
            for path in self.kept:
                terminalreporter.write_line(f"{path}/test.txt")
                for entry in sorted(path.glob("*/")):
                    terminalreporter.write_line(f"  dflow doctor {entry}")

    # --- a test ---------------------------------------------------------------------------

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Begin each test with nothing, and remember how its runs ended."""
        self._reports.clear()
        try:
            return (yield)
        finally:
            self._forget()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Keep what there is when a test fails, before its fixtures end the runs."""
        report = yield
        if report.when == "call":
            self._remember_ended()
        if report.failed:
            try:
                path = self.keep(item.nodeid, report.longreprtext, dict(item.user_properties))
            except Exception as error:  # noqa: BLE001  # a test must fail for its own reason
                report.sections.append(("failure bundle", f"none: {error!r}"))
            else:
                if path is not None:
                    report.sections.append(("failure bundle", str(path)))
        return report

    def keep(self, test: str, why: str, recorded: Mapping[str, object]) -> Path | None:
        """Move what the runs of ``test`` left to where it stays; None if it had no runs.

        ``recorded``: what it has given to ``record_property``; its seed is among that.
        """
        for run in _live_runs():
            run.bundle(self._pending)
        if not self._pending.is_dir() and not self._reports:
            return None
        name = re.sub(r"[^A-Za-z0-9_-]+", "_", test.replace(".py", ""))[-100:].strip("_")
        path = self._free(name or "test")
        path.parent.mkdir(parents=True, exist_ok=True)
        if self._pending.is_dir():
            self._pending.rename(path)
        else:
            path.mkdir()
        self._describe(path, test, why, recorded)
        self.kept.append(path)
        return path

    def _free(self, name: str) -> Path:
        path, number = self._place / name, 1
        while path.exists():
            number += 1
            path = self._place / f"{name}-{number}"
        return path

    def _describe(self, path: Path, test: str, why: str, recorded: Mapping[str, object]) -> None:
        again = f"--hypothesis-seed={self._seed}" if self._seed else ""
        known = os.environ | {name: str(value) for name, value in recorded.items()}
        told = [f"{name}={known[name]}" for name in _TOLD if name in known]
        command = " ".join([*told, "pytest", f"'{test}'", again]).strip()
        lines = [test, "", f"repeat it with: {command}", "", why, "", *self._reports]
        (path / "test.txt").write_text("\n".join(lines), encoding="utf-8", errors="replace")

    def _remember_ended(self) -> None:
        """Keep the reports of runs of this process that have ended."""
        for run in _runs():
            if run.report is not None:
                self._reports.append(f"{run.report}\n")

    def _forget(self) -> None:
        if self._pending.is_dir():
            shutil.rmtree(self._pending, ignore_errors=True)


def _runs() -> list[Any]:
    """Return the runs of this process that somebody still holds."""
    runtime = sys.modules.get("dflow.runtime")
    return [] if runtime is None else list(runtime.RUNS)


def _live_runs() -> list[Any]:
    return [run for run in _runs() if run.report is None and run.phase in _GOING_ON]


_GOING_ON = ("binding", "linking", "starting", "running", "draining", "stopping", "aborting")
