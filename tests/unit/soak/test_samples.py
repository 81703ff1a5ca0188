"""The file of samples: whole lines, whatever happens to who writes or to the disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soak.samples import SampleFile, read


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "samples.jsonl"


def test_lines_come_back_in_order(path: Path) -> None:
    with SampleFile(path) as file:
        assert all(file.append({"t": t, "who": "é"}) for t in range(3))
    assert list(read(path)) == [{"t": t, "who": "é"} for t in range(3)]


def test_torn_last_line_is_left_out_and_cut_off_by_who_goes_on(path: Path) -> None:
    path.write_bytes(b'{"t":1}\n{"t":2}\n{"t":3,"p":{"so')
    assert list(read(path)) == [{"t": 1}, {"t": 2}]
    with SampleFile(path) as file:
        file.append({"t": 4})
    assert list(read(path)) == [{"t": 1}, {"t": 2}, {"t": 4}]


def test_file_of_nothing_but_a_torn_line_becomes_empty(path: Path) -> None:
    path.write_bytes(b'{"t":')
    SampleFile(path).close()
    assert path.read_bytes() == b""


@given(cut=st.integers(0, 60))
def test_file_cut_anywhere_has_only_whole_lines(
    cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("cut") / "samples.jsonl"
    whole = b'{"t":1,"a":[1,2]}\n{"t":2,"a":"x y"}\n{"t":3}\n'
    path.write_bytes(whole[:cut])
    expected = whole[:cut].count(b"\n")
    assert [line["t"] for line in read(path)] == list(range(1, expected + 1))
    with SampleFile(path) as file:
        file.append({"t": expected + 1})
    assert [line["t"] for line in read(path)] == list(range(1, expected + 2))


class FullDisk:
    """Writes as `os.write` does, and half of it or nothing while ``full``."""

    def __init__(self) -> None:
        self.full = False
        self.half = False

    def __call__(self, file: int, data: bytes) -> int:
        if self.full:
            if self.half:
                os.write(file, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return os.write(file, data)


@pytest.mark.parametrize("half", [False, True])
def test_full_disk_costs_lines_and_says_so_and_nothing_else(path: Path, half: bool) -> None:
    disk = FullDisk()
    with SampleFile(path, disk) as file:
        file.append({"t": 1})
        disk.full, disk.half = True, half
        assert not file.append({"t": 2})
        assert not file.append({"t": 3})
        assert file.trouble == "No space left on device"
        disk.full = False
        assert file.append({"t": 4})
        assert file.trouble == ""
        assert file.append({"t": 5})
        assert file.lost_in_all == 2
    assert list(read(path)) == [{"t": 1}, {"t": 4, "lost": 2}, {"t": 5}]


def test_line_written_in_part_is_taken_back(path: Path) -> None:
    with SampleFile(path, lambda file, data: os.write(file, data[:3])) as file:
        assert not file.append({"t": 1})
    assert path.read_bytes() == b""


@pytest.mark.parametrize("bad", [b"not json\n", b"[1, 2]\n"])
def test_line_in_the_middle_that_is_no_object_is_an_error_with_its_number(
    path: Path, bad: bytes
) -> None:
    path.write_bytes(b'{"t":1}\n' + bad + b'{"t":2}\n')
    with pytest.raises(ValueError, match=r"samples\.jsonl:2: expected a JSON object"):
        list(read(path))
