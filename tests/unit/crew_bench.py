"""A crew without neighbours: every node of a graph in one worker; the test plays the rest of it."""

from __future__ import annotations

from collections import deque

import pytest
from loguru import logger

from dflow import Graph
from dflow.stats import NodeStats, WorkerStats
from dflow.wire.codec import Codec
from dflow.wire.frames import pack_batch, parse
from dflow.worker.context import Context as WorkerContext
from dflow.worker.crew import Crew
from dflow.worker.plane import DataPlane
from dflow.worker.pulse import Pulse
from dflow.worker.work import Work
from tests.support import unheard

__all__ = ["Bench"]

CODEC = Codec()


class Bench:
    """A crew without neighbours; the test plays the rest of the worker."""

    def __init__(self, graph: Graph) -> None:
        plan = graph.plan()
        (me,) = plan.workers
        self.plane = DataPlane(
            plan, me, token="", epoch=1, edge_key=graph.edge_key, on_violation=pytest.fail
        )
        self.pulse = Pulse(unheard(), b"x", stats_interval_s=1, remote=False)
        self.commands: deque[object] = deque()
        self.works = {
            m.node: Work(
                graph.nodes[m.node].fresh(),
                WorkerContext(m.node, 0, "run-1", logger),
                self.plane,
                self.pulse,
                CODEC,
            )
            for m in plan.members(me)
        }
        self.crew = Crew(list(self.works.values()), me, self.plane, self.commands)
        self.plane.lock.acquire()
        self.crew.begin()

    def step(self, times: int = 1) -> None:
        """Do as the loop does in a round; a command ends each step after one turn."""
        for _ in range(times):
            self.crew.step()
            self.plane.flush()

    def receive(self, node: str, port: str, *values: int) -> None:
        """Take in messages from outside."""
        number = self.plane.plan.external_channel(node, port, 0)
        channel = self.plane.inbound.find(number)
        assert channel is not None
        payloads = [CODEC.encode(value) for value in values]
        channel.accept(parse(pack_batch(number, 1, channel.window.received, payloads, 0)))
        self.plane.inbound.offer(channel)

    def counters(self, node: str) -> NodeStats:
        """Return what a node has counted."""
        stats: WorkerStats = self.crew.stats()
        first = next(iter(self.works))
        return stats.node if node == first else stats.fused[node]

    def close(self) -> None:
        """Close every socket."""
        self.plane.lock.release()
        self.plane.close()
        self.pulse.start()
        self.pulse.leave()
