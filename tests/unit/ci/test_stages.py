"""What CI runs: each stage once, each file in one shard; times and second tries are told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.ci.__main__ import conclude, parse, plan
from tests.ci.pool import Done, Pool
from tests.ci.shards import FOLDER, TRACED, files_of
from tests.ci.stages import CI, NIGHTLY, Shard, ci_stage, groups, nightly_stage
from tests.fuzz.targets import TARGETS


def words(shard: Shard) -> list[str]:
    """Return every word of a shard's commands."""
    return [word for command in shard.commands for word in command]


def python(name: str, code: str, **changes: float) -> Shard:
    """Return a shard that runs Python code."""
    return Shard("unit", name, ((sys.executable, "-c", code),), **changes)  # type: ignore[arg-type]


def test_every_stage_runs_once_and_what_measures_runs_alone() -> None:
    found = groups(CI)
    assert [name for group in found for name in group] == list(CI)
    assert ["bench"] in found
    assert ["alone"] in found
    assert groups(["bench", "lint"]) == [["lint"], ["bench"]]


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_every_integration_test_is_in_one_shard(jobs: int) -> None:
    shards = ci_stage("integration", jobs, tracing=True)
    files = [word for shard in shards for word in words(shard) if word.endswith(".py")]
    assert sorted(files) == sorted(f"tests/integration/{p.name}" for p in FOLDER.glob("test_*.py"))
    assert len({shard.name for shard in shards}) == len(shards)


def test_coverage_is_measured_where_it_tells_most_and_only_if_it_is_asked_for() -> None:
    assert set(files_of(traced=True)) == TRACED
    for shard in ci_stage("integration", 2, tracing=True):
        assert ("coverage" in words(shard)) == ("traced" in shard.name)
    assert not any("coverage" in words(s) for s in ci_stage("integration", 2, tracing=False))


def test_what_follows_two_dashes_goes_to_pytest() -> None:
    asked, pytests = parse(["unit", "--jobs", "2", "--", "-k", "codec"])
    ((shard,),) = plan(asked, pytests)
    assert words(shard)[:3] == [sys.executable, "-m", "pytest"]
    assert words(shard)[3:6] == ["tests/unit", "-k", "codec"]


def test_an_unknown_stage_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse(["unti"])
    assert "expected stages out of: lint types" in capsys.readouterr().err


def test_the_night_has_longer_forms() -> None:
    asked, _ = parse(["--nightly", "--hours", "2"])
    stages = [shard.stage for (shard,) in plan(asked, [])]
    assert list(dict.fromkeys(stages)) == list(NIGHTLY)
    assert ("DFLOW_STRESS", "20") in nightly_stage("stress", 2)[0].env
    assert ("DFLOW_CYCLES", "1000") in nightly_stage("cycles", 2)[0].env


def test_soaks_of_all_profiles_fit_and_a_long_one_must_decide() -> None:
    mixed, *others = nightly_stage("soak", 12)
    assert words(mixed)[-5:] == ["--hours", "12.00", "--profile", "mixed", "--strict"]
    assert [words(other)[-4:-2] for other in others] == [["--hours", "1.00"]] * 3
    assert mixed.limit_s > 12 * 3600
    assert "--strict" not in words(nightly_stage("soak", 1)[0])


def test_the_fuzzers_time_is_shared_out_to_its_targets() -> None:
    (fuzz,) = nightly_stage("fuzz", 12)
    minutes = int(words(fuzz)[words(fuzz).index("--minutes") + 1])
    assert 0.5 * 120 <= minutes * len(TARGETS) <= 2 * 120
    assert minutes * len(TARGETS) * 60 < fuzz.limit_s


def test_a_shard_stops_at_its_first_red_command_and_keeps_its_words(tmp_path: Path) -> None:
    red = "import sys; print('seen'); sys.exit(3)"
    commands = tuple((sys.executable, "-c", code) for code in (red, "print('not this')"))
    told: list[Done] = []
    (done,) = Pool(1, tmp_path).run([Shard("unit", "a 1/2", commands)], told.append)
    assert told == [done]
    assert (done.status, done.output, done.verdict) == (3, "seen\n", "FAILED (3)")


def test_shards_are_told_in_order_and_hear_their_environment(tmp_path: Path) -> None:
    shard = Shard(
        "unit",
        "b",
        ((sys.executable, "-c", "import os; print(os.environ['SAID'])"),),
        env=(("SAID", "hello"),),
    )
    told: list[str] = []
    Pool(2, tmp_path).run([python("a", "pass"), shard], lambda d: told.append(d.output))
    assert told == ["", "hello\n"]


def test_a_shard_that_hangs_is_ended(tmp_path: Path) -> None:
    hanging = python("a", "import time; time.sleep(60)", limit_s=0.2)
    (done,) = Pool(1, tmp_path).run([hanging], lambda done: None)
    assert done.status != 0
    assert "a hangs" in done.output


def test_no_test_selected_is_red_unless_the_caller_selects(tmp_path: Path) -> None:
    nothing = python("a", "import sys; sys.exit(5)")
    assert [d.status for d in Pool(1, tmp_path).run([nothing], lambda d: None)] == [5]
    lenient = Pool(1, tmp_path, lenient=True)
    assert [d.status for d in lenient.run([nothing], lambda d: None)] == [0]


def test_a_shard_of_the_night_is_seen_while_it_runs(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (done,) = Pool(1, tmp_path, live=True).run([python("a", "print('seen')")], lambda d: None)
    assert done.output == ""
    assert capfd.readouterr().out == "seen\n"


def test_what_is_broken_elsewhere_does_not_keep_the_checks_from_running() -> None:
    code = (
        "import sys, tests.ci.__main__; print(*(m for m in sys.modules if m.startswith('dflow')))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == ""


def ended(*reruns: str, status: int = 0) -> Done:
    """Return a shard that ended with these reruns."""
    return Done(python("a", ""), status, 1.0, "", reruns)


def test_second_tries_are_counted_named_and_bounded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "print('RERUN tests/x.py::test_a - AssertionError')"
    (done,) = Pool(1, tmp_path).run([python("a", said)], lambda d: None)
    assert done.reruns == ("tests/x.py::test_a",)
    assert conclude([done], 1.0) == 0
    assert "tried twice: tests/x.py::test_a" in capsys.readouterr().out
    assert conclude([ended("a", "b"), ended("c")], 1.0) == 1
    assert conclude([ended(status=1)], 1.0) == 1
