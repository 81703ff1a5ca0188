"""The plan: a validated graph reduced to numbers and names, equal in every process.

It holds no user code. Every process of a run derives the same plan from the same graph, so
edges and channels can be named by small numbers on the wire; `Plan.fingerprint` lets a
worker that imported the graph itself prove that it did.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TypeVar

from dflow.message import EXTERNAL, Priority

__all__ = [
    "ChannelPlan",
    "EdgePlan",
    "NodePlan",
    "Plan",
    "WorkerId",
    "depths",
    "external_edge_id",
    "grouped",
]

_Item = TypeVar("_Item")
_Key = TypeVar("_Key", bound=Hashable)


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
    ``band`` is the one the scheduler puts its workers in. ``ordered``: its replicas together keep
    the order of the inputs.
    """

    name: str
    kind: str  # "source" | "node" | "sink" | "external"
    replicas: int
    level: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    input_bands: tuple[int, ...] = ()
    band: int = int(Priority.NORMAL)
    ordered: bool = False


@dataclass(frozen=True, slots=True)
class EdgePlan:
    """One edge; ``index`` is its position in `Plan.edges`.

    An edge from outside has sender ``"run"`` and an index that follows `Plan.edges`.

    ``broadcast``: every replica of the receiver gets a copy. ``numbered``: messages carry their
    number, for the replicas of an ordered node. ``tagged``: the sender is an ordered node with
    replicas, so messages carry the number of the input they came from and arrive to be put in
    order. ``limit``: messages of one key in flight at once, over all channels (0: no limit).
    ``slots``: messages a receiver handles at once. ``shared``: several replicas share its messages,
    and whoever is free gets the next. ``local``: both ends are
    in one worker process (`Plan.fused`), so replica i sends to replica i only, without a socket.
    """

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
    ttl_s: float | None = None
    broadcast: bool = False
    numbered: bool = False
    tagged: bool = False
    limit: int = 0
    slots: int = 1
    cancellable: bool = False
    shared: bool = False
    local: bool = False

    @property
    def queued(self) -> bool:
        """Whether messages wait one by one (`dflow.flow.queue_edge`), not in a lane."""
        return (
            self.policy != "block"
            or self.ttl_s is not None
            or self.sender == EXTERNAL
            or self.cancellable
            or self.broadcast
            or self.numbered
            or self.tagged
            or self.limit > 0
        )

    @property
    def numbered_by_offer(self) -> bool:
        """Whether numbers follow the order of emitting, over several queues at the sender.

        A queue for all channels gives them when it sends, and one that may lose messages, too.
        """
        lossless = self.policy == "block" and self.ttl_s is None
        return self.numbered and self.keyed and lossless and not self.limit

    @property
    def window(self) -> int:
        """Messages that may be in flight on one channel.

        Policies that choose among what waits keep at least half of it at the sender.
        """
        if self.limit:
            return self.slots
        if self.policy == "latest":
            return 1
        if self.policy in ("drop_oldest", "coalesce"):
            return max(1, self.capacity // 2)
        return self.capacity

    @property
    def reports(self) -> str:
        """When a receiver reports credit.

        ``"half"``: half a window is owed, or it is idle. ``"prompt"``: half of what its sender
        believes it has is owed. ``"eager"``: after each turn.
        ``"ready"``: as soon as a handler has returned, and only what is done: the next message
        is asked for when there is somebody to handle it.
        """
        if self.limit or self.policy == "latest":
            return "ready"
        if self.policy != "block":  # who loses messages wants to know
            return "eager"
        if self.shared or self.numbered:
            return "prompt"
        return "half"


@dataclass(frozen=True, slots=True)
class ChannelPlan:
    """One edge between one sender replica and one receiver replica."""

    number: int
    edge: int
    sender: WorkerId
    receiver: WorkerId


@dataclass(frozen=True)
class Plan:
    """Nodes in topological order, edges in the order they were connected.

    Edges into the launching process (results) have receiver ``"run"``. Channel numbers are
    dense from 0 in (edge, sender replica, receiver replica) order; numbers from
    ``len(channels)`` up belong to messages sent from outside (`external_channel`), one edge of
    ``external_edges`` for each (node, input) that may be sent to.

    Each of ``fused`` names the nodes that share a worker process, in topological order; the first
    gives the worker its name. So a `WorkerId` means a replica, and where a process is meant the
    replica that `host` returns for it.
    """

    name: str
    nodes: tuple[NodePlan, ...]
    edges: tuple[EdgePlan, ...]
    external_edges: tuple[EdgePlan, ...] = ()
    fused: tuple[tuple[str, ...], ...] = ()

    @cached_property
    def by_name(self) -> dict[str, NodePlan]:
        """Nodes by name."""
        return {node.name: node for node in self.nodes}

    @cached_property
    def workers(self) -> tuple[WorkerId, ...]:
        """Every worker process: the hosts of all replicas, without the launching process."""
        return tuple(
            WorkerId(node.name, replica)
            for node in self.nodes
            if node.kind != "external" and self._hosts[node.name] == node.name
            for replica in range(node.replicas)
        )

    @cached_property
    def _hosts(self) -> dict[str, str]:
        hosts = {node.name: node.name for node in self.nodes}
        return hosts | {name: group[0] for group in self.fused for name in group}

    def host(self, replica: WorkerId) -> WorkerId:
        """Return the worker process that runs a replica; itself unless it is fused."""
        return WorkerId(self._hosts.get(replica.node, replica.node), replica.replica)

    def hosts(self, node: str) -> tuple[WorkerId, ...]:
        """Return the worker process of each replica of ``node``."""
        return self._hosts_of[node]

    @cached_property
    def _hosts_of(self) -> dict[str, tuple[WorkerId, ...]]:
        return {
            node.name: tuple(WorkerId(self._hosts[node.name], i) for i in range(node.replicas))
            for node in self.nodes
        }

    def members(self, worker: WorkerId) -> tuple[WorkerId, ...]:
        """Return the replicas that run in a worker process, in topological order."""
        group = self._groups.get(worker.node, (worker.node,))
        return tuple(WorkerId(name, worker.replica) for name in group)

    @cached_property
    def _groups(self) -> dict[str, tuple[str, ...]]:
        return {group[0]: group for group in reversed(self.fused)}

    def band(self, worker: WorkerId) -> int:
        """Return the band of a worker process: the best of those of its nodes."""
        return min(
            self.by_name[name].band for name in self._groups.get(worker.node, (worker.node,))
        )

    @cached_property
    def best_band(self) -> int:
        """The best band any worker process is in."""
        return min(node.band for node in self.nodes if node.kind != "external")

    @cached_property
    def worker_levels(self) -> dict[str, int]:
        """Topological depth of each worker process, by its name; those without inputs are 0."""
        names = dict.fromkeys(worker.node for worker in self.workers)
        ways = ((self._hosts[edge.sender], self._hosts[edge.receiver]) for edge in self.edges)
        return depths(names, dict.fromkeys((a, b) for a, b in ways if a != b and b in names))

    @cached_property
    def channels(self) -> tuple[ChannelPlan, ...]:
        """Every channel between planned participants; its number is its position."""
        found: list[ChannelPlan] = []
        for edge in self.edges:
            for sender in range(self.by_name[edge.sender].replicas):
                all_of_them = range(self.by_name[edge.receiver].replicas)
                for receiver in (sender,) if edge.local else all_of_them:
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
        return self._external_numbers[node, port, replica]

    @cached_property
    def _external_numbers(self) -> dict[tuple[str, str, int], int]:
        return {place: n for n, place in enumerate(self.external_ports, len(self.channels))}

    @cached_property
    def external_channels(self) -> tuple[ChannelPlan, ...]:
        """Every channel by which the launching process may send; numbered after `channels`."""
        edges = {(edge.receiver, edge.input): edge.index for edge in self.external_edges}
        return tuple(
            ChannelPlan(number, edges[node, port], WorkerId(EXTERNAL), WorkerId(node, replica))
            for number, (node, port, replica) in enumerate(self.external_ports, len(self.channels))
        )

    @cached_property
    def ways(self) -> dict[int, tuple[int, WorkerId, WorkerId]]:
        """Edge, sending and receiving worker process of every channel, by its number."""
        return {
            ch.number: (ch.edge, self.host(ch.sender), self.host(ch.receiver))
            for ch in (*self.channels, *self.external_channels)
        }

    @cached_property
    def widths(self) -> dict[int, int]:
        """How many channels each edge has, by the edge's index."""
        return dict(Counter(edge for edge, _, _ in self.ways.values()))

    def external_edge(self, node: str, port: str) -> EdgePlan:
        """The edge by which the launching process sends to ``node.port``; KeyError if none."""
        return self._external_edges[node, port]

    @cached_property
    def _external_edges(self) -> dict[tuple[str, str], EdgePlan]:
        return {(edge.receiver, edge.input): edge for edge in self.external_edges}

    def external_band(self, node: str, port: str) -> Priority:
        """Band of messages the launching process sends to ``node.port``."""
        return self.external_edge(node, port).priority

    def takes_control(self, node: str) -> bool:
        """Whether ``node`` may be sent messages on CONTROL, over an edge or from outside."""
        outside = (self._external_edges.get((node, port)) for port in self.by_name[node].inputs)
        into = (*self.in_edges(node), *(edge for edge in outside if edge is not None))
        return any(edge.priority is Priority.CONTROL for edge in into)

    def in_edges(self, node: str) -> tuple[EdgePlan, ...]:
        """Edges that end at ``node``."""
        return self._edges_by_end[1].get(node, ())

    def out_edges(self, node: str) -> tuple[EdgePlan, ...]:
        """Edges that begin at ``node``."""
        return self._edges_by_end[0].get(node, ())

    @cached_property
    def _edges_by_end(self) -> tuple[dict[str, tuple[EdgePlan, ...]], ...]:
        """The edges by sender, and by receiver."""
        return (
            grouped(self.edges, lambda edge: edge.sender),
            grouped(self.edges, lambda edge: edge.receiver),
        )

    def upstream(self, node: str) -> frozenset[str]:
        """Return ``node`` and every node from which it can be reached."""
        found, todo = {node}, [node]
        while todo:
            new = {edge.sender for edge in self.in_edges(todo.pop())} - found
            found |= new
            todo += new
        return frozenset(found)

    def origins(self, node: str) -> tuple[str, ...]:
        """Return where all that reaches ``node`` comes from, in topological order.

        Those are sources, and nodes that only the outside feeds; maybe ``node`` itself.
        """
        above = self.upstream(node)
        return tuple(n.name for n in self.nodes if n.name in above and not self.in_edges(n.name))

    def levels(self) -> Iterator[tuple[str, ...]]:
        """Yield the node names of each topological level, sources first."""
        found = grouped(self.nodes, lambda node: node.level)
        for level in range(max(found, default=-1) + 1):
            yield tuple(node.name for node in found.get(level, ()))

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest equal for equal plans in every process and run."""
        text = json.dumps(
            [
                self.name,
                [asdict(n) for n in self.nodes],
                [asdict(e) for e in (*self.edges, *self.external_edges)],
                self.fused,
            ]
        )
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def grouped(items: Iterable[_Item], by: Callable[[_Item], _Key]) -> dict[_Key, tuple[_Item, ...]]:
    """Return ``items`` by what ``by`` says of each, in the order they had."""
    found: defaultdict[_Key, list[_Item]] = defaultdict(list)
    for item in items:
        found[by(item)].append(item)
    return {key: tuple(same) for key, same in found.items()}


def depths(names: Iterable[str], ways: Iterable[tuple[str, str]]) -> dict[str, int]:
    """Return the length of the longest way to each of ``names`` (Kahn's algorithm).

    ``ways`` are (from, to). What lies on a cycle, and after one, keeps what was found by then.
    """
    found = dict.fromkeys(names, 0)
    waiting = dict.fromkeys(found, 0)
    after: defaultdict[str, list[str]] = defaultdict(list)
    for sender, receiver in ways:
        after[sender].append(receiver)
        waiting[receiver] += 1
    ready = [name for name, count in waiting.items() if count == 0]
    while ready:
        name = ready.pop()
        for receiver in after[name]:
            found[receiver] = max(found[receiver], found[name] + 1)
            waiting[receiver] -= 1
            if waiting[receiver] == 0:
                ready.append(receiver)
    return found


def external_edge_id(node: str, port: str) -> str:
    """Id of the edge by which the launching process sends to ``node.port``."""
    return f"{EXTERNAL}->{node}.{port}"
