"""Starting, watching and ending the processes of a run: real processes, stand-in bodies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dflow.errors import GraphError, StartError
from dflow.graph.plan import WorkerId
from dflow.launch.job import Seed
from dflow.launch.protocol import COORDINATOR
from tests.integration.launch_entries import (
    ROOT,
    alive,
    exits,
    run_until_gone,
    start,
    undent,
    wait_for_ever,
)

METHODS = pytest.mark.parametrize("method", ["fork", "spawn"])

# --- an ordinary run ----------------------------------------------------------------------


@METHODS
def test_every_exit_is_told_with_its_code(method: str) -> None:
    events = run_until_gone(lambda seed: 3 + seed.worker.replica, 3, start_method=method)
    codes = {worker: ended.code for worker, ended in exits(events).items()}
    assert codes == {COORDINATOR: 0, **{WorkerId("n", i): 3 + i for i in range(3)}}


@METHODS
def test_coordinator_hears_how_each_worker_ended(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = tmp_path / "heard.json"
    monkeypatch.setenv("DFLOW_TEST_HEARD", str(heard))

    def body(seed: Seed) -> int:
        if seed.worker.replica == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return 5

    run_until_gone(body, 2, start_method=method)
    rows = sorted(message["exited"] for message in json.loads(heard.read_text()))
    assert [(row[0], row[1], row[3], row[4]) for row in rows] == [
        ("n", 0, None, signal.SIGKILL),
        ("n", 1, 5, None),
    ]


def test_exception_in_a_worker_is_an_exit_code_and_a_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def body(seed: Seed) -> None:
        raise ValueError("boom in worker")

    events = run_until_gone(body)
    assert exits(events)[WorkerId("n", 0)].code == 70
    assert "boom in worker" in capsys.readouterr().err


@METHODS
def test_worker_sees_the_users_arguments_directory_and_path(method: str, tmp_path: Path) -> None:
    out = tmp_path / "seen.json"

    def body(seed: Seed) -> None:
        out.write_text(json.dumps([sys.argv, str(Path.cwd()), sys.path, seed.run_id, seed.token]))

    run_until_gone(body, start_method=method)
    assert json.loads(out.read_text()) == [
        sys.argv, str(Path.cwd()), sys.path, "test-run", "secret",
    ]  # fmt: skip


def test_worker_holds_no_descriptor_of_the_agent_or_of_its_siblings(tmp_path: Path) -> None:
    def body(seed: Seed) -> None:
        fds = {}
        for fd in os.listdir("/proc/self/fd"):
            try:
                fds[fd] = str(Path(f"/proc/self/fd/{fd}").readlink())
            except OSError:
                continue
        (tmp_path / str(seed.worker.replica)).write_text(json.dumps(fds))

    run_until_gone(body, 3, start_method="fork")
    for replica in range(3):
        fds = json.loads((tmp_path / str(replica)).read_text())
        held = [name for fd, name in fds.items() if int(fd) > 2]
        # the run directory's lock is shared on purpose: it says that the directory is in use
        assert [name for name in held if not name.endswith("/lock") and "/proc/" not in name] == []


def test_worker_is_out_of_reach_of_the_terminals_ctrl_c(tmp_path: Path) -> None:
    def body(seed: Seed) -> None:
        ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        default = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        (tmp_path / "out").write_text(json.dumps([os.getsid(0), ignored, default]))

    run_until_gone(body)
    session, ignored, default = json.loads((tmp_path / "out").read_text())
    assert session != os.getsid(0)
    assert ignored
    assert default


def test_each_replica_draws_its_own_random_numbers(tmp_path: Path) -> None:
    pytest.importorskip("numpy")
    import numpy as np  # in the shipped code, so that the agent has imported it before the fork

    def body(seed: Seed) -> None:
        import random

        drawn = [random.random(), float(np.random.random())]
        (tmp_path / str(seed.worker.replica)).write_text(json.dumps(drawn))

    run_until_gone(body, 3)
    drawn = [json.loads((tmp_path / str(i)).read_text()) for i in range(3)]
    assert len({row[0] for row in drawn}) == 3
    assert len({row[1] for row in drawn}) == 3


def test_run_directory_is_private_and_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("d" * 80)
    deep.mkdir()
    monkeypatch.setenv("TMPDIR", str(deep))
    launched = start(wait_for_ever)
    try:
        assert Path(launched.run_dir).stat().st_mode & 0o777 == 0o700
        assert len(launched.run_dir) <= 64
        assert launched.endpoint == f"ipc://{launched.run_dir}/coordinator"
    finally:
        launched.kill()
    assert not Path(launched.run_dir).exists()


# --- what is printed ----------------------------------------------------------------------


@METHODS
def test_prints_arrive_in_a_replaced_stdout(
    method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def body(seed: Seed) -> None:
        print("größe", seed.worker)
        print("to stderr", file=sys.stderr)

    run_until_gone(body, 2, start_method=method)
    captured = capsys.readouterr()
    assert sorted(captured.out.splitlines()) == ["größe n[0]", "größe n[1]"]
    assert captured.err.count("to stderr") == 2


def test_prints_to_a_real_stdout_interleave_by_lines() -> None:
    script = """
        def body(seed):
            for i in range(200):
                print(seed.worker.replica, "x" * 300)
        if __name__ == "__main__":
            finish(body, 3)
    """
    out = run_script(script).stdout.splitlines()
    assert len(out) == 600
    assert {line[1:] for line in out} == {" " + "x" * 300}


def test_source_can_read_the_users_standard_input() -> None:
    script = """
        import sys
        def body(seed):
            print("read", sys.stdin.read())
        if __name__ == "__main__":
            finish(body)
    """
    assert run_script(script, stdin="from the pipe").stdout == "read from the pipe\n"


# --- where the user's code may come from --------------------------------------------------


def run_command(
    *arguments: str, stdin: str = "", cwd: Path | None = None, ok: bool = True
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        input=stdin,
        text=True,
        timeout=30,
        cwd=cwd,
        check=False,
    )
    assert not ok or done.returncode == 0, done.stderr
    return done


def run_script(script: str, stdin: str = "", ok: bool = True) -> subprocess.CompletedProcess[str]:
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "script.py"
        path.write_text(undent(script))
        return run_command(str(path), stdin=stdin, ok=ok)


@METHODS
def test_guarded_script_runs_without_a_word(method: str) -> None:
    script = f"""
        TABLE = {{"state": "of the module"}}
        def helper():
            return TABLE
        def body(seed):
            print(helper()["state"], __name__)
        if __name__ == "__main__":
            TABLE["state"] = "changed in the user process only"
            finish(body, start_method="{method}")
    """
    done = run_script(script)
    assert done.stdout == "of the module __dflow_main__\n"
    assert done.stderr == ""


@METHODS
def test_script_without_guard_runs_once_and_is_told_about_it_once(method: str) -> None:
    script = f"""
        print("top")
        def body(seed):
            print("worked", seed.worker.replica)
        try:
            finish(body, 2, start_method="{method}")
        except Exception:
            print("must not see how the agent stops importing")
        print("end")
    """
    done = run_script(script)
    lines = done.stdout.splitlines()
    assert sorted(line for line in lines if line.startswith("worked")) == ["worked 0", "worked 1"]
    assert lines.count("end") == 1
    assert "must not see how the agent stops importing" not in lines
    assert done.stderr.count('if __name__ == "__main__":') == 1
    assert "script.py starts a run when it is imported" in done.stderr


def test_unguarded_call_inside_asyncio_and_threads_is_stopped_too() -> None:
    script = """
        import asyncio, threading
        def body(seed):
            print("worked")
        async def main():
            thread = threading.Thread(target=finish, args=(body,))
            thread.start()
            thread.join()
        asyncio.run(main())
    """
    done = run_script(script)
    assert done.stdout == "worked\n"
    assert "Traceback" not in done.stderr


def test_lambdas_and_local_functions_of_a_script_travel() -> None:
    script = """
        def make(word):
            def body(seed):
                return print(word, (lambda x: x + 1)(1))
            return body
        if __name__ == "__main__":
            finish(make("closed over"))
            finish(lambda seed: print("lambda"))
    """
    assert run_script(script).stdout == "closed over 2\nlambda\n"


@METHODS
def test_python_dash_c_works(method: str) -> None:
    code = undent(f"""
        WORD = "global of -c"
        def body(seed):
            print(WORD)
        finish(body, start_method="{method}")
    """)
    assert run_command("-c", code).stdout == "global of -c\n"


def test_functions_made_by_exec_on_the_spot_work() -> None:
    script = '''
        CELL = """
        from dataclasses import dataclass
        @dataclass
        class Point:
            x: int
        def body(seed):
            print(Point(1), seed.worker)
        """
        if __name__ == "__main__":
            import textwrap
            cells = {"__name__": "__main__"}
            exec(textwrap.dedent(CELL), cells)
            finish(cells["body"])
            exec(textwrap.dedent("def body(seed): print('in the namespace of the script')"))
            finish(body)
    '''
    assert run_script(script).stdout == "Point(x=1) n[0]\nin the namespace of the script\n"


def test_module_made_on_the_spot_travels() -> None:
    script = """
        import sys, types
        module = types.ModuleType("made_up")
        sys.modules["made_up"] = module
        exec("WORD = 'made up'\\ndef body(seed): print(WORD)", module.__dict__)
        if __name__ == "__main__":
            finish(module.body)
    """
    assert run_script(script).stdout == "made up\n"


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_package_module_run_with_dash_m_works(method: str, tmp_path: Path) -> None:
    package = tmp_path / "shop"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "prices.py").write_text("PRICE = 7\n")
    script = f"""
        from .prices import PRICE
        def body(seed):
            print(PRICE, __name__, __package__)
        if __name__ == "__main__":
            finish(body, start_method="{method}")
    """
    (package / "till.py").write_text(undent(script))
    (package / "__main__.py").write_text(undent(script))
    assert run_command("-m", "shop.till", cwd=tmp_path).stdout == "7 __dflow_main__ shop\n"
    assert run_command("-m", "shop", cwd=tmp_path).stdout == "7 __dflow_main__ shop\n"


def test_directory_run_as_a_program_works(tmp_path: Path) -> None:
    (tmp_path / "__main__.py").write_text(
        undent("""
        import beside
        def body(seed):
            print(beside.WORD)
        if __name__ == "__main__":
            finish(body)
        """)
    )
    (tmp_path / "beside.py").write_text("WORD = 'beside'\n")
    assert run_command(str(tmp_path)).stdout == "beside\n"


def test_launch_from_a_thread_that_ends_leaves_the_run_alone(tmp_path: Path) -> None:
    launched = []
    go = tmp_path / "go"
    os.mkfifo(go)

    def body(seed: Seed) -> int:
        return len(go.read_text())  # until the test opens it

    thread = threading.Thread(target=lambda: launched.append(start(body)))
    thread.start()
    thread.join()
    go.write_text("12345")
    assert launched[0].wait(10).orderly
    events = [launched[0].events.get_nowait() for _ in range(launched[0].events.qsize())]
    assert exits(events)[WorkerId("n", 0)].code == 5


# --- what cannot start --------------------------------------------------------------------


def test_script_that_raises_when_imported_is_a_start_error_with_its_traceback() -> None:
    script = """
        def body(seed): pass
        if __name__ != "__main__":
            {}["missing key"]
        if __name__ == "__main__":
            finish(body)
    """
    done = run_script(script, ok=False)
    assert "StartError: script.py: importing it in the agent raised KeyError" in done.stderr
    assert '{}["missing key"]' in done.stderr


@METHODS
def test_function_that_only_exists_under_the_guard_is_explained(method: str) -> None:
    script = f"""
        if __name__ == "__main__":
            def body(seed): pass
            finish(body, start_method="{method}")
    """
    done = run_script(script, ok=False)
    assert "StartError" in done.stderr
    assert "'body' is in the graph but not in the main script" in done.stderr


def test_what_cannot_travel_is_named_with_the_way_to_it() -> None:
    lock = threading.Lock()

    def body(seed: Seed) -> None:
        lock.acquire()

    with pytest.raises(GraphError, match=r"body\(\) closes over 'lock': .*_thread.lock"):
        start(body)


def test_start_timeout_ends_what_was_started() -> None:
    script = """
        import signal
        def body(seed): pass
        if __name__ != "__main__":
            signal.pause()
        if __name__ == "__main__":
            finish(body, start_timeout_s=0.5)
    """
    done = run_script(script, ok=False)
    assert "expected every process of the run to exist within start_timeout_s=0.5" in done.stderr


def test_agent_that_dies_while_loading_is_a_start_error() -> None:
    script = """
        import os
        def body(seed): pass
        if __name__ != "__main__":
            os.kill(os.getpid(), 9)
        if __name__ == "__main__":
            finish(body)
    """
    done = run_script(script, ok=False)
    assert "StartError: the agent ended before the run began: signal SIGKILL" in done.stderr


def test_interpreter_that_does_not_start_is_a_start_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(StartError, match=r"expected /nowhere/python to start"):
        start(wait_for_ever)


def test_much_data_in_the_graph_arrives(tmp_path: Path) -> None:
    data = b"x" * 50_000_000

    def body(seed: Seed) -> int:
        return len(data) // 1_000_000

    assert exits(run_until_gone(body))[WorkerId("n", 0)].code == 50


def test_two_runs_at_once_do_not_disturb_each_other() -> None:
    first, second = start(wait_for_ever), start(wait_for_ever)
    first.kill()
    assert second.gone is None
    assert alive(second.agent_pid)
    assert Path(second.run_dir).exists()
    second.kill()
