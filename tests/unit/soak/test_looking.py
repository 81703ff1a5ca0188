"""A look at processes: this one, whose files and memory the test knows."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from dflow.transport.segments import is_supported
from soak.looking import COLUMNS, MARK, Look, Reading, leftovers, look, marked

needs_linux = pytest.mark.skipif(not is_supported(), reason="needs /proc and memfd of Linux")


def mine(found: Look) -> Reading:
    return found.processes["soak"]


def test_row_has_the_columns_in_their_order() -> None:
    reading = mine(look({}))
    assert reading.row() == [getattr(reading, name) for name in COLUMNS]
    assert reading.pid == os.getpid()
    assert 0 < reading.anon <= reading.pss <= reading.rss


@needs_linux
def test_files_sockets_and_memory_files_are_counted_apart() -> None:
    before = look({})
    left, right = socket.socketpair()
    memory = os.memfd_create("soak-test")
    try:
        os.write(memory, bytes(100_000))
        after = look({})
    finally:
        left.close()
        right.close()
        os.close(memory)
    assert mine(after).fds == mine(before).fds + 3
    assert mine(after).sockets == mine(before).sockets + 2
    assert mine(after).memfds == mine(before).memfds + 1
    (inode,) = after.shared.keys() - before.shared.keys()
    assert 100_000 <= after.shared[inode] <= 200_000
    assert after.totals(None)["shm"] >= 100_000


def test_threads_are_counted() -> None:
    before, go = mine(look({})).threads, threading.Event()
    waiting = threading.Thread(target=go.wait)
    waiting.start()
    try:
        assert mine(look({})).threads == before + 1
    finally:
        go.set()
        waiting.join()


def test_temporary_files_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    assert look({}).totals(tmp_path)["temp"] == 1
    assert leftovers("no such mark", tmp_path)["temporary files"] == 1


def test_without_the_mark_nobody_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MARK, raising=False)
    assert marked("no such mark") == {}
