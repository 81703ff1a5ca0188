"""The small means: run directories, sessions, watching parents, carrying output."""

from __future__ import annotations

import errno
import io
import os
import selectors
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dflow.errors import StartError
from dflow.graph.plan import WorkerId
from dflow.launch import linux, rundir, spawned
from dflow.launch.children import Children
from dflow.launch.pipe import Pipe
from dflow.launch.protocol import Exited
from dflow.launch.stdio import Stdio
from tests.support import eventually

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="uses /proc and prctl")


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(rundir, "MAX_PATH_BYTES", 500)
    return tmp_path


def test_run_directory_is_private_and_goes(base: Path) -> None:
    directory = rundir.RunDirectory()
    path = Path(directory.path)
    assert path.parent == base
    assert path.stat().st_mode & 0o777 == 0o700
    (path / "socket").touch()
    directory.remove()
    directory.remove()
    assert not path.exists()


def test_a_directory_that_cannot_be_made_is_named_with_what_to_do(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(base / "missing"))
    with pytest.raises(StartError, match=r"/missing: .* No such file or directory; set TMPDIR"):
        rundir.RunDirectory()


@pytest.mark.parametrize("call", ["lock", "socket"])
def test_a_directory_that_cannot_hold_a_lock_or_sockets_is_named_and_goes(
    base: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fails(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    if call == "lock":
        monkeypatch.setattr("fcntl.flock", fails)
    else:
        monkeypatch.setattr("socket.socket.bind", fails, raising=False)
    with pytest.raises(StartError, match=r"/dflow-\w+: .* Operation not permitted; set TMPDIR"):
        rundir.RunDirectory()
    assert list(base.iterdir()) == []


def test_sweep_takes_what_nobody_holds_and_nothing_else(base: Path) -> None:
    held = rundir.RunDirectory()
    os.utime(held.path, (0, 0))
    left = base / "dflow-left"
    young = base / "dflow-young"
    foreign = base / "other-left"
    unlocked = base / "dflow-notes"
    for path in (left, young, foreign, unlocked):
        path.mkdir()
        if path is not unlocked:
            (path / rundir.LOCK).touch()
        if path is not young:
            os.utime(path, (0, 0))
    (base / "dflow-link").symlink_to(foreign)
    assert rundir.sweep(base) == [str(left)]
    assert Path(held.path).exists()
    assert young.exists()
    assert foreign.exists()
    assert unlocked.exists()


def test_a_run_is_found_by_its_own_user_while_a_process_of_it_lives(base: Path) -> None:
    first, second = rundir.RunDirectory(), rundir.RunDirectory()
    first.describe("r1", "squares", "secret")
    second.describe("r2", "cubes", "other")
    found = rundir.live_runs()
    assert [(run.run_id, run.graph, run.token, run.path) for run in found] == [
        ("r1", "squares", "secret", first.path),
        ("r2", "cubes", "other", second.path),
    ]
    assert found[0].endpoint == f"ipc://{first.path}/coordinator"
    assert found[0].pid == os.getpid()
    assert (Path(first.path) / rundir.ABOUT).stat().st_mode & 0o777 == 0o600
    first.remove()
    assert [run.run_id for run in rundir.live_runs()] == ["r2"]


def test_a_directory_that_takes_no_note_is_named_and_goes(base: Path) -> None:
    directory = rundir.RunDirectory()
    (Path(directory.path) / rundir.ABOUT).mkdir()
    with pytest.raises(StartError, match=r"/dflow-\w+: .* File exists; set TMPDIR"):
        directory.describe("r1", "squares", "secret")
    assert list(base.iterdir()) == []


def test_what_is_no_run_under_way_is_not_found(base: Path) -> None:
    run = rundir.RunDirectory()
    run.describe("r1", "squares", "secret")
    about = (Path(run.path) / rundir.ABOUT).read_text()
    unheld, open_to_all, empty, garbled, partial = (base / f"dflow-{i}" for i in range(5))
    for path in (unheld, open_to_all, empty, garbled, partial):
        path.mkdir(mode=0o700)
        (path / rundir.LOCK).touch()
    open_to_all.chmod(0o755)
    for path in (unheld, open_to_all):
        (path / rundir.ABOUT).write_text(about)
    (garbled / rundir.ABOUT).write_bytes(b"\xff{")
    (partial / rundir.ABOUT).write_text('{"run_id": "x"}')
    (base / "dflow-link").symlink_to(run.path)
    assert [found.path for found in rundir.live_runs()] == [run.path]


def test_where_there_can_be_no_run_none_is_found(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(base / "missing"))
    assert rundir.live_runs() == []


@LINUX
def test_kill_session_ends_everything_in_it_but_its_leader() -> None:
    script = "sleep 1000 & (sleep 1000 & wait) & echo ready; read _"
    with subprocess.Popen(
        ["sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as leader:
        assert leader.stdout is not None
        leader.stdout.readline()
        eventually(lambda: len(linux.session_members(leader.pid)) == 3, what="three children")
        linux.kill_session(leader.pid)
        assert linux.session_members(leader.pid) == []
        assert leader.poll() is None
        leader.kill()


@LINUX
def test_watched_process_makes_its_descriptor_readable() -> None:
    import select

    with subprocess.Popen(["sleep", "1000"]) as process:
        end = linux.watch_pid(process.pid)
        assert end is not None
        assert select.select([end], [], [], 0)[0] == []
        process.kill()
        assert select.select([end], [], [], 5)[0] == [end]
        os.close(end)
    assert linux.watch_pid(process.pid) is None


@LINUX
def test_process_whose_parent_is_gone_already_ends_itself() -> None:
    code = "from dflow.launch.linux import die_with_parent; die_with_parent(1 << 22); print('no')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=False,
        cwd=Path(__file__).parents[3],
    )
    assert (done.returncode, done.stdout) == (1, b"")


def test_without_a_death_signal_the_end_of_the_pipe_ends_the_process() -> None:
    ours, theirs = Pipe.pair()
    code = (
        f"from dflow.launch.pipe import Pipe; from dflow.launch.spawned import end_with_agent\n"
        f"end_with_agent(Pipe.from_fd({theirs.fileno()}))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], pass_fds=[theirs.fileno()], cwd=Path(__file__).parents[3]
    ) as process:
        theirs.close()
        ours.close()
        assert process.wait(10) == -signal.SIGKILL


def test_command_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from dflow.errors import StartError

    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(StartError, match=r"sys\.executable"):
        spawned.command("dflow.launch.agent", 3)


def test_ends_of_children_are_noticed_without_pidfds_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linux, "watch_pid", lambda pid: None)
    before = signal.getsignal(signal.SIGCHLD)
    with selectors.DefaultSelector() as selector:
        children = Children(selector)
        try:
            for replica, code in enumerate(("exit 4", "kill -9 $$")):
                pid = os.posix_spawn("/bin/sh", ["sh", "-c", code], os.environ)
                children.adopt(WorkerId("n", replica), pid)
            found: list[Exited] = []
            while len(children):
                for key, _ in selector.select(10):
                    found += key.data()
        finally:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, before)
            children.close()
    ends = {ended.worker.replica: (ended.code, ended.signal) for ended in found}
    assert ends == {0: (4, None), 1: (None, signal.SIGKILL)}


class Closed(io.StringIO):
    """A stream whose owner closed it meanwhile."""

    def write(self, text: str) -> int:
        raise ValueError("I/O operation on closed file")


@pytest.mark.parametrize("stream", [io.StringIO(), Closed()], ids=["open", "closed"])
def test_output_is_carried_and_its_writer_never_blocked(
    stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", stream)
    stdio = Stdio()
    assert stdio.captured
    text = "größe\n" * 50_000  # more than a pipe holds, and characters cut in two
    script = "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read())"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=stdio.stdout
    ) as writer:
        stdio.started()
        writer.communicate(text.encode(), timeout=20)
    stdio.join()
    assert stream.getvalue() == ("" if isinstance(stream, Closed) else text)
