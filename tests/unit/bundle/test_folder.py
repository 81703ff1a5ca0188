"""A bundle on disk: whole or not at all, private, and read without trusting it."""

from __future__ import annotations

import errno
import os
import resource
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from dflow.bundle import folder
from dflow.bundle.folder import INDEX, folder_name, read, write
from dflow.errors import BundleError

FILES = {INDEX: "{}", "processes/a[0]/log.txt": "one\ntwo\n"}


@pytest.fixture
def no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = write(FILES, str(tmp_path / "new"), "one")
    assert path == str(tmp_path / "new" / "one")
    bundle = read(path)
    assert (dict(bundle.files), bundle.problems) == (FILES, [])


def test_only_the_owner_may_look_whatever_the_umask(tmp_path: Path, no_umask: None) -> None:
    path = Path(write(FILES, str(tmp_path), "one"))
    for entry in (path, *path.rglob("*")):
        assert not stat.S_IMODE(entry.stat().st_mode) & 0o077, entry


def test_a_taken_name_gets_a_number_and_what_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("mine")
    assert write(FILES, str(tmp_path), "one") == str(tmp_path / "one-2")
    assert write(FILES, str(tmp_path), "one") == str(tmp_path / "one-3")
    assert (tmp_path / "one").read_text() == "mine"


def test_a_link_in_the_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "one").symlink_to(tmp_path / "elsewhere")
    assert write(FILES, str(tmp_path), "one") == str(tmp_path / "one-2")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_full_disk_is_a_clear_error_and_leaves_nothing(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))  # Python ignores SIGXFSZ
    try:
        with pytest.raises(BundleError, match=r"about 9 KiB to .*, got File too large; make room"):
            write(FILES | {"big": "x" * 10_000}, str(tmp_path), "one")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_an_error_at_any_step_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fails(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "rename", fails)
    with pytest.raises(BundleError, match=os.strerror(code)):
        write(FILES, str(tmp_path), "one")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="name another directory"):
        write(FILES, str(tmp_path / "file"), "one")


@pytest.mark.parametrize(
    ("graph", "name"),
    [("orders", "dflow-orders-ab12"), ("../../etc/x", "dflow-..__.._etc_x-ab12"), ("ä b", None)],
)
def test_the_name_of_a_graph_cannot_lead_elsewhere(graph: str, name: str | None) -> None:
    found = folder_name(graph, "ab12")
    assert "/" not in found
    assert found.startswith("dflow-")
    if graph == "orders":
        assert found == name


# --- reading what strangers made ----------------------------------------------------------


def test_what_is_no_directory_or_holds_nothing_is_said(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="No such file"):
        read(str(tmp_path / "nothing"))
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="Not a directory"):
        read(str(tmp_path / "file"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(BundleError, match=r"bundle.json and others\), got no files"):
        read(str(tmp_path / "empty"))
    (tmp_path / "empty" / "notes.txt").write_text("of somebody")
    other = read(str(tmp_path / "empty"))
    with pytest.raises(BundleError, match="got 1 files of something else"):
        other.require_known()
    (tmp_path / "empty" / "report.txt").write_text("all that is left of one")
    read(str(tmp_path / "empty")).require_known()


def test_links_and_pipes_are_not_read(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    inside = Path(write(FILES, str(tmp_path), "one"))
    (inside / "link").symlink_to(outside / "secret")
    (inside / "folder").symlink_to(outside)
    os.mkfifo(inside / "pipe")
    bundle = read(str(inside))
    assert "secret" not in "".join(bundle.files.values())
    assert sorted(bundle.problems) == [
        "folder is no file: it was not read",
        "link is no file: it was not read",
        "pipe is no file: it was not read",
    ]


def test_a_long_file_is_cut_off_and_so_is_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "MOST_BYTES", 10)
    monkeypatch.setattr(folder, "MOST_BYTES_IN_ALL", 25)
    path = write(dict.fromkeys("abc", "é" * 6), str(tmp_path), "one")
    bundle = read(path)
    assert [len(bundle.files[name]) for name in "abc"] == [5, 5, 3]
    assert bundle.problems == [
        "a: beyond 10 bytes it was not read",
        "b: beyond 10 bytes it was not read",
        "c: beyond 5 bytes it was not read",
    ]


def test_too_many_files_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "MOST_FILES", 2)
    bundle = read(write(dict.fromkeys("abcd", ""), str(tmp_path), "one"))
    assert sorted(bundle.files) == ["a", "b"]
    assert bundle.problems == ["more than 2 files: the rest was not read"]


def test_a_deep_tree_ends(tmp_path: Path) -> None:
    deep = tmp_path / "one"
    (deep / Path(*["d"] * 50)).mkdir(parents=True)
    (deep / "a").write_text("")
    assert "is no file" in read(str(deep)).problems[0]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"{", "x.json is damaged: Expecting property name"),
        (b"[1]", "x.json is damaged: expected an object, got list"),
        (b"[" * 100_000, "x.json is damaged: "),
        (b"\xff\xfe", "x.json is damaged: it is not UTF-8"),
    ],
)
def test_a_damaged_file_is_told_and_nothing_raises(
    tmp_path: Path, data: bytes, problem: str
) -> None:
    (tmp_path / "x.json").write_bytes(data)
    bundle = read(str(tmp_path))
    assert bundle.data("x.json") == {}
    assert any(found.startswith(problem) for found in bundle.problems), bundle.problems


def test_a_missing_file_is_told_once(tmp_path: Path) -> None:
    bundle = read(write(FILES, str(tmp_path), "one"))
    assert (bundle.data("status.json"), bundle.data("status.json")) == ({}, {})
    assert bundle.problems == ["status.json is missing"]
