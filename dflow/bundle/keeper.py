"""The hands of a coordinator that keeps a bundle: what only a process can look at, and the disk.

Everything is decided elsewhere (`dflow.broker.gathering`). A bundle is never worth a run: what
cannot be looked at is left out, and what cannot be written is said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

from dflow.broker.case import Case
from dflow.bundle import folder
from dflow.bundle.contents import Found, files_of
from dflow.bundle.environment import environment
from dflow.bundle.stacks import left_behind, seen_from_outside
from dflow.clock import CLOCK
from dflow.errors import BundleError
from dflow.graph.plan import Plan, WorkerId
from dflow.telemetry.recent import RECENT, Remembered

__all__ = ["Keeper"]

_LOOK_S = 4.0
"""What looking at silent processes may take in all."""


class Keeper:
    """Writes and hands out the bundles of one run.

    ``run_dir``: where processes leave their stacks; "" if there is no such place. ``token`` must be
    in no bundle. ``me`` returns the coordinator's own dump.
    """

    def __init__(self, run_dir: str, token: str, me: Callable[[], str]) -> None:
        self._run_dir = run_dir
        self._token = token
        self._me = me
        self._outside: dict[str, str] = {}

    def probe(self, silent: Iterable[tuple[WorkerId, int]]) -> None:
        """Look at processes that do not answer, for the next bundle."""
        until_s = CLOCK.monotonic_s() + _LOOK_S
        for worker, pid in silent:
            if CLOCK.monotonic_s() > until_s:
                self._outside[str(worker)] = "not looked at: too many do not answer"
            elif pid > 0:
                with suppress(OSError):
                    self._outside[str(worker)] = seen_from_outside(pid, self._run_dir)

    def files(self, case: Case) -> dict[str, str]:
        """Return the files of a bundle of ``case``."""
        outside = dict(self._outside)
        for seat in case.seats:
            crashed = left_behind(self._run_dir, int(seat["pid"])) if seat["exit"] else ""
            if crashed:
                outside[seat["name"]] = f"left when it crashed (faulthandler):\n{crashed}"
        logs, lost = _logs(case.plan)
        found = Found(
            logs=logs,
            lost=lost,
            outside=outside,
            me=self._me(),
            environment=environment(),
        )
        return files_of(case, found, self._token)

    def keep(self, case: Case) -> tuple[str, str]:
        """Write the bundle of a run that failed; return where it is and "", or "" and why not."""
        base = str(case.options.get("bundle") or ".")
        name = folder.folder_name(case.plan.name, case.run_id)
        try:
            return folder.write(self.files(case), base, name), ""
        except BundleError as error:
            return "", str(error)
        except Exception as error:  # noqa: BLE001  # whatever it is: the run ends as it would have
            return "", f"{type(error).__name__}: {error}"


def _logs(plan: Plan) -> tuple[dict[str, list[Remembered]], dict[str, int]]:
    """Return what each process logged last, and how many earlier records are not kept.

    Fused nodes log by their own names, and are in one process.
    """
    hosts = {str(inside): str(host) for host in plan.workers for inside in plan.members(host)}
    logs: dict[str, list[Remembered]] = {}
    lost: dict[str, int] = {}
    for name in RECENT:
        host = hosts.get(name, name)
        logs.setdefault(host, []).extend(RECENT.records(name))
        lost[host] = lost.get(host, 0) + RECENT.lost(name)
    for records in logs.values():
        records.sort(key=lambda record: record.time_s)
    return logs, lost
