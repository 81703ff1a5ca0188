"""Shared memory between processes that are killed: nothing is lost that somebody has, nothing wrong
is ever read, nothing is left behind.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from dflow.errors import BufferLost
from dflow.transport.segments import is_supported
from dflow.transport.shm import SharedMemory
from dflow.wire.buffers import Place

pytestmark = pytest.mark.skipif(not is_supported(), reason="needs memfd and locks of Linux")

ROOT = Path(__file__).parents[2]
PEER = [sys.executable, "-m", "tests.integration.memory_peer"]
SIZE = 1_000_000
BLOCK = 1 << 20


class Process:
    """A peer in a process of its own."""

    def __init__(self, limit_bytes: int = 16 << 20) -> None:
        self.popen = subprocess.Popen(
            [*PEER, "obey", str(limit_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def __call__(self, *command: Any) -> Any:
        """Have a command done, and return its answer."""
        assert self.popen.stdin is not None
        assert self.popen.stdout is not None
        self.popen.stdin.write(json.dumps(command) + "\n")
        self.popen.stdin.flush()
        return json.loads(self.popen.stdout.readline())

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self.popen.kill()
        self.close()

    def close(self) -> None:
        """Wait for its end."""
        for pipe in (self.popen.stdin, self.popen.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        self.popen.wait(10)


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    """Start peers, and see them end."""
    started: list[Process] = []

    def new(limit_bytes: int = 16 << 20) -> Process:
        started.append(Process(limit_bytes))
        return started[-1]

    yield new
    for process in started:
        process.close()


def test_a_buffer_is_read_in_place_by_others(start: Callable[..., Process]) -> None:
    writer, one, two = start(), start(), start()
    place = writer("write", "a", SIZE, 7)
    assert one("borrow", "a", place) == 7
    assert two("borrow", "a", one("show", "a")) == 7
    writer("drop", "a")
    assert writer("used") == BLOCK
    one("drop", "a")
    assert writer("used") == BLOCK
    two("drop", "a")
    assert writer("used") == 0


def test_a_killed_reader_gives_back_what_it_had(start: Callable[..., Process]) -> None:
    writer, reader = start(4 << 20), start()
    for number in range(3):
        assert reader("borrow", str(number), writer("write", str(number), SIZE, number)) == number
        writer("drop", str(number))
    assert writer("used") == 3 * BLOCK
    assert writer("write", "none", SIZE, 9) is None
    reader.kill()
    assert writer("used") == 0
    for number in range(3):
        assert writer("write", f"again {number}", SIZE, 9) is not None


def test_what_a_killed_writer_wrote_stays_readable(start: Callable[..., Process]) -> None:
    writer, reader, late = start(), start(), start()
    place = writer("write", "a", SIZE, 7)
    reader("borrow", "a", place)
    writer.kill()
    assert reader("look", "a") == 7
    assert late("borrow", "a", place) == "lost"
    # who has it can still hand it on
    assert late("borrow", "a", reader("show", "a")) == 7
    reader.kill()
    assert late("look", "a") == 7
    late("drop", "a")
    late("sweep")
    late("sweep")
    assert late("files") == 0  # nobody else had it: the memory is gone


def test_what_a_killed_forwarder_had_shown_is_lost_or_right(start: Callable[..., Process]) -> None:
    writer, forwarder, reader = start(), start(), start()
    forwarder("borrow", "a", writer("write", "a", SIZE, 7))
    place = forwarder("show", "a")
    writer("drop", "a")
    forwarder.kill()
    assert reader("borrow", "a", place) == "lost"
    writer("write", "b", SIZE, 8)
    # a reader that has the segment anyway must not take the new contents for the old
    assert reader("borrow", "b", writer("show", "b")) == 8
    assert reader("borrow", "a", place) == "lost"


def test_a_process_number_that_is_somebody_elses_now_is_refused(
    start: Callable[..., Process],
) -> None:
    writer, other, reader = start(), start(), start()
    place = writer("write", "a", SIZE, 7)
    same_number = other("write", "a", SIZE, 8)
    assert same_number[1] == place[1]  # the descriptor
    assert reader("borrow", "a", [same_number[0], *place[1:]]) == "lost"


def segments_of(pid: int) -> set[int]:
    """Return the inodes of the segments that a process has open or mapped."""
    found = set()
    with suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if os.readlink(entry).startswith("/memfd:dflow"):
                    found.add(entry.stat().st_ino)
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            if "/memfd:dflow" in line:
                found.add(int(line.split()[4]))
    return found


def test_nothing_is_left_when_everybody_is_killed(start: Callable[..., Process]) -> None:
    def names() -> set[str]:
        return {name for name in os.listdir("/dev/shm") if "dflow" in name}

    before = names()
    writer, reader = start(256 << 20), start()
    for number in range(40):
        reader("borrow", str(number), writer("write", str(number), 5_000_000, 1))
    used = segments_of(writer.popen.pid)
    assert used == segments_of(reader.popen.pid)
    assert len(used) > 1
    writer.kill()
    assert segments_of(reader.popen.pid) == used  # it has them still
    reader.kill()
    # they have no name, so the kernel frees what no process has
    pids = [int(entry.name) for entry in Path("/proc").glob("[0-9]*")]
    assert not any(used & segments_of(pid) for pid in pids)
    assert names() == before


IN_A_SMALL_ROOM = """
mount -t tmpfs -o size={size} none /dev/shm && exec {python} - <<'END'
import os
from dflow.transport.shm import SharedMemory
print(os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize)
memory = SharedMemory(512 << 20, print)
kept = [memory.allocate(6_000_000) for _ in range(30)]
for view in kept:
    view[::4096] = bytes(len(view[::4096]))
