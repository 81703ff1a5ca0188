"""Random graphs: what `python -m tests.sim` does, as many as a CI run has time for.

``DFLOW_SIMULATIONS`` says how many (2,000), ``DFLOW_SIMULATION_JOBS`` in how many processes (a core
each), ``DFLOW_SIMULATION_SEED`` from which seed on. They are the same ones each time: a change
is judged by what it changes. The night draws others.
"""

from __future__ import annotations

import os
import time
from collections import Counter

import pytest

from tests.sim.campaign import explain, judge_all
from tests.sim.draw import draw

COUNT = int(os.environ.get("DFLOW_SIMULATIONS", "2000"))
SEED = int(os.environ.get("DFLOW_SIMULATION_SEED", "1"))
JOBS = int(os.environ.get("DFLOW_SIMULATION_JOBS", os.cpu_count() or 1))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_random_graphs_do_what_they_must(capsys: pytest.CaptureFixture[str]) -> None:
    outcomes: Counter[str] = Counter()
    began_s = time.monotonic()
    for verdict in judge_all(range(SEED, SEED + COUNT), "all", JOBS):
        outcomes[verdict.outcome] += 1
        if verdict.wrong:
            told = explain(draw(verdict.seed), budget_s=30.0)
            again = f"python -m tests.sim --seed {verdict.seed}"
            pytest.fail(f"seed {verdict.seed} (again: {again})\n{verdict.wrong[0]}\n{told}")
    rate = outcomes.total() / (time.monotonic() - began_s)
    with capsys.disabled():
        print(
            f"\n{COUNT} random graphs from seed {SEED} on: {rate:.1f} a second in {JOBS} processes"
        )
    assert outcomes.total() == COUNT
    assert outcomes["finished"] > COUNT // 3, f"from seed {SEED}: {outcomes}"
