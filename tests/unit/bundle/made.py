"""Bundles for tests, made as a coordinator makes them: from a fleet whose run failed."""

from __future__ import annotations

import json
from typing import Any

from dflow.broker.case import Case
from dflow.bundle.contents import Found, files_of
from dflow.bundle.folder import Bundle
from dflow.bundle.words import plain
from dflow.graph.plan import Plan, WorkerId
from dflow.options import RunOptions
from dflow.telemetry.recent import Remembered
from dflow.wire import control as c
from tests.unit.broker_pair import TOKEN, Fleet, chain

__all__ = ["STACKS", "bundle_of", "failed", "files", "opened", "said"]

STACKS = """thread MainThread, most recent last:
  File "/x/dflow/worker/loop.py", line 76, in run
    self._advance()
  File "/home/me/flows.py", line 19, in stuck
    time.sleep(1000)

thread dflow-pulse, which tells this, most recent last:
  File "/x/dflow/worker/pulse.py", line 193, in _run
    self._beat()
"""


def said(stacks: str = STACKS, **more: Any) -> str:
    """Return the words of a worker about itself."""
    story = [[1.0, "on_start raised: starting -> failed", 1, 1.0], [2.0, "Abort", 3, 4.0]]
    known = {"pid": 5, "clock_s": 900.0, "stacks": stacks, "standing": {"story": story}}
    return json.dumps(known | more)


def failed(plan: Plan | None = None, signal: str | None = "SIGKILL") -> Case:
    """Return the case of a run whose worker b died by a signal, or whose handler raised."""
    fleet = Fleet(
        plan or chain("a", "b", "c"), with_handle=True, options=RunOptions(bundle="/bundles")
    )
    for fake in fleet.fakes.values():
        fake.mute = {c.Run}
        fake.words_of_itself = said()
    fleet.join()
    if signal is not None:
        fleet.exit(WorkerId("b"), None, signal)
    else:
        fleet.say(fleet.fake("b"), c.Failed("handler", "ValueError: boom (flows.py:3)", "tb"))
    return fleet.cases[0]


LOGS = {
    "a[0]": [Remembered(1000.5, "INFO", "flows:3", "three\nis odd")],
    "b[0]": [Remembered(1000.2, "ERROR", "flows:9", "\x1b[31mno disk"),
             Remembered(1000.3, "WARNING", "flows:9", "last words")],
}  # fmt: skip


def files(case: Case, **found: Any) -> dict[str, str]:
    """Return the files of a bundle."""
    return files_of(case, Found(**{"logs": LOGS} | found), TOKEN)


def opened(contents: dict[str, str]) -> Bundle:
    """Return a bundle as if it had been read."""
    return Bundle(plain("/bundles/one"), contents)


def bundle_of(case: Case, **found: Any) -> Bundle:
    """Return the bundle of ``case``."""
    return opened(files(case, **found))
