"""A worker process from its first line to its last: wiring, and nothing else."""

from __future__ import annotations

import gc
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING

from dflow.broker.turns import niceness_of
from dflow.bundle.stacks import be_told_on
from dflow.errors import GraphError, StartError
from dflow.graph.node import look_up_plainly
from dflow.graph.plan import WorkerId
from dflow.options import NodeOptions, RunOptions
from dflow.telemetry.logs import configure_worker, name_speakers, say
from dflow.transport.endpoint import close_context, fresh_endpoint, is_tcp, local_address_towards
from dflow.transport.segments import is_supported, may_be_opened
from dflow.transport.shm import SharedMemory
from dflow.wire import control as c
from dflow.worker.assemble import NotMade, WorkerConfig, assemble, make_nodes, wait_unmade
from dflow.worker.context import Context
from dflow.worker.faults import Interrupted
from dflow.worker.placing import be_nice, stay_on
from dflow.worker.pulse import EXIT_LOST, Pulse, install_interrupt
from dflow.worker.slices import be_prompt
from dflow.worker.speaking import Speaking
from dflow.worker.user_code import at_the_door

if TYPE_CHECKING:
    pass

__all__ = ["join_worker", "run_worker"]

SWITCH_INTERVAL_S = 0.0005
"""The pulse thread gets the interpreter this soon while user code computes."""

YOUNG_OBJECTS = 10_000
"""Containers made, and not freed, between two looks for cyclic garbage: many batches' worth.

At Python's 700 a batch of small dicts brings about one look, 3 % of the time a message takes.
"""

_USUAL_THRESHOLD = gc.get_threshold()


def run_worker(config: WorkerConfig) -> int:
    """Be one replica until the coordinator lets go; returns the process's exit code."""
    pulse = _Link(config.coordinator, config.options, str(config.worker).encode()).pulse
    worker = config.worker
    pulse.post(_hello(config.token, worker, config.plan.fingerprint))
    return _live(config, pulse)


def join_worker(url: str, token: str, bind_host: str | None = None) -> int:
    """Join the coordinator at ``url`` as whatever replica it assigns; returns the exit code.

    The graph is imported here by the reference the coordinator gives, and must be the same:
    its plan's fingerprint is compared. Raises `StartError` when the coordinator refuses.
    """
    from dflow.launch.reference import load_graph

    host = bind_host or local_address_towards(url)
    pulse = _Link(url, RunOptions(), secrets.token_hex(8).encode(), remote=True).pulse
    pulse.post(_hello(token, None, ""))
    pulse.await_command()
    assigned = pulse.commands.popleft()
    if not isinstance(assigned, c.Assign):
        pulse.leave()
        close_context()
        reason = assigned.reason if isinstance(assigned, c.Refused) else "the run ended meanwhile"
        raise StartError(f"{url}: the coordinator sent this worker away: {reason}")
    try:
        graph = load_graph(assigned.graph)
        plan = graph.plan()
        if plan.fingerprint != assigned.fingerprint:
            raise GraphError(
                f"{assigned.graph}: expected the coordinator's graph (fingerprint "
                f"{assigned.fingerprint}), got {plan.fingerprint}; install the same version here"
            )
    except Exception as error:
        pulse.post(c.Failed("joining", str(error), ""))
        pulse.leave()
        close_context()
        raise
    config = WorkerConfig(
        WorkerId(assigned.node, assigned.replica), assigned.run_id, token, url, "",
        assigned.epoch, graph, plan, RunOptions(**dict(assigned.options)), host,
    )  # fmt: skip
    pulse.commands.appendleft(assigned)
    return _live(config, pulse)


class _Link:
    """The pulse before there is a loop: what it calls is filled in later."""

    def __init__(
        self, endpoint: str, options: RunOptions, identity: bytes, *, remote: bool = False
    ) -> None:
        self.pulse = Pulse(
            endpoint, identity, stats_interval_s=options.stats_interval_s, remote=remote
        )
        self.pulse.start()


