"""One process of a run started from nothing: where fork is not to be had, or not wanted.

It is given the job over a private pipe, loads the user's code itself, says that it did, and
then does what a forked child does. The pipe stays open: where there is no parent-death
signal, its end of file says that the agent is gone.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Thread

from dflow.errors import StartError
from dflow.launch import children, linux, stdio
from dflow.launch.job import Job, Seed, open_code, resolve_entry, see_what_the_user_sees
from dflow.launch.pipe import Pipe
from dflow.launch.preload import load_main, mark_launched
from dflow.launch.protocol import COORDINATOR, Failed, Started, Warned, pack_event

__all__ = ["command", "main", "spawn"]

BOOTSTRAP = "import sys; sys.path[0] = {root!r}; from {module} import main; main({fd}, {parent})"


def command(module: str, fd: int) -> list[str]:
    """Return the command line that runs ``module.main(fd, pid of this process)``.

    Same interpreter and interpreter flags; dflow is found where this process found it.
    """
    if not sys.executable:
        raise StartError("expected sys.executable to name the Python interpreter, got nothing")
    from subprocess import _args_from_interpreter_flags as flags  # type: ignore[attr-defined]  # as multiprocessing does

    root = str(Path(__file__).resolve().parents[2])
    code = BOOTSTRAP.format(root=root, module=module, fd=fd, parent=os.getpid())
    return [sys.executable, *flags(), "-c", code]


def spawn(job: Job, seed: Seed, entry: str) -> tuple[int, Pipe]:
    """Start a process for ``seed``; returns its pid and the pipe to it."""
    ours, theirs = Pipe.pair()
    handed_over = [theirs.fileno()] + ([] if seed.agent_fd is None else [seed.agent_fd])
    for fd in handed_over:
        os.set_inheritable(fd, True)
    argv = command(__name__, theirs.fileno())
    pid = os.posix_spawn(argv[0], argv, os.environ, setsigdef=[signal.SIGTERM, signal.SIGCHLD])
    theirs.close()
    ours.send_message({"job": pickle.dumps((job, seed, entry))})
    return pid, ours


def main(fd: int, parent: int) -> None:
    """Be the process that ``spawn`` was called for."""
    mark_launched()
    link = Pipe.from_fd(fd)
    watched = linux.die_with_parent(parent)
    message = link.receive()
    if message is None:
        children.leave(children.CRASHED)
        return
    if not watched:
        Thread(target=end_with_agent, args=(link,), name="dflow-agent-watch", daemon=True).start()
    job, seed, entry = pickle.loads(message["job"])  # from the agent that started us
    children.be(seed.worker, lambda: _body(job, seed, entry, link))


def end_with_agent(link: Pipe) -> None:
    """Wait until the other end is gone, then kill this process: nobody else would."""
    while link.receive() is not None:
        continue
    os.kill(os.getpid(), signal.SIGKILL)


def _body(job: Job, seed: Seed, entry: str, link: Pipe) -> int | None:
    see_what_the_user_sees(job)
    if seed.worker == COORDINATOR:
        stdio.quiet_stdin()
    else:
        try:
            seed = replace(seed, graph=_load(job, link))
        except StartError as error:
            link.send(pack_event(Failed(str(error))))
            return children.CRASHED
    run = resolve_entry(entry)
    link.send(pack_event(Started()))
    with suppress(KeyboardInterrupt):
        return run(seed)
    return children.CRASHED


def _load(job: Job, link: Pipe) -> object:
    if job.main is not None:
        _, hint = load_main(job.main)
        if hint is not None:
            link.send(pack_event(Warned(hint)))
    return open_code(job.code)
