"""The bundle of a run that has nobody left to gather one: what the launching process knows.

For a run whose coordinator or agent died, one that never had any, and one that is over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from dflow.broker.case import Case
from dflow.bundle.contents import Found, files_of
from dflow.bundle.environment import environment
from dflow.clock import CLOCK
from dflow.graph.plan import Plan
from dflow.message import EXTERNAL
from dflow.options import RunOptions
from dflow.report import RunReport, RunStatus
from dflow.worker.dump import dump

__all__ = ["remains"]


def remains(
    plan: Plan,
    run_id: str,
    options: RunOptions,
    started_s: float,
    cause: Mapping[str, Any],
    report: RunReport | None,
    last: RunStatus | None,
) -> dict[str, str]:
    """Return the files of a bundle; ``last``: the last status anybody here heard of."""
    now_s = CLOCK.wall_s()
    if not cause and report is not None and report.error is not None:
        cause = {"outcome": report.outcome, "kind": report.error_kind, "text": report.error}
    phase = report.outcome if report is not None else "not known"
    status = last or RunStatus(plan.name, run_id, phase, now_s - started_s)
    me = f"{EXTERNAL}[0]"
    names = [*(str(worker) for worker in plan.workers), me]
    case = Case(
        plan, run_id, 1, phase, now_s, started_s, 0.0, asdict(options), status, {},
        tuple(_seat(name, me) for name in names), {}, [],
        {me: dump(dict, CLOCK)}, (), cause, report,
    )  # fmt: skip
    note = "made by the launching process alone: no process of the run could be asked"
    return files_of(case, Found(environment=environment(), notes=(note,)))


def _seat(name: str, me: str) -> dict[str, Any]:
    mine = name == me
    return {
        "name": name, "role": "handle" if mine else "worker", "fused_with": [], "pid": 0,
        "host": "", "step": "not known", "joined": mine, "answered": mine,
        "unreachable": False, "exit": "", "killed_by_run": False, "silent_s": None,
    }  # fmt: skip
