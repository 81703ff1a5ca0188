"""The user process's side: start an agent for a run, hear from it, be sure it is gone.

The agent is executed, never forked from here: a user process may have threads, a ZeroMQ
context or a GUI. One daemon thread reads what the agent says. When the agent is gone in any
way, that thread makes sure that nothing of the run is left, then says `AgentGone`.
"""

from __future__ import annotations

import os
import pickle
import select
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from queue import SimpleQueue
from threading import Condition, Thread

from dflow.errors import StartError
from dflow.graph.plan import Plan, WorkerId
from dflow.launch import linux, rundir
from dflow.launch.job import COORDINATOR_ENTRY, WORKER_ENTRY, Job, pack_code
from dflow.launch.pipe import Pipe
from dflow.launch.preload import describe_main
from dflow.launch.protocol import (
    AgentGone,
    Done,
    Event,
    Exited,
    Failed,
    Forked,
    RunDir,
    Started,
    Warned,
    parse_event,
    signal_name,
)
from dflow.launch.spawned import command
from dflow.launch.stdio import Stdio
from dflow.options import RunOptions

__all__ = ["Launched", "launch", "warn"]

ASKED_S = 1.0
"""What an agent may take to end all processes before it is killed: it may run code of the user."""


def launch(
    graph: object,
    plan: Plan,
    options: RunOptions,
    *,
    run_id: str,
    token: str,
    epoch: int = 1,
    with_handle: bool = True,
    on_event: Callable[[Event], None] | None = None,
    coordinator_entry: str = COORDINATOR_ENTRY,
    worker_entry: str = WORKER_ENTRY,
) -> Launched:
    """Start every process of a run; returns once all of them exist.

    ``graph`` may be anything that travels (`dflow.launch.ship`): workers get it as
    ``Seed.graph``. ``on_event`` is called in the reader thread for every event, in order;
    the same events are in `Launched.events`.

    Raises `GraphError` when the graph cannot travel, and `StartError` when the agent or the
    user's module fails, or not all processes exist after ``options.start_timeout_s``.
    """
    launched = Launched(on_event)
    try:
        # the agent imports dflow while this process does, and while it pickles the graph
        import_module("dflow.launch.handle")
        shipment = pack_code(graph)
        job = Job(
            run_id=run_id,
            token=token,
            epoch=epoch,
            plan=plan,
            options=options,
            with_handle=with_handle,
            code=shipment.code,
            main=describe_main() if shipment.uses_main else None,
            sys_path=list(sys.path),
            cwd=_cwd(),
            argv=list(sys.argv),
            captured=launched.captured,
            coordinator_entry=coordinator_entry,
            worker_entry=worker_entry,
        )
        launched.begin(job, options.start_timeout_s)
    except BaseException:
        launched.kill()
        raise
    return launched


class _Agent(subprocess.Popen[bytes]):
    """An agent one has in hand before it exists: Ctrl-C may come while `Popen` makes it."""

    pid = 0

    def __init__(self) -> None:
        """Make nothing yet."""

    start = subprocess.Popen.__init__


