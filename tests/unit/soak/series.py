"""Synthetic series for the tests of the statistics, all by seed."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from functools import cache

__all__ = ["correlated", "level", "saw_tooth", "step"]


@cache
def level(
    seconds: int, seed: int, *, noise: float = 0.5, percent_h: float = 0.0, at: float = 100.0
) -> Sequence[float]:
    """Return a sample a second of a line through ``at`` with independent noise of ``noise`` %."""
    chance = random.Random(seed)
    rise = at * percent_h / 100 / 3600
    return tuple(at + rise * t + chance.gauss(0, at * noise / 100) for t in range(seconds))


def correlated(seconds: int, seed: int, *, memory_s: float, noise: float = 0.5) -> list[float]:
    """Return a flat series of 100 whose noise remembers for about ``memory_s`` seconds."""
    chance = random.Random(seed)
    keep = math.exp(-1 / memory_s)
    fresh = noise * math.sqrt(1 - keep * keep)
    now, found = chance.gauss(0, noise), []
    for _ in range(seconds):
        now = keep * now + chance.gauss(0, fresh)
        found.append(100 + now)
    return found


def saw_tooth(seconds: int, seed: int, *, period_s: int, height: float = 5.0) -> list[float]:
    """Return a series that climbs and falls back, as a heap does between two collections."""
    chance = random.Random(seed)
    start = chance.randrange(period_s)
    return [
        100 + height * ((t + start) % period_s) / period_s + chance.gauss(0, 0.2)
        for t in range(seconds)
    ]


def step(seconds: int, seed: int, *, at_s: int, height: float) -> list[float]:
    """Return a flat series that is ``height`` higher from ``at_s`` on."""
    return [value + (height if t >= at_s else 0) for t, value in enumerate(level(seconds, seed))]
