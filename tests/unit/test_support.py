"""The leak check is only worth something if it sees a leak."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests import support


def test_an_orphan_is_seen_by_its_mark() -> None:
    script = (
        "import os, sys\n"
        "r, w = os.pipe()\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    os.close(w); sys.stdin.read(); os._exit(0)\n"
        "print(pid, flush=True)\n"
    )
    read_end, write_end = os.pipe()
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdin=read_end, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    orphan = int(parent.stdout.readline())
    parent.stdout.close()
    parent.wait()
    os.close(read_end)
    try:
        assert orphan in support.descendants()
    finally:
        os.close(write_end)
    support.eventually(lambda: orphan not in support.descendants(), what="the orphan's end")


def test_a_forgotten_run_directory_is_seen() -> None:
    directory = Path(tempfile.mkdtemp(prefix="dflow-"))
    assert directory.name in support.leftovers()["temp entry"]
    directory.rmdir()
    assert directory.name not in support.leftovers()["temp entry"]


def test_eventually_names_what_did_not_happen() -> None:
    with pytest.raises(AssertionError, match="the sky to fall"):
        support.eventually(lambda: False, within_s=0.01, what="the sky to fall")
