"""How often the many talk to the one: what is said regularly is said less often in a large run.

Everything else a coordinator does costs something when something happens. Reports and signs of life
cost something all the time, in proportion to the workers. So beyond a number of workers all of
them together keep to a rate, and each has to wait for longer. What that takes away is freshness of
the counters, and nothing else: a death is told by the agent or by the connection, at once, and a
worker is never silent for longer than `SLOWEST_S`, a quarter of what makes it count as dead.
"""

from __future__ import annotations

__all__ = ["PINGS_PER_S", "REPORTS_PER_S", "SLOWEST_S", "ping_interval_s", "report_interval_s"]

REPORTS_PER_S = 1000
"""Reports of all workers together: at some 60 us each this is about 6 % of a core."""

PINGS_PER_S = 2000
"""The coordinator's own signs of life: about 10 us each."""

SLOWEST_S = 2.5
"""The longest anybody has to wait, with 2,500 workers and more."""


def report_interval_s(asked_s: float, workers: int) -> float:
    """Return the seconds between two reports of each of so many workers.

    ``asked_s``: what the run's options say (`RunOptions.stats_interval_s`); it is never less.
    """
    return max(asked_s, min(SLOWEST_S, workers / REPORTS_PER_S))


def ping_interval_s(asked_s: float, workers: int) -> float:
    """Return the seconds between two pings of each of so many workers, never less than asked."""
    return max(asked_s, min(SLOWEST_S, workers / PINGS_PER_S))
