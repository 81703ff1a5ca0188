"""The stages of ``scripts/test`` and of ``scripts/nightly``: what is run, beside what, how.

A stage is one or more shards; a shard is a few commands, one after the other. Stages of one group
run side by side, groups one after the other: what measures (``bench``) or is judged by the clock
(``alone``) is in a group of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.ci.shards import files_of, known_durations, split

__all__ = ["CI", "NIGHTLY", "Shard", "ci_stage", "groups", "nightly_stage"]

GROUPS = (
    ("lint", "types"),
    ("unit", "property", "sim"),
    ("integration",),
    ("alone",),
    ("stress",),
    ("coverage",),
    ("bench",),
)
CI = tuple(name for group in GROUPS for name in group)
PYTESTS = frozenset({"unit", "property", "sim", "integration", "alone", "stress"})

NIGHTLY = ("simulations", "fuzz", "cycles", "stress", "bench", "peers", "soak")

CYCLES = ("cycles", "interrupts")
"""Tests that go on for ``DFLOW_CYCLES``."""

CORE = "dflow/graph/*,dflow/wire/*,dflow/flow/*,dflow/broker/*,dflow/worker/*"
CORE += ",dflow/message.py,dflow/policy.py,dflow/options.py"
OVERALL_PERCENT, CORE_PERCENT = 85, 95

PROFILES = ("mixed", "frames", "control", "churn")
DECISIVE_HOURS = 8
"""A soak as long as this can tell 1 % an hour from nothing."""

RETRIED = ("--reruns", "1", "-raR")
"""A test of real processes that fails is tried once more, and counted; see docs/testing.md."""

Command = tuple[str, ...]
PYTHON = sys.executable


@dataclass(frozen=True)
class Shard:
    """One part of a stage: ``commands`` until one fails, with ``env`` added."""

    stage: str
    name: str
    commands: tuple[Command, ...]
    env: tuple[tuple[str, str], ...] = ()
    limit_s: float = 1200.0


def groups(names: Iterable[str]) -> list[list[str]]:
    """Return the stages named, in order, in the groups that run side by side."""
    wanted = set(names)
    found = [[name for name in group if name in wanted] for group in GROUPS]
    return [group for group in found if group]


def ci_stage(
    name: str,
    jobs: int,
    arguments: Sequence[str] = (),
    *,
    tracing: bool,
    reports: Path | None = None,
) -> list[Shard]:
    """Return the shards of a stage; ``arguments`` go to pytest.

    ``jobs``: how many run side by side. ``tracing``: coverage is wanted in the end. ``reports``:
    where integration tests leave what their files took.
    """
    if name in PYTESTS:
        return _tests(name, jobs, tuple(arguments), tracing=tracing, reports=reports)
    commands: dict[str, tuple[Command, ...]] = {
        "lint": (("ruff", "check", "."), ("ruff", "format", "--check", ".")),
        "types": (("mypy",),),
        "coverage": (
            ("coverage", "combine", "--quiet"),
            ("coverage", "report", f"--fail-under={OVERALL_PERCENT}"),
            ("coverage", "report", f"--include={CORE}", f"--fail-under={CORE_PERCENT}"),
        ),
        "bench": ((PYTHON, "-m", "benchmarks.run", "--check", "--short"),),
    }
    return [Shard(name, name, commands[name])]


def _tests(
    name: str, jobs: int, arguments: Command, *, tracing: bool, reports: Path | None
) -> list[Shard]:
    if name == "alone":
        where: Command = ("tests/integration", "-m", "alone", *RETRIED)
        return [_pytest(name, name, (*where, *arguments), tracing=False)]
    if name == "integration":
        if arguments:  # what was selected, in one
            return [_pytest(name, name, ("tests/integration", *arguments), tracing=tracing)]
        return _integration(jobs + 1, tracing=tracing, reports=reports)
    folder = "stress" if name == "stress" else f"tests/{name}"
    retried = RETRIED if name == "stress" else ()
    traced = tracing and name == "unit"
    return [_pytest(name, name, (folder, *retried, *arguments), tracing=traced)]


def _integration(jobs: int, *, tracing: bool, reports: Path | None) -> list[Shard]:
    """Return first the shards whose coverage is measured, then the others."""
    durations_s = known_durations()
    found: list[Shard] = []
    for traced, what in ((True, "traced "), (False, "")):
        for number, files in enumerate(split(files_of(traced=traced), durations_s, jobs), 1):
            name = f"integration {what}{number}/{jobs}"
            where = tuple(f"tests/integration/{file}" for file in files)
            if where:
                selected = (*where, "-m", "not alone", *RETRIED)
                if reports is not None:
                    selected += ("--junitxml", str(reports / f"{len(found)}.xml"))
                found.append(_pytest("integration", name, selected, tracing=traced and tracing))
    return found


def _pytest(stage: str, name: str, arguments: Command, *, tracing: bool) -> Shard:
    run: Command = ("coverage", "run", "-m", "pytest") if tracing else (PYTHON, "-m", "pytest")
    cache = f"cache_dir=.pytest_cache/{name.replace('/', '-').replace(' ', '-')}"
    return Shard(stage, name, ((*run, *arguments, "-o", cache),))


def nightly_stage(name: str, hours: float, jobs: int = 1) -> list[Shard]:
    """Return the shards of one stage of the night, one after the other.

    ``hours``: how long the soak of the mixed profile is; a sixth of it goes to the fuzzer, and a
    twelfth to each other profile. A soak of the whole length must come to a verdict. ``jobs``:
    processes that simulate.
    """
    if name == "soak":
        return [_soak(profile, hours) for profile in PROFILES]
    if name == "fuzz":
        return [_fuzz(hours)]
    tests = tuple(f"tests/integration/test_{it}.py" for it in CYCLES)
    commands: dict[str, Command] = {
        "simulations": (PYTHON, "-m", "tests.sim", "--count", "50000", "--jobs", str(jobs)),
        "cycles": (PYTHON, "-m", "pytest", *tests),
        "stress": (PYTHON, "-m", "pytest", "stress"),
        "bench": (PYTHON, "-m", "benchmarks.run", "--check"),
        "peers": (PYTHON, "-m", "benchmarks.peers"),
    }
    longer = {"stress": (("DFLOW_STRESS", "20"),), "cycles": (("DFLOW_CYCLES", "1000"),)}
    limit_s = (hours + 4) * 3600
    return [Shard(name, name, (commands[name],), longer.get(name, ()), limit_s)]


def _fuzz(hours: float) -> Shard:
    from tests.fuzz.targets import TARGETS  # imports most of dflow, which may be broken

    each_minutes = max(1, round(hours * 10 / len(TARGETS)))
    command = ("scripts/fuzz", "--minutes", str(each_minutes))
    return Shard("fuzz", "fuzz", (command,), limit_s=(hours + 4) * 3600)


def _soak(profile: str, hours: float) -> Shard:
    length = hours if profile == PROFILES[0] else hours / 12
    strict = ("--strict",) if length >= DECISIVE_HOURS else ()
    asked = ("--hours", f"{length:.2f}", "--profile", profile, *strict)
    return Shard(
        "soak", f"soak {profile}", ((PYTHON, "-m", "soak", *asked),), (), length * 3600 + 3600
    )
