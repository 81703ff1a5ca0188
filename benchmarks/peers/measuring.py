"""One measurement in a fresh process: its time limit, its temp directory, nothing left of it.

Peers start processes of their own, some of them daemons. This process becomes the one that
inherits what they orphan (Linux's child subreaper), so whatever lives after a measurement is a
descendant, and is ended by its id. Home and temp directory are the measurement's own and removed.
Where the system allows it, others' code runs in a network of its own that has loopback only: some
peers listen on all addresses.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import psutil

from benchmarks.peers.environment import ROOT
from benchmarks.peers.verdict import Round, judge
from benchmarks.peers.work import Job

__all__ = ["Failed", "loopback_only", "measure"]

_PR_SET_CHILD_SUBREAPER = 36
_GRACE_S = 3.0
_SHARED = Path("/dev/shm")
_LEFT = ("*.zenoh", "sem.hdr*", "sem.obj*")
"""Names of what dora's transport and Ray's compiled graphs leave in shared memory."""


class Failed(Exception):
    """A measurement has no result; the text says why."""


@cache
def loopback_only() -> tuple[str, ...]:
    """Return what runs a command in a network of its own, or nothing where that is not allowed.

    It takes root. A user namespace would do without, but in one less memory may be locked, which
    costs dora its shared memory.
    """
    inside = 'ip link set lo up && exec "$@"'
    prefix = ("unshare", "--net", "sh", "-c", inside, "sh")
    try:
        done = subprocess.run([*prefix, "true"], capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return prefix if done.returncode == 0 else ()


def measure(
    python: Path, adapter: str, work: str, count: int, limit_s: float, prefix: tuple[str, ...] = ()
) -> Round:
    """Run one adapter once and judge what its sinks saw; raises `Failed`.

    ``prefix``: what starts the command, as `loopback_only` has it.
    """
    _inherit_orphans()
    shared = _shared_files()
    with tempfile.TemporaryDirectory(prefix="peers", ignore_cleanup_errors=True) as folder:
        job = Job(work, count, folder)
        log = Path(folder, "log")
        try:
            _run([*prefix, str(python)], adapter, job, log, limit_s)
        finally:
            _end_descendants()
            _remove_shared(_shared_files() - shared)
        found = sorted(Path(folder).glob("seen-*.json"))
        if not found:
            raise Failed(f"no sink ended; the last line of its log: {_last_line(log)}")
        return judge(job, [json.loads(one.read_text(encoding="utf-8")) for one in found])


def _run(python: list[str], adapter: str, job: Job, log: Path, limit_s: float) -> None:
    home = Path(job.folder, "home")
    home.mkdir()
    env = {
        **{name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ},
        "HOME": str(home),
        "TMPDIR": job.folder,
        "PYTHONPATH": str(ROOT),
    }
    command = [*python, "-m", "benchmarks.peers.one", adapter, job.work, str(job.count)]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, job.folder], stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=env
        )
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            raise Failed(f"took longer than {limit_s:.0f} s") from None
    if code:
        raise Failed(f"ended with {code}: {_last_line(log)}")


def _last_line(log: Path) -> str:
    lines = [
        line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line
    ]
    return lines[-1][:200] if lines else "it wrote none"


def _inherit_orphans() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _end_descendants() -> None:
    """End all processes below this one: asked first, then killed; resource trackers last.

    A tracker removes the shared memory of those it served once they are gone, and ends by itself.
    """
    me = psutil.Process()
    for ask in (psutil.Process.terminate, psutil.Process.kill):
        left = [one for one in me.children(recursive=True) if not _is_tracker(one)]
        for one in left:
            _quietly(ask, one)
        psutil.wait_procs(left, timeout=_GRACE_S)
    trackers = me.children(recursive=True)
    _, alive = psutil.wait_procs(trackers, timeout=_GRACE_S)
    for one in alive:
        _quietly(psutil.Process.kill, one)
    psutil.wait_procs(alive, timeout=_GRACE_S)


def _is_tracker(process: psutil.Process) -> bool:
    try:
        return any("resource_tracker" in part for part in process.cmdline())
    except psutil.Error:
        return False


def _quietly(ask: Callable[..., None], process: psutil.Process) -> None:
    with contextlib.suppress(psutil.Error):
        ask(process)


def _shared_files() -> set[Path]:
    return set(_SHARED.iterdir()) if _SHARED.is_dir() else set()


def _remove_shared(files: set[Path]) -> None:
    """Remove what a measurement left in shared memory and nobody maps any more."""
    for file in files:
        if any(file.match(pattern) for pattern in _LEFT) and not _is_mapped(file):
            file.unlink(missing_ok=True)


def _is_mapped(file: Path) -> bool:
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            if str(file) in maps.read_text(encoding="utf-8", errors="replace"):
                return True
        except OSError:
            continue
    return False
