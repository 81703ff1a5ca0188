"""Measure everything that is registered, in one run; print a table and write JSON.

    python -m benchmarks.run [--short] [--only NAME ...] [--check | --update] [--bars]

``scripts/bench`` does the same in an environment of its own. ``--check`` compares the ratios with
``benchmarks/baselines.json`` and ends with 1 if one is worse by more than its tolerance, also
when measured again; ``--update`` stores what was measured. ``--bars`` ends with 1 if a figure
misses the bar it is meant to reach.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import msgpack
import zmq

import dflow
from benchmarks import guard
from benchmarks.registry import LONG, SHORT, Benchmark, Effort, Figure, benchmarks
from benchmarks.rounds import Comparison, own_cores, print_table

CORES = 2
HEAD = ("what", "unit", "reference", "dflow", "ratio", "baseline", "bar", "others")
UPDATE_ROUNDS = 15


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write; return the exit code."""
    asked = parse(arguments)
    effort = SHORT if asked.short else LONG
    effort = replace(effort, rounds=asked.rounds or effort.rounds)
    if asked.update and asked.short and not asked.rounds:
        effort = replace(effort, rounds=UPDATE_ROUNDS)
    selected = select(benchmarks(), effort, asked.only, pin_cores())
    baselines = guard.read(asked.baselines, effort)
    judging = asked.check and comparable(asked.baselines, effort)
    began = time.monotonic()
    outcomes = guard.check(
        selected, effort, baselines, lambda one: measured(one, effort), again=judging
    )
    print_table([row for one in outcomes for row in rows(one, effort)], HEAD)
    print(f"\n{len(outcomes)} benchmarks, {effort.name} form, {time.monotonic() - began:.0f} s")
    write_results(asked.json, effort, outcomes)
    if asked.update:
        guard.write(asked.baselines, effort, guard.updated(outcomes, effort), taken())
        print(f"baselines of the {effort.name} form written to {asked.baselines}")
    missed = [sentence for one in outcomes for sentence in missed_bars(one, effort)]
    for sentence in missed:
        print(f"bar missed: {sentence}")
    failed = report(outcomes) if judging else False
    return 1 if failed or (asked.bars and missed) else 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return what was asked for."""
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--short", action="store_true", help="the form of CI: a minute and a half")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these benchmarks")
    parser.add_argument("--rounds", type=int, help="how often each side is measured (5)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="fail if worse than the baselines")
    what.add_argument("--update", action="store_true", help="make what is measured the baselines")
    parser.add_argument("--bars", action="store_true", help="fail if a bar is missed")
    parser.add_argument("--json", type=Path, default=here / "results.json", metavar="FILE")
    parser.add_argument("--baselines", type=Path, default=guard.BASELINES, metavar="FILE")
    return parser.parse_args(arguments)


def pin_cores() -> int:
    """Use two cores at the most, and return how many there are.

    On more cores three processes do not share any, so the ratios are others. What is measured on
    two of many cores can be compared with what was measured on a machine that has two.
    """
    cores = own_cores()
    if len(cores) > CORES and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores[:CORES])
        print(f"of {len(cores)} cores {CORES} are used, so that ratios can be compared")
    return len(own_cores())


def select(
    every: list[Benchmark[Any]], effort: Effort, only: Sequence[str], cores: int
) -> list[Benchmark[Any]]:
    """Return the benchmarks to run; says which were asked for and are skipped, and why."""
    names = [one.name for one in every]
    if unknown := sorted(set(only) - set(names)):
        raise SystemExit(f"--only: expected some of {', '.join(names)}; got {', '.join(unknown)}")
    found = []
    for one in every:
        if one.name in only or (not only and (one.short or effort.name == "long")):
            if cores < one.cores:
                print(f"skipped: {one.name} needs {one.cores} cores, there is {cores}")
            else:
                found.append(one)
    return found


def comparable(path: Path, effort: Effort) -> bool:
    """Whether the baselines were taken with such a Python on such a processor; says if not."""
    there = guard.origin(path, effort)
    here = taken()
    differ = [key for key in ("python", "processor") if there.get(key, here[key]) != here[key]]
    for key in differ:
        print(f"not judged: the baselines are of {key} {there[key]}, and this is {here[key]}")
    return not differ


def measured(benchmark: Benchmark[Any], effort: Effort) -> Comparison[Any]:
    """Measure one benchmark; says how long it took."""
    began = time.monotonic()
    found = benchmark.measure(effort)
    took_s = time.monotonic() - began
    repeated = f", {found.repeated} runs repeated" if found.repeated else ""
    print(f"{benchmark.name}: {took_s:.1f} s{repeated}", flush=True)
    return found


def rows(outcome: guard.Outcome, effort: Effort) -> list[list[str]]:
    """Return the table's rows of one benchmark."""
    benchmark, comparison = outcome.benchmark, outcome.comparison
    verdicts = {one.name: one for one in outcome.verdicts}
    found = []
    for figure in benchmark.judged(effort):
        name = f"{benchmark.name}.{figure.name}"
        verdict = verdicts.get(name)
        baseline = verdict.baseline if verdict else None
        reference = ratio = ""
        if benchmark.has_reference:
            reference = short(median(map(figure.of, comparison.reference)))
            ratio = f"{median(comparison.ratios(figure.of)):.3f}"
        found.append(
            [
                name,
                figure.unit,
                reference,
                short(median(map(figure.of, comparison.dflow))),
                ratio,
                f"{baseline.expected:.3f}" if baseline else "",
                bar(figure),
                f"{comparison.shared():.0%}",
            ]
        )
    return found


