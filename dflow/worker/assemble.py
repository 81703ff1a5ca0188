"""What makes a replica out of its parts: the same in a worker process and in a simulation.

What belongs to a process (signals, logs, priorities, shared memory) is `dflow.worker.main`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from dflow.errors import DflowError
from dflow.graph.plan import Plan, WorkerId
from dflow.options import RunOptions
from dflow.transport.shm import SharedMemory
from dflow.transport.system import SYSTEM, System
from dflow.wire import control as c
from dflow.wire.codec import Codec
from dflow.worker.context import Context, Watch
from dflow.worker.crew import Crew
from dflow.worker.dump import standing
from dflow.worker.events import EventLoop
from dflow.worker.faults import describe, user_traceback
from dflow.worker.loop import WorkerLoop
from dflow.worker.plane import DataPlane
from dflow.worker.pulse import Pulse
from dflow.worker.work import Work

if TYPE_CHECKING:
    from dflow.graph.builder import Graph
    from dflow.graph.node import Node

__all__ = ["NotMade", "Replica", "WorkerConfig", "assemble", "make_nodes", "wait_unmade"]


@dataclass(frozen=True)
class WorkerConfig:
    """Everything one worker needs. ``run_dir`` empty: data sockets are TCP on ``bind_host``."""

    worker: WorkerId
    run_id: str
    token: str
    coordinator: str
    run_dir: str
    epoch: int
    graph: Graph
    plan: Plan
    options: RunOptions
    bind_host: str | None = None


class NotMade(DflowError):
    """A node's class raised when it was called; ``failed`` is what the coordinator is told."""

    def __init__(self, failed: c.Failed) -> None:
        super().__init__(failed.error)
        self.failed = failed


@dataclass(frozen=True, slots=True)
class Replica:
    """A worker that is ready to live: ``loop.run()``."""

    plane: DataPlane
    work: Work | Crew
    loop: WorkerLoop

    def close(self) -> None:
        """Release the asyncio loop, sockets and memory; idempotent."""
        self.work.close()
        self.plane.close()


def make_nodes(graph: Graph, contexts: Sequence[Context]) -> list[Node]:
    """Return the nodes of one worker, each made anew; raises `NotMade`."""
    made = []
    for ctx in contexts:
        try:
            made.append(graph.nodes[ctx.node].fresh())
        except Exception as error:  # whatever the user's class raises
            failed = c.Failed("__init__", describe(error), user_traceback(error), ctx.node)
            raise NotMade(failed) from error
    return made


def wait_unmade(pulse: Pulse, failed: c.Failed) -> None:
    """Report that there is no node to run, and stay until the coordinator lets go."""
    pulse.post(failed)
    over = False
    while not over:
        pulse.await_command()
        command = pulse.commands.popleft()
        if isinstance(command, c.Abort):
            pulse.post(c.Stopped([]))
        over = isinstance(command, (c.Exit, c.Refused))
    pulse.leave()


def assemble(
    config: WorkerConfig,
    nodes: Sequence[Node],
    contexts: Sequence[Context],
    pulse: Pulse,
    endpoint: Callable[[], str],
    interrupt: Callable[[], None],
    memory: SharedMemory | None = None,
    system: System = SYSTEM,
    watch: Callable[[Context], Watch] | None = None,
) -> Replica:
    """Return the replica of ``nodes``, with the ``pulse`` looking after it.

    ``endpoint`` returns a fresh one to bind; ``interrupt`` raises in user code
    (`dflow.worker.pulse.install_interrupt`). ``watch`` returns what sees all that a node emits.
    """
    graph = config.graph
    codec = Codec(graph.types(), memory)
    plane = DataPlane(
        config.plan,
        config.worker,
        token=config.token,
        epoch=config.epoch,
        edge_key=graph.edge_key,
        on_violation=lambda text: loop.violated(text),
        codec=codec,
        edge_merge=graph.merge,
        memory=memory,
        system=system,
    )
    events = cache(lambda: EventLoop(system.event_loop))
    checks = config.options.check_types
    works = [
        Work(
            node,
            ctx,
            plane,
            pulse,
            codec,
            check_types=checks,
            events=events,
            watch=None if watch is None else watch(ctx),
        )
        for node, ctx in zip(nodes, contexts, strict=True)
    ]
    work = works[0] if len(works) == 1 else Crew(works, config.worker, plane, pulse.commands)
    spin_s = max(node.node_options.spin_s for node in nodes)
    loop = WorkerLoop(work, plane, pulse, contexts[0], endpoint, spin_s)
    pulse.attach(
        plane, work.stats, interrupt, loop.leave, work.told_to_end, work.interruptible,
        partial(standing, loop, plane, work, pulse, lambda: _tasks(events)),
    )  # fmt: skip
    return Replica(plane, work, loop)


def _tasks(events: Any) -> Collection[Any]:
    """Return the coroutines under way; ``events`` is a cached function that makes their loop."""
    return events().tasks() if events.cache_info().currsize else ()
