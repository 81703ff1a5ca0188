"""The agent: one clean, single-threaded process that owns every process of a run.

It loads dflow and the user's module once and forks everything else from that, so a worker
starts in milliseconds and shares its pages. It never makes a ZeroMQ context (a fork of a
process that has one hangs) and runs in a session of its own, so Ctrl-C on a terminal only
reaches the user process. The coordinator is forked before the user's code is loaded: it
binds its socket meanwhile, and never holds user code.

Everything ends here: the user process's end (pidfd or end of file on the pipe), the
coordinator's end, or the end of all children. The last act is always the same: SIGKILL what
is left of the session, remove the run directory, say `Done`.
"""

from __future__ import annotations

import gc
import importlib
import os
import pickle
import selectors
import signal
import sys
import time
import traceback
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from dflow.errors import StartError
from dflow.graph.plan import WorkerId
from dflow.launch import linux, rundir, stdio
from dflow.launch.children import Children, leave
from dflow.launch.descriptors import allow_descriptors, descriptors_wanted
from dflow.launch.job import Job, Seed, open_code, resolve_entry, see_what_the_user_sees
from dflow.launch.pipe import Pipe
from dflow.launch.preload import load_main, mark_launched
from dflow.launch.protocol import (
    COORDINATOR,
    Done,
    Event,
    Exited,
    Failed,
    Forked,
    RunDir,
    Started,
    Warned,
    pack_event,
    parse_event,
)
from dflow.launch.spawned import spawn

__all__ = ["Agent", "main"]

PRELOADED = ("zmq", "loguru", "dflow.worker.main")
"""Imported before forking, so that workers share the pages. The coordinator imports its own
part by itself, meanwhile."""

COORDINATOR_EXIT_GRACE_S = 2.0
"""What workers may take to leave after a coordinator that ended in order."""

REAP_S = 5.0
"""What a SIGKILLed child may take to die before the agent leaves without it."""


