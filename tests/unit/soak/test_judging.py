"""The verdict: passed, failed or not enough evidence, each with its reason."""

from __future__ import annotations

import json
import math

import pytest

from soak.judging import FAILED, PASSED, UNDECIDED, Finding, as_dict, judge, overall
from tests.unit.soak.parts import END, books, part
from tests.unit.soak.series import level, saw_tooth, step

HOUR = 3600


def finding(findings: list[Finding], name: str) -> Finding:
    (found,) = [f for f in findings if f.name == name]
    return found


def test_flat_soak_with_exact_books_passes() -> None:
    findings = judge([part()])
    assert overall(findings) == PASSED, [f.text for f in findings if f.verdict != PASSED]
    assert {f.group for f in findings} == {"soak", "exact", "leaks", "memory", "rate"}


def test_leak_of_2_percent_an_hour_fails_and_names_the_process() -> None:
    leaking = level(2 * HOUR, 3, noise=0.3, percent_h=2.0)
    findings = judge([part(2 * HOUR, memory=leaking)])
    found = finding(findings, "memory of work[0]")
    assert found.verdict == FAILED
    assert found.value == pytest.approx(2.0, abs=0.3)
    assert finding(findings, "memory of soak").verdict == PASSED
    assert overall(findings) == FAILED


def test_leak_in_the_process_of_the_soak_fails_too() -> None:
    soaking = part(2 * HOUR)
    soaking.processes["soak"], soaking.processes["work[0]"] = (
        part(2 * HOUR, memory=level(2 * HOUR, 3, noise=0.3, percent_h=2.0)).processes["work[0]"],
        soaking.processes["soak"],
    )
    assert finding(judge([soaking]), "memory of soak").verdict == FAILED


def test_memory_that_shrinks_is_no_fault() -> None:
    findings = judge([part(memory=level(HOUR, 3, noise=0.1, percent_h=-20))])
    assert finding(findings, "memory of work[0]").verdict == PASSED


def test_noise_too_wide_for_the_time_is_not_enough_evidence_and_says_how_long_would_do() -> None:
    noisy = level(900, 5, noise=3.0)
    findings = judge([part(900, memory=noisy)])
    found = finding(findings, "memory of work[0]")
    assert found.verdict == UNDECIDED
    assert "after warm-up would decide" in found.text
    assert found.needs_s is not None
    assert found.needs_s > 900
    assert overall(findings) == UNDECIDED


def test_a_soak_as_long_as_was_said_does_decide() -> None:
    short = finding(judge([part(900, memory=level(900, 5, noise=1.0))]), "memory of work[0]")
    assert short.needs_s is not None
    seconds = int(1.5 * short.needs_s)
    longer = judge([part(seconds, memory=level(seconds, 6, noise=1.0))])
    assert finding(longer, "memory of work[0]").verdict == PASSED


def test_few_samples_are_not_judged() -> None:
    findings = judge([part(50)])
    assert overall(findings) == UNDECIDED
    assert "soak longer" in finding(findings, "memory of all").text


def test_saw_tooth_does_not_fail() -> None:
    findings = judge([part(memory=saw_tooth(HOUR, 1, period_s=300))])
    assert finding(findings, "memory of work[0]").verdict != FAILED


def test_step_after_the_warm_up_is_not_taken_for_a_slope() -> None:
    late = judge([part(memory=step(HOUR, 1, at_s=2700, height=5.0))])
    assert finding(late, "memory of work[0]").verdict == UNDECIDED
    early = judge([part(memory=step(HOUR, 1, at_s=1200, height=5.0))])
    found = finding(early, "memory of work[0]")
    assert found.verdict == PASSED  # flat since
    assert "in the second half" in found.text


def test_growth_in_the_warm_up_is_not_judged() -> None:
    noise = level(HOUR, 2, noise=0.05)
    grown = [value - max(0, 2400 - t) / 50 for t, value in enumerate(noise)]
    assert finding(judge([part(memory=grown)]), "memory of work[0]").verdict != PASSED
    late = judge([part(memory=grown, warm_up_s=2400)])
    assert finding(late, "memory of work[0]").verdict == PASSED


def filling(percent_h: float, settled_s: float) -> list[float]:
    """Return what needs 5 % more until it has enough, and then grows by ``percent_h``."""
    noise = level(2 * HOUR, 2, noise=0.05, percent_h=percent_h)
    return [v + 5 * (1 - math.exp(-3 * t / settled_s)) for t, v in enumerate(noise)]


def test_memory_that_needs_less_and_less_is_not_taken_for_a_leak() -> None:
    findings = judge([part(2 * HOUR, memory=filling(0.0, settled_s=2000))])
    found = finding(findings, "memory of work[0]")
    assert found.verdict == PASSED
    assert "in the second half" in found.text