def short(value: float) -> str:
    """Return a number with as many digits as say something."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def bar(figure: Figure[Any]) -> str:
    """Return what the figure is meant to reach."""
    if figure.bar is None:
        return ""
    return f"{'>=' if figure.better == 'higher' else '<='} {figure.bar:g}"


def missed_bars(outcome: guard.Outcome, effort: Effort) -> list[str]:
    """Return a sentence for each figure that misses its bar."""
    benchmark, comparison = outcome.benchmark, outcome.comparison
    found = []
    for figure in benchmark.judged(effort):
        plain = list(map(figure.of, comparison.dflow))
        got = median(comparison.ratios(figure.of) if benchmark.has_reference else plain)
        if not figure.meets_bar(got):
            found.append(f"{benchmark.name}.{figure.name}: expected {bar(figure)}, got {got:.3g}")
    return found


def report(outcomes: Sequence[guard.Outcome]) -> bool:
    """Print what the check found; return whether it failed."""
    failed = False
    for outcome in outcomes:
        for verdict in outcome.first:
            print(f"measured again: {verdict.sentence()}")
        for verdict in outcome.verdicts:
            if verdict.status == "not judged":
                print(f"not judged on so busy a machine: {verdict.sentence()}")
            if verdict.status == "better":
                print(f"better than its baseline, which could be raised: {verdict.sentence()}")
        for verdict in outcome.failed:
            failed = True
            print(f"FAILED {verdict.sentence()}")
    print("worse than the baselines" if failed else "no figure is worse than its baseline")
    return failed


def write_results(path: Path, effort: Effort, outcomes: Sequence[guard.Outcome]) -> None:
    """Write every round of every figure as JSON."""
    found: dict[str, Any] = {}
    for outcome in outcomes:
        benchmark, comparison = outcome.benchmark, outcome.comparison
        figures: dict[str, Any] = {}
        for figure in benchmark.judged(effort):
            figures[figure.name] = {"unit": figure.unit, "better": figure.better}
            figures[figure.name]["dflow"] = [figure.of(one) for one in comparison.dflow]
            if benchmark.has_reference:
                figures[figure.name]["reference"] = [figure.of(o) for o in comparison.reference]
                ratios = comparison.ratios(figure.of)
                figures[figure.name] |= {"ratios": ratios, "ratio": median(ratios)}
        found[benchmark.name] = {
            "figures": figures,
            "others": comparison.others,
            "repeated": comparison.repeated,
        }
    result = {"form": effort.name, "rounds": effort.rounds, **taken(), "benchmarks": found}
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def taken() -> dict[str, Any]:
    """Return when this is, and what the figures depend on."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "python": ".".join(platform.python_version_tuple()[:2]),
        "processor": platform.machine(),
        "system": platform.platform(terse=True),
        "cores": len(own_cores()),
        "dflow": dflow.__version__,
        "pyzmq": zmq.pyzmq_version(),
        "libzmq": zmq.zmq_version(),
        "msgpack": ".".join(map(str, msgpack.version)),
    }


if __name__ == "__main__":
    sys.exit(main())