def _hello(token: str, worker: WorkerId | None, fingerprint: str) -> c.Hello:
    node, replica = (worker.node, worker.replica) if worker is not None else ("", 0)
    return c.Hello("worker", token, os.getpid(), socket.gethostname(), node, replica, fingerprint)


def _live(config: WorkerConfig, pulse: Pulse) -> int:
    from loguru import logger

    worker = config.worker
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    if gc.get_threshold() == _USUAL_THRESHOLD:  # else the user's code has chosen its own
        gc.set_threshold(YOUNG_OBJECTS, *_USUAL_THRESHOLD[1:])
    options = config.options
    be_told_on(config.run_dir)
    configure_worker(pulse.post_log, worker, config.run_id, options.log_level)
    members = config.plan.members(worker)
    contexts = [
        Context(m.node, m.replica, config.run_id, logger.bind(node=m.node)) for m in members
    ]
    warn = partial(say, contexts[0].log, "WARNING")
    memory = _memory(config, contexts)
    look_up_plainly()
    try:
        nodes = make_nodes(config.graph, contexts)
        by_band = niceness_of(config.plan, worker)
        _place([node.node_options for node in nodes], by_band, warn)
        be_prompt()
    except NotMade as error:
        return _unmade(pulse, error.failed)
    except StartError as error:
        return _unmade(pulse, c.Failed("options", str(error), ""))
    interrupt = install_interrupt(_interrupter(pulse))
    replica = assemble(config, nodes, contexts, pulse, _endpoints(config), interrupt, memory)
    if len(members) > 1:
        plane = replica.plane
        speaking = Speaking(plane, {m.node: plane.outputs_of[m.node] for m in members})
        name_speakers(speaking)
        speaking.follow_threads()
    try:
        replica.loop.run()
        return _leave(replica.loop.left or "")
    finally:
        replica.close()
        pulse.leave()
        close_context()


def _place(options: list[NodeOptions], by_band: int, warn: Callable[[str], None]) -> None:
    """Do as the nodes here ask; those that ask for something ask for the same."""
    for cpus in [each.affinity for each in options if each.affinity is not None][:1]:
        stay_on(cpus, warn)
    asked = [each.niceness for each in options if each.niceness is not None]
    if asked:
        be_nice(asked[0], warn)
    elif by_band and sys.platform == "linux":  # nobody asked for it: no warning elsewhere
        be_nice(by_band, warn)


def _unmade(pulse: Pulse, failed: c.Failed) -> int:
    wait_unmade(pulse, failed)
    close_context()
    return 0


def _leave(reason: str) -> int:
    if reason:
        print(f"dflow worker: {reason}", file=sys.stderr)
        return EXIT_LOST
    return 0


def _memory(config: WorkerConfig, contexts: list[Context]) -> SharedMemory | None:
    """Return the shared memory of the worker, where its peers can read it."""
    if _data_host(config) is not None:
        return None
    warn, limit_bytes = partial(say, contexts[0].log, "WARNING"), config.options.shm_bytes
    if limit_bytes and is_supported() and not may_be_opened():
        warn("large messages are copied: others may not open files of this process (/proc)")
        limit_bytes = 0
    memory = SharedMemory(limit_bytes, warn)
    for ctx in contexts:
        ctx.share(memory)
    return memory


def _endpoints(config: WorkerConfig) -> Callable[[], str]:
    host = _data_host(config)
    return lambda: fresh_endpoint(config.run_dir, host)


def _data_host(config: WorkerConfig) -> str | None:
    """Return the address that data sockets are bound to; None: they are of this host only."""
    host = config.bind_host
    if host is None and config.options.transport == "tcp":
        host = "127.0.0.1"
    if host is None and is_tcp(config.coordinator):
        host = local_address_towards(config.coordinator)
    return host


def _interrupter(pulse: Pulse) -> Callable[[FrameType | None], None]:
    def raise_in_user_code(at: FrameType | None) -> None:
        if not at_the_door(at) and pulse.take_interrupt():
            raise Interrupted

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return raise_in_user_code
