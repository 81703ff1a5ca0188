"""A participant's data plane: both halves, what wakes its loop, and the lock around it.

Every method that touches a socket must be called with ``lock`` held. The main thread holds
it except while user code runs; the pulse thread takes it only when it is free, to flush what
a blocked generator or handler left behind. That is the whole locking discipline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from threading import Lock
from types import MappingProxyType
from typing import Any

from dflow.flow.in_edge import InChannel
from dflow.flow.local_edge import LocalEdge
from dflow.flow.queue_edge import QueueEdge
from dflow.graph.plan import Plan, WorkerId
from dflow.stats import InChannelStats, NodeStats, OutChannelStats, WorkerStats
from dflow.transport.link import InLink, OutLink
from dflow.transport.shm import SharedMemory
from dflow.transport.system import SYSTEM, System
from dflow.wire.codec import Codec
from dflow.worker.cancelling import Canceller
from dflow.worker.inbound import Inbound
from dflow.worker.outbound import Merge, Outbound, Outputs

__all__ = ["DataPlane", "Gate"]

NOTHING: Mapping[str, NodeStats] = MappingProxyType({})


SWEEP_NS = 1_000_000_000

FRESHEN_NS = 3_000_000
"""How long a node waits for what is newer: its sender may look at credit every ms only."""


class Gate:
    """Whether the main thread should end its turn: no credit, a command, or time to flush.

    ``held``: it stays shut until the turn has ended, whatever credit comes back. Any thread may
    shut it.
    """

    __slots__ = ("held", "shut")

    def __init__(self) -> None:
        self.shut = False
        self.held = False

    def close(self) -> None:
        """Shut it: nothing more is begun."""
        self.shut = True

    def hold(self) -> None:
        """Shut it for the rest of the turn."""
        self.held = self.shut = True

    def open(self) -> None:
        """Let a turn begin."""
        self.shut = self.held = False

    def update(self, *, full: bool) -> None:
        """Shut it if there is no credit left, or open it again, unless it is held."""
        self.shut = full or self.held


class DataPlane:
    """Every channel of one participant. ``running``: the outputs of the node whose code runs.

    ``on_violation(text)`` is called when a planned peer breaks the protocol: data may be
    missing, so the run must end. ``codec`` is used by the thread that emits; ``edge_merge`` tells
    the function of a coalescing edge by its id. ``memory``, if there is any, is where large
    parts of messages are; it is closed with the plane. ``clock`` is that of ``system``.
    """

    def __init__(
        self,
        plan: Plan,
        me: WorkerId,
        *,
        token: str,
        epoch: int,
        edge_key: Callable[[int], Callable[[Any], Any] | None],
        on_violation: Callable[[str], None],
        codec: Codec | None = None,
        edge_merge: Callable[[str], Merge | None] = lambda edge_id: None,
        memory: SharedMemory | None = None,
        system: System = SYSTEM,
    ) -> None:
        self.plan = plan
        self.clock = system.clock
        self.memory = memory
        self._swept_ns = 0
        self.lock = Lock()
        self.gate = Gate()
        self.poller = system.poller()
        self.wakeup = system.wakeup()
        self.poller.add(self.wakeup.fd)
        self.closed = False
        self.inbound = Inbound(
            plan,
            me,
            self.poller,
            token=token,
            epoch=epoch,
            on_violation=on_violation,
            memory=memory,
            system=system,
        )
        self.canceller = Canceller(self.inbound, self.gate)
        self.outbound = Outbound(
            plan,
            me,
            self.poller,
            self.inbound,
            token=token,
            epoch=epoch,
            edge_key=edge_key,
            on_violation=on_violation,
            codec=codec,
            edge_merge=edge_merge,
            system=system,
        )
        self.running: Outputs = self.outbound
        self.outputs_of: dict[str, Outputs] = {}

    def outputs(self, node: str) -> Outputs:
        """Return the outgoing edges of ``node``, one of those in this process."""
        if len(self.inbound.inputs) == 1:
            return self.outbound
        if node not in self.outputs_of:
            planned = self.plan.edges
            mine = [edge for edge in self.outbound.edges if planned[edge.index].sender == node]
            self.outputs_of[node] = Outputs(mine, self.outbound.orders)
        return self.outputs_of[node]

    def receive(self, ready: Iterable[Any]) -> None:
        """Take in one frame of each link in ``ready`` (what the poller says can be read).

        One and not all: asking a socket that has nothing costs more than asking the poller,
        and a frame is a turn's work already.
        """
        for link in ready:
            if isinstance(link, InLink):
                self.inbound.receive(link)
            elif isinstance(link, OutLink):
                self.outbound.receive(link)

    def freshen(self, channel: InChannel) -> None:
        """Get what is newer than what ``channel``, whose turn it is, holds, if it comes in time.

        Sending goes on: the sender may be a node of this worker.
        """
        self.inbound.refresh(channel)
        self.flush()
        by_ns = self.clock.monotonic_ns() + FRESHEN_NS
        while channel.window.lent and (left_ns := by_ns - self.clock.monotonic_ns()) > 0:
            ready = self.poller.wait(left_ns / 1e9)
            self.receive(ready)
            if self.wakeup.fd in ready:
                break  # there is something else to do; it stays set
        self.inbound.ready.remove(channel)  # it has its turn already

    def flush(self) -> None:
        """Send everything that has credit, and set the gate if an edge has none left."""
        self.outbound.flush()
        self.gate.update(full=self.outbound.full and self.running.blocked)

    def pump(self) -> None:
        """Flush, with a look at the credit reports if that left something without credit."""
        self.outbound.pump()
        self.gate.update(full=self.outbound.full and self.running.blocked)

    def attend(self) -> None:
        """Called by emit, without the lock, when a batch is full or credit has run out."""
        with self.lock:
            self.pump()

    def end(self, node: str) -> None:
        """Report what is owed, then end every channel of ``node``, in both directions."""
        self.inbound.grant(idle=True)
        self.outbound.end(self.outputs(node).edges)
        self.inbound.end(node)

    def stats(self, node: NodeStats, fused: Mapping[str, NodeStats] = NOTHING) -> WorkerStats:
        """Return every counter of the edges, with those of the node, and of others by name."""
        metrics = self._metrics()
        if metrics:
            node = replace(node, metrics={**node.metrics, **metrics})
        edges = list(self.outbound.edges)
        queued = [edge for edge in edges if isinstance(edge, QueueEdge)]
        now = self.clock.monotonic_ns()
        return WorkerStats(
            node,
            {edge.index: edge.offered for edge in edges},
            {edge.index: edge.waiting for edge in edges},
            {edge.index: edge.peak for edge in edges},
            tuple(
                OutChannelStats(number, w.sent, w.sent_bytes, w.taken, w.done, w.taken_bytes)
                for edge in edges
                for number, w in zip(edge.channels, edge.windows, strict=True)
            ),
            tuple(
                InChannelStats(
                    ch.number,
                    ch.window.received,
                    ch.window.taken - ch.expired - ch.withdrawn - ch.superseded,
                    ch.window.done,
                    ch.malformed,
                    ch.expired,
                    ch.withdrawn,
                    ch.superseded,
                )
                for ch in list(self.inbound.channels.values())
            ),
            {edge.index: edge.fates for edge in queued},
            {
                edge.index: edge.queue_stats(now)
                for edge in edges
                if not isinstance(edge, LocalEdge)
            },
            cpu_ns=self.clock.cpu_ns(),
            fused=fused,
            delayed_ns=self.clock.delayed_ns(),
        )

    @property
    def busy(self) -> bool:
        """Whether somebody is in the middle of something here that must not be torn apart."""
        return self.lock.locked() or (self.memory is not None and self.memory.busy)

    def sweep(self, now: int) -> None:
        """Let go of shared memory of others that is not used any more; call it now and then.

        From any thread; ``now`` is the monotonic clock.
        """
        if self.memory is not None and now - self._swept_ns > SWEEP_NS:
            self._swept_ns = now
            self.memory.sweep()

    def look_for_doubt(self, now: int) -> None:
        """See to it that receivers that were not heard of for long are asked; now and then.

        By one thread; ``now`` is the monotonic clock.
        """
        if self.outbound.in_doubt(now):
            self.wakeup.set()

    def _metrics(self) -> dict[str, float]:
        """Return the numbers of dflow's own that appear among a node's, those that are not 0."""
        found = {"dflow.refused_frames": self.inbound.strangers}
        if self.memory is not None:
            stats = self.memory.stats
            found["dflow.shared_bytes"] = stats.in_use_bytes
            found["dflow.shm_peak_bytes"] = stats.peak_bytes
            found["dflow.copied_buffers"] = stats.copied
        return {name: float(value) for name, value in found.items() if value}

    def close(self) -> None:
        """Close every socket, give up the shared memory; idempotent."""
        if not self.closed:
            self.closed = True
            self.inbound.close()
            self.outbound.close()
            self.wakeup.close()
            if self.memory is not None:
                self.memory.close()
