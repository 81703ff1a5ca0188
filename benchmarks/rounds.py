"""Rounds, medians and the table: what every benchmark shares.

The two sides alternate, so that a machine that slows down slows both, and each figure is
the median of its rounds; the ratio of two medians is what to look at.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Generic, TypeVar

__all__ = ["Comparison", "Ratio", "compare", "measure_parser", "print_table"]

Measured = TypeVar("Measured")
HEAD = ("what", "reference", "dflow", "ratio")


@dataclass(frozen=True, slots=True)
class Ratio:
    """Medians of one figure on both sides; ``ratio`` is dflow / reference."""

    reference: float
    dflow: float
    ratio: float


@dataclass(frozen=True, slots=True)
class Comparison(Generic[Measured]):
    """All rounds of both sides, in the order they were run."""

    reference: list[Measured]
    dflow: list[Measured]

    def ratio(self, figure: Callable[[Measured], float]) -> Ratio:
        """Return the medians of ``figure`` and their ratio."""
        reference = median(figure(one) for one in self.reference)
        dflow = median(figure(one) for one in self.dflow)
        return Ratio(reference, dflow, dflow / reference)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def compare(
    rounds: int, reference: Callable[[], Measured], dflow: Callable[[], Measured]
) -> Comparison[Measured]:
    """Run both sides in turn, ``rounds`` times; who begins changes from round to round."""
    found: Comparison[Measured] = Comparison([], [])
    for number in range(rounds):
        sides = [(found.reference, reference), (found.dflow, dflow)]
        for results, run in sides if number % 2 == 0 else reversed(sides):
            results.append(run())
    return found


def measure_parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser that has ``--rounds``."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="how often each side is measured")
    return parser


def print_table(rows: list[list[str]]) -> None:
    """Print rows of (what, reference, dflow, ratio), aligned."""
    table = [list(HEAD), *rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(HEAD))]
    for row in table:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        print("  ".join(cells).rstrip(), flush=True)
