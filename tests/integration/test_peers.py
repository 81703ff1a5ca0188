"""The benchmark of peers runs from end to end with the carriers that are always here.

The others are in an environment that only `python -m benchmarks.peers` builds; here they are not
installed and not run.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.peers.registry import PEERS

pytestmark = pytest.mark.timeout(120)

ROOT = Path(__file__).parents[2]


def test_carriers_of_this_environment_deliver_everything(tmp_path: Path) -> None:
    names = [peer.adapter for peer in PEERS if peer.own and peer.adapter != "by_hand"]
    out = tmp_path / "results.json"
    command = [sys.executable, "-m", "benchmarks.peers", "--count", "20", "--rounds", "1"]
    done = subprocess.run(
        [*command, "--only", *names, "--json", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(out.read_text())
    assert [peer["adapter"] for peer in document["peers"]] == names
    for peer in document["peers"]:
        assert peer["works"]
        for work, measured in peer["works"].items():
            wrong = [measured.get(name) for name in ("failed", "lost", "repeated", "damaged")]
            assert wrong == [None, 0, 0, 0], (peer["title"], work, measured)
