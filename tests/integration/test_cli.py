"""The command line as a user meets it: real processes, pipes, signals, and workers that join."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support import eventually

ROOT = Path(__file__).parents[2]
TOKEN = "correct horse"
FLOWS = """
import logging, os, time
from dflow import Graph, Input, Node, node, sink, source

@source
def numbers(n: int):
    yield from range(n)

@source
def forever():
    number = 0
    while True:
        yield number
        number += 1
        time.sleep(0.0005)

@node
def square(x: int) -> int:
    if x == 3:
        logging.getLogger("mine").warning("three\\nis odd")
    return x * x

@sink
def show(x: int) -> None:
    if x < 10:
        print(x, flush=True)

@sink
def dies(x: int) -> None:
    if x == 50:
        os.kill(os.getpid(), 9)

@sink
def sleeps(x: int) -> None:
    time.sleep(60)

class Unready(Node):
    values = Input(int)
    def on_start(self, ctx):
        raise RuntimeError("no model file")
    @values.handler
    def handle(self, value): ...

graph = Graph("squares", numbers(1000) >> square().options(replicas=2) >> show())
endless = Graph("endless", forever() >> square() >> show())
deadly = Graph("deadly", numbers(1000) >> dies())
stuck = Graph("stuck", forever() >> sleeps())
unready = Graph("unready", numbers(3) >> Unready())
"""


@pytest.fixture
def flows(tmp_path: Path) -> Path:
    """A directory with ``flows.py``."""
    (tmp_path / "flows.py").write_text(FLOWS)
    return tmp_path


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "dflow", *arguments]


def environment(**extra: str) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, **extra}


def dflow(flows: Path, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        cwd=flows,
        env=environment(**extra),
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )


class Started:
    """A ``dflow`` under way whose output one can wait for."""

    def __init__(self, flows: Path, arguments: tuple[str, ...], prefix: list[str]) -> None:
        self.out, self.err = flows / f"{id(self)}.out", flows / f"{id(self)}.err"
        with self.out.open("w") as out, self.err.open("w") as err:
            self.process = subprocess.Popen(
                [*prefix, *command(*arguments)],
                cwd=flows,
                env=environment(DFLOW_TOKEN=TOKEN),
                stdout=out,
                stderr=err,
            )

    def await_text(self, text: str) -> str:
        """Return what was written to stderr, once ``text`` is in it."""
        eventually(
            lambda: text in self.err.read_text() or self.process.poll() is not None,
            within_s=20,
            what=f"{text!r} on stderr",
        )
        assert text in self.err.read_text(), self.err.read_text()
        return self.err.read_text()

    def ended(self) -> int:
        return self.process.wait(40)


@contextmanager
def started(flows: Path, *arguments: str, prefix: list[str] | None = None) -> Iterator[Started]:
    running = Started(flows, arguments, prefix or [])
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
        running.process.wait()


def test_a_run_prints_results_to_stdout_and_its_report_to_stderr(flows: Path) -> None:
    done = dflow(flows, "run", "flows.py:graph", "--no-progress")
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split()) == ["0", "1", "4", "9"]
    assert "run squares (" in done.stderr
    assert "books balance: 2,000 sent = 2,000 delivered" in done.stderr
    assert "\x1b" not in done.stderr


def test_a_module_runs_like_a_file(flows: Path) -> None:
    assert dflow(flows, "run", "flows:graph").returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="has no /dev/full")
def test_a_run_whose_report_is_lost_for_a_full_disk_fails(flows: Path) -> None:
    done = dflow(flows, "run", "flows.py:graph", "--json", "--report", "/dev/full")
    assert done.returncode == 1
    answer = json.loads(done.stdout.splitlines()[-1])
    assert (answer["ok"], answer["exit_code"]) == (False, 1)
    assert "error: the report could not be written to /dev/full: No space left" in done.stderr


def test_the_report_as_json_is_the_last_line_and_balances(flows: Path) -> None:
    done = dflow(flows, "run", "flows.py:graph", "--json", "--report", "report.json")
    answer = json.loads(done.stdout.splitlines()[-1])
    assert (answer["ok"], answer["exit_code"], done.returncode) == (True, 0, 0)
    assert answer["report"]["balances"] is True
    assert answer["report"]["totals"]["delivered"] == 2000
    assert json.loads((flows / "report.json").read_text()) == answer["report"]


def test_logs_as_json_parse_line_by_line(flows: Path) -> None:
    done = dflow(flows, "run", "flows.py:graph", "--log", "json", "--no-progress", "--json")
    records = [json.loads(line) for line in done.stderr.splitlines()]
    (mine,) = [record for record in records if record["name"] == "mine"]
    assert mine["message"] == "three\nis odd"
    assert mine["node"] == "square"
    assert mine["replica"] in (0, 1)
    assert mine["run_id"] == json.loads(done.stdout.splitlines()[-1])["report"]["run_id"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_drains_and_is_the_exit_code(flows: Path, number: int, code: int) -> None:
    with started(flows, "run", "flows.py:endless", "--json") as run:
        run.await_text("endless: running")
        run.process.send_signal(number)
        assert run.ended() == code
    answer = json.loads(run.out.read_text().splitlines()[-1])
    assert answer["exit_code"] == code
    assert answer["report"]["outcome"] == "drained"
    assert answer["report"]["balances"] is True


def test_ctrl_c_twice_stops_what_does_not_drain(flows: Path) -> None:
    with started(flows, "run", "flows.py:stuck") as run:
        run.await_text("stuck: running")
        run.process.send_signal(signal.SIGINT)
        run.await_text("stuck: draining")
        run.process.send_signal(signal.SIGINT)
        assert run.ended() == 130
    assert "Traceback" not in run.err.read_text()


def test_a_drain_that_takes_too_long_counts_what_was_abandoned(flows: Path) -> None:
    with started(flows, "run", "flows.py:stuck", "--drain-timeout", "0.2", "--json") as run:
        run.await_text("stuck: running")
        run.process.send_signal(signal.SIGTERM)
        assert run.ended() == 4
    answer = json.loads(run.out.read_text().splitlines()[-1])
    assert answer["error"]["kind"] == "DrainTimeout"
    assert answer["report"]["totals"]["abandoned"] > 0
    assert answer["report"]["balances"] is True


def test_a_worker_that_dies_fails_the_run_and_is_named(flows: Path) -> None:
    done = dflow(flows, "run", "flows.py:deadly")
    assert done.returncode == 1
    assert "error: dies[0]: worker died: killed by SIGKILL" in done.stderr
    assert "in flight by edge: numbers.out->dies.in" in done.stderr


def test_a_hook_that_raises_shows_the_users_traceback(flows: Path) -> None:
    done = dflow(flows, "run", "flows.py:unready")
    assert done.returncode == 1
    assert 'raise RuntimeError("no model file")' in done.stderr
    assert "runtime.py" not in done.stderr


# --- workers that join ----------------------------------------------------------------------


def test_workers_started_by_hand_run_the_graph(flows: Path) -> None:
    with started(flows, "coordinator", "flows.py:graph", "--report", "report.json") as coordinator:
        url = join_url(coordinator)
        workers = dflow(flows, "worker", "--join", url, "--count", "4", DFLOW_TOKEN=TOKEN)
        assert workers.returncode == 0, workers.stderr
        assert sorted(workers.stdout.split()) == ["0", "1", "4", "9"]
        assert coordinator.ended() == 0
    assert TOKEN not in coordinator.err.read_text()
    assert balance(flows)["delivered"] == 2000


def test_a_wrong_token_is_refused_and_the_run_goes_on(flows: Path) -> None:
    with started(flows, "coordinator", "flows.py:graph") as coordinator:
        url = join_url(coordinator)
        stranger = dflow(flows, "worker", "--join", url, "--json", DFLOW_TOKEN="not the token")
        assert stranger.returncode == 3
        assert "token" in json.loads(stranger.stdout)["error"]["message"]
        assert (
            dflow(flows, "worker", "--join", url, "--count", "4", DFLOW_TOKEN=TOKEN).returncode == 0
        )
        assert coordinator.ended() == 0


def test_a_worker_with_other_code_is_refused(flows: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "flows.py").write_text(FLOWS.replace("replicas=2", "replicas=3"))
    with started(flows, "coordinator", "flows.py:graph") as coordinator:
        other = dflow(elsewhere, "worker", "--join", join_url(coordinator), DFLOW_TOKEN=TOKEN)
        assert other.returncode != 0
        assert "fingerprint" in other.stderr


def test_ctrl_c_on_a_coordinator_drains_its_workers(flows: Path) -> None:
    with started(flows, "coordinator", "flows.py:endless", "--json") as coordinator:
        eventually(lambda: coordinator.out.read_text(), within_s=20, what="the join address")
        url = json.loads(coordinator.out.read_text())["listening"]
        with started(flows, "worker", "--join", url, "--count", "3") as workers:
            coordinator.await_text("endless: running")
            coordinator.process.send_signal(signal.SIGINT)
            assert coordinator.ended() == 130
            assert workers.ended() == 0
    answer = json.loads(coordinator.out.read_text().splitlines()[-1])
    assert answer["report"]["outcome"] == "drained"
    assert answer["report"]["balances"] is True


@pytest.mark.root
def test_workers_join_across_network_namespaces(flows: Path, two_hosts: dict[str, str]) -> None:
    here, there = two_hosts
    address = f"tcp://{two_hosts[here]}:7311"
    inside = {name: ["ip", "netns", "exec", name] for name in two_hosts}
    arguments = ("coordinator", "flows.py:graph", "--listen", address, "--report", "report.json")
    with started(flows, *arguments, prefix=inside[here]) as coordinator:
        coordinator.await_text("waiting for 4 workers")
        join = ("worker", "--join", address, "--count", "2")
        with (
            started(flows, *join, prefix=inside[here]) as near,
            started(flows, *join, prefix=inside[there]) as far,
        ):
            assert (near.ended(), far.ended(), coordinator.ended()) == (0, 0, 0)
    assert balance(flows)["delivered"] == 2000


@pytest.fixture
def two_hosts() -> Iterator[dict[str, str]]:
    """Two network namespaces that only a virtual cable connects: name -> address."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and the ip command")
    mark = f"{os.getpid() % 10000:04d}"
    hosts = {f"dfa{mark}": "10.213.7.1", f"dfb{mark}": "10.213.7.2"}
    first, second = hosts
    try:
        for name in hosts:
            made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
            if made.returncode:
                pytest.skip(f"no network namespaces here: {made.stderr.decode().strip()}")
        ip("link", "add", f"v{first}", "netns", first, "type", "veth",
           "peer", "name", f"v{second}", "netns", second)  # fmt: skip
        for name, address in hosts.items():
            ip("-n", name, "addr", "add", f"{address}/24", "dev", f"v{name}")
            ip("-n", name, "link", "set", f"v{name}", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield hosts
    finally:
        for name in hosts:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def join_url(coordinator: Started) -> str:
    """Return the address in the join command that the coordinator shows."""
    shown = coordinator.await_text("--join ")
    return shown.split("--join ")[1].split()[0]


def balance(flows: Path) -> dict[str, Any]:
    """Return the totals of the report that was written, which must balance."""
    report = json.loads((flows / "report.json").read_text())
    assert report["balances"] is True
    totals: dict[str, Any] = report["totals"]
    return totals
