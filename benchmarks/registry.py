"""What is measured and guarded: each benchmark module says here which figures it has.

A module of `MODULES` has a ``BENCHMARK`` (or several, ``BENCHMARKS``): a function that runs both
sides in turn and returns a `Comparison`, and the figures that are read off it. `benchmarks.run`
does the rest: tables, JSON, medians, the baselines. To add one, give the module a ``BENCHMARK`` and
its name a line here:

    BENCHMARK = Benchmark(
        name="throughput",
        measure=lambda effort: compare(
            effort.rounds, one_reference_round, one_dflow_round, effort.repeats
        ),
        figures=(Figure("cpu", "us/msg", "lower", lambda one: one.cpu_us),),
    )

The sides need not be pyzmq and dflow: whatever stands in ``reference`` is what the figure is a
ratio to (one replica to two, metrics off to on). A benchmark without a reference has plain
figures; those are shown, and guarded by nothing but their bar.

Rejected: decorators that register on import (what is measured would depend on who imported
what), and one figure a benchmark (latency has two percentiles of the same rounds).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Generic, Literal, TypeVar

from benchmarks.rounds import MAX_REPEATS, Comparison

__all__ = ["LONG", "MODULES", "SHORT", "TOLERANCE", "Benchmark", "Effort", "Figure", "benchmarks"]

MODULES = (
    "throughput",
    "hop",
    "replicas",
    "fuse",
    "latency",
    "startup",
    "scheduler",
    "control",
    "coordinator",
    "frames",
    "metrics",
)
"""Modules of `benchmarks` that have a ``BENCHMARK``, in the order they are run."""

TOLERANCE = 0.10

Measured = TypeVar("Measured")
Better = Literal["higher", "lower"]


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure: so many rounds, with the long form's messages divided by ``share``.

    ``repeats``: how often a round that other programs disturbed is measured again.
    """

    name: Literal["short", "long"]
    rounds: int
    share: int
    repeats: int


SHORT = Effort("short", rounds=5, share=4, repeats=0)
LONG = Effort("long", rounds=5, share=1, repeats=MAX_REPEATS)


@dataclass(frozen=True, slots=True)
class Figure(Generic[Measured]):
    """One figure of a round, ``of(round)``, in ``unit``.

    ``tolerance``: how much worse than its baseline the ratio may be, as a share; more than 10 %
    needs a reason (``why``). ``busy_tolerance``: the same while other programs use the machine;
    unlike CPU time, rates and latencies then say little. ``bar``: what the ratio is meant to
    reach. ``short``: whether the short form is long enough to judge it.
    """

    name: str
    unit: str
    better: Better
    of: Callable[[Measured], float]
    bar: float | None = None
    tolerance: float = TOLERANCE
    busy_tolerance: float | None = None
    why: str = ""
    short: bool = True

    def meets_bar(self, value: float) -> bool:
        """Whether ``value`` is as good as the bar; always where there is none."""
        if self.bar is None:
            return True
        return value >= self.bar if self.better == "higher" else value <= self.bar


@dataclass(frozen=True, slots=True)
class Benchmark(Generic[Measured]):
    """A measurement and its figures.

    ``cores``: with fewer it is skipped, and that is said. ``short``: whether it is part of the
    short form. ``has_reference``: False for plain figures, whose rounds are all in ``dflow``.
    """

    name: str
    measure: Callable[[Effort], Comparison[Measured]]
    figures: tuple[Figure[Measured], ...]
    cores: int = 2
    short: bool = True
    has_reference: bool = True

    def judged(self, effort: Effort) -> tuple[Figure[Measured], ...]:
        """Return the figures that this effort is enough for."""
        return tuple(one for one in self.figures if one.short or effort.name == "long")


def benchmarks() -> list[Benchmark[Any]]:
    """Return the benchmarks of all `MODULES`, in order."""
    found: list[Benchmark[Any]] = []
    for name in MODULES:
        module = import_module(f"benchmarks.{name}")
        found += getattr(module, "BENCHMARKS", None) or (module.BENCHMARK,)
    return found
