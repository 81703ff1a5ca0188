"""The bundle of a run that has nobody left to gather one: what the launching process knows.

For a run whose coordinator or agent died, one that never had any, and one that is over. Most runs
need none of this, so what it takes is imported when it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from dflow.clock import CLOCK
from dflow.errors import BundleError
from dflow.launch.local import warn
from dflow.message import EXTERNAL
from dflow.report import RunReport, RunStatus

if TYPE_CHECKING:
    from dflow.graph.plan import Plan
    from dflow.options import RunOptions

__all__ = ["Remains"]


class Remains:
    """Writes the bundles of one run, from its launching process."""

    def __init__(self, plan: Plan, run_id: str, options: RunOptions, started_s: float) -> None:
        self._plan = plan
        self._run_id = run_id
        self._options = options
        self._started_s = started_s

    def write(
        self,
        directory: str,
        files: Mapping[str, str],
        report: RunReport | None = None,
        last: RunStatus | None = None,
        cause: Mapping[str, Any] | None = None,
    ) -> str:
        """Write ``files``, or what is known here if there are none; return where.

        ``last``: the last status anybody here heard of. Raises `BundleError`.
        """
        from dflow.bundle.folder import folder_name, write

        name = folder_name(self._plan.name, self._run_id)
        return write(files or self._files(report, last, cause), directory, name)

    def leave(
        self,
        kind: str,
        text: str,
        report: RunReport | None = None,
        last: RunStatus | None = None,
    ) -> str | None:
        """Write the bundle of a run that failed, if one is wanted; a warning says why it cannot."""
        if self._options.bundle is None:
            return None
        cause = {"outcome": "failed", "kind": kind, "text": text}
        try:
            return self.write(self._options.bundle, {}, report, last, cause)
        except BundleError as error:
            warn(f"no failure bundle: {error}")
            return None

    def leave_live(self, bundle: Callable[[str], str]) -> None:
        """Call ``bundle`` before a run is ended for an exception here, if one is wanted."""
        if self._options.bundle is None:
            return
        try:
            warn(f"the with block failed; failure bundle: {bundle(self._options.bundle)}")
        except BundleError as error:
            warn(f"no failure bundle: {error}")

    def _files(
        self, report: RunReport | None, last: RunStatus | None, cause: Mapping[str, Any] | None
    ) -> dict[str, str]:
        from dflow.broker.case import Case
        from dflow.bundle.contents import Found, files_of
        from dflow.bundle.environment import environment
        from dflow.worker.dump import dump

        now_s = CLOCK.wall_s()
        if not cause and report is not None and report.error is not None:
            cause = {"outcome": report.outcome, "kind": report.error_kind, "text": report.error}
        phase = report.outcome if report is not None else "not known"
        status = last or RunStatus(self._plan.name, self._run_id, phase, now_s - self._started_s)
        me = f"{EXTERNAL}[0]"
        names = [*(str(worker) for worker in self._plan.workers), me]
        case = Case(
            self._plan, self._run_id, 1, phase, now_s, self._started_s, 0.0,
            asdict(self._options), status, {}, tuple(_seat(name, me) for name in names), {}, [],
            {me: dump(dict, CLOCK)}, (), cause or {}, report,
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
