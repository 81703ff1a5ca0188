"""Shards of the integration tests: every file in one of them, evenly, always the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ci.shards import FOLDER, record, split


@pytest.mark.parametrize("shards", [1, 2, 3, 7])
def test_every_file_is_in_one_shard(shards: int) -> None:
    files = [path.name for path in FOLDER.glob("test_*.py")]
    found = split(files, {}, shards)
    assert len(found) == shards
    assert sorted(name for names in found for name in names) == sorted(files)


def test_shards_have_about_as_much_to_do_whatever_the_order_of_files() -> None:
    durations = {"a": 10.0, "b": 6.0, "c": 5.0, "d": 1.0}
    assert split(["a", "b", "c", "d"], durations, 2) == [["a", "d"], ["b", "c"]]
    assert split(["d", "c", "b", "a"], durations, 2) == [["a", "d"], ["b", "c"]]


def test_a_new_file_counts_as_a_middling_one() -> None:
    assert split(["new", "a", "b"], {"a": 9.0, "b": 1.0, "c": 5.0}, 2) == [["a"], ["b", "new"]]


def test_durations_are_read_off_reports(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(
        '<testsuites><testsuite><testcase classname="tests.integration.test_a" time="1.5"/>'
        '<testcase classname="tests.integration.test_a" time="0.25"/>'
        '<testcase classname="tests.integration.test_b" time="2"/></testsuite></testsuites>'
    )
    assert record([str(report)]) == {"test_a.py": 1.8, "test_b.py": 2.0}
