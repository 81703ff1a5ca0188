"""What is measured and guarded: each benchmark module says here which figures it has.

A module of `MODULES` has a `BENCHMARK`: a function that runs both sides in turn and returns a
`Comparison`, and the figures that are read off it. `benchmarks.run` does the rest: tables, JSON,
medians, the baselines. To add one, give the module a ``BENCHMARK`` and its name a line here:

    BENCHMARK = Benchmark(
        name="throughput",
        measure=lambda effort: measure(effort.rounds, 2_000_000 // effort.share),
        figures=(Figure("rate", "msg/s", "higher", lambda one: one.rate, bar=0.75),),
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

from benchmarks.rounds import Comparison

__all__ = ["LONG", "MODULES", "SHORT", "TOLERANCE", "Benchmark", "Effort", "Figure", "benchmarks"]

MODULES = (
    "throughput",
    "fuse",
    "latency",
)
"""Modules of `benchmarks` that have a ``BENCHMARK``, in the order they are run."""

TOLERANCE = 0.10

Measured = TypeVar("Measured")
Better = Literal["higher", "lower"]


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure: so many rounds, with the long form's messages divided by ``share``."""

    name: Literal["short", "long"]
    rounds: int
    share: int


SHORT = Effort("short", rounds=5, share=8)
LONG = Effort("long", rounds=5, share=1)


@dataclass(frozen=True, slots=True)
class Figure(Generic[Measured]):
    """One figure of a round, ``of(round)``, in ``unit``.

    ``tolerance``: how much worse than its baseline the ratio may be, as a share; more than 10 %
    needs a reason (``why``). ``bar``: what the ratio is meant to reach. ``short``: whether the
    short form is long enough to judge it.
    """

    name: str
    unit: str
    better: Better
    of: Callable[[Measured], float]
    bar: float | None = None
    tolerance: float = TOLERANCE
    why: str = ""
    short: bool = True


@dataclass(frozen=True, slots=True)
class Benchmark(Generic[Measured]):
    """A measurement and its figures. ``cores``: with fewer it is skipped, and that is said.

    ``short``: whether it is part of the short form at all.
    """

    name: str
    measure: Callable[[Effort], Comparison[Measured]]
    figures: tuple[Figure[Measured], ...]
    cores: int = 2
    short: bool = True


def benchmarks() -> list[Benchmark[Any]]:
    """Return the benchmarks of all `MODULES`, in order."""
    return [import_module(f"benchmarks.{name}").BENCHMARK for name in MODULES]
