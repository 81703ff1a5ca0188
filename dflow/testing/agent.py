"""The agent's part in a simulation: reporting how workers ended, killing them on request."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dflow.graph.plan import WorkerId
from dflow.testing.kernel import Process, Task
from dflow.testing.network import Source
from dflow.worker.assemble import Replica

if TYPE_CHECKING:
    from dflow.testing.world import World

__all__ = ["REAP_S", "Agent", "Worker"]

REAP_S = 0.001
"""Within this time the agent learns that a worker has ended, or kills one."""


@dataclass(eq=False, slots=True)
class Worker:
    """One worker process. ``replica`` is there once it is assembled, ``code`` once it has ended."""

    me: WorkerId
    pid: int
    process: Process
    main: Task | None = None
    replica: Replica | None = None
    code: int | None = None
    killed: bool = False


class Agent:
    """The agent's part: reports exits, kills on request (`dflow.launch.pipe.Pipe`)."""

    closed_by_peer = False

    def __init__(self, world: World) -> None:
        self._world = world
        self._source = Source(world.network)
        self._said: deque[dict[str, Any]] = deque()

    def fileno(self) -> int:
        """Return what a poller knows it by."""
        return self._source.number

    def available(self) -> list[dict[str, Any]]:
        """Return what the agent has said."""
        said, self._said = list(self._said), deque()
        self._source.readable = False
        return said

    def send_message(self, message: dict[str, Any]) -> None:
        """Do as the coordinator asks."""
        node, replica = message["kill"]
        world = self._world
        world.soon(REAP_S, lambda: world.kill(WorkerId(node, replica)))

    def reap(self, worker: Worker) -> None:
        """Tell the coordinator, soon, that a worker has ended."""
        signal = 9 if worker.killed else None
        code = None if worker.killed else worker.code
        row = [worker.me.node, worker.me.replica, worker.pid, code, signal]

        def say() -> None:
            self._said.append({"exited": row})
            self._source.news()

        self._world.soon(REAP_S, say)
