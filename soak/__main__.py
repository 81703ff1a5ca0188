"""``python -m soak --minutes M``: soak a graph, sample every process, judge the slope.

The proportional set size of every process of the run (and of this one) is sampled once a
second or so. After a warm-up of a fifth of the time, a straight line is fitted to each; a
process that grew by more than ``--limit-mb`` along its line fails the soak, as do a growing
number of file descriptors and books that do not balance. Exit code 0 or 1.

The line is least squares, which a single late peak can tilt: judge short soaks kindly.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass, field
from statistics import linear_regression, median

import psutil

from soak.graph import soak_graph

WARM_UP = 0.2
MIN_SAMPLES = 10


@dataclass
class Track:
    """Samples of one process: seconds since the begin, megabytes, open files."""

    name: str
    at_s: list[float] = field(default_factory=list)
    pss_mb: list[float] = field(default_factory=list)
    files: list[int] = field(default_factory=list)

    def steady(self) -> Track:
        """Return the samples after the warm-up."""
        first = int(len(self.at_s) * WARM_UP)
        return Track(self.name, self.at_s[first:], self.pss_mb[first:], self.files[first:])

    def grown_mb(self) -> float:
        """Return the growth along the fitted line from the first sample to the last."""
        slope = linear_regression(self.at_s, self.pss_mb).slope
        return slope * (self.at_s[-1] - self.at_s[0])

    def grown_files(self) -> float:
        """Return by how many open files the last third exceeds the first, in the median."""
        third = max(1, len(self.files) // 3)
        return median(self.files[-third:]) - median(self.files[:third])


def sample(tracks: dict[int, Track], at_s: float) -> None:
    """Add one sample of every process there is."""
    me = psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        try:
            pss_mb = process.memory_full_info().pss / 1e6
            files = process.num_fds()
            name = "this process" if process == me else process.name()
        except psutil.Error:
            continue  # it ended between the listing and the look
        track = tracks.setdefault(process.pid, Track(name))
        track.at_s.append(at_s)
        track.pss_mb.append(pss_mb)
        track.files.append(files)


def verdict(tracks: dict[int, Track], limit_mb: float) -> bool:
    """Print a line for each process; return whether all of them stayed flat."""
    flat = True
    print(f"{'process':<28}{'samples':>8}{'median MB':>11}{'grown MB':>10}{'MB/h':>9}{'files':>7}")
    for pid, track in tracks.items():
        steady = track.steady()
        if len(steady.at_s) < MIN_SAMPLES:
            print(f"{track.name} {pid}: too few samples, {len(steady.at_s)}; soak longer")
            flat = False
            continue
        grown, files = steady.grown_mb(), steady.grown_files()
        hourly = grown / (steady.at_s[-1] - steady.at_s[0]) * 3600
        good = grown <= limit_mb and files <= 0
        flat = flat and good
        print(
            f"{f'{track.name} {pid}':<28}{len(steady.at_s):>8}{median(steady.pss_mb):>11.1f}"
            f"{grown:>10.2f}{hourly:>9.1f}{files:>+7.0f}{'' if good else '   GROWS'}"
        )
    return flat


def main(arguments: list[str] | None = None) -> int:
    """Soak and judge."""
    parser = argparse.ArgumentParser(prog="python -m soak", description="Soak a busy graph.")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--sample-s", type=float, default=1.0, help="seconds between samples")
    parser.add_argument("--limit-mb", type=float, default=3.0, help="growth that still passes")
    asked = parser.parse_args(arguments)
    tracks: dict[int, Track] = {}
    with soak_graph().start(log_level="WARNING") as run:
        begin = time.monotonic()
        while (at_s := time.monotonic() - begin) < asked.minutes * 60 and run.report is None:
            sample(tracks, at_s)
            time.sleep(asked.sample_s)
        run.stop()
        report = run.wait(timeout_s=60)
    print(report)
    flat = verdict(tracks, asked.limit_mb)
    good = flat and report.balances and report.outcome == "drained"
    print("soak: passed" if good else "soak: FAILED")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