def test_memory_that_has_not_settled_yet_is_not_enough_evidence() -> None:
    findings = judge([part(2 * HOUR, memory=filling(0.0, settled_s=9000))])
    assert finding(findings, "memory of work[0]").verdict == UNDECIDED


def test_leak_that_goes_on_after_a_long_warm_up_fails() -> None:
    findings = judge([part(2 * HOUR, memory=filling(3.0, settled_s=2000))])
    found = finding(findings, "memory of work[0]")
    assert found.verdict == FAILED
    assert found.value == pytest.approx(3.0, abs=0.5)


def test_young_processes_may_grow() -> None:
    leaking = level(250, 3, noise=0.01, percent_h=20.0)
    assert finding(judge([part(250, memory=leaking)]), "memory of work[0]").verdict == FAILED
    found = finding(judge([part(250, memory=leaking, young=True)]), "memory of work[0]")
    assert found.verdict == UNDECIDED
    assert "when every process still grows" in found.text


def test_jump_between_two_parts_is_no_growth() -> None:
    parts = [part(number=1), part(number=2, memory=level(HOUR, 4, noise=0.05, at=180))]
    assert finding(judge(parts), "memory of work[0]").verdict == PASSED


def test_file_descriptor_lost_every_ten_minutes_fails() -> None:
    leaking = [20.0 + t // 600 for t in range(HOUR)]
    found = finding(judge([part(files=leaking)]), "file descriptors of work[0]")
    assert found.verdict == FAILED
    assert "one more is one too many" in found.text


def test_file_descriptors_that_come_and_go_pass() -> None:
    busy = [20.0 + (t * 7919) % 3 for t in range(HOUR)]
    assert finding(judge([part(files=busy)]), "file descriptors").verdict == PASSED


def test_throughput_that_falls_by_20_percent_fails() -> None:
    falling = level(HOUR, 3, noise=2.0, percent_h=-20, at=1000)
    assert finding(judge([part(rate=falling)]), "throughput").verdict == FAILED


def test_throughput_that_falls_on_a_machine_others_use_is_not_enough_evidence() -> None:
    falling = level(HOUR, 3, noise=2.0, percent_h=-20, at=1000)
    found = finding(judge([part(rate=falling, others=0.4)]), "throughput")
    assert found.verdict == UNDECIDED
    assert "others used 40 % of the machine" in found.text


def test_drift_within_5_percent_passes() -> None:
    falling = level(HOUR, 3, noise=2.0, percent_h=-3, at=1000)
    assert finding(judge([part(rate=falling)]), "throughput").verdict == PASSED


def test_books_that_do_not_balance_fail_with_the_contradiction() -> None:
    soaking = part()
    soaking.books.append(books(imbalances=["edge a->b: 7 sent, but 6 delivered"]))
    found = finding(judge([soaking]), "books")
    assert found.verdict == FAILED
    assert "edge a->b: 7 sent, but 6 delivered" in found.text


def test_message_that_did_not_arrive_fails() -> None:
    soaking = part()
    soaking.books[0] = books(streams=[["s", 1000, 999, "stream s: expected 1,000 …, got 999"]])
    assert finding(judge([soaking]), "end to end").verdict == FAILED


@pytest.mark.parametrize("rows", [[], [["s", 0, 0, ""]]])
def test_streams_without_messages_prove_nothing(rows: list[list[object]]) -> None:
    soaking = part()
    soaking.books[0] = books(streams=rows)
    assert finding(judge([soaking]), "end to end").verdict == UNDECIDED


def test_what_is_left_behind_fails_and_is_named() -> None:
    end = END | {"after": {"threads": 4}, "left": ["python worker"]}
    found = finding(judge([part(end=end)]), "left behind")
    assert found.verdict == FAILED
    assert "+1 threads" in found.text
    assert "python worker" in found.text


def test_soak_that_ended_early_fails_with_the_reason() -> None:
    found = finding(judge([part(end=END | {"reason": "run main failed: WorkerDied"})]), "the soak")
    assert found.verdict == FAILED
    assert "WorkerDied" in found.text


def test_part_that_was_killed_is_said_and_does_not_fail() -> None:
    parts = [part(end=None), part(number=2)]
    findings = judge(parts)
    assert "part 1 ended without a last word" in finding(findings, "the soak").text
    assert overall(findings) == PASSED


def test_nothing_at_all_fails() -> None:
    assert overall(judge([])) == FAILED


def test_findings_are_json_even_with_no_end_in_sight() -> None:
    endless = Finding("m", "memory", UNDECIDED, "?", 1.0, 0.0, 2.0, 1.0, "%/h", float("inf"))
    assert json.loads(json.dumps(as_dict(endless), allow_nan=False))["needs_s"] is None
