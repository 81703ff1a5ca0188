"""Logs of real runs: every line parses, whoever logs what, and no broken log ends a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.flows import ROOT

pytestmark = pytest.mark.timeout(60)

SCRIPT = """
import asyncio, logging, sys, threading
from loguru import logger
from dflow import Context, Graph, node, sink, source

class Mute:
    def __str__(self):
        raise RuntimeError("no text")
    __repr__ = __str__

@source
def numbers(n: int):
    logger.info("says numbers")
    yield from range(n)

@node
def first(x: int) -> int:
    if x == 1:
        logger.info("says first")
        def aside():
            logging.getLogger("odd\\ud800").warning("says first")
        thread = threading.Thread(target=aside)
        thread.start()
        thread.join()
    if x == 2:
        raise ValueError("two\\nlines \\ud800")
    return x

@node
def second(x: int, ctx: Context) -> int:
    if x == 1:
        ctx.log.info("says second")
        logging.getLogger("lib").info("says second")
        endless = []
        endless.append(endless)
        many = {f"k{i}": i for i in range(500)}
        odd = {"mute": Mute(), "endless": endless, "nan": float("nan"), "raw": b"\\xff", **many}
        logger.bind(**odd).info("says second")
        logging.getLogger("lib").error("bad %s", Mute())
    if x == 3:
        def broken(message):
            if "handler raised" in message:
                raise OSError(28, "No space left on device")
        logger.add(broken, catch=False)
        raise KeyError("after the handler broke")
    return x

@node
async def third(x: int) -> int:
    if x in (1, 2):
        await asyncio.sleep(0.001)
        logger.info("says third")
        await asyncio.to_thread(logger.info, "says third")
        await asyncio.get_running_loop().run_in_executor(None, logger.info, "says third")
    return x

@sink
async def fourth(x: int) -> None:
    if x == 1:
        await asyncio.sleep(0.001)
        logger.info("says fourth")
        await asyncio.get_running_loop().run_in_executor(None, logger.info, "says fourth")

if __name__ == "__main__":
    parts = numbers(30), first(), second(), third(), fourth()
    graph = Graph("logs", parts[0] >> parts[1] >> parts[2] >> parts[3] >> parts[4])
    if sys.argv[1] == "fused":
        graph.fuse(*parts)
    report = graph.run(log="json")
    print(report.outcome, report.balances, report.totals["delivered"])
"""


def run(
    tmp_path: Path, how: str, stderr: Any = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    """Run the script; ``how``: "fused" or "apart"."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    return subprocess.run(
        [sys.executable, str(script), how],
        stdout=subprocess.PIPE, stderr=stderr, text=True, timeout=50, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def test_every_line_parses_and_names_the_node_whose_code_logged_it(tmp_path: Path) -> None:
    done = run(tmp_path, "fused")
    records = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.returncode == 0
    assert done.stdout.startswith("finished True ")
    said = [record for record in records if record["message"].startswith("says ")]
    assert {record["node"] for record in said} == {"numbers", "first", "second", "third", "fourth"}
    wrong = [record for record in said if record["message"] != f"says {record['node']}"]
    assert wrong == []
    raised = [record for record in records if "handler raised" in record["message"]]
    assert {record["node"] for record in raised} >= {"first", "second"}
    life = [record["event"] for record in records if "event" in record]
    assert life == ["run.starting", "run.linked", "run.running", "run.finished"]
    assert {record["run_id"] for record in records} == {records[0]["run_id"]}
    end = records[[record.get("event") for record in records].index("run.finished")]
    assert f"finished True {end['extra']['delivered']}\n" == done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="has no /dev/full")
def test_a_disk_that_is_full_takes_the_log_and_nothing_else(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = run(tmp_path, "apart", full)
    assert (done.returncode, done.stdout.split()[:2]) == (0, ["finished", "True"])
