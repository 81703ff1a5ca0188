"""The same seed gives the same trace, byte for byte, whatever the process it is made in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from dflow.testing import Faults, simulate
from tests.sim.mixed import mixed

ROOT = Path(__file__).parents[2]
FAULTS = Faults(
    delay_s=(0, 0.001), drop_reports=0.1, duplicate_reports=0.2, stall_workers=2, cut_links=1
)

MAKE = """
from tests.sim.test_determinism import trace
print(trace())
"""


def trace() -> str:
    """Return the traces of a graph that has a bit of everything, with faults and without."""
    calm = simulate(mixed(), seed=3, send={"mixer.settings": [1, 2, 3]})
    rough = simulate(mixed(), seed=4, faults=FAULTS, raise_errors=False)
    return f"{calm.trace}\n{calm.results('store')}\n{rough.trace}\n{rough.outcome}"


def elsewhere(hash_seed: str) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-c", MAKE], env=environment, capture_output=True, text=True, check=True
    )
    return run.stdout.rstrip("\n")


def test_a_trace_is_the_same_again_and_under_other_hash_seeds() -> None:
    here = trace()
    assert len(here.splitlines()) > 200
    assert trace() == here
    assert elsewhere("1") == here
    assert elsewhere("2") == here
