"""The books: what became of every message, from what each participant counted.

Sender and receiver of a channel count independently, so the report can be checked against
itself. Where one end died without a last word, what the other end knows stands in for it and
the edge is marked inexact: of a dead sender only what arrived is known to have been sent, of
a dead receiver only what it reported as ``done`` is known to have been delivered.

An edge from the launching process exists only if something was sent on it. What reached its
node after the node had ended is ``rejected``: the node refused it, nobody lost it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from dflow.errors import ProtocolError
from dflow.graph.plan import EdgePlan, Plan, WorkerId
from dflow.message import EXTERNAL
from dflow.report import (
    EdgeReport,
    EdgeStatus,
    KeyStatus,
    NodeReport,
    NodeStatus,
    ReplicaStatus,
)
from dflow.stats import Fates, InChannelStats, KeyStats, NodeStats, OutChannelStats, WorkerStats

__all__ = [
    "edge_reports",
    "edge_statuses",
    "in_flight",
    "node_reports",
    "node_statuses",
    "parse_stats",
]

_NO_OUT = OutChannelStats(-1, 0, 0, 0, 0)
_NO_IN = InChannelStats(-1, 0, 0, 0)
_NO_FATES = Fates()
_NO_WORK = NodeStats()
_NO_STATS = WorkerStats()

Counted = Mapping[WorkerId, WorkerStats]


def parse_stats(raw: list[object], who: object) -> WorkerStats:
    """Return the stats a participant sent.

    Raises ProtocolError unless they are counters through and through: a peer's mistake must
    not surface later, when the books are closed.
    """
    try:
        stats = WorkerStats.from_wire(raw)
        good = _are_counters(stats)
    except (TypeError, ValueError, AttributeError, RecursionError):
        stats, good = WorkerStats(), False
    if not good:
        raise ProtocolError(f"{who}: expected stats (whole numbers >= 0), got something else")
    return stats


def _are_counters(stats: WorkerStats) -> bool:
    nodes = [stats.node, *stats.fused.values()]
    numbers: list[object] = [stats.cpu_ns, stats.delayed_ns]
    for node in nodes:  # what each does was checked when it was read
        numbers += [node.handled, node.emitted, node.errors, node.ticks, node.busy_ns, node.skipped]
    for edge, fates in stats.fates.items():
        numbers += [edge, *fates.row()]
    for edge, queue in stats.queues.items():
        numbers += [edge]
        for key in queue.keys:
            numbers += [key.waiting, key.in_flight, key.done, key.rejected]
    for counters in (stats.offered, stats.unsent, stats.peak):
        numbers += [*counters, *counters.values()]
    for out in stats.outs:
        numbers += [out.channel, out.sent, out.sent_bytes, out.taken, out.done, out.taken_bytes]
    for into in stats.ins:
        numbers += [into.channel, into.received, into.delivered, into.done, into.malformed]
        numbers += [into.expired, into.cancelled, into.superseded]
    texts: list[object] = [*stats.fused, *(name for node in nodes for name in node.metrics)]
    texts += [key.key for queue in stats.queues.values() for key in queue.keys]
    values: list[object] = [value for node in nodes for value in node.metrics.values()]
    values += [queue.oldest_s for queue in stats.queues.values()]
    return (
        set(map(type, numbers)) == {int}
        and min(numbers) >= 0  # type: ignore[type-var,operator]  # all are ints
        and all(isinstance(text, str) for text in texts)
        and all(isinstance(value, (int, float)) for value in values)
    )


@dataclass(slots=True)
class _Flow:
    """One edge, summed over its channels."""

    offered: int = 0
    unsent: int = 0
    wired: int = 0
    bytes: int = 0
    flying_bytes: int = 0
    received: int = 0
    delivered: int = 0
    malformed: int = 0
    peak: int = 0
    done: int = 0
    in_flight: int = 0
    underway: list[int] = field(default_factory=list)
    expired: int = 0
    cancelled: int = 0
    superseded: int = 0
    fates: Fates = _NO_FATES
    oldest_s: float = 0.0
    keys: tuple[KeyStats, ...] = ()
    exact: bool = True

    @property
    def passed_over(self) -> int:
        """Messages received and not delivered, because nobody wanted them any more."""
        return self.expired + self.cancelled + self.superseded


@dataclass(frozen=True, slots=True)
class _Channel:
    """One channel, as its two ends tell it; both are named by the worker process they are in."""

    edge: int
    sender: WorkerId
    receiver: WorkerId
    out: OutChannelStats
    into: InChannelStats


def _channels(plan: Plan, counted: Counted) -> Iterator[_Channel]:
    """Yield every channel that either end counts; numbers the plan does not have are no channels.

    Goes through what was counted, not through the plan: most of what may be sent to from
    outside never is.
    """
    outs = {o.channel: o for s in counted.values() for o in s.outs}
    ins = {i.channel: i for s in counted.values() for i in s.ins}
    ways = plan.ways
    for number in outs | ins:
        if number in ways:
            yield _Channel(*ways[number], outs.get(number, _NO_OUT), ins.get(number, _NO_IN))


def _flows(plan: Plan, counted: Counted, lost: Collection[WorkerId]) -> dict[int, _Flow]:
    flows: defaultdict[int, _Flow] = defaultdict(_Flow)
    for stats in counted.values():
        for edge, count in stats.offered.items():
            flows[edge].offered += count
        for edge, count in stats.unsent.items():
            flows[edge].unsent += count
        for edge, count in stats.peak.items():
            flows[edge].peak = max(flows[edge].peak, count)
        for edge, fates in stats.fates.items():
            flows[edge].fates = _sum(flows[edge].fates, fates)
        for edge, queue in stats.queues.items():
            flows[edge].oldest_s = max(flows[edge].oldest_s, queue.oldest_s)
            flows[edge].keys += queue.keys
    for channel in _channels(plan, counted):
        _add_channel(flows[channel.edge], channel, lost)
    if lost:
        for edge, sender, receiver in plan.ways.values():
            if sender in lost or receiver in lost:
                flows[edge].exact = False
    for flow in flows.values():
        if not flow.exact:
            flow.offered = max(flow.offered, flow.unsent + flow.wired + flow.fates.total)
    return flows


def _sum(a: Fates, b: Fates) -> Fates:
    return Fates(*(x + y for x, y in zip(a.row(), b.row(), strict=True)))


def _passed_over(into: InChannelStats) -> int:
    """Return how many messages were received and then passed over."""
    return into.expired + into.cancelled + into.superseded


def _add_channel(flow: _Flow, channel: _Channel, lost: Collection[WorkerId]) -> None:
    out, into = channel.out, channel.into
    wired, received, delivered = out.sent, into.received, into.delivered
    if channel.receiver in lost:
        delivered = max(delivered, out.done)
        delivered -= _passed_over(into) if delivered > into.delivered else 0
        received = max(received, out.taken, delivered)
    if channel.sender in lost:
        wired = max(wired, received)
    flow.wired += wired
    flow.bytes += out.sent_bytes
    flow.flying_bytes += max(0, out.sent_bytes - out.taken_bytes)
    flow.received += received
    flow.delivered += delivered
    flow.malformed += into.malformed
    flow.done += into.done
    flow.in_flight += max(0, out.sent - max(out.done, into.done))
    taken = into.delivered + _passed_over(into)
    flow.underway.append(max(0, out.sent - max(out.taken, taken)))
    flow.expired += into.expired
    flow.cancelled += into.cancelled
    flow.superseded += into.superseded


def edge_reports(
    plan: Plan, counted: Counted, lost: Collection[WorkerId], *, complete: bool
) -> tuple[EdgeReport, ...]:
    """Return the books of every planned edge, then of the used edges from outside.

    ``lost``: participants that died without a last word. ``complete``: the run drained, so
    what an ended node did not take from outside was rejected rather than abandoned.
    """
    flows = _flows(plan, counted, lost)
    reports = [_edge_report(plan, edge, flows.get(edge.index, _Flow())) for edge in plan.edges]
    for edge in plan.external_edges:
        flow = flows.get(edge.index, _Flow())
        if flow.offered or flow.wired or flow.received:
            reports.append(_edge_report(plan, edge, flow, reject=complete))
    return tuple(reports)


def _edge_report(plan: Plan, edge: EdgePlan, flow: _Flow, *, reject: bool = False) -> EdgeReport:
    fates = flow.fates
    left = flow.unsent + flow.wired - flow.delivered - flow.passed_over
    if not flow.exact:
        left = flow.offered - fates.total - flow.delivered - flow.passed_over
    return EdgeReport(
        edge.id,
        sent=flow.offered,
        delivered=flow.delivered,
        dropped=fates.dropped + flow.superseded,
        coalesced=fates.coalesced,
        expired=fates.expired + flow.expired,
        cancelled=fates.cancelled + flow.cancelled,
        rejected=fates.rejected + (left if reject else 0),
        refused=fates.rejected,
        withheld=fates.total,
        copies=plan.by_name[edge.receiver].replicas if edge.broadcast else 1,
        merge_errors=fates.errors,
        abandoned=0 if reject else left,
        unsent=flow.unsent,
        wired=flow.wired,
        received=flow.received,
        malformed=flow.malformed,
        peak=flow.peak,
        bytes=flow.bytes,
        exact=flow.exact,
    )


def in_flight(plan: Plan, counted: Counted, worker: WorkerId) -> dict[str, int]:
    """Return by edge id what was under way to or from ``worker`` when it died.

    To it: what its senders sent and it had not reported done. From it: what it had told of,
    and its receivers have not done. Edges with nothing under way are left out.
    """
    found: defaultdict[str, int] = defaultdict(int)
    names = {edge.index: edge.id for edge in plan.edges}
    names |= {edge.index: edge.id for edge in plan.external_edges}
    for channel in _channels(plan, counted):
        if channel.receiver == worker:
            found[names[channel.edge]] += max(0, channel.out.sent - channel.out.done)
        elif channel.sender == worker:
            found[names[channel.edge]] += max(0, channel.out.sent - channel.into.done)
    for edge, count in counted.get(worker, _NO_STATS).unsent.items():
        if edge in names:
            found[names[edge]] += count
    return {edge: count for edge, count in found.items() if count}


def node_reports(plan: Plan, counted: Counted) -> tuple[NodeReport, ...]:
    """Return the work of every node of the graph, in topological order."""
    return tuple(
        _node_report(node.name, node.kind, _work_of(plan, node.name, counted))
        for node in plan.nodes
        if node.kind != "external"
    )


def _work_of(plan: Plan, node: str, counted: Counted) -> list[NodeStats]:
    """Return the work of each replica of ``node``, told by the process it runs in."""
    found = []
    for host in plan.hosts(node):
        stats = counted.get(host, _NO_STATS)
        found.append(stats.node if host.node == node else stats.fused.get(node, _NO_WORK))
    return found


def _node_report(name: str, kind: str, replicas: Sequence[NodeStats]) -> NodeReport:
    metrics: defaultdict[str, float] = defaultdict(float)
    for stats in replicas:
        for metric, value in stats.metrics.items():
            metrics[metric] += value
    return NodeReport(
        name,
        kind,
        len(replicas),
        handled=sum(s.handled for s in replicas),
        emitted=sum(s.emitted for s in replicas),
        errors=sum(s.errors for s in replicas),
        ticks=sum(s.ticks for s in replicas),
        skipped_ticks=sum(s.skipped for s in replicas),
        busy_s=sum(s.busy_ns for s in replicas) / 1e9,
        metrics=dict(metrics),
    )


def node_statuses(
    plan: Plan,
    counted: Counted,
    doing: Mapping[str, tuple[ReplicaStatus, ...]],
    paused: Collection[str] = (),
) -> tuple[NodeStatus, ...]:
    """Return every node now; ``doing`` tells what each replica of it does."""
    found = []
    for node in plan.nodes:
        if node.kind == "external":
            continue
        handled = emitted = errors = 0
        for stats in _work_of(plan, node.name, counted):
            handled += stats.handled
            emitted += stats.emitted
            errors += stats.errors
        replicas = doing[node.name]
        workers = tuple([replica.step for replica in replicas])
        found.append(
            NodeStatus(
                node.name, node.kind, node.replicas, handled, emitted, errors, workers,
                node.name in paused, replicas,
            )
        )  # fmt: skip
    return tuple(found)


def edge_statuses(plan: Plan, counted: Counted) -> tuple[EdgeStatus, ...]:
    """Return every planned edge now, then the used edges from outside."""
    flows = _flows(plan, counted, ())
    used = (*plan.edges, *(edge for edge in plan.external_edges if edge.index in flows))
    statuses = []
    for edge in used:
        # a queue shared by its channels has one capacity; lanes have one for each channel
        shared = edge.limit or (edge.policy != "block" and not (edge.keyed or edge.broadcast))
        senders = 1 if edge.sender == EXTERNAL else plan.by_name[edge.sender].replicas
        queues = senders if shared else plan.widths.get(edge.index, 0)
        flow = flows.get(edge.index, _Flow())
        capacity = 1 if edge.policy == "latest" else edge.capacity
        channels = plan.widths.get(edge.index, 0)
        statuses.append(_edge_status(edge, flow, capacity * queues, edge.max_bytes * channels))
    return tuple(statuses)


def _depth(edge: EdgePlan, flow: _Flow) -> int:
    """Return what waits at both ends, counted as the sender counts it against the capacity.

    By what the sender knows of its channels: the two ends report at different times, and the
    sum of both would be more than ever waited at once.
    """
    if edge.reports == "ready":  # those in flight are in somebody's hands
        return flow.unsent
    at_hand = 1 if edge.policy in ("drop_oldest", "coalesce") else 0
    return flow.unsent + sum(max(0, count - at_hand) for count in flow.underway)


def _merged(keys: Sequence[KeyStats]) -> tuple[KeyStatus, ...]:
    """Return each key once, the deepest first, whichever sender's messages they are."""
    if not keys:
        return ()
    found: dict[str, list[int]] = {}
    for k in keys:
        counts = (k.waiting, k.in_flight, k.done, k.rejected)
        before = found.get(k.key, [0] * len(counts))
        found[k.key] = [a + b for a, b in zip(before, counts, strict=True)]
    merged = [KeyStatus(key, waiting + flying, waiting, flying, done, rejected)
              for key, (waiting, flying, done, rejected) in found.items()]  # fmt: skip
    return tuple(sorted(merged, key=lambda key: -key.depth))


def _edge_status(edge: EdgePlan, flow: _Flow, capacity: int, max_bytes: int) -> EdgeStatus:
    fates = flow.fates
    gone = flow.delivered + flow.passed_over + fates.total
    return EdgeStatus(
        edge.id,
        max(flow.offered, gone),
        flow.delivered,
        _depth(edge, flow),
        capacity,
        edge.policy,
        waiting=flow.unsent,
        in_flight=flow.in_flight,
        taken=flow.delivered,
        done=flow.done - flow.passed_over,
        dropped=fates.dropped + flow.superseded,
        coalesced=fates.coalesced,
        expired=fates.expired + flow.expired,
        cancelled=fates.cancelled + flow.cancelled,
        rejected=fates.rejected,
        # the sender may hear of the last ones later than we do
        oldest_s=flow.oldest_s if flow.unsent or flow.in_flight else 0.0,
        keys=_merged(flow.keys),
        bytes=flow.flying_bytes,
        max_bytes=max_bytes,
    )
