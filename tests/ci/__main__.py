"""Run every check, or only the stages named; prints what each shard took and why one is red.

    python -m tests.ci                     everything, as CI does
    python -m tests.ci lint types          only these stages
    python -m tests.ci unit -- -k codec    what follows -- goes to pytest
    python -m tests.ci --nightly           what is too long for CI; --hours H for the soak

Goes on to the end, and fails if any shard was red or if more tests had to be tried twice than
`MOST_RERUNS`. Called by scripts/test and scripts/nightly, which make the environment.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tests.ci import shards
from tests.ci.pool import Done, Pool
from tests.ci.stages import CI, NIGHTLY, Shard, ci_stage, groups, nightly_stage

MOST_RERUNS = 2
"""Tests that may pass at the second try before the whole is red: one is chance, three are a bug."""


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return what was asked for, and what goes to pytest."""
    own, pytests = list(arguments), []
    if "--" in own:
        at = own.index("--")
        own, pytests = own[:at], own[at + 1 :]
    parser = argparse.ArgumentParser(prog="scripts/test", description="Run the checks of dflow.")
    parser.add_argument("stages", nargs="*", help=f"out of: {' '.join(CI)}")
    parser.add_argument("--jobs", type=int, default=int(os.environ.get("DFLOW_SHARDS") or 0))
    parser.add_argument("--nightly", action="store_true", help=f"out of: {' '.join(NIGHTLY)}")
    parser.add_argument(
        "--hours",
        type=float,
        default=8.0,
        help="of the nightly mixed soak; all in all it takes half as long again",
    )
    asked = parser.parse_args(own)
    known = NIGHTLY if asked.nightly else CI
    for stage in asked.stages:
        if stage not in known:
            parser.error(f"expected stages out of: {' '.join(known)}; got {stage!r}")
    asked.stages = [stage for stage in known if stage in asked.stages] or list(known)
    asked.jobs = asked.jobs if asked.jobs > 0 else len(os.sched_getaffinity(0))
    return asked, pytests


def plan(
    asked: argparse.Namespace, pytests: Sequence[str], reports: Path | None = None
) -> list[list[Shard]]:
    """Return groups of shards, one group after the other."""
    if asked.nightly:
        each = (nightly_stage(stage, asked.hours, asked.jobs) for stage in asked.stages)
        return [[shard] for shards in each for shard in shards]
    tracing = "coverage" in asked.stages
    shards_of = partial(ci_stage, tracing=tracing, reports=reports)
    return [
        [shard for stage in group for shard in shards_of(stage, asked.jobs, pytests)]
        for group in groups(asked.stages)
    ]


def at_once(group: Sequence[Shard]) -> int:
    """Return how many shards to run at once beyond one a job: processes often wait for others."""
    return int(bool(group) and group[0].stage == "integration")


def tell(done: Done) -> None:
    """Print what a shard said."""
    print(f"\n=== {done.shard.name}: {done.verdict}, {done.seconds:.0f} s")
    print(done.output, end="", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print the summary, return the exit code."""
    asked, pytests = parse(sys.argv[1:] if arguments is None else arguments)
    began = time.monotonic()
    for left in Path().glob(".coverage*"):
        left.unlink()
    with tempfile.TemporaryDirectory(prefix="dflow-ci-") as folder:
        logs = Path(folder)
        pool = Pool(asked.jobs, logs, lenient=bool(pytests), live=asked.nightly)
        reports = logs if os.environ.get("DFLOW_DURATIONS") else None

        def stop(number: int, frame: object) -> None:
            pool.stop()
            sys.exit(128 + number)

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
        groups_of = plan(asked, pytests, reports)
        done = [ended for group in groups_of for ended in pool.run(group, tell, at_once(group))]
        if reports is not None:
            shards.save(shards.record([str(path) for path in reports.glob("*.xml")]))
    return conclude(done, time.monotonic() - began)


def conclude(done: Sequence[Done], seconds: float) -> int:
    """Print a line for each shard, and the tests that were tried twice; return the exit code."""
    print("\n=== summary")
    for ended in done:
        print(f"{ended.shard.name:<24}{ended.seconds:>6.0f} s  {ended.verdict}")
    print(f"{'all':<24}{seconds:>6.0f} s")
    reruns = [name for ended in done for name in ended.reruns]
    for name in reruns:
        print(f"tried twice: {name}")
    red = any(ended.status for ended in done)
    if len(reruns) > MOST_RERUNS:
        red = True
        print(f"FAILED: expected at most {MOST_RERUNS} second tries, got {len(reruns)}")
    return 1 if red else 0


if __name__ == "__main__":
    sys.exit(main())
