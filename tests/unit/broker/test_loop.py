"""The coordinator over real sockets, a real agent pipe and real signals."""

from __future__ import annotations

import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq

from dflow.broker.main import CoordinatorConfig, Ended, coordinate, run_coordinator
from dflow.errors import AgentDied, OptionError
from dflow.graph.plan import Plan, WorkerId
from dflow.launch.pipe import Pipe
from dflow.launch.protocol import Exited, pack_event
from dflow.options import RunOptions
from dflow.report import RunReport, RunStatus
from dflow.telemetry import logs
from dflow.wire import control as c
from tests.unit.broker_pair import HANDLE, TOKEN, Fake, chain

WAIT_S = 10.0
PLAN = chain("a", "b")
LET_GO = (c.Exit, c.Finished, c.Refused)


@pytest.fixture(autouse=True)
def relayed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Keep the process's logging as it is; collect (worker, message) of relayed records."""
    records: list[tuple[str, str]] = []
    monkeypatch.setattr(logs, "configure_coordinator", lambda *_: None)
    monkeypatch.setattr(logs, "emit_remote", lambda r, who: records.append((who, r.message)))
    return records


class Peers:
    """Fakes on real DEALER sockets, each in its thread, until they are let go."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._context = zmq.Context()
        self._threads: list[threading.Thread] = []

    def start(
        self,
        fake: Fake,
        first: list[bytes] | None = None,
        until: tuple[type[c.Control], ...] = LET_GO,
    ) -> threading.Thread:
        """Have ``fake`` send ``first`` (default: its hello), then answer what it hears."""
        words = [c.encode(fake.hello())] if first is None else first
        thread = threading.Thread(target=self._live, args=(fake, words, until), daemon=True)
        thread.start()
        self._threads.append(thread)
        return thread

    def _live(self, fake: Fake, first: list[bytes], until: tuple[type[c.Control], ...]) -> None:
        with self._context.socket(zmq.DEALER) as socket:
            socket.setsockopt(zmq.ROUTING_ID, fake.key)
            socket.setsockopt(zmq.RCVTIMEO, int(WAIT_S * 1000))
            socket.setsockopt(zmq.LINGER, 1000)
            socket.connect(self._endpoint)
            for word in first:
                socket.send(word)
            heard: c.Control = c.Ping()
            while not isinstance(heard, until):
                heard = c.decode(socket.recv())
                for answer in fake.hear(heard):
                    socket.send(c.encode(answer))

    @contextmanager
    def dealer(self) -> Iterator[zmq.Socket[bytes]]:
        """Connect a bare socket that says what a test likes."""
        with self._context.socket(zmq.DEALER) as socket:
            socket.setsockopt(zmq.RCVTIMEO, int(WAIT_S * 1000))
            socket.setsockopt(zmq.LINGER, 0)
            socket.connect(self._endpoint)
            yield socket

    def close(self) -> None:
        """Wait for all to be let go."""
        for thread in self._threads:
            thread.join(WAIT_S)
            assert not thread.is_alive()
        self._context.term()


class Coordinator:
    """A coordinator in a thread of this process, and its peers."""

    def __init__(self, path: Path, plan: Plan, **config: Any) -> None:
        ready: queue.Queue[str] = queue.Queue()
        options = RunOptions(drain_timeout_s=5.0)
        settings = CoordinatorConfig(
            plan, options, "r1", TOKEN, f"ipc://{path}/c", on_ready=ready.put, **config
        )
        self.ended: Future[Ended] = Future()
        threading.Thread(target=self._run, args=(settings,), daemon=True).start()
        self.peers = Peers(ready.get(timeout=WAIT_S))

    def _run(self, config: CoordinatorConfig) -> None:
        try:
            self.ended.set_result(coordinate(config))
        except BaseException as error:  # noqa: BLE001  # the test wants it, whatever it is
            self.ended.set_exception(error)

    def report(self) -> RunReport:
        """Wait for the end; return the report."""
        return self.ended.result(WAIT_S).report


@pytest.fixture
def coordinators(tmp_path: Path) -> Iterator[Callable[..., Coordinator]]:
    made: list[Coordinator] = []

    def make(plan: Plan = PLAN, **config: Any) -> Coordinator:
        made.append(Coordinator(tmp_path, plan, **config))
        return made[-1]

    yield make
    for one in made:
        one.peers.close()


def test_a_run_over_real_sockets(
    coordinators: Callable[..., Coordinator], relayed: list[tuple[str, str]]
) -> None:
    seen: list[RunStatus] = []
    one = coordinators(on_status=seen.append)
    a, b = Fake(WorkerId("a")), Fake(WorkerId("b"))
    line = c.Log("INFO", 0.0, "hello", "m", 1, {})
    one.peers.start(a, [c.encode(a.hello()), b"\xc1 garbage", c.encode(line)])
    one.peers.start(b)
    report = one.report()
    assert (report.outcome, one.ended.result().exit_code) == ("finished", 0)
    assert ("a[0]", "hello") in relayed
    assert seen[-1].phase == "finished"
    assert a.words() == ["Assign", "Link", "Start", "Run", "Stop", "Exit"]


def test_a_peer_that_may_not_join_hears_why(coordinators: Callable[..., Coordinator]) -> None:
    one = coordinators()
    spy = Fake(WorkerId("spy"))
    one.peers.start(spy, [c.encode(spy.hello(node="a", token="wrong"))]).join(WAIT_S)
    assert spy.words() == ["Refused"]
    for worker in PLAN.workers:
        one.peers.start(Fake(worker))
    assert one.report().outcome == "finished"


def test_whatever_a_stranger_sends_the_run_goes_on(
    coordinators: Callable[..., Coordinator],
) -> None:
    one = coordinators()
    deep = b"\x91" * 1015 + b"\x90"
    sent = [
        [b""], [b"\xc1"], [b"\x92" + deep + b"\x08"], [b"\x92\x01\x08" + b"x" * 20], [b"a", b"b"],
        [c.encode(c.Drained())], [b"\x93\x01\x07\xdd\xff\xff\xff\xff"],
        [c.encode(c.AbortRequest("x" * 2 * c.MAX_STRANGER_BYTES))],
        *([c.encode(Fake(WorkerId("a")).hello(token=f"guess {n}"))] for n in range(300)),
    ]  # fmt: skip
    with one.peers.dealer() as stranger:
        for frames in sent:
            stranger.send_multipart(frames)
        assert {type(c.decode(stranger.recv())) for _ in range(300)} == {c.Refused}
        for worker in PLAN.workers:
            one.peers.start(Fake(worker))
        assert one.report().outcome == "finished"


@contextmanager
def agent_pipe() -> Iterator[tuple[Pipe, int]]:
    """Give the agent's end of a pipe, and the descriptor of the coordinator's."""
    ours, theirs = Pipe.pair()
    yield ours, theirs.detach()
    ours.close()


def test_the_agents_news_of_a_death_ends_the_run(coordinators: Callable[..., Coordinator]) -> None:
    with agent_pipe() as (agent, fd):
        one = coordinators(agent_fd=fd, with_handle=True)
        a, b, handle = Fake(WorkerId("a")), Fake(WorkerId("b")), Fake(HANDLE)
        a.mute = b.mute = {c.Run}
        died = one.peers.start(a, until=(c.Run,))
        left = one.peers.start(b)
        one.peers.start(handle)
        died.join(WAIT_S)
        agent.send(pack_event(Exited(WorkerId("a"), 77, None, signal.SIGKILL)))
        left.join(WAIT_S)
        agent.send(pack_event(Exited(WorkerId("b"), 78, 0, None)))
        report = one.report()
    assert (report.outcome, report.error_kind) == ("failed", "worker_died")
    assert "a[0]: worker died: killed by SIGKILL (pid 77)" in str(report.error)
    (finished,) = [m for m in handle.heard if isinstance(m, c.Finished)]
    assert RunReport.from_dict(finished.report) == report


def test_whom_the_coordinator_wants_killed_the_agent_is_told(
    coordinators: Callable[..., Coordinator],
) -> None:
    with agent_pipe() as (agent, fd):
        one = coordinators(agent_fd=fd)
        agent.send(pack_event(Exited(WorkerId("a"), 77, 3, None)))
        assert agent.receive() == {"kill": ["b", 0]}
        agent.send(pack_event(Exited(WorkerId("b"), 78, None, signal.SIGKILL)))
        assert one.report().error_kind == "worker_died"


def test_a_coordinator_without_its_agent_ends(coordinators: Callable[..., Coordinator]) -> None:
    with agent_pipe() as (_, fd):
        one = coordinators(agent_fd=fd)
    with pytest.raises(AgentDied):
        one.report()


def test_with_an_agent_the_exit_code_only_says_that_the_work_was_done(tmp_path: Path) -> None:
    with agent_pipe() as (agent, fd):
        for number, node in enumerate("ab"):
            agent.send(pack_event(Exited(WorkerId(node), number, 1, None)))
        config = CoordinatorConfig(PLAN, RunOptions(), "r", TOKEN, f"ipc://{tmp_path}/c", fd)
        assert run_coordinator(config) == 0


def test_a_coordinator_that_lost_its_agent_says_so_by_its_exit_code(tmp_path: Path) -> None:
    with agent_pipe() as (agent, fd):
        agent.close()
        config = CoordinatorConfig(PLAN, RunOptions(), "r", TOKEN, f"ipc://{tmp_path}/c", fd)
        assert run_coordinator(config) == 1


def test_an_endpoint_that_cannot_be_bound_is_an_option_error(tmp_path: Path) -> None:
    config = CoordinatorConfig(PLAN, RunOptions(), "r", TOKEN, f"ipc://{tmp_path}/no/where")
    with pytest.raises(OptionError, match="cannot listen there"):
        coordinate(config)


FOREGROUND = """
import sys
from dflow.broker.main import CoordinatorConfig, run_coordinator
from dflow.options import RunOptions
from tests.unit.broker_pair import TOKEN, chain

