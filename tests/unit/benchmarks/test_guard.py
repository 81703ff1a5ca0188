"""The guard of performance: what fails, what is measured again, what is stored."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import guard, run
from benchmarks.guard import Baseline, Outcome
from benchmarks.registry import LONG, SHORT, Benchmark, Figure, benchmarks
from benchmarks.rounds import Comparison

RATE: Figure[float] = Figure("rate", "msg/s", "higher", float, bar=0.75, busy_tolerance=0.5)
COST: Figure[float] = Figure("cost", "us", "lower", float)
LONG_ONLY: Figure[float] = Figure("p99", "us", "lower", float, short=False)


def pairs(*ratios: float, others: float = 0.0) -> Comparison[float]:
    """Rounds with these ratios, on a machine of which others used a share."""
    shares = [others] * 2 * len(ratios)
    return Comparison([100.0] * len(ratios), [100 * one for one in ratios], shares)


def bench(*figures: Figure[float], name: str = "b", **options: Any) -> Benchmark[float]:
    """A benchmark that nobody measures."""
    return Benchmark(name, lambda effort: pairs(1.0), figures or (COST,), **options)


def base(expected: float, figure: Figure[float] = COST) -> Baseline:
    """The baseline of a figure."""
    busy = figure.tolerance if figure.busy_tolerance is None else figure.busy_tolerance
    return Baseline(expected, figure.better, figure.tolerance, busy)


def in_turn(*comparisons: Comparison[float]) -> Callable[[Benchmark[Any]], Comparison[float]]:
    """Measurements that come out like this, one after the other, and no more of them."""
    waiting = list(comparisons)
    return lambda benchmark: waiting.pop(0)


def checked(*measured: Comparison[float], figure: Figure[float] = COST) -> Outcome:
    """Check one figure whose baseline is 1."""
    baselines = {f"b.{figure.name}": base(1.0, figure)}
    (outcome,) = guard.check([bench(figure)], SHORT, baselines, in_turn(*measured))
    return outcome


# --- the comparison ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("figure", "got", "status"),
    [
        (COST, 1.09, "ok"),
        (COST, 1.11, "worse"),
        (COST, 0.91, "ok"),
        (COST, 0.89, "better"),
        (RATE, 0.91, "ok"),
        (RATE, 0.89, "worse"),
        (RATE, 1.09, "ok"),
        (RATE, 1.11, "better"),
    ],
)
def test_worse_is_beyond_ten_percent_in_the_bad_direction(
    figure: Figure[float], got: float, status: str
) -> None:
    assert base(1.0, figure).status(got, busy=False) == status


def test_a_figure_is_the_median_of_the_rounds_ratios() -> None:
    assert checked(pairs(9.0, 1.0, 1.0, 1.05, 0.1)).verdicts[0].status == "ok"


def test_a_ratio_is_taken_of_two_runs_next_to_each_other() -> None:
    """A minute in which all is twice as slow is in no ratio."""
    slowed = Comparison([100.0, 200.0, 100.0], [150.0, 300.0, 150.0])
    assert slowed.ratios(float) == [1.5, 1.5, 1.5]


def test_a_busy_machine_has_tolerances_of_its_own() -> None:
    rounds = (0.6, 0.6, 0.6)
    again = (pairs(*rounds), pairs(*rounds))
    assert checked(*again, figure=RATE).failed
    assert not checked(pairs(*rounds, others=0.4), figure=RATE).failed
    assert checked(*[pairs(0.4, 0.4, others=0.4)] * 2, figure=RATE).failed


def test_where_others_use_more_than_half_rates_are_not_judged_and_cpu_time_is() -> None:
    both = {"b.rate": base(1.0, RATE), "b.cost": base(1.0)}
    (outcome,) = guard.check(
        [bench(RATE, COST)], SHORT, both, in_turn(*[pairs(0.1, others=0.6)] * 2)
    )
    assert [one.status for one in outcome.verdicts] == ["not judged", "better"]
    slow = guard.judge(bench(RATE, COST), SHORT, pairs(9.0, others=0.6), both)
    assert [one.status for one in slow] == ["not judged", "worse"]


def test_cpu_time_is_judged_alike_on_a_busy_machine() -> None:
    assert checked(*[pairs(1.2, 1.2, others=0.9)] * 2).failed


def test_a_failure_says_what_was_expected_and_what_each_round_was() -> None:
    (verdict,) = checked(*[pairs(1.5, 1.25, 1.125)] * 2).failed
    assert verdict.sentence() == (
        "b.cost: expected at most 1.1 (1, 10% tolerance), got 1.25 (rounds 1.5, 1.25, 1.12)"
    )


def test_a_failure_on_a_busy_machine_says_so() -> None:
    (verdict,) = checked(*[pairs(0.4, 0.4, others=0.44)] * 2, figure=RATE).failed
    assert verdict.sentence() == (
        "b.rate: expected at least 0.5 (1, 50% tolerance; other programs used 44% of the machine), "
        "got 0.4 (rounds 0.4, 0.4)"
    )


# --- the second chance -------------------------------------------------------------------------


def test_what_fails_is_measured_once_more_and_that_decides() -> None:
    outcome = checked(pairs(2.0), pairs(1.0))
    assert outcome.failed == []
    assert [one.got for one in outcome.first] == [2.0]
    assert [one.got for one in checked(pairs(2.0), pairs(3.0)).failed] == [3.0]


def test_only_what_fails_is_measured_again() -> None:
    measured: list[str] = []

    def measure(benchmark: Benchmark[Any]) -> Comparison[float]:
        measured.append(benchmark.name)
        return pairs(2.0 if benchmark.name == "slow" else 1.0)

    baselines = {"slow.cost": base(1.0), "good.cost": base(1.0)}
    both = [bench(name="slow"), bench(name="good")]
    outcomes = guard.check(both, SHORT, baselines, measure)
    assert measured == ["slow", "good", "slow"]
    assert [bool(one.failed) for one in outcomes] == [True, False]


def test_a_figure_that_passed_at_once_cannot_fail_the_second_time() -> None:
    baselines = {"b.cost": base(1.0), "b.rate": base(1.0, RATE)}
    measured = in_turn(
        Comparison([1.0], [1.05]),  # cost passes
        Comparison([1.0], [1.05]),
    )
    (outcome,) = guard.check([bench(COST, RATE)], SHORT, baselines, measured)
    assert outcome.failed == []
    first, second = Comparison([1.0], [0.8]), Comparison([1.0], [1.3])
    (outcome,) = guard.check([bench(COST, RATE)], SHORT, baselines, in_turn(first, second))
    assert [one.status for one in outcome.verdicts] == ["better", "better"]
    assert outcome.failed == []


def test_a_figure_without_a_baseline_fails_and_is_not_measured_again() -> None:
    (outcome,) = guard.check([bench()], SHORT, {}, in_turn(pairs(1.0)))
    (verdict,) = outcome.failed
    assert verdict.sentence() == "b.cost: got 1 (rounds 1), and there is no baseline"


def test_what_has_no_reference_is_guarded_by_no_baseline() -> None:
    plain = bench(has_reference=False)
    (outcome,) = guard.check([plain], SHORT, {}, in_turn(Comparison(dflow=[5.0])))
    assert outcome.verdicts == ()


def test_a_figure_of_the_long_form_is_judged_in_the_long_form_only() -> None:
    one = bench(LONG_ONLY)
    assert guard.judge(one, SHORT, pairs(1.0), {}) == ()
    assert len(guard.judge(one, LONG, pairs(1.0), {})) == 1


# --- baselines ---------------------------------------------------------------------------------


def test_baselines_are_stored_by_form_and_others_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "baselines.json"
    outcomes = [Outcome(bench(COST, LONG_ONLY), pairs(1.23456), ())]
    guard.write(path, LONG, {"other.cost": base(3.0)}, {"date": "then"})
    guard.write(path, LONG, guard.updated(outcomes, LONG), {"date": "now"})
    guard.write(path, SHORT, guard.updated(outcomes, SHORT), {"date": "now"})
    assert guard.read(path, SHORT) == {"b.cost": base(1.235)}
    assert set(guard.read(path, LONG)) == {"b.cost", "b.p99", "other.cost"}
    assert guard.origin(path, LONG) == {"date": "now"}


def test_a_missing_file_has_no_baselines(tmp_path: Path) -> None:
    assert guard.read(tmp_path / "none.json", SHORT) == {}


def test_a_benchmark_is_registered_once() -> None:
    names = [one.name for one in benchmarks()]
    assert sorted(set(names)) == sorted(names)


def test_every_guarded_figure_of_the_short_form_has_a_baseline_that_says_the_same() -> None:
    stored = guard.read(guard.BASELINES, SHORT)
    ofs = {
        f"{one.name}.{figure.name}": base(stored[f"{one.name}.{figure.name}"].expected, figure)
        for one in benchmarks()
        if one.short and one.has_reference
        for figure in one.judged(SHORT)
    }
    assert stored == ofs


def test_tolerances_beyond_ten_percent_have_a_reason() -> None:
    wide = [
        f"{one.name}.{figure.name}"
        for one in benchmarks()
        for figure in one.figures
        if figure.tolerance > 0.1 and not figure.why
    ]
    assert wide == []


# --- the command -------------------------------------------------------------------------------


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> list[Comparison[float]]:
    """Make `run.main` find one benchmark, which measures what is in the list it returns."""
    waiting: list[Comparison[float]] = []
    one = Benchmark("b", lambda effort: waiting.pop(0), (COST, RATE))
    monkeypatch.setattr(run, "benchmarks", lambda: [one])
    monkeypatch.setattr(run, "pin_cores", lambda: 2)
    return waiting


def command(tmp_path: Path, *arguments: str) -> int:
    """Run the command with files of its own."""
    files = ["--json", f"{tmp_path}/results.json", "--baselines", f"{tmp_path}/baselines.json"]
    return run.main([*files, *arguments])


def test_check_passes_what_update_stored_and_fails_what_is_slower(
    fake: list[Comparison[float]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake += [pairs(0.9), pairs(0.95), pairs(1.5), pairs(1.4)]
    assert command(tmp_path, "--short", "--update") == 0
    assert command(tmp_path, "--short", "--check") == 0
    assert command(tmp_path, "--short", "--check") == 1
    said = capsys.readouterr().out
    assert "measured again: b.cost: expected at most 0.99" in said
    assert "FAILED b.cost: expected at most 0.99 (0.9, 10% tolerance), got 1.4" in said
    stored = json.loads((tmp_path / "results.json").read_text())
    assert stored["benchmarks"]["b"]["figures"]["cost"]["ratio"] == pytest.approx(1.4)


def test_a_missed_bar_is_said_and_fails_only_when_asked(
    fake: list[Comparison[float]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake += [pairs(0.7), pairs(0.7)]
    assert command(tmp_path) == 0
    assert "bar missed: b.rate: expected >= 0.75, got 0.7" in capsys.readouterr().out
    assert command(tmp_path, "--bars") == 1


def test_baselines_of_another_python_judge_nothing(
    fake: list[Comparison[float]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.append(pairs(9.0))
    path = tmp_path / "baselines.json"
    guard.write(path, SHORT, {"b.cost": base(1.0)}, {"python": "2.7"})
    assert command(tmp_path, "--short", "--check") == 0
    assert "not judged: the baselines are of python 2.7" in capsys.readouterr().out


def test_too_few_cores_skip_a_benchmark_and_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    both = [bench(name="wide"), bench(name="narrow", cores=1)]
    assert [one.name for one in run.select(both, SHORT, [], cores=1)] == ["narrow"]
    assert capsys.readouterr().out == "skipped: wide needs 2 cores, there is 1\n"


def test_what_is_not_short_is_in_the_short_form_when_asked_for_by_name() -> None:
    both = [bench(name="a"), bench(name="b", short=False)]
    assert [one.name for one in run.select(both, SHORT, [], 2)] == ["a"]
    assert [one.name for one in run.select(both, SHORT, ["b"], 2)] == ["b"]
    assert [one.name for one in run.select(both, LONG, [], 2)] == ["a", "b"]
    with pytest.raises(SystemExit, match="expected some of a, b; got c"):
        run.select(both, LONG, ["c"], 2)
