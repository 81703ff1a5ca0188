"""What a soak knows of itself across restarts: a small file, replaced as a whole.

It is written to a file beside it, flushed to the disk and renamed, so there is the old one or the
new one and never half of one. How far the soak has come is not in it but in the samples, which
are newer. Whether the process that writes is alive is asked of the system: its id alone may
belong to somebody else by now, so the time it was started at goes with it.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil

__all__ = ["FILE", "State", "is_alive", "load", "save"]

FILE = "state.json"
VERSION = 1


@dataclass(frozen=True, slots=True)
class State:
    """What was asked for, and which part of it is under way or was last.

    ``load`` is a factor of the rates that a profile offers.

    ``temp`` is the directory for temporary files of that part, ``mark`` what every process of it
    has in its environment, ``pid`` and ``born_s`` the process that writes.
    """

    profile: str
    wanted_s: float
    sample_s: float
    warm_up_s: float | None
    seed: int
    load: float = 1.0
    part: int = 0
    temp: str = ""
    mark: str = ""
    pid: int = 0
    born_s: float = 0.0

    def next_part(self, temp: str, mark: str) -> State:
        """Return the state of the part that this process begins."""
        me = psutil.Process()
        return replace(
            self, part=self.part + 1, temp=temp, mark=mark, pid=me.pid, born_s=me.create_time()
        )

    def over(self) -> State:
        """Return the state between two parts."""
        return replace(self, temp="", mark="", pid=0, born_s=0.0)


def save(folder: Path, state: State) -> None:
    """Replace the state file in ``folder``; it is the old one or the new one at any instant."""
    fresh = folder / f"{FILE}.new"
    with open(fresh, "w", encoding="utf-8") as file:
        json.dump({"version": VERSION, **asdict(state)}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, folder / FILE)


def load(folder: Path) -> State:
    """Return the state kept in ``folder``; ValueError, with the reason, if there is none."""
    path = folder / FILE
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path}: expected the state of a soak, got {error}; name the directory of a soak"
        ) from None
    if not isinstance(found, dict) or found.pop("version", None) != VERSION:
        raise ValueError(f"{path}: expected the state of a soak, version {VERSION}")
    try:
        return State(**found)
    except TypeError as error:
        raise ValueError(f"{path}: expected the state of a soak, got {error}") from None


def is_alive(state: State) -> bool:
    """Whether the process that wrote ``state`` is still at work."""
    if not state.pid:
        return False
    try:
        return bool(abs(psutil.Process(state.pid).create_time() - state.born_s) < 1)
    except psutil.Error:
        return False
