"""Parts of a soak made of synthetic series, for the tests of verdict and report."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

from soak.history import Part, Series
from soak.judging import YOUNG_S
from tests.unit.soak.series import level

__all__ = ["END", "books", "part"]

MB = 1_000_000
END = {
    "how": "finished",
    "reason": "",
    "before": {"threads": 3},
    "after": {"threads": 3},
    "left": [],
}


def series(values: Sequence[float], factor: float = 1.0) -> Series:
    """Return a sample a second, from `YOUNG_S` on."""
    times = array("d", [YOUNG_S + t for t in range(len(values))])
    return Series(times, array("d", [value * factor for value in values]))


def books(**changed: Any) -> dict[str, Any]:
    """Return the line of a run that went well, or with something ``changed``."""
    line = {
        "label": "main",
        "outcome": "drained",
        "error": "",
        "imbalances": [],
        "totals": {"sent": 1000, "delivered": 1000},
        "wall_s": 60.0,
        "errors": 0,
        "streams": [["s", 1000, 1000, ""]],
    }
    return line | changed


def part(
    seconds: int = 3600,
    *,
    number: int = 1,
    memory: Sequence[float] | None = None,
    rate: Sequence[float] | None = None,
    files: Sequence[float] | None = None,
    others: float = 0.0,
    end: dict[str, Any] | None = END,
    warm_up_s: float = 0.0,
    young: bool = False,
) -> Part:
    """Return a part with one worker and the soak's own process, flat but for what is given.

    The samples begin at the age from which growth is a fault; ``young``: they are judged all the
    same if they began before.
    """
    found = Part(number, {"cores": 2, "profile": "mixed", "at": 1.8e9})
    found.length_s = YOUNG_S + seconds
    found.warm_up_s = 0.0 if young else YOUNG_S + warm_up_s
    own = series(level(seconds, 11, noise=0.05), MB / 4)
    work = series(memory if memory is not None else level(seconds, 12, noise=0.05), MB / 4)
    for role, anon in (("soak", own), ("work[0]", work)):
        found.processes[role] = {
            "anon": anon,
            "pss": anon,
            "fds": series(files if files is not None else [20.0] * seconds),
            "sockets": series([4.0] * seconds),
            "threads": series([4.0] * seconds),
        }
    both = [a + b for a, b in zip(own.values, work.values, strict=True)]
    found.whole = {
        "anon": series(both),
        "shm": series([0.0] * seconds),
        "rate": series(rate if rate is not None else level(seconds, 13, noise=2.0, at=1000)),
        "cost_us": series(level(seconds, 14, noise=2.0, at=300)),
        "cores": series([0.3] * seconds),
        "busy_s": series([t * (0.3 + 2 * others) for t in range(seconds)]),
        "processes": series([5.0] * seconds),
        "zombies": series([0.0] * seconds),
        "memfds": series([2.0] * seconds),
        "temp": series([1.0] * seconds),
    }
    found.books = [books()]
    found.end = end
    found.looks = seconds
    return found
