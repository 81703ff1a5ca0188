"""The leak check is only worth something if it sees a leak."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from uuid import uuid4

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


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no named shared memory to look at")
def test_shared_memory_that_another_session_has_mapped_is_not_left_by_this_one() -> None:
    script = (
        "import mmap, sys\n"
        "with open(sys.argv[1], 'w+b') as file:\n"
        "    file.truncate(4096)\n"
        "    kept = mmap.mmap(file.fileno(), 4096)\n"
        "print('mapped', flush=True)\n"
        "sys.stdin.read()\n"
    )
    name = f"psm_{uuid4().hex}"
    path = Path("/dev/shm", name)
    theirs = subprocess.Popen(
        [sys.executable, "-c", script, str(path)],
        env={**os.environ, support.MARK: "another"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert theirs.stdout is not None
        theirs.stdout.readline()
        assert name not in support.leftovers()["shared memory"]
        theirs.communicate()
        assert name in support.leftovers()["shared memory"]  # nobody's any more: perhaps ours
    finally:
        theirs.kill()
        theirs.communicate()
        path.unlink(missing_ok=True)
