"""Rounds, medians and the table: what every benchmark shares.

The two sides alternate, so that a machine that slows down slows both. The ratio is the median of
the rounds' ratios, each of two runs next to each other in time: so a slow minute, which is in
both, is in no ratio.

In the long form a round during which other programs used more than `OTHERS_LIMIT` of the machine
is measured again, whatever its result, on either side alike, up to ``repeats`` times for each
round asked for. How often that happened, and what the rounds that count shared the machine with,
is part of the result.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Generic, TypeVar

import psutil

__all__ = [
    "MAX_REPEATS",
    "Comparison",
    "Ratio",
    "compare",
    "measure_parser",
    "own_cores",
    "own_cpu_s",
    "print_table",
    "watched",
]

OTHERS_LIMIT = 0.05
MAX_REPEATS = 4

Measured = TypeVar("Measured")
HEAD = ("what", "reference", "dflow", "ratio")


@dataclass(frozen=True, slots=True)
class Ratio:
    """Medians of one figure on both sides; ``ratio``: median of the rounds' dflow / reference."""

    reference: float
    dflow: float
    ratio: float


@dataclass(slots=True)
class Comparison(Generic[Measured]):
    """All rounds of both sides, in the order they were run.

    ``others``: for every run, two a round, the share of the cores that other programs used.
    ``repeated``: runs thrown away because that was too much.
    """

    reference: list[Measured] = field(default_factory=list)
    dflow: list[Measured] = field(default_factory=list)
    others: list[float] = field(default_factory=list)
    repeated: int = 0

    def ratio(self, figure: Callable[[Measured], float]) -> Ratio:
        """Return the medians of ``figure`` and of its ratios."""
        reference = median(figure(one) for one in self.reference)
        dflow = median(figure(one) for one in self.dflow)
        return Ratio(reference, dflow, median(self.ratios(figure)))

    def ratios(self, figure: Callable[[Measured], float]) -> list[float]:
        """Return dflow / reference of each round."""
        both = zip(self.dflow, self.reference, strict=True)
        return [figure(dflow) / figure(reference) for dflow, reference in both]

    def shared(self) -> float:
        """Return what part of the cores other programs used in the middle one of the runs."""
        return median(self.others or [0.0])

    def disturbance(self) -> str | None:
        """Return a warning if rounds that count were disturbed, or None."""
        worst = max(self.others)
        if worst <= OTHERS_LIMIT:
            return None
        return (
            f"other programs used up to {worst:.0%} of the machine during rounds that count;"
            " measure again on a quiet one"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def compare(
    rounds: int,
    reference: Callable[[], Measured],
    dflow: Callable[[], Measured],
    repeats: int = MAX_REPEATS,
) -> Comparison[Measured]:
    """Run both sides in turn, ``rounds`` times; who begins changes from round to round."""
    found: Comparison[Measured] = Comparison()
    for number in range(rounds):
        sides = [(found.reference, reference), (found.dflow, dflow)]
        for results, run in sides if number % 2 == 0 else reversed(sides):
            measured, others = watched(run)
            while others > OTHERS_LIMIT and found.repeated < repeats * rounds:
                found.repeated += 1
                measured, others = watched(run)
            results.append(measured)
            found.others.append(others)
    return found


def watched(run: Callable[[], Measured]) -> tuple[Measured, float]:
    """Return what ``run`` returns, and the share of our cores that others used meanwhile."""
    cores = own_cores()
    all_before, own_before, began = _all_cpu_s(cores), own_cpu_s(), time.monotonic()
    measured = run()
    wall_s = time.monotonic() - began
    others_s = (_all_cpu_s(cores) - all_before) - (own_cpu_s() - own_before)
    return measured, max(0.0, others_s) / (wall_s * len(cores))


def own_cores() -> list[int]:
    """Return the numbers of the cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _all_cpu_s(cores: list[int]) -> float:
    """Return the seconds all programs have used of ``cores``, and those the hypervisor took."""
    each = psutil.cpu_times(percpu=True)
    times = [each[core] for core in cores if core < len(each)]
    return float(sum(t.user + t.nice + t.system + getattr(t, "steal", 0.0) for t in times))


def own_cpu_s() -> float:
    """Return the CPU seconds of this process and of its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def measure_parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser that has ``--rounds``."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="how often each side is measured")
    return parser


def print_table(rows: list[list[str]], head: Sequence[str] = HEAD) -> None:
    """Print rows under ``head``, aligned."""
    table = [list(head), *rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(head))]
    for row in table:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        print("  ".join(cells).rstrip(), flush=True)
