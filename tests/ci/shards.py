"""Which integration tests run side by side: the same split of their files each time.

Files are dealt out longest first, each to the shard with the least to do, by durations that were
recorded once (``DFLOW_DURATIONS=1 scripts/test integration``); a new file counts as a middling
one. Rejected: a queue that shards take from (a failure could not be repeated), and splitting files
(their fixtures would be made twice).

Line coverage doubles what such a test costs, mostly in processes that start and end. So it is
measured in the files of `TRACED` only, which reach all that the others do, but for some lines: what
they find is a lower bound.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from xml.etree import ElementTree as ET

__all__ = ["FOLDER", "TRACED", "Split", "files_of", "known_durations", "record", "save", "split"]

FOLDER = Path(__file__).parents[1] / "integration"
DURATIONS = FOLDER / "durations.json"

TRACED = frozenset(
    {
        "test_bench.py",
        "test_cancel_emitted.py",
        "test_cli.py",
        "test_cli_status.py",
        "test_launch.py",
        "test_launch_ends.py",
        "test_run_errors.py",
    }
)

Split = list[list[str]]


def split(files: Sequence[str], durations_s: Mapping[str, float], shards: int) -> Split:
    """Return the files of each shard, every file in one, in alphabetical order."""
    middling_s = median(durations_s.values() or [1.0])
    of_file = {name: durations_s.get(name, middling_s) for name in files}
    found: Split = [[] for _ in range(shards)]
    loads_s = [0.0] * shards
    for name in sorted(files, key=lambda name: (-of_file[name], name)):
        least = loads_s.index(min(loads_s))
        found[least].append(name)
        loads_s[least] += of_file[name]
    return [sorted(names) for names in found]


def files_of(*, traced: bool) -> list[str]:
    """Return the names of the files whose coverage is measured, or of the others."""
    names = sorted(path.name for path in FOLDER.glob("test_*.py"))
    return [name for name in names if (name in TRACED) == traced]


def known_durations() -> dict[str, float]:
    """Return the seconds that each file took when that was recorded."""
    if not DURATIONS.exists():
        return {}
    found: dict[str, float] = json.loads(DURATIONS.read_text(encoding="utf-8"))
    return found


def record(reports: Sequence[str]) -> dict[str, float]:
    """Return the seconds that each file took by JUnit reports."""
    found: dict[str, float] = {}
    for report in reports:
        for case in ET.parse(report).iter("testcase"):
            name = f"{case.get('classname', '').rpartition('.')[2]}.py"
            found[name] = found.get(name, 0.0) + float(case.get("time", 0))
    return {name: round(seconds, 1) for name, seconds in sorted(found.items())}


def save(durations_s: Mapping[str, float]) -> None:
    """Make these the durations that the split goes by."""
    DURATIONS.write_text(f"{json.dumps(durations_s, indent=1)}\n", encoding="utf-8")
