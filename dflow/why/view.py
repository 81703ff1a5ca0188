"""A status as a graph of waits: replicas, the edges between them, and who waits for whom."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from dflow.message import EXTERNAL
from dflow.report import EdgeStatus, NodeStatus, ReplicaStatus, RunStatus
from dflow.why.words import OWN_CODE, is_silent, names_of

__all__ = ["View", "Wait"]


@dataclass(frozen=True, slots=True)
class Wait:
    """``waiter`` waits for ``target`` (replicas): for credit of ``edge``, an order, or an end."""

    waiter: str
    target: str
    what: str
    edge: str = ""


class View:
    """One status, by name: ``replicas`` (with the launching process) and ``edges``."""

    def __init__(self, status: RunStatus) -> None:
        self.status = status
        self.edges = {edge.id: edge for edge in status.edges}
        self.replicas: dict[str, ReplicaStatus] = {}
        self._nodes: dict[str, NodeStatus] = {}  # of each replica
        self._labels: dict[str, str] = {}
        self._of: dict[str, tuple[ReplicaStatus, ...]] = {}
        for node in status.nodes:
            self._of[node.name] = node.doing
            self._labels |= names_of(node.doing)
            for replica in node.doing:
                self.replicas[replica.name] = replica
                self._nodes[replica.name] = node
        if status.launcher is not None:
            launcher = status.launcher
            self.replicas[launcher.name] = launcher
            self._of[EXTERNAL] = (launcher,)
            self._labels[launcher.name] = "the launching process"
        self._into: defaultdict[str, list[str]] = defaultdict(list)  # senders, by receiver
        for edge in status.edges:
            self._into[_receiver(edge)].append(_sender(edge))

    def label(self, replica: ReplicaStatus) -> str:
        """Return how to call a replica."""
        return self._labels[replica.name]

    def node(self, replica: ReplicaStatus) -> str:
        """Return how to call the node of a replica."""
        node = self._nodes.get(replica.name)
        return self.label(replica) if node is None else node.name

    def waits(self, r: ReplicaStatus, *, ends: bool) -> Iterator[Wait]:
        """Yield whom ``r`` waits for; ``ends``: also those that may still send it something."""
        if is_silent(r):  # what it said last may not hold any more
            return
        if r.what in ("credit", "send"):
            for edge in r.edges:
                yield from self._credit(r, edge)
        elif r.what == "order":
            for name in r.waits_for:
                if name in self.replicas:
                    yield Wait(r.name, name, "order", r.edges[0] if r.edges else "")
        elif r.what == "thread":
            for other in self.replicas.values():
                if other.pid == r.pid and other.what in OWN_CODE:
                    yield Wait(r.name, other.name, "thread")
        elif r.what == "idle" and ends:
            for name in self._senders(r):
                for sender in self._of.get(name, ()):
                    if not _has_ended(sender):
                        yield Wait(r.name, sender.name, "end")

    def _credit(self, r: ReplicaStatus, edge: str) -> Iterator[Wait]:
        known = self.edges.get(edge)
        receivers = () if known is None else self._of.get(_receiver(known), ())
        full = [each for each in receivers if each.name in r.waits_for]
        for receiver in full or receivers:
            yield Wait(r.name, receiver.name, "credit", edge)

    def _senders(self, r: ReplicaStatus) -> list[str]:
        """Return the nodes that feed the node of ``r``, once each; the outside is none."""
        node = self._nodes.get(r.name)
        names = self._into.get(EXTERNAL if node is None else node.name, ())
        return [name for name in dict.fromkeys(names) if name != EXTERNAL]

    def is_fed_from_outside(self, r: ReplicaStatus) -> bool:
        """Whether only the launching process may send it anything."""
        node = self._nodes.get(r.name)
        return node is not None and node.kind != "source" and not self._senders(r)

    def is_first(self, r: ReplicaStatus) -> bool:
        """Whether it has not ended, and gets nothing from another node."""
        node = self._nodes.get(r.name)
        return node is not None and not self._senders(r) and not _has_ended(r)

    def ended_inputs(self, r: ReplicaStatus) -> list[str]:
        """Return the nodes that feed the node of ``r`` and have ended."""
        return [
            name
            for name in self._senders(r)
            if name in self._of and all(_has_ended(each) for each in self._of[name])
        ]

    def queued(self, r: ReplicaStatus) -> int:
        """Return how many messages wait for the node of ``r``."""
        node = self._nodes.get(r.name)
        if node is None:
            return 0
        return sum(edge.depth for edge in self.edges.values() if _receiver(edge) == node.name)

    def busiest(self) -> tuple[str, float] | None:
        """Return the node that spends most time in its own code, and which part of it."""
        shares = {
            node.name: sum(r.busy for r in node.doing) / len(node.doing)
            for node in self.status.nodes
            if node.doing
        }
        if not shares:
            return None
        name = max(shares, key=lambda node: shares[node])
        return name, shares[name]

    def fullest(self) -> EdgeStatus | None:
        """Return the edge with least room."""
        bounded = [edge for edge in self.status.edges if edge.capacity]
        return max(bounded, key=lambda edge: edge.depth / edge.capacity, default=None)


def _has_ended(replica: ReplicaStatus) -> bool:
    return replica.what == "ended" or replica.step in ("drained", "stopped", "leaving", "gone")


def _sender(edge: EdgeStatus) -> str:
    output = edge.id.partition("->")[0]
    return output.rpartition(".")[0] or output


def _receiver(edge: EdgeStatus) -> str:
    into = edge.id.partition("->")[2]
    return EXTERNAL if into.partition(".")[0] == EXTERNAL else into.rpartition(".")[0]
