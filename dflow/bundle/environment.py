"""What surrounds a run: versions, machine, limits. Only what is named here, never all there is.

Environment variables, command lines and options of nodes hold passwords, so this is a list of
what may be told, and not of what may not.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from dflow.version import __version__

__all__ = ["TOLD_VARIABLES", "environment", "process_facts"]

TOLD_VARIABLES = (
    "CI", "COLUMNS", "DFLOW_BUNDLE", "DFLOW_SHARDS", "DFLOW_STRESS", "LANG", "LC_ALL",
    "MALLOC_ARENA_MAX", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS",
    "PYTHONDEVMODE", "PYTHONDONTWRITEBYTECODE", "PYTHONFAULTHANDLER", "PYTHONHASHSEED",
    "PYTHONMALLOC", "PYTHONOPTIMIZE", "PYTHONUNBUFFERED", "PYTHONWARNINGS", "TERM", "TMPDIR",
    "TZ",
)  # fmt: skip
"""Environment variables that are told. None of them can hold a secret."""

_PACKAGES = ("pyzmq", "msgpack", "loguru", "click", "rich", "psutil", "cloudpickle", "numpy",
             "pyarrow", "torch", "uvloop", "greenlet", "pytest", "hypothesis")  # fmt: skip
_LIMITS = ("RLIMIT_AS", "RLIMIT_CORE", "RLIMIT_DATA", "RLIMIT_FSIZE", "RLIMIT_MEMLOCK",
           "RLIMIT_NOFILE", "RLIMIT_NPROC", "RLIMIT_STACK")  # fmt: skip


def environment() -> dict[str, Any]:
    """Return versions, machine, limits and some variables, as plain data; never raises."""
    facts: dict[str, Callable[[], Any]] = {
        "dflow": lambda: __version__,
        "python": lambda: sys.version,
        "executable": lambda: sys.executable,
        "system": lambda: " ".join(os.uname()[0::2]),  # not the name of the host
        "cores": os.cpu_count,
        "cores_allowed": _cores_allowed,
        "memory": _memory,
        "load": os.getloadavg,
        "packages": _packages,
        "libzmq": _libzmq,
        "limits": lambda: {name: resource.getrlimit(getattr(resource, name)) for name in _LIMITS},
        "control_group": _control_group,
        "ptrace_scope": lambda: _first_line("/proc/sys/kernel/yama/ptrace_scope"),
        "overcommit": lambda: _first_line("/proc/sys/vm/overcommit_memory"),
        "variables": lambda: {k: os.environ[k] for k in TOLD_VARIABLES if k in os.environ},
    }
    told: dict[str, Any] = {}
    for name, fact in facts.items():
        try:
            told[name] = fact()
        except Exception as error:  # noqa: BLE001  # one that nobody knows here
            told[name] = f"not known ({type(error).__name__})"
    return told


def process_facts() -> dict[str, Any]:
    """Return memory, descriptors and times of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    facts: dict[str, Any] = {
        "user_s": used.ru_utime,
        "system_s": used.ru_stime,
        "largest_rss_kb": used.ru_maxrss,
        "python": sys.version.partition(" ")[0],
        "dflow": __version__,
    }
    with suppress(OSError):
        facts["descriptors"] = len(os.listdir("/proc/self/fd"))
    with suppress(OSError, ValueError, IndexError):
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        facts["rss_kb"] = pages * os.sysconf("SC_PAGE_SIZE") // 1024
    return facts


def _cores_allowed() -> int:
    return len(os.sched_getaffinity(0))


def _memory() -> dict[str, str]:
    wanted = ("MemTotal", "MemAvailable", "SwapTotal", "SwapFree", "Shmem")
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    rows = (line.partition(":") for line in lines)
    return {name: value.strip() for name, _, value in rows if name in wanted}


def _packages() -> dict[str, str]:
    """Return versions by the names of directories: `importlib.metadata` takes 50 times as long."""
    found: dict[str, str] = {}
    for place in sys.path:
        with suppress(OSError):
            for entry in os.listdir(place or "."):
                name, _, version = entry.removesuffix(".dist-info").partition("-")
                known = name.lower().replace("_", "-")
                if version and entry.endswith(".dist-info") and known in _PACKAGES:
                    found.setdefault(known, version)
    return found


def _libzmq() -> str:
    zmq = sys.modules.get("zmq")
    return str(zmq.zmq_version()) if zmq is not None else "not loaded"


def _control_group() -> dict[str, str]:
    base = Path("/sys/fs/cgroup")
    names = ("memory.max", "memory.current", "memory.events", "cpu.max", "pids.max")
    told = {}
    for name in names:
        with suppress(OSError):
            told[name] = (base / name).read_text(encoding="ascii").strip()
    return told


def _first_line(path: str) -> str:
    return Path(path).read_text(encoding="ascii").strip()
