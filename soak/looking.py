"""What one look at the processes of a soak sees: memory, files, sockets, threads, time.

Memory is taken apart, because only a part of it can leak and be judged. ``anon`` is the
proportional share of anonymous memory: heaps and stacks. The shares of program files (in ``pss``)
change when strangers start or end a Python of their own, and those of shared memory when a
neighbour opens a block, so both are shown and not judged; shared memory has a count of its own,
by file and not by process. Off Linux ``anon`` and ``pss`` are the unique or resident size.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

__all__ = ["COLUMNS", "MARK", "Look", "Reading", "leftovers", "look", "marked"]

COLUMNS = ("pid", "rss", "pss", "anon", "shmem", "fds", "sockets", "memfds", "threads", "cpu_s")
MARK = "DFLOW_SOAK"
_DEV_SHM = Path("/dev/shm")
_OURS = ("dflow", "psm_", "sem.mp-", "soak")
_PROC = Path("/proc/self").is_dir()


@dataclass(frozen=True, slots=True)
class Reading:
    """One process at one moment; sizes in bytes, ``cpu_s`` since it was started."""

    pid: int
    rss: int = 0
    pss: int = 0
    anon: int = 0
    shmem: int = 0
    fds: int = 0
    sockets: int = 0
    memfds: int = 0
    threads: int = 0
    cpu_s: float = 0.0

    def row(self) -> list[Any]:
        """Return the values in the order of `COLUMNS`."""
        return [getattr(self, name) for name in COLUMNS]


@dataclass(slots=True)
class Look:
    """All processes at one moment, by role; ``shared`` is inode -> bytes of each memory file."""

    processes: dict[str, Reading] = field(default_factory=dict)
    shared: dict[int, int] = field(default_factory=dict)
    zombies: int = 0

    def totals(self, temp: Path | None) -> dict[str, float]:
        """Return what belongs to nobody alone."""
        return {
            "processes": len(self.processes),
            "zombies": self.zombies,
            "memfds": len(self.shared),
            "shm": sum(self.shared.values()),
            "dev_shm": len(_named_memory()),
            "temp": len(os.listdir(temp)) if temp is not None and temp.is_dir() else 0,
            "busy_s": _busy_s(),
        }


def look(roles: Mapping[int, str]) -> Look:
    """Look at this process and everything it has started; ``roles`` names those that have one.

    Others are ``other:NAME``, with a number if there are several: processes that start or end.
    """
    found = Look()
    me = psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                found.zombies += 1
                continue
            reading = _read(process, found.shared)
            role = roles.get(process.pid) or f"other:{process.name()}"
        except (psutil.Error, OSError):
            continue  # it ended between the listing and the look
        role = "soak" if process.pid == me.pid else role
        number = 1
        name = role
        while name in found.processes:
            number += 1
            name = f"{role} {number}"
        found.processes[name] = reading
    return found


def _read(process: psutil.Process, shared: dict[int, int]) -> Reading:
    with process.oneshot():
        threads = process.num_threads()
        times = process.cpu_times()
        rss = process.memory_info().rss
        if not _PROC:
            size = getattr(process.memory_full_info(), "uss", rss)
            return Reading(
                process.pid, rss, size, size, 0, process.num_fds(), 0, 0, threads,
                times.user + times.system,
            )  # fmt: skip
    sizes = _rollup(process.pid)
    files, sockets, memfds = _files(process.pid, shared)
    return Reading(
        process.pid, rss, sizes.get("Pss", rss), sizes.get("Pss_Anon", sizes.get("Pss", rss)),
        sizes.get("Pss_Shmem", 0), files, sockets, memfds, threads, times.user + times.system,
    )  # fmt: skip


def _rollup(pid: int) -> dict[str, int]:
    """Return the sums over all maps of a process, in bytes."""
    found = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()[1:]:
        name, _, rest = line.partition(":")
        found[name] = int(rest.split()[0]) * 1024
    return found


def _files(pid: int, shared: dict[int, int]) -> tuple[int, int, int]:
    """Return how many files, sockets and memory files are open; note the latter in ``shared``."""
    folder = f"/proc/{pid}/fd"
    count = sockets = memfds = 0
    for name in os.listdir(folder):
        try:
            target = os.readlink(f"{folder}/{name}")
            count += 1
            if target.startswith("socket:"):
                sockets += 1
            elif target.startswith("/memfd:"):
                memfds += 1
                info = os.stat(f"{folder}/{name}")
                shared[info.st_ino] = info.st_blocks * 512
        except OSError:
            continue  # closed meanwhile
    return count, sockets, memfds


def _busy_s() -> float:
    """Return the processor time that anybody on this machine has used, in seconds."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0))


def _named_memory() -> set[str]:
    """Return the named shared memory of this user that a run could have made."""
    found = set()
    with suppress(OSError), os.scandir(_DEV_SHM) as entries:  # none here, or gone meanwhile
        for entry in entries:
            if entry.name.startswith(_OURS) and entry.stat().st_uid == os.getuid():
                found.add(entry.name)
    return found


def _mapped_by_others(mark: str) -> set[str]:
    """Return the named shared memory that processes without ``mark`` look at: not ours."""
    names = _named_memory()
    found: set[str] = set()
    if names:
        ours = {os.getpid(), *marked(mark)}
        for process in psutil.process_iter():
            if process.pid not in ours:
                with suppress(OSError):
                    maps = Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8")
                    found |= {name for name in names if f"{_DEV_SHM}/{name}" in maps}
    return found


def marked(mark: str, but: Iterable[int] = ()) -> dict[int, str]:
    """Return pid -> command of the living processes with ``mark``, orphans included."""
    kept = set(but)
    found = {}
    for process in psutil.process_iter():
        try:
            ours = process.pid not in kept and process.environ().get(MARK) == mark
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                found[process.pid] = " ".join(process.cmdline())[:80] or process.name()
        except psutil.Error:
            continue
    return found


def leftovers(mark: str, temp: Path) -> dict[str, int]:
    """Return how much there is of all that must not outlive a run, while there is none."""
    me = look({})
    own = me.processes["soak"]
    return {
        "processes": len(marked(mark, [own.pid])),
        "zombies": me.zombies,
        "threads of this process": own.threads,
        "file descriptors of this process": own.fds,
        "sockets of this process": own.sockets,
        "memory files": len(me.shared),
        "named shared memory": len(_named_memory() - _mapped_by_others(mark)),
        "temporary files": len(os.listdir(temp)),
    }
