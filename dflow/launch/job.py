"""What a run is made of, as it travels: `Job` to the agent, `Seed` to each process.

A `Seed` knows nothing of the coordinator or of workers; ``entry`` names the function that
does ("module:function", called with the seed, its result is the exit code).
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from dflow.errors import GraphError, StartError
from dflow.graph.plan import Plan, WorkerId
from dflow.launch import stdio
from dflow.launch.preload import MainModule, refusing_runs
from dflow.launch.ship import Shipment, loads, ship
from dflow.options import RunOptions
from dflow.wire.types import register_type, registered_types

__all__ = [
    "COORDINATOR_ENTRY",
    "WORKER_ENTRY",
    "Job",
    "Seed",
    "open_code",
    "pack_code",
    "resolve_entry",
    "see_what_the_user_sees",
]

COORDINATOR_ENTRY = "dflow.launch.entry:run_coordinator"
WORKER_ENTRY = "dflow.launch.entry:run_worker"


@dataclass(frozen=True, slots=True)
class Job:
    """Everything the agent needs. ``code`` is the shipped graph, opened by `ship.loads`.

    ``main``: the user's main module, when the code refers to it. ``captured``: stdout and
    stderr are pipes to the user process, in UTF-8.
    """

    run_id: str
    token: str
    epoch: int
    plan: Plan
    options: RunOptions
    with_handle: bool
    code: bytes
    main: MainModule | None
    sys_path: list[str]
    cwd: str
    argv: list[str]
    captured: bool
    coordinator_entry: str = COORDINATOR_ENTRY
    worker_entry: str = WORKER_ENTRY


@dataclass(frozen=True, slots=True)
class Seed:
    """What one forked process is given. ``worker`` is `COORDINATOR` for the coordinator.

    ``endpoint``: where the coordinator binds. ``graph``: the user's, None for the
    coordinator, which runs no user code. ``agent_fd``: the coordinator's pipe.
    """

    worker: WorkerId
    run_id: str
    token: str
    epoch: int
    endpoint: str
    run_dir: str
    plan: Plan
    options: RunOptions
    with_handle: bool
    graph: Any = None
    agent_fd: int | None = None


def resolve_entry(entry: str) -> Callable[[Seed], int | None]:
    """Return the function named ``"module:function"``."""
    module, _, name = entry.partition(":")
    found: Callable[[Seed], int | None] = getattr(importlib.import_module(module), name)
    return found


def pack_code(graph: object) -> Shipment:
    """Return ``graph`` ready to travel, with the classes that `register_type` was given.

    They come along because the line that registered them may not run in the agent.
    """
    return ship((graph, registered_types()))


def open_code(code: bytes) -> object:
    """Return the graph of `pack_code`, its classes registered here too.

    Raises `StartError` if a module it needs starts a run when it is imported.
    """
    try:
        with refusing_runs():
            graph, classes = loads(code)
    except GraphError as error:
        raise StartError(str(error)) from None
    for cls in classes:
        register_type(cls)
    return cast("object", graph)


def see_what_the_user_sees(job: Job) -> None:
    """Give this process the directories and arguments of the user process."""
    if job.captured:
        stdio.speak_utf8()
    with suppress(OSError):  # removed meanwhile, or not ours to enter
        os.chdir(job.cwd)
    sys.path[:] = job.sys_path
    sys.argv[:] = job.argv
