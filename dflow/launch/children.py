"""The processes an agent started: fork, notice the end of, kill.

Each end is noticed through a pidfd, so that a SIGCHLD handler or an event loop of the
user's code cannot get in the way; where there are no pidfds a SIGCHLD wakes the loop.
A child never returns from `fork`: it closes what it inherited, runs its body and leaves by
`os._exit`, so no cleanup meant for the agent runs twice.
"""

from __future__ import annotations

import gc
import os
import selectors
import signal
import socket
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from dflow.graph.plan import WorkerId
from dflow.launch import linux
from dflow.launch.protocol import COORDINATOR, Exited

__all__ = ["CRASHED", "Children", "be", "leave"]

CRASHED = 70
"""Exit code of a process whose body raised (EX_SOFTWARE); its traceback is on stderr."""


@dataclass(frozen=True, slots=True)
class _Child:
    worker: WorkerId
    pid: int
    pidfd: int | None


class Children:
    """Live children; selectable through ``selector`` with `on_ready` as the key's data."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._alive: dict[int, _Child] = {}
        self._wakeup: tuple[socket.socket, socket.socket] | None = None

    def __len__(self) -> int:
        return len(self._alive)

    def __contains__(self, worker: WorkerId) -> bool:
        return any(child.worker == worker for child in self._alive.values())

    def fork(
        self, worker: WorkerId, body: Callable[[], int | None], before: Callable[[], None]
    ) -> int:
        """Start ``body`` in a new process and return its pid.

        The child calls ``before`` first, to close what belongs to the agent.
        """
        flush_streams()
        agent = os.getpid()
        with warnings.catch_warnings():
            # Python 3.12 warns when user code started threads in the agent; a worker does
            # not need them, and the alternative (spawn) is one option away.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            linux.die_with_parent(agent)

            def in_child() -> int | None:
                before()
                self.close()
                return body()

            be(worker, in_child)
        self.adopt(worker, pid)
        return pid

    def adopt(self, worker: WorkerId, pid: int) -> None:
        """Watch a child that was started in another way (spawn)."""
        pidfd = linux.watch_pid(pid)
        self._alive[pid] = _Child(worker, pid, pidfd)
        if pidfd is not None:
            self._selector.register(pidfd, selectors.EVENT_READ, self.on_ready)
        elif self._wakeup is None:
            self._watch_sigchld()

    def _watch_sigchld(self) -> None:
        self._wakeup = socket.socketpair()
        for end in self._wakeup:
            end.setblocking(False)
        signal.set_wakeup_fd(self._wakeup[1].fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._selector.register(self._wakeup[0], selectors.EVENT_READ, self.on_ready)

    def on_ready(self) -> list[Exited]:
        """Return the children that ended since the last call; never blocks."""
        if self._wakeup is not None:
            with suppress(BlockingIOError):
                self._wakeup[0].recv(4096)
        return [ended for child in list(self._alive.values()) if (ended := self._reap(child))]

    def _reap(self, child: _Child) -> Exited | None:
        try:
            pid, status = os.waitpid(child.pid, os.WNOHANG)
        except ChildProcessError:  # user code in the agent reaped it
            pid, status = child.pid, 0
        if pid == 0:
            return None
        del self._alive[child.pid]
        if child.pidfd is not None:
            self._selector.unregister(child.pidfd)
            os.close(child.pidfd)
        if os.WIFSIGNALED(status):
            return Exited(child.worker, child.pid, None, os.WTERMSIG(status))
        return Exited(child.worker, child.pid, os.waitstatus_to_exitcode(status), None)

    def kill(self, worker: WorkerId) -> None:
        """SIGKILL one child; unknown or gone is fine."""
        for child in self._alive.values():
            if child.worker == worker:
                _kill(child)

    def kill_all(self) -> None:
        """SIGKILL every child."""
        for child in self._alive.values():
            _kill(child)

    def close(self) -> None:
        """Close what watches the children; in a child: what watches its siblings."""
        self._selector.close()
        for child in self._alive.values():
            if child.pidfd is not None:
                os.close(child.pidfd)
        if self._wakeup is not None:
            for end in self._wakeup:
                end.close()
        self._alive.clear()


def be(worker: WorkerId, body: Callable[[], int | None]) -> None:
    """Be the process of ``worker``: run ``body`` and leave with its exit code."""
    code: int | None = CRASHED
    try:
        _reset_signals()
        linux.name_process("dflow:coord" if worker == COORDINATOR else f"dflow:{worker}")
        _fresh_randomness()
        _write_whole_lines()
        gc.enable()
        code = body()
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:  # noqa: BLE001  # the last frame of this process
        traceback.print_exc()
    finally:
        leave(code)


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _kill(child: _Child) -> None:
    with suppress(ProcessLookupError):
        os.kill(child.pid, signal.SIGKILL)  # not reaped yet: the pid is still ours


def _fresh_randomness() -> None:
    """Give this process its own numpy random stream; `random` does so by itself."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


def _write_whole_lines() -> None:
    """Make prints of several processes to one pipe or file interleave by lines."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(line_buffering=True, write_through=False)


def flush_streams() -> None:
    """Write out what print left in buffers: a fork would write it twice, `_exit` never."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):  # the reader is gone, or user code closed it
            continue


def leave(code: int | None) -> None:
    """End this process now, with its output written and nothing else run."""
    flush_streams()
    os._exit(code or 0)