class Agent:
    """The processes of one run, from the coordinator's fork to an empty session."""

    def __init__(self, link: Pipe, job: Job, parent: int) -> None:
        self._link = link
        self._job = job
        self._selector = selectors.DefaultSelector()
        self._children = Children(self._selector)
        self._directory = rundir.RunDirectory()
        self._directory.describe(job.run_id, job.plan.name, job.token)
        self._coordinator, self._coordinator_end = Pipe.pair()
        self._parent_fd = linux.watch_pid(parent)
        self._deadline: float | None = None
        self._fork = (job.options.start_method or _default_start_method()) == "fork"
        self._ending = False
        self._loading: dict[WorkerId, Pipe] = {}  # spawned processes; open until the end
        self._ready: set[WorkerId] = set()
        self._warned = False

    def run(self) -> None:
        """Start everything, watch it, and end it; returns when nothing is left."""
        signal.signal(signal.SIGTERM, self._on_sigterm)
        try:
            self._tell(RunDir(self._directory.path))
            self._start()
            self._watch()
        except StartError as error:
            self._tell(Failed(str(error)))
        except Exception as error:  # noqa: BLE001  # becomes the StartError of the run
            self._tell(Failed(f"the agent failed: {error!r}", traceback.format_exc()))
        finally:
            self._end()

    def _start(self) -> None:
        see_what_the_user_sees(self._job)
        wanted = descriptors_wanted(self._job.plan)
        if (allowed := allow_descriptors(wanted)) < wanted:
            self._tell(
                Warned(
                    f"a process of this run may need {wanted:,} open files, and {allowed:,} are"
                    f" allowed; raise the hard limit (ulimit -Hn), or connections may be missing"
                )
            )
        self._start_child(COORDINATOR, None)
        self._coordinator_end.close()
        graph: Any = None
        if self._fork:
            graph = self._load_user_code()
            gc.collect()
            gc.freeze()
        # until here the run could only be ended by this signal: user code was running
        linux.die_with_parent(os.getppid(), 0)
        for worker in self._job.plan.workers:
            self._start_child(worker, graph)
        if self._fork:
            self._tell(Started())
        with suppress(OSError):
            rundir.sweep(Path(self._directory.path).parent)

    def _load_user_code(self) -> Any:
        if self._job.main is not None:
            _, hint = load_main(self._job.main)
            if hint is not None:
                self._tell(Warned(hint))
        return open_code(self._job.code)

    def _start_child(self, worker: WorkerId, graph: Any) -> None:
        is_coordinator = worker == COORDINATOR
        job = self._job
        seed = Seed(
            worker=worker,
            run_id=job.run_id,
            token=job.token,
            epoch=job.epoch,
            endpoint=rundir.coordinator_endpoint(self._directory.path),
            run_dir=self._directory.path,
            plan=job.plan,
            options=job.options,
            with_handle=job.with_handle,
            graph=graph,
            agent_fd=self._coordinator_end.fileno() if is_coordinator else None,
        )
        entry = job.coordinator_entry if is_coordinator else job.worker_entry
        if self._fork:
            pid = self._children.fork(
                worker, lambda: resolve_entry(entry)(seed), self._in_child(is_coordinator)
            )
        else:
            pid, link = spawn(job, seed, entry)
            self._children.adopt(worker, pid)
            self._loading[worker] = link
            self._selector.register(link, selectors.EVENT_READ, partial(self._on_spawned, worker))
        self._tell(Forked(worker, pid))

    def _on_spawned(self, worker: WorkerId) -> None:
        link = self._loading[worker]
        for message in link.available():
            match parse_event(message):
                case Started():
                    self._ready.add(worker)
                    if len(self._ready) == len(self._loading):
                        self._tell(Started())
                case Warned() as warned if not self._warned:
                    self._warned = True
                    self._tell(warned)
                case Failed() as failed:
                    self._tell(failed)
                    self._ending = True
        if link.closed_by_peer:
            with suppress(KeyError):  # its exit may be heard before its end of file
                self._selector.unregister(link)

    def _in_child(self, is_coordinator: bool) -> Any:
        def close_what_is_the_agents() -> None:
            self._link.close()
            self._coordinator.close()
            if self._parent_fd is not None:
                os.close(self._parent_fd)
            if is_coordinator:
                stdio.quiet_stdin()
            else:
                self._coordinator_end.close()

        return close_what_is_the_agents

    def _watch(self) -> None:
        self._selector.register(self._link, selectors.EVENT_READ, self._on_link)
        self._selector.register(self._coordinator, selectors.EVENT_READ, self._on_coordinator)
        if self._parent_fd is not None:
            self._selector.register(self._parent_fd, selectors.EVENT_READ, self._on_parent_end)
        while len(self._children) and not self._ending:
            timeout = None if self._deadline is None else self._deadline - time.monotonic()
            if timeout is not None and timeout <= 0:
                return
            for key, _ in self._selector.select(timeout):
                for ended in key.data() or ():
                    self._on_exited(ended)

    def _on_link(self) -> None:
        self._link.available()  # the job was all there is to say: what counts is the end of file
        self._ending |= self._link.closed_by_peer

    def _on_parent_end(self) -> None:
        self._ending = True

    def _on_coordinator(self) -> None:
        for message in self._coordinator.available():
            self._obey(message)
        if self._coordinator.closed_by_peer:
            self._selector.unregister(self._coordinator)

    def _obey(self, message: dict[str, Any]) -> None:
        match message:
            case {"kill": [str(node), int(replica)]}:
                self._children.kill(WorkerId(node, replica))

    def _on_exited(self, ended: Exited) -> None:
        if ended.worker in self._loading:
            self._on_spawned(ended.worker)  # its last words may not have been read yet
            if ended.worker not in self._ready and not self._ending:
                what = f"{ended.worker}: {ended.cause} before it had loaded the user's code"
                self._tell(Failed(what))
                self._ending = True
        self._tell(ended)
        if ended.worker != COORDINATOR:
            self._coordinator.send(pack_event(ended))
        elif ended.code == 0:
            self._deadline = time.monotonic() + COORDINATOR_EXIT_GRACE_S
        else:
            self._ending = True

    def _end(self) -> None:
        """Leave nothing behind. Bounded: a child in the kernel's hands is not waited for."""
        self._children.kill_all()
        linux.kill_session(os.getpid())
        give_up = time.monotonic() + REAP_S
        while len(self._children) and time.monotonic() < give_up:
            for key, _ in self._selector.select(give_up - time.monotonic()):
                if key.data == self._children.on_ready:
                    for ended in self._children.on_ready():
                        self._tell(ended)
                else:
                    self._selector.unregister(key.fileobj)
        self._directory.remove()
        self._tell(Done())

    def _on_sigterm(self, *_: object) -> None:
        self._end()
        leave(1)

    def _tell(self, event: Event) -> None:
        self._link.send(pack_event(event))


def _default_start_method() -> str:
    return "fork" if sys.platform == "linux" else "spawn"


def _preload() -> None:
    for name in PRELOADED:
        # a part that is missing or broken is reported by the process that needs it
        with suppress(ImportError):
            importlib.import_module(name)


def _forget_the_users_signals() -> None:
    """Handle signals as a process of a shell does, but for Ctrl-C.

    What the user process ignores and blocks comes along through exec: with SIGCHLD ignored nobody
    would know how a worker ended, with everything blocked no code could be interrupted.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def main(fd: int, parent: int) -> None:
    """Be the agent of the process ``parent``, connected by descriptor ``fd``."""
    _forget_the_users_signals()
    linux.die_with_parent(parent, signal.SIGTERM)
    linux.name_process("dflow-agent")
    mark_launched()
    link = Pipe.from_fd(fd)
    gc.disable()
    _preload()
    gc.enable()
    message = link.receive()
    if message is None:
        return
    try:
        agent = Agent(link, pickle.loads(message["job"]), parent)  # from our parent
    except (OSError, StartError) as error:
        link.send(pack_event(Failed(str(error))))
        return
    agent.run()
    leave(0)