class Launched:
    """A run's processes as the user process sees them; every method from any thread."""

    def __init__(self, on_event: Callable[[Event], None] | None = None) -> None:
        self.events: SimpleQueue[Event] = SimpleQueue()
        self.pids: dict[WorkerId, int] = {}
        self.run_dir = ""
        self._on_event = on_event
        self._changed = Condition()
        self._started = False
        self._failed: Failed | None = None
        self._gone: AgentGone | None = None
        self._orderly = False
        stdio = Stdio()
        self.captured = stdio.captured
        ours, theirs = socket.socketpair()
        self._link = Pipe(ours)
        self._stdio = stdio
        self._agent = _Agent()
        self._reader = Thread(target=self._read, name="dflow-launch", daemon=True)
        try:
            self._start(theirs)
            self._reader.start()
        except BaseException:
            self._give_up()
            raise

    def _start(self, theirs: socket.socket) -> None:
        stdio = self._stdio
        try:
            self._agent.start(
                command("dflow.launch.agent", theirs.fileno()),
                stdin=stdio.stdin,
                stdout=stdio.stdout,
                stderr=stdio.stderr,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        except OSError as error:
            raise StartError(f"expected {sys.executable} to start, got {error}") from None
        finally:
            theirs.close()
            stdio.started()

    def _give_up(self) -> None:
        """End an agent that nobody watches yet, as Ctrl-C came first; it has no children either."""
        if self._agent.pid:
            self._agent.kill()
            self._agent.wait()
        if self._reader.ident is None:  # else it closes the link
            self._link.close()

    @property
    def agent_pid(self) -> int:
        """Process id of the agent, also the id of the session all processes are in."""
        return self._agent.pid

    @property
    def endpoint(self) -> str:
        """Where the coordinator listens (or is about to)."""
        return rundir.coordinator_endpoint(self.run_dir)

    @property
    def gone(self) -> AgentGone | None:
        """How the agent ended; None while it lives."""
        return self._gone

    def begin(self, job: Job, timeout_s: float) -> None:
        """Hand the job over and wait until all processes exist; raises `StartError`."""
        self._link.send_message({"job": pickle.dumps(job)})
        with self._changed:
            settled = self._changed.wait_for(
                lambda: self._started or self._failed or self._gone, timeout_s
            )
        if self._failed is not None:
            self.wait()
            text = self._failed.text
            raise StartError("\n".join(filter(None, (text, self._failed.traceback))))
        if not settled:
            raise StartError(
                f"expected every process of the run to exist within start_timeout_s={timeout_s:g},"
                f" got {len(self.pids)} of {len(job.plan.workers) + 1}; is the main module "
                f"doing long work when it is imported?"
            )
        if not self._started:
            raise StartError(f"the agent ended before the run began: {self._cause()}")

    def kill(self) -> None:
        """End every process of the run now; returns when nothing is left.

        The agent is asked to, so that nothing is left either if this process ends meanwhile: who
        presses Ctrl-C once more does not wait for the end of this.
        """
        if self._gone is None:
            self._agent.terminate()
            with suppress(TimeoutError):
                self.wait(ASKED_S)
            if self._gone is None:
                self._agent.kill()
        self.wait()

    def wait(self, timeout_s: float | None = None) -> AgentGone:
        """Wait until nothing of the run is left; raises `TimeoutError`."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._gone, timeout_s):
                raise TimeoutError(f"the run's processes are still there after {timeout_s:g} s")
            assert self._gone is not None  # just waited for
            return self._gone

    def _read(self) -> None:
        try:
            self._read_until_the_agent_ends()
        finally:
            gone = self._clean_up()
            with self._changed:
                self._gone = gone
                self._changed.notify_all()
            self._tell(gone)

    def _read_until_the_agent_ends(self) -> None:
        """Return at end of file, or at the agent's end if something holds its end open."""
        poll = select.poll()
        poll.register(self._link, select.POLLIN)
        end = linux.watch_pid(self._agent.pid)
        if end is not None:
            poll.register(end, select.POLLIN)
        try:
            while not self._link.closed_by_peer:
                ready = [fd for fd, _ in poll.poll()]
                if self._link.fileno() in ready:
                    for message in self._link.available():
                        self._on_message(parse_event(message))
                elif ready:
                    return
        finally:
            if end is not None:
                os.close(end)

    def _on_message(self, event: Event) -> None:
        with self._changed:
            match event:
                case RunDir(path):
                    self.run_dir = path
                case Forked(worker, pid):
                    self.pids[worker] = pid
                case Exited(worker):
                    self.pids.pop(worker, None)
                case Started():
                    self._started = True
                case Failed():
                    self._failed = event
                case Done():
                    self._orderly = True
                case Warned(text):
                    warn(text)
            self._changed.notify_all()
        self._tell(event)

    def _tell(self, event: Event) -> None:
        self.events.put(event)
        if self._on_event is not None:
            self._on_event(event)

    def _clean_up(self) -> AgentGone:
        if not self._orderly:
            self._agent.kill()
            # not reaped yet, so its pid still names the session and nothing else
            linux.kill_session(self._agent.pid)
        status = self._agent.wait()
        if self.run_dir:
            rundir.remove(self.run_dir)
        self._link.close()
        self._stdio.join()
        code, signum = (status, None) if status >= 0 else (None, -status)
        return AgentGone(self._orderly, code, signum)

    def _cause(self) -> str:
        gone = self.wait()
        return signal_name(gone.signal) if gone.signal is not None else f"exit code {gone.code}"


def _cwd() -> str:
    try:
        return str(Path.cwd())
    except OSError:  # the directory was removed
        return os.sep


def warn(text: str) -> None:
    """Log a warning for the user; loguru is only imported when there is one."""
    from loguru import logger

    logger.warning(text)