config = CoordinatorConfig(
    chain("a", "b"), RunOptions(), "r1", TOKEN, sys.argv[1],
    on_ready=lambda endpoint: print(endpoint, flush=True),
    on_status=lambda status: print(status.phase, flush=True),
)
sys.exit(run_coordinator(config))
"""


@pytest.mark.parametrize(
    ("signals", "drains", "code"),
    [
        ([signal.SIGINT], True, 130),
        ([signal.SIGTERM], True, 143),
        ([signal.SIGINT, signal.SIGINT], False, 130),
    ],
)
def test_signals_drain_and_then_abort(
    tmp_path: Path, signals: list[signal.Signals], drains: bool, code: int
) -> None:
    command = [sys.executable, "-c", FOREGROUND, f"ipc://{tmp_path}/c"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        peers = Peers(process.stdout.readline().strip())
        for node in "ab":
            fake = Fake(WorkerId(node), endless=node == "a")
            fake.mute = set() if drains else {c.Drain}
            peers.start(fake)
        phases = iter(process.stdout.readline, "")
        for number, phase in zip(signals, ["running", "draining"], strict=False):
            assert any(line.strip() == phase for line in phases)
            process.send_signal(number)
        assert list(phases)[-1].strip() == "finished"
        assert process.wait(WAIT_S) == code
        peers.close()
