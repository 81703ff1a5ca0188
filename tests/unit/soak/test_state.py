"""The state of a soak: the old one or the new one, and whether its writer is alive."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from soak.state import FILE, State, is_alive, load, save

STATE = State("mixed", 3600.0, 1.0, None, 7, 0.5)


def test_state_comes_back_as_it_was(tmp_path: Path) -> None:
    save(tmp_path, STATE)
    assert load(tmp_path) == STATE
    assert [entry.name for entry in tmp_path.iterdir()] == [FILE]


def test_write_that_fails_leaves_the_old_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, STATE)

    def fail(file: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        save(tmp_path, replace(STATE, part=9))
    assert load(tmp_path) == STATE


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 99}', '{"version": 1, "odd": 2}'])
def test_what_is_no_state_is_refused_with_its_name(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ValueError, match=r"state\.json: expected the state of a soak"):
        load(tmp_path)


def test_directory_without_a_soak_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="name the directory of a soak"):
        load(tmp_path)


def test_part_under_way_is_alive_as_long_as_its_process() -> None:
    mine = STATE.next_part("/tmp/soak-x", "mark")
    assert (mine.part, mine.pid) == (1, os.getpid())
    assert is_alive(mine)
    assert not is_alive(mine.over())
    assert not is_alive(
        replace(mine, born_s=mine.born_s - 1000)
    )  # somebody else has its number now