print(memory.stats.in_use_bytes, kept.count(None))
END
"""


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts another /dev/shm")
@pytest.mark.parametrize("size", ["64M", "4k"])
def test_the_size_of_dev_shm_does_not_matter(size: str) -> None:
    script = IN_A_SMALL_ROOM.format(size=size, python=sys.executable)
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    if "unshare failed" in done.stderr or "permission denied" in done.stderr:
        pytest.skip(f"no mount namespaces here: {done.stderr.strip()}")
    assert done.stderr == ""
    assert int(done.stdout.split()[0]) <= 64 << 20
    assert done.stdout.split()[1:] == [str(30 * 6 * BLOCK), "0"]


class Pipeline:
    """stream -> relay -> check, connected by pipes that outlive each of them."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.first, self.second = os.pipe(), os.pipe()
        self.counts: dict[str, int] = {}
        self.running = {role: self.begin(role) for role in ("stream", "relay", "check")}

    def begin(self, role: str) -> subprocess.Popen[str]:
        """Start one of the three."""
        self.seed += 1
        ends: dict[str, tuple[int, int]] = {
            "stream": (subprocess.DEVNULL, self.first[1]),
            "relay": (self.first[0], self.second[1]),
            "check": (self.second[0], subprocess.PIPE),
        }
        return subprocess.Popen(
            [*PEER, role, str(self.seed)],
            stdin=ends[role][0],
            stdout=ends[role][1],
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
        )

    def watch(self, frames: int) -> None:
        """Return when so many more frames were checked."""
        out = self.running["check"].stdout
        assert out is not None
        for _ in range(frames):
            line = out.readline()
            assert line, "the checker ended"
            self.counts = json.loads(line)
            assert self.counts["wrong"] == 0, self.counts

    def kill(self, role: str) -> None:
        """Kill one of them and start another in its place."""
        self.running[role].kill()
        self.running[role].communicate()
        self.running[role] = self.begin(role)

    def finish(self) -> dict[str, int]:
        """End it from the source on; return what the last checker counted."""
        self.running["stream"].kill()
        self.running["relay"].kill()
        os.close(self.first[1])
        os.close(self.second[1])
        out, _ = self.running["check"].communicate(timeout=30)
        for role in ("stream", "relay"):
            self.running[role].wait(10)
        os.close(self.first[0])
        os.close(self.second[0])
        counts: dict[str, int] = json.loads(out.splitlines()[-1])
        return counts


@pytest.mark.parametrize("killed", ["stream", "relay", "check", "any"])
def test_frames_are_right_or_lost_under_random_kills(
    request: pytest.FixtureRequest, killed: str
) -> None:
    seed = int(request.config.getoption("hypothesis_seed"))
    print(f"seed {seed}")
    chance, pipeline = random.Random(seed), Pipeline(seed)
    for _ in range(4):
        pipeline.watch(chance.randrange(1, 40))
        pipeline.kill(chance.choice(["stream", "relay", "check"]) if killed == "any" else killed)
    pipeline.watch(10)
    assert pipeline.counts["right"] > 0
    assert pipeline.finish()["wrong"] == 0


def test_a_place_of_a_process_that_is_gone_is_lost() -> None:
    memory = SharedMemory(0, print)
    with pytest.raises(BufferLost, match="has ended"):
        memory.borrow(Place(2**22 - 1, 3, 1, 1 << 20, 1 << 16, 0, 1, 0, 10))
