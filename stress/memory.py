"""How much memory the processes of a run ever needed, seen from outside.

What counts is the proportional set size (PSS): pages that several processes share count in parts,
so the processes of a run add up to what it costs. The nodes under test take no part in measuring,
so their own peak is not what a test of theirs is about. One process is looked at in about a
millisecond; a round of looks is paused for 20 times what it took.

Rejected: ``ru_maxrss``, which counts shared memory and what was inherited from the agent in full.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Mapping
from typing import Self

import psutil

from dflow import Run

__all__ = ["MB", "Memory", "grown_mb"]

MB = 1_000_000
HERE = "user process"
LEAST_PAUSE_S = 0.02
PAUSE = 20
WARM = 0.3
"""The share of the samples after which memory must be flat: buffers have their size by then."""

Samples = list[tuple[float, float]]


class Memory:
    """Samples all processes of ``run`` and this one inside a ``with`` block."""

    def __init__(self, run: Run) -> None:
        pids = dict(run.pids) | {HERE: os.getpid()}
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self.samples: dict[str, Samples] = {name: [] for name in pids}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="memory")

    def _sample(self) -> None:
        pause_s = 0.0
        while not self._over.wait(pause_s):
            began = time.monotonic()
            for name, process in list(self._processes.items()):
                try:
                    pss = process.memory_full_info().pss
                except psutil.Error:  # it has ended
                    del self._processes[name]
                    continue
                self.samples[name].append((time.monotonic(), pss / MB))
            pause_s = max(LEAST_PAUSE_S, PAUSE * (time.monotonic() - began))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def peaks_mb(self) -> dict[str, float]:
        """Return by process the most it needed; of this one, how much more than at first."""
        peaks = {n: max((mb for _, mb in s), default=0.0) for n, s in self.samples.items()}
        here = self.samples[HERE]
        return peaks | {HERE: peaks[HERE] - here[0][1] if here else 0.0}

    def growths_mb(self) -> dict[str, float]:
        """Return by process how much it grew once warm, if there were samples enough to say."""
        found = {name: grown_mb(samples) for name, samples in self.samples.items()}
        return {name: grown for name, grown in found.items() if grown is not None}

    def assert_within(self, bound_mb: float, bounds_mb: Mapping[str, float]) -> None:
        """Fail if a process ever needed more than ``bounds_mb`` of its node, or ``bound_mb``."""
        peaks = self.peaks_mb()
        told = ", ".join(f"{name} {mb:.0f}" for name, mb in peaks.items())
        print(f"peak PSS in MB: {told}")
        for name, mb in peaks.items():
            bound = bounds_mb.get(name.partition("[")[0], bound_mb)
            assert mb <= bound, f"{name}: expected at most {bound:.0f} MB, got {mb:.0f} ({told})"


def grown_mb(samples: Samples) -> float | None:
    """Return how far a line through the samples rises once they are warm; None for too few."""
    warm = samples[int(len(samples) * WARM) :]
    if len(warm) < 3:
        return None
    slope = statistics.linear_regression(*zip(*warm, strict=True)).slope
    return slope * (warm[-1][0] - warm[0][0])
