"""Which integration tests run side by side: the same split of their files each time.

    python -m tests.shards 1/2            the files of the first of two shards
    python -m tests.shards --record a.xml what pytest --junitxml wrote: makes durations.json

Files are dealt out longest first, each to the shard with the least to do, by durations that were
recorded once; a new file counts as a middling one. Rejected: a queue that shards take from (a
failure could not be repeated), and splitting files (their fixtures would be made twice).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from xml.etree import ElementTree as ET

__all__ = ["record", "split"]

FOLDER = Path(__file__).parent / "integration"
DURATIONS = FOLDER / "durations.json"


def split(files: Sequence[str], durations_s: Mapping[str, float], shards: int) -> list[list[str]]:
    """Return the files of each shard, every file in one, in alphabetical order."""
    middling_s = median(durations_s.values() or [1.0])
    of_file = {name: durations_s.get(name, middling_s) for name in files}
    found: list[list[str]] = [[] for _ in range(shards)]
    loads_s = [0.0] * shards
    for name in sorted(files, key=lambda name: (-of_file[name], name)):
        least = loads_s.index(min(loads_s))
        found[least].append(name)
        loads_s[least] += of_file[name]
    return [sorted(names) for names in found]


def record(reports: Sequence[str]) -> dict[str, float]:
    """Return the seconds that each file took by JUnit reports."""
    found: dict[str, float] = {}
    for report in reports:
        for case in ET.parse(report).iter("testcase"):
            name = f"{case.get('classname', '').rpartition('.')[2]}.py"
            found[name] = found.get(name, 0.0) + float(case.get("time", 0))
    return {name: round(seconds, 1) for name, seconds in sorted(found.items())}


def main(arguments: Sequence[str]) -> None:
    """Print the files of one shard, or record durations."""
    if arguments[0] == "--record":
        text = json.dumps(record(arguments[1:]), indent=1)
        DURATIONS.write_text(f"{text}\n", encoding="utf-8")
        return
    number, _, shards = arguments[0].partition("/")
    durations_s = json.loads(DURATIONS.read_text(encoding="utf-8")) if DURATIONS.exists() else {}
    names = [path.name for path in FOLDER.glob("test_*.py")]
    for name in split(names, durations_s, int(shards))[int(number) - 1]:
        print(FOLDER.relative_to(Path.cwd()) / name)


if __name__ == "__main__":
    main(sys.argv[1:])
