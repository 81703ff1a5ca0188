"""The examples run as their docstrings say, and do what they claim."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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
