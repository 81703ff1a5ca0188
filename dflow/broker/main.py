"""The coordinator's process: forked by the agent, or in the foreground of ``dflow coordinator``.

With an agent, the launching process is told how the run went, and the exit code says only
that the coordinator did its work. In the foreground, Ctrl-C and SIGTERM drain, a second one
aborts, and the exit code says how the run went.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from dflow.broker.loop import Loop
from dflow.broker.outcome import exit_code
from dflow.broker.signals import SignalWatch
from dflow.broker.state import CoordinatorState
from dflow.clock import CLOCK
from dflow.errors import AgentDied
from dflow.graph.plan import Plan
from dflow.launch.pipe import Pipe
from dflow.options import RunOptions
from dflow.report import RunReport, RunStatus
from dflow.telemetry import logs
from dflow.transport.control import ControlRouter

if TYPE_CHECKING:
    from dflow.bundle.keeper import Keeper

__all__ = ["CoordinatorConfig", "Ended", "coordinate", "run_coordinator"]

FLUSH_S = 2.0
"""What the last words may take to leave this process."""


@dataclass(frozen=True, slots=True)
class CoordinatorConfig:
    """What a coordinator needs to know.

    ``endpoint``: where to listen; port 0 picks a free one. ``agent_fd``: the pipe to the agent
    that owns the workers; None: workers join by hand and get ``graph_ref`` to import the
    graph from. ``run_dir``: the run's private directory, where there is one. ``with_handle``: a
    launching process takes part. ``on_ready`` is called with the real endpoint, ``on_status`` about
    four times a second and at the end.
    """

    plan: Plan
    options: RunOptions
    run_id: str
    token: str
    endpoint: str
    agent_fd: int | None = None
    with_handle: bool = False
    run_dir: str = ""
    epoch: int = 1
    graph_ref: str = ""
    on_ready: Callable[[str], None] | None = None
    on_status: Callable[[RunStatus], None] | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run in the foreground ended; ``signal`` first asked for an end, if one did."""

    report: RunReport
    signal: int | None

    @property
    def exit_code(self) -> int:
        """The exit code of the process (`dflow.broker.outcome.exit_code`)."""
        return exit_code(self.report, self.signal)


def run_coordinator(config: CoordinatorConfig) -> int:
    """Be the coordinator until the run is over; returns the process's exit code."""
    try:
        ended = coordinate(config)
    except AgentDied:
        return 1
    return 0 if config.agent_fd is not None else ended.exit_code


def coordinate(config: CoordinatorConfig) -> Ended:
    """Be the coordinator until the run is over.

    Uses, and ends, this process's ZeroMQ context. Raises `OptionError` if the endpoint cannot
    be bound, `AgentDied` if there was an agent and it is gone.
    """
    logs.configure_coordinator(config.options.log, config.options.log_level, config.run_id)
    state = CoordinatorState(
        config.plan,
        config.options,
        config.run_id,
        config.token,
        config.epoch,
        config.graph_ref,
        with_handle=config.with_handle,
        managed=config.agent_fd is not None,
        cores=_cores(),
        now=time.monotonic(),
        wall_s=time.time(),
    )
    router = ControlRouter(config.endpoint)
    agent = None if config.agent_fd is None else Pipe.from_fd(config.agent_fd)
    foreground = agent is None and threading.current_thread() is threading.main_thread()
    try:
        with SignalWatch() if foreground else nullcontext() as signals:
            if config.on_ready is not None:
                config.on_ready(router.endpoint)
            loop = Loop(
                state, router, agent, signals, config.on_status,
                keeper=partial(_keeper, config, state),
            )  # fmt: skip
            return Ended(loop.run(), loop.first_signal)
    finally:
        router.finish(FLUSH_S)
        if agent is not None:
            agent.close()


def _keeper(config: CoordinatorConfig, state: CoordinatorState) -> Keeper:
    """Return what writes bundles; imported by runs that fail only."""
    from dflow.bundle.keeper import Keeper
    from dflow.worker.dump import dump

    def me() -> str:
        return dump(lambda: {"phase": state.phase.value, "ignored": dict(state.ignored)}, CLOCK)

    return Keeper(config.run_dir, config.token, me)


def _cores() -> int:
    """Return how many cores this process, and so the workers its agent forks, may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
