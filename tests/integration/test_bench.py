"""The guard of performance, measuring for real: a hot path that got slower is found."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from benchmarks import guard, run, throughput
from benchmarks.registry import SHORT, Benchmark
from benchmarks.rounds import Comparison, compare
from benchmarks.throughput import Tally, Throughput, enrich, one_round, readings
from dflow import Graph
from dflow.wire.codec import Codec

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="the ratios are those of two cores"),
]

COUNT = 20_000


class SlowTally(Tally):
    """A sink in whose worker each message costs 30 us more to decode."""

    def on_start(self) -> None:
        """Slow the hot path of this process down."""
        decode_batch = Codec.decode_batch

        def slower(codec: Codec, body: Any, count: int, *rest: Any) -> list[Any]:
            for _ in range(count):
                sum(range(1500))
            return decode_batch(codec, body, count, *rest)

        Codec.decode_batch = slower  # type: ignore[assignment, method-assign]  # that is the injury


def run_slowly(count: int, result: str) -> None:
    """Run the graph of the benchmark with the slow sink."""
    graph = Graph("slow", readings(count) >> enrich() >> SlowTally(result))
    assert graph.run(log_level="WARNING").balances


def small(dflow: throughput.Run) -> Benchmark[Throughput]:
    """A round of few messages, dflow as it is against ``dflow``."""

    def measure(effort: object) -> Comparison[Throughput]:
        return compare(
            1,
            lambda: one_round(throughput.run_dflow, COUNT),
            lambda: one_round(dflow, COUNT),
            repeats=0,
        )

    return Benchmark("throughput", measure, throughput.figures())


def test_a_slower_decode_fails_the_check_with_its_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--json", f"{tmp_path}/results.json", "--baselines", f"{tmp_path}/baselines.json"]
    monkeypatch.setattr(run, "pin_cores", lambda: 2)
    monkeypatch.setattr(run, "benchmarks", lambda: [small(throughput.run_dflow)])
    assert run.main(["--short", "--update", *files]) == 0
    monkeypatch.setattr(run, "benchmarks", lambda: [small(run_slowly)])
    assert run.main(["--short", "--check", *files]) == 1
    said = capsys.readouterr().out
    expected = guard.read(tmp_path / "baselines.json", SHORT)["throughput.cpu"].expected
    assert f"FAILED throughput.cpu: expected at most {expected * 1.1:.3g}" in said
    stored = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert stored["benchmarks"]["throughput"]["figures"]["cpu"]["ratio"] > 1.1 * expected
