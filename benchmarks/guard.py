"""Whether ratios are still what they were: baselines, verdicts, and the one second chance.

Pure but for reading and writing ``baselines.json``. What is compared is the median of a run's
ratios with the one that is stored; a figure fails when it is worse by more than its tolerance,
and a benchmark with a figure that fails is measured once more, and then decides. Better than
the baseline is no failure, but said, so that the baseline can be raised.

A run whose machine was busy with others is judged with each figure's ``busy_tolerance``: CPU time a
message is the same on a busy machine, a rate is not, and one of which others use more than half
says nothing of rates. Rejected: not judging anything on busy machines (shared ones always are),
absolute times, and a test of significance over the rounds (five rounds beside each other are not
independent, and what it says nobody can check by eye).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

from benchmarks.registry import Benchmark, Better, Effort, Figure
from benchmarks.rounds import Comparison

__all__ = [
    "BASELINES",
    "BUSY",
    "SWAMPED",
    "Baseline",
    "Outcome",
    "Verdict",
    "check",
    "judge",
    "origin",
    "read",
    "updated",
    "write",
]

BASELINES = Path(__file__).with_name("baselines.json")
BUSY = 0.10
"""Share of the cores from which on other programs make the machine a busy one."""

SWAMPED = 0.5
"""From here on rates and latencies say nothing at all; CPU time is still judged."""

Status = Literal["ok", "better", "worse", "not judged", "no baseline"]


@dataclass(frozen=True, slots=True)
class Baseline:
    """What a ratio was, and how much worse it may be: by ``tolerance``, as a share."""

    expected: float
    better: Better
    tolerance: float
    busy_tolerance: float

    def limit(self, *, busy: bool) -> float:
        """Return the worst ratio that passes."""
        tolerance = self.busy_tolerance if busy else self.tolerance
        sign = -1 if self.better == "higher" else 1
        return self.expected * (1 + sign * tolerance)

    def status(self, got: float, *, busy: bool) -> Status:
        """Return how ``got`` compares; "better" is beyond the tolerance, too."""
        limit, higher = self.limit(busy=busy), self.better == "higher"
        if got < limit if higher else got > limit:
            return "worse"
        other_limit = 2 * self.expected - limit
        return "better" if (got > other_limit if higher else got < other_limit) else "ok"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one figure. ``others``: the share of the cores other programs used."""

    name: str
    status: Status
    rounds: tuple[float, ...]
    others: float
    baseline: Baseline | None

    @property
    def got(self) -> float:
        """The median of the rounds."""
        return median(self.rounds)

    def sentence(self) -> str:
        """Say what was expected, what was got, and in which rounds."""
        rounds = ", ".join(f"{one:.3g}" for one in self.rounds)
        if self.baseline is None:
            return f"{self.name}: got {self.got:.3g} (rounds {rounds}), and there is no baseline"
        busy = self.others > BUSY
        sense = "at least" if self.baseline.better == "higher" else "at most"
        tolerance = self.baseline.busy_tolerance if busy else self.baseline.tolerance
        shared = f"; other programs used {self.others:.0%} of the machine" if busy else ""
        return (
            f"{self.name}: expected {sense} {self.baseline.limit(busy=busy):.3g} "
            f"({self.baseline.expected:.3g}, {tolerance:.0%} tolerance{shared}), "
            f"got {self.got:.3g} (rounds {rounds})"
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was measured for one benchmark, at last, and what it means.

    ``first``: the verdicts that made it be measured again; empty if it passed at once.
    """

    benchmark: Benchmark[Any]
    comparison: Comparison[Any]
    verdicts: tuple[Verdict, ...]
    first: tuple[Verdict, ...] = ()

    @property
    def failed(self) -> list[Verdict]:
        """The verdicts that make a check fail."""
        return [one for one in self.verdicts if one.status in ("worse", "no baseline")]


def judge(
    benchmark: Benchmark[Any],
    effort: Effort,
    comparison: Comparison[Any],
    baselines: Mapping[str, Baseline],
) -> tuple[Verdict, ...]:
    """Return a verdict for every figure that is guarded in this effort."""
    if not benchmark.has_reference:
        return ()
    others, found = comparison.shared(), []
    for figure in benchmark.judged(effort):
        name = f"{benchmark.name}.{figure.name}"
        rounds = tuple(comparison.ratios(figure.of))
        baseline = baselines.get(name)
        status: Status = "no baseline"
        if baseline is not None:
            status = baseline.status(median(rounds), busy=others > BUSY)
            if others > SWAMPED and baseline.busy_tolerance > baseline.tolerance:
                status = "not judged"
        found.append(Verdict(name, status, rounds, others, baseline))
    return tuple(found)


def check(
    selected: Sequence[Benchmark[Any]],
    effort: Effort,
    baselines: Mapping[str, Baseline],
    measure: Callable[[Benchmark[Any]], Comparison[Any]],
    *,
    again: bool = True,
) -> list[Outcome]:
    """Measure all, then once more those that are worse; the second time decides for them."""
    found = []
    for benchmark in selected:
        comparison = measure(benchmark)
        verdicts = judge(benchmark, effort, comparison, baselines)
        found.append(Outcome(benchmark, comparison, verdicts))
    return [_second(one, effort, baselines, measure) if again else one for one in found]


def _second(
    outcome: Outcome,
    effort: Effort,
    baselines: Mapping[str, Baseline],
    measure: Callable[[Benchmark[Any]], Comparison[Any]],
) -> Outcome:
    """Return ``outcome``, or what a second measurement says of the figures that were worse."""
    worse = {one.name for one in outcome.verdicts if one.status == "worse"}
    if not worse:
        return outcome
    comparison = measure(outcome.benchmark)
    later = judge(outcome.benchmark, effort, comparison, baselines)
    verdicts = tuple(
        after if before.name in worse else before
        for before, after in zip(outcome.verdicts, later, strict=True)
    )
    first = tuple(one for one in outcome.verdicts if one.name in worse)
    return Outcome(outcome.benchmark, comparison, verdicts, first)


def read(path: Path, effort: Effort) -> dict[str, Baseline]:
    """Return the baselines stored for ``effort``; none if there is no file."""
    return {name: Baseline(**one) for name, one in _stored(path, effort)["figures"].items()}


def origin(path: Path, effort: Effort) -> dict[str, Any]:
    """Return when and on what the baselines of ``effort`` were taken."""
    return dict(_stored(path, effort)["taken"])


def updated(outcomes: Sequence[Outcome], effort: Effort) -> dict[str, Baseline]:
    """Return baselines that say what was measured."""
    return {
        f"{one.benchmark.name}.{figure.name}": _baseline(figure, one.comparison)
        for one in outcomes
        if one.benchmark.has_reference
        for figure in one.benchmark.judged(effort)
    }


def _baseline(figure: Figure[Any], comparison: Comparison[Any]) -> Baseline:
    busy = figure.tolerance if figure.busy_tolerance is None else figure.busy_tolerance
    expected = float(f"{median(comparison.ratios(figure.of)):.4g}")
    return Baseline(expected, figure.better, figure.tolerance, busy)


def write(
    path: Path, effort: Effort, baselines: Mapping[str, Baseline], taken: Mapping[str, Any]
) -> None:
    """Store ``baselines`` of ``effort``, beside what is there; ``taken``: when, and on what."""
    everything = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    figures = _stored(path, effort)["figures"]
    figures |= {name: asdict(one) for name, one in baselines.items()}
    everything[effort.name] = {"taken": dict(taken), "figures": dict(sorted(figures.items()))}
    path.write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")


def _stored(path: Path, effort: Effort) -> dict[str, Any]:
    if not path.exists():
        return {"taken": {}, "figures": {}}
    everything = json.loads(path.read_text(encoding="utf-8"))
    return dict(everything.get(effort.name, {"taken": {}, "figures": {}}))
