"""What the sinks of the peers' benchmark saw is judged for what it is: losses are found."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.peers.verdict import Round, judge, percentile, summary
from benchmarks.peers.work import WARM_UP, Job

SMALL = Job("small", 10, "")
SECOND_NS = 1_000_000_000


def seen(
    numbers: list[int], sink: int = 0, first_s: float = 1, last_s: float = 2
) -> dict[str, Any]:
    return {
        "sink": sink,
        "count": len(numbers),
        "id_sum": sum(numbers),
        "damaged": 0,
        "first_ns": int(first_s * SECOND_NS),
        "last_ns": int(last_s * SECOND_NS),
    }


def test_all_messages_once_are_sound_and_have_a_rate() -> None:
    one = judge(SMALL, [seen(list(range(10)), first_s=1, last_s=3)])
    assert one.sound
    assert (one.sent, one.received, one.rate) == (10, 10, 5.0)


def test_a_missing_message_is_lost() -> None:
    one = judge(SMALL, [seen(list(range(9)))])
    assert (one.lost, one.repeated, one.sound) == (1, 0, False)
    assert one.rate == 9


def test_a_message_that_comes_twice_is_repeated() -> None:
    assert judge(SMALL, [seen([*range(10), 3])]).repeated == 1


def test_a_loss_behind_a_repetition_is_found_by_the_sum() -> None:
    one = judge(SMALL, [seen([*range(9), 3])])
    assert (one.lost, one.repeated) == (1, 1)


def test_a_sink_may_be_in_several_processes() -> None:
    one = judge(SMALL, [seen([0, 2, 4], first_s=1, last_s=2), seen([1, 3, 5, 6, 7, 8, 9], 0, 2, 5)])
    assert one.sound
    assert one.rate == 10 / 4


def test_a_process_that_saw_nothing_does_not_stretch_the_time() -> None:
    idle = {**seen([]), "first_ns": 0}
    assert judge(SMALL, [seen(list(range(10)), first_s=1, last_s=2), idle]).rate == 10


def test_every_sink_of_a_fan_out_is_owed_everything() -> None:
    job = Job("fanout", 10, "")
    numbers = list(range(10))
    one = judge(job, [seen(numbers, 0), seen(numbers, 1), seen(numbers[:7], 2)])
    assert (one.sent, one.lost) == (40, 3 + 10)  # the fourth sink reported nothing
    assert one.rate == 27 / 4


def test_damaged_messages_are_not_sound() -> None:
    assert not judge(SMALL, [{**seen(list(range(10))), "damaged": 1}]).sound


def test_no_report_at_all_is_an_error() -> None:
    with pytest.raises(ValueError, match="small: expected a report of each sink, got none"):
        judge(SMALL, [])


def test_paced_messages_are_told_apart_by_number_and_judged_after_the_warm_up() -> None:
    count = WARM_UP + 100
    ages = [(number, 5_000_000) for number in range(WARM_UP)]
    ages += [(number, 1000 * (number - WARM_UP)) for number in range(WARM_UP, count)]
    ages[-1] = ages[-2]
    report = {"sink": 0, "count": count, "ages_ns": ages, "first_ns": 1, "last_ns": 2}
    one = judge(Job("paced", count, ""), [report])
    assert (one.lost, one.repeated) == (1, 1)
    assert (one.p50_us, one.p99_us) == (50, 98)


def test_percentile_of_nothing_is_zero() -> None:
    assert percentile([], 0.5) == 0
    assert percentile([7], 0.99) == 7


def test_a_summary_has_medians_and_adds_up_what_went_wrong() -> None:
    rounds = [
        Round(10, 10 - lost, lost, 0, 0, rate) for lost, rate in ((0, 1.0), (2, 9.0), (1, 5.0))
    ]
    found = summary(rounds)
    assert (found["rate"], found["lost"], found["sent"]) == (5.0, 3, 30)
