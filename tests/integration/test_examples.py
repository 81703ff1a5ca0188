"""The examples run as their docstrings say, and do what they claim."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from statistics import median

import pytest

pytestmark = pytest.mark.timeout(120)

ROOT = Path(__file__).parents[2]


def run_example(name: str, *arguments: str) -> list[str]:
    """Run an example as a user would and return the lines of its output."""
    done = subprocess.run(
        [sys.executable, f"examples/{name}", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert "books balance" in done.stdout, done.stdout
    return done.stdout.splitlines()


def test_hello_prints_every_square_and_the_report() -> None:
    lines = run_example("hello.py")
    assert sorted(int(line) for line in lines if line.isdigit()) == [x * x for x in range(10)]


def test_census_agrees_with_the_plain_loop() -> None:
    lines = run_example("stdlib_census.py", "--limit", "150", "--replicas", "2")
    assert any(line.startswith("totals: 150 files") for line in lines)
    assert any(line.startswith("both agree on every number") for line in lines)
    assert any("times as fast" in line for line in lines)


def test_sensor_stream_loses_no_sample_and_takes_the_new_limit() -> None:
    lines = run_example("sensor_stream.py", "--seconds", "1.2")
    shown = [line for line in lines if line.endswith(("samples)", "ALARM"))]
    counted = sum(int(line.partition("(")[2].partition(" ")[0]) for line in shown)
    (row,) = (line.split() for line in lines if line.startswith("sensors.out->smoother.samples"))
    assert counted == int(row[1].replace(",", "")) == int(row[2].replace(",", ""))
    assert any(line.split()[:3] == ["run->smoother.limits", "1", "1"] for line in lines)


def test_ports_separates_detections_from_what_cannot_be_judged() -> None:
    lines = run_example("ports.py")
    assert sum("rejected nan" in line for line in lines) == 10
    spikes = [line for line in lines if line.endswith("sigmas)")]
    assert len(spikes) == 6
    by_machine: dict[str, list[int]] = {}
    for line in spikes:
        machine, number, *_ = line.split()
        by_machine.setdefault(machine, []).append(int(number.strip("#:")))
    assert all(seen == list(range(1, len(seen) + 1)) for seen in by_machine.values()), by_machine


def found(pattern: str, lines: list[str]) -> list[tuple[str, ...]]:
    """Return the groups of every line that matches."""
    matches = (re.match(pattern, line) for line in lines)
    return [match.groups() for match in matches if match]


def test_the_kill_switch_overtakes_thousands_of_commands() -> None:
    lines = run_example("kill_switch.py")
    ((on_late, at_first),) = found(r"on (.*) ms after .*, (\d+) commands carried out", lines)
    ((off_late, until_off),) = found(r"off (.*) ms after .*, (\d+) commands carried out", lines)
    ((in_all, too_late),) = found(r"in the end (\d+) commands carried out, (\d+) refused", lines)
    assert at_first == "0"
    assert until_off == in_all != "0"  # none after the switch
    assert int(too_late) > 0
    assert max(float(on_late), float(off_late)) < 500  # the queue alone would take a second


@pytest.mark.alone
def test_the_viewer_gets_the_newest_frame_and_the_recorder_every_one() -> None:
    lines = run_example("camera_latest.py")
    seen = found(r"frame +(\d+), +(.*) ms old, +(\d+) passed over", lines)
    numbers = [int(number) for number, _, _ in seen]
    assert all(a < b for a, b in pairwise(numbers))
    assert numbers[-1] == 1499  # the last one is not lost
    assert median(float(age) for _, age, _ in seen) < 50
    assert sum(int(passed) for _, _, passed in seen) + len(seen) == 1500
    assert "recorded 1500 frames" in lines


def test_the_ordered_map_gives_results_in_order_from_several_replicas() -> None:
    lines = run_example("ordered_map.py")
    made = found(r"page +(\d+) by replica (\d) in", lines)
    assert [int(page) for page, _ in made] == [n for n in range(24) if n % 8 != 5]
    assert len({replica for _, replica in made}) > 1
    ((work, wall),) = found(r"(.*) s of work done in (.*) s", lines)
    assert float(work) > 1.0
    assert float(wall) > 0


def test_each_customer_is_served_in_order_and_none_waits_for_another() -> None:
    lines = run_example("per_customer_fifo.py")
    served = found(r"(\w+) (\d+) (served|given up)", lines)
    numbers: dict[str, list[int]] = {}
    for customer, number, _ in served:
        numbers.setdefault(customer, []).append(int(number))
    assert numbers["bob"] == [1, 2, 3]
    assert numbers["eve"] == [1, 2]
    assert numbers["ann"] == [1, 3, *range(4, 13)]
    assert {customer for customer, _, _ in served[:5]} == {"bob", "eve"}
    assert ("ann", "1", "given up") in served
    outcomes = [words for (words,) in found(r".* cancelled .*: (\w+)$", lines)]
    assert outcomes == ["cancelled", "done", "handling"]
    assert any(line.endswith("then refused: 10 of 10 waiting") for line in lines)


@pytest.mark.skipif(sys.platform != "linux", reason="memory files are Linux's")
def test_frames_are_shared_and_nothing_is_copied() -> None:
    lines = run_example("frames.py", "--frames", "150")
    assert "0 pixels were wrong, 0 frames were copied" in lines
    assert lines[-1].startswith("900 MB of frames took")


def test_unit_tests_show_a_report_in_virtual_time() -> None:
    lines = run_example("unit_tests.py")
    assert any("s of virtual time, seed 1" in line for line in lines)
    assert any(line.endswith("phase    finished") for line in lines)
