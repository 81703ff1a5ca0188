"""A histogram of latencies: small, exact enough, kept as text bars and as JSON.

Percentiles need every value, and five minutes of 10,000 a second are three million of them. So a
value is only counted, in a bucket that is at most 1/64 wide of what it holds: below 64 ns exact,
from there on 64 buckets for each power of two (the layout of HdrHistogram, G. Tene 2012). A
percentile is the upper end of its bucket, so it is never too good, and too bad by less than 1.6 %.

Rejected: a reservoir sample (its P99.9 depends on chance) and fixed buckets (somebody has to know
the answer first).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Self

__all__ = ["PERCENTILES", "Histogram", "in_words"]

SUB_BITS = 6
PERCENTILES = (50.0, 90.0, 99.0, 99.9, 99.99)
BAR = 40
STEPS = (1, 2, 5)
_UNITS = ((10**9, "s"), (10**6, "ms"), (10**3, "us"), (1, "ns"))


class Histogram:
    """Counts of values in whole nanoseconds; negative ones count as 0 and are told apart.

    ``early`` is how many were negative: clocks that disagree, or a bug in who measures.
    """

    def __init__(self, values_ns: Iterable[int] = ()) -> None:
        self.count = 0
        self.early = 0
        self.sum_ns = 0
        self.least_ns = 0
        self.most_ns = 0
        self._buckets: dict[int, int] = {}
        for value_ns in values_ns:
            self.add(value_ns)

    def add(self, value_ns: int) -> None:
        """Count one value."""
        if value_ns < 0:
            self.early += 1
            value_ns = 0
        shift = max(0, value_ns.bit_length() - SUB_BITS - 1)
        bucket = (shift << SUB_BITS) + (value_ns >> shift)
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1
        self.least_ns = min(self.least_ns, value_ns) if self.count else value_ns
        self.most_ns = max(self.most_ns, value_ns)
        self.sum_ns += value_ns
        self.count += 1

    def merge(self, other: Histogram) -> Self:
        """Count what ``other`` has counted, too; return this one."""
        if other.count:
            self.least_ns = min(self.least_ns, other.least_ns) if self.count else other.least_ns
            self.most_ns = max(self.most_ns, other.most_ns)
        self.count += other.count
        self.early += other.early
        self.sum_ns += other.sum_ns
        for bucket, count in other._buckets.items():
            self._buckets[bucket] = self._buckets.get(bucket, 0) + count
        return self

    @property
    def mean_ns(self) -> float:
        """The mean, exactly; 0 of nothing."""
        return self.sum_ns / self.count if self.count else 0.0

    def percentile_ns(self, percent: float) -> int:
        """Return what ``percent`` % of the values do not exceed; 0 of nothing.

        Never below the true one, and above it by less than 1/64 of it.
        """
        due = max(1, math.ceil(self.count * percent / 100 - 1e-9))
        for bucket in sorted(self._buckets):
            due -= self._buckets[bucket]
            if due <= 0:
                return min(_upper_ns(bucket), self.most_ns)
        return self.most_ns

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold, with the percentiles for those who only look at it."""
        return {
            "count": self.count,
            "early": self.early,
            "sum_ns": self.sum_ns,
            "least_ns": self.least_ns,
            "most_ns": self.most_ns,
            "percentiles_ns": {f"{p:g}": self.percentile_ns(p) for p in PERCENTILES},
            "buckets": [[bucket, self._buckets[bucket]] for bucket in sorted(self._buckets)],
        }

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> Histogram:
        """Return what `to_dict` has kept."""
        found = cls()
        for name in ("count", "early", "sum_ns", "least_ns", "most_ns"):
            setattr(found, name, kept[name])
        found._buckets = dict(kept["buckets"])
        return found

    def rows(self) -> list[tuple[int, int]]:
        """Return ``(upper end in ns, count)`` by steps of 1, 2, 5, 10 …, gaps included."""
        found: dict[int, int] = {}
        for bucket, count in self._buckets.items():
            end = _step_ns(_upper_ns(bucket))
            found[end] = found.get(end, 0) + count
        ends = [step * 10**power for power in range(19) for step in STEPS]
        low, high = (min(found), max(found)) if found else (1, 0)
        return [(end, found.get(end, 0)) for end in ends if low <= end <= high]

    def __str__(self) -> str:
        """A line of percentiles and a bar for each step, the longest `BAR` wide."""
        if not self.count:
            return "nothing was measured"
        told = [f"p{p:g} {in_words(self.percentile_ns(p))}" for p in PERCENTILES]
        lines = [f"{self.count:,} values, {', '.join(told)}, most {in_words(self.most_ns)}"]
        rows = self.rows()
        tallest = max(count for _, count in rows)
        for end, count in rows:
            bar = "#" * math.ceil(BAR * count / tallest)
            share = 100 * count / self.count
            lines.append(f"  <= {in_words(end):>7} {bar:<{BAR}} {count:>9,} {share:6.2f} %")
        if self.early:
            lines.append(f"  {self.early:,} came before they were sent: the clocks disagree")
        return "\n".join(lines)


def in_words(value_ns: float) -> str:
    """Return a duration in the unit that suits it: ``1.25 ms``."""
    for unit_ns, unit in _UNITS:
        if value_ns >= unit_ns:
            return f"{value_ns / unit_ns:.3g} {unit}"
    return "0 ns"


def _upper_ns(bucket: int) -> int:
    shift = max(0, (bucket >> SUB_BITS) - 1)
    return ((bucket - (shift << SUB_BITS) + 1) << shift) - 1


def _step_ns(value_ns: int) -> int:
    """Return the least of 1, 2, 5, 10, 20 … that is not below ``value_ns``."""
    power: int = 10 ** (len(str(value_ns)) - 1)
    return next(step * power for step in (*STEPS, 10) if step * power >= value_ns)
