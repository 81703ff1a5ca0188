"""What the sinks saw, judged: what arrived, what was lost, how fast. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.peers.work import WARM_UP, Job

__all__ = ["Round", "judge", "percentile", "summary"]


@dataclass(frozen=True, slots=True)
class Round:
    """One measurement. ``rate``: messages a second at each sink, of those that arrived.

    ``sent`` and the counts after it are over all sinks. ``damaged``: arrived, but not as sent.
    ``p50_us`` and ``p99_us`` are 0 where no ages were taken.
    """

    sent: int
    received: int
    lost: int
    repeated: int
    damaged: int
    rate: float
    p50_us: float = 0.0
    p99_us: float = 0.0

    @property
    def sound(self) -> bool:
        """Whether every message arrived once and whole."""
        return not (self.lost or self.repeated or self.damaged)


def judge(job: Job, seen: Sequence[dict[str, Any]]) -> Round:
    """Return what the sinks' reports say; a sink may have several, one a process.

    Messages are told apart by their numbers where those were kept (paced ones), else by how many
    there are and the sum of their numbers: then a loss hides behind a repetition, unless the sum
    is wrong, which counts as one of both.
    """
    if not seen:
        raise ValueError(f"{job.work}: expected a report of each sink, got none")
    lost = repeated = 0
    for index in range(job.sinks):
        missing, again = _balance(job, [one for one in seen if one["sink"] == index])
        lost += missing
        repeated += again
    received = sum(one["count"] for one in seen)
    busy = [one for one in seen if one["count"]]
    span_ns = max((one["last_ns"] for one in busy), default=0) - min(
        (one["first_ns"] for one in busy), default=0
    )
    ages = [age for one in seen for number, age in one.get("ages_ns", ()) if number >= WARM_UP]
    return Round(
        sent=job.count * job.sinks,
        received=received,
        lost=lost,
        repeated=repeated,
        damaged=sum(one.get("damaged", 0) for one in seen),
        rate=received / job.sinks / (span_ns / 1e9) if span_ns > 0 else 0.0,
        p50_us=percentile(ages, 0.5) / 1000,
        p99_us=percentile(ages, 0.99) / 1000,
    )


def _balance(job: Job, seen: Iterable[dict[str, Any]]) -> tuple[int, int]:
    """Return how many messages one sink missed, and how many it got again."""
    seen = list(seen)
    count = sum(one["count"] for one in seen)
    if job.work == "paced":
        distinct = len({number for one in seen for number, _ in one["ages_ns"]})
        return job.count - distinct, count - distinct
    missing = max(0, job.count - count)
    again = max(0, count - job.count)
    id_sum = sum(one["id_sum"] for one in seen)
    if count == job.count and id_sum != job.count * (job.count - 1) // 2:
        return 1, 1
    return missing, again


def percentile(values: Iterable[float], part: float) -> float:
    """Return the value below which ``part`` of them are; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else 0.0


def summary(rounds: Sequence[Round]) -> dict[str, float]:
    """Return the medians of the figures, and the counts of all rounds together."""
    return {
        "rate": median(one.rate for one in rounds),
        "p50_us": median(one.p50_us for one in rounds),
        "p99_us": median(one.p99_us for one in rounds),
        "sent": sum(one.sent for one in rounds),
        "lost": sum(one.lost for one in rounds),
        "repeated": sum(one.repeated for one in rounds),
        "damaged": sum(one.damaged for one in rounds),
    }
