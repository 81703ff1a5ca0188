"""The plan: a validated graph reduced to numbers and names, equal in every process.

It holds no user code. Every process of a run derives the same plan from the same graph, so
edges and channels can be named by small numbers on the wire; `Plan.fingerprint` lets a
worker that imported the graph itself prove that it did.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property

from dflow.message import EXTERNAL, Priority

__all__ = [
    "ChannelPlan",
    "EdgePlan",
    "ExternalEdge",
    "NodePlan",
    "Plan",
    "WorkerId",
    "external_edge_id",
]


@dataclass(frozen=True, slots=True, order=True)
class WorkerId:
    """One replica of one node; the launching process is ``WorkerId("run", 0)``."""

    node: str
    replica: int = 0

    def __str__(self) -> str:
        return f"{self.node}[{self.replica}]"


@dataclass(frozen=True, slots=True)
class NodePlan:
    """One node. ``level`` is its topological depth: sources are 0.

    ``input_bands`` holds for each of ``inputs`` the band of a message sent from outside.
    """

    name: str
    kind: str  # "source" | "node" | "sink" | "external"
    replicas: int
    level: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    input_bands: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class EdgePlan:
    """One edge; ``index`` is its position in `Plan.edges`."""

    index: int
    id: str
    sender: str
    output: str
    receiver: str
    input: str
    policy: str
    capacity: int
    max_bytes: int
    priority: Priority
    keyed: bool


@dataclass(frozen=True, slots=True)
class ChannelPlan:
    """One edge between one sender replica and one receiver replica."""

    number: int
    edge: int
    sender: WorkerId
    receiver: WorkerId


@dataclass(frozen=True, slots=True)
class ExternalEdge:
    """The edge ``run->node.port``; stats count it under ``index``, which follows `Plan.edges`."""

    index: int
    id: str
    node: str
    port: str


@dataclass(frozen=True)
class Plan:
    """Nodes in topological order, edges in the order they were connected.

    Edges into the launching process (results) have receiver ``"run"``. Channel numbers are
    dense from 0 in (edge, sender replica, receiver replica) order; numbers from
    ``len(channels)`` up belong to messages sent from outside (`external_channel`).
    """

    name: str
    nodes: tuple[NodePlan, ...]
    edges: tuple[EdgePlan, ...]

    @cached_property
    def by_name(self) -> dict[str, NodePlan]:
        """Nodes by name."""
        return {node.name: node for node in self.nodes}

    @cached_property
    def workers(self) -> tuple[WorkerId, ...]:
        """Every replica of every node, without the launching process."""
        return tuple(
            WorkerId(node.name, replica)
            for node in self.nodes
            if node.kind != "external"
            for replica in range(node.replicas)
        )

    @cached_property
    def channels(self) -> tuple[ChannelPlan, ...]:
        """Every channel between planned participants; its number is its position."""
        found: list[ChannelPlan] = []
        for edge in self.edges:
            for sender in range(self.by_name[edge.sender].replicas):
                for receiver in range(self.by_name[edge.receiver].replicas):
                    found.append(
                        ChannelPlan(
                            len(found),
                            edge.index,
                            WorkerId(edge.sender, sender),
                            WorkerId(edge.receiver, receiver),
                        )
                    )
        return tuple(found)

    @cached_property
    def external_ports(self) -> tuple[tuple[str, str, int], ...]:
        """Every (node, input, replica) that may be sent to from outside."""
        return tuple(
            (node.name, port, replica)
            for node in self.nodes
            if node.kind != "external"
            for port in node.inputs
            for replica in range(node.replicas)
        )

    def external_channel(self, node: str, port: str, replica: int) -> int:
        """Number of the channel by which the launching process sends to ``node.port``."""
        return len(self.channels) + self.external_ports.index((node, port, replica))

    @cached_property
    def external_edges(self) -> tuple[ExternalEdge, ...]:
        """One edge for every (node, input) that may be sent to from outside."""
        ports = dict.fromkeys((node, port) for node, port, _ in self.external_ports)
        return tuple(
            ExternalEdge(len(self.edges) + i, external_edge_id(node, port), node, port)
            for i, (node, port) in enumerate(ports)
        )

    @cached_property
    def external_channels(self) -> tuple[ChannelPlan, ...]:
        """Every channel by which the launching process may send; numbered after `channels`."""
        edges = {(edge.node, edge.port): edge.index for edge in self.external_edges}
        return tuple(
            ChannelPlan(number, edges[node, port], WorkerId(EXTERNAL), WorkerId(node, replica))
            for number, (node, port, replica) in enumerate(self.external_ports, len(self.channels))
        )

    def external_band(self, node: str, port: str) -> Priority:
        """Band of messages the launching process sends to ``node.port``."""
        planned = self.by_name[node]
        if not planned.input_bands:
            return Priority.NORMAL
        return Priority(planned.input_bands[planned.inputs.index(port)])

    def in_edges(self, node: str) -> tuple[EdgePlan, ...]:
        """Edges that end at ``node``."""
        return tuple(edge for edge in self.edges if edge.receiver == node)

    def out_edges(self, node: str) -> tuple[EdgePlan, ...]:
        """Edges that begin at ``node``."""
        return tuple(edge for edge in self.edges if edge.sender == node)

    def levels(self) -> Iterator[tuple[str, ...]]:
        """Yield the node names of each topological level, sources first."""
        depth = max((node.level for node in self.nodes), default=-1)
        for level in range(depth + 1):
            yield tuple(node.name for node in self.nodes if node.level == level)

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest equal for equal plans in every process and run."""
        text = json.dumps(
            [self.name, [asdict(n) for n in self.nodes], [asdict(e) for e in self.edges]]
        )
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def external_edge_id(node: str, port: str) -> str:
    """Id of the edge by which the launching process sends to ``node.port``."""
    return f"{EXTERNAL}->{node}.{port}"
