"""What must have happened in a case, judged by what the nodes themselves noted.

It argues edge by edge: a source emits what its spec says; an edge that loses nothing hands over
exactly what was emitted onto it, the others a part of it that keeps the order; and a node emits for
what it was handed what its spec says. Where all of that holds, every sink has got what it should.
So a run that was drained early, or lost messages by a policy, is judged as strictly as one that was
not. What was cut short is only asked for order, and for nothing that nobody emitted.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dflow.graph.plan import EdgePlan, Plan
from dflow.report import RunReport
from tests.sim.log import Entry, Log, Message
from tests.sim.nodes import results_of, tick_id
from tests.sim.spec import Case, EdgeSpec, NodeSpec

__all__ = ["problems"]


def problems(case: Case, plan: Plan, log: Log, report: RunReport) -> list[str]:
    """Return what is wrong, a sentence each; empty if all is as it must be."""
    run = _Run(case, plan, log, report)
    found = list(log.broken)
    for edge in case.edges:
        found += run.edge(edge)
    for target in log.sent:
        found += run.outside(target)
    for node in case.nodes:
        found += run.node(node)
    found += run.hooks()
    return found + [f"books: {text}" for text in report.imbalances]


@dataclass(frozen=True)
class _Run:
    """One run and what is known of it."""

    case: Case
    plan: Plan
    log: Log
    report: RunReport

    @property
    def complete(self) -> bool:
        """Whether it ran, and all was handled that was not given up by a policy."""
        ran = any(hook.hook == "on_end" for hook in self.log.hooks)  # not drained before it began
        return self.report.outcome in ("finished", "drained") and ran

    def refuses(self, output: str) -> bool:
        """Whether an output has an edge that may refuse messages."""
        return any(
            e.policy == "reject" for e in self.case.edges if f"{e.sender}.{e.output}" == output
        )

    # --- edges ----------------------------------------------------------------------------------

    def edge(self, edge: EdgeSpec) -> Iterator[str]:
        """Yield what is wrong with what an edge carried."""
        planned = next(e for e in self.plan.edges if e.id == edge.id)
        receiver, sender = self.case.node(edge.receiver), self.case.node(edge.sender)
        entries = [e for e in self.log.handled[edge.receiver] if e.edge == edge.id]
        emitted = self.log.emitted[f"{edge.sender}.{edge.output}"]
        yield from self._contents(edge, planned, emitted, entries, receiver)
        yield from _in_sequence(edge, sender, receiver, entries)
        if edge.keys and not receiver.limit and not planned.local:
            yield from _of_one_replica(edge, entries)
        alone = sender.replicas == receiver.replicas == 1 and not receiver.limit
        if sender.ordered and (planned.tagged or alone):  # with a limit keys pass each other
            yield from _in_order(edge.id, self.case, sender, entries)
        if planned.local:
            for entry in entries:
                if entry.replica != entry.message.replica:
                    yield (
                        f"edge {edge.id}: expected replica {entry.message.replica} to hand over"
                        f" in its worker, got its message in replica {entry.replica}"
                    )

    def _contents(
        self,
        edge: EdgeSpec,
        planned: EdgePlan,
        emitted: Sequence[Message],
        entries: Sequence[Entry],
        receiver: NodeSpec,
    ) -> Iterator[str]:
        """Yield what is missing, and what is too much."""
        wanted = Counter(id for message in emitted for id in message.ids)
        places = range(receiver.replicas) if planned.broadcast else (None,)
        exact = self.complete and self._must_all_arrive(edge, emitted)
        for place in places:
            here = [e for e in entries if place is None or e.replica == place]
            got = Counter(id for entry in here for id in entry.message.ids)
            where = f"edge {edge.id}" if place is None else f"edge {edge.id}, replica {place}"
            yield from _too_many(where, wanted, got)
            if exact and wanted - got:
                missing = sorted((wanted - got).elements())
                yield (
                    f"{where}: expected all of {wanted.total()} messages, got {got.total()};"
                    f" missing {_numbers(emitted, missing)}"
                )
            if self.complete and edge.policy == "latest":
                yield from self._newest(edge, emitted, here)
        if self.complete:
            yield from self._counted(edge, planned, emitted, entries, receiver)

    def _must_all_arrive(self, edge: EdgeSpec, emitted: Sequence[Message]) -> bool:
        """Whether nothing that was emitted may be missing."""
        if self.refuses(f"{edge.sender}.{edge.output}") or edge.ttl_us:
            return False
        if edge.policy == "block" or (edge.policy == "coalesce" and not edge.keys):
            return True  # with a key, what nothing of its key waits to be merged with may go
        # no policy loses anything as long as there is room
        return (
            edge.policy != "latest" and len(emitted) <= edge.capacity and edge.max_bytes >= 64 << 20
        )

    def _newest(
        self, edge: EdgeSpec, emitted: Sequence[Message], entries: Sequence[Entry]
    ) -> Iterator[str]:
        """Yield whose last message did not arrive by an edge with policy latest."""
        if edge.keys or edge.ttl_us or self.refuses(f"{edge.sender}.{edge.output}"):
            return
        last, got = _last_numbers(emitted), _last_numbers([e.message for e in entries])
        for replica, number in last.items():
            if got.get(replica) != number:
                yield (
                    f"edge {edge.id}: expected the newest message, {number} of replica {replica},"
                    f" to arrive at the end, got {got.get(replica)}"
                )

    def _counted(
        self,
        edge: EdgeSpec,
        planned: EdgePlan,
        emitted: Sequence[Message],
        entries: Sequence[Entry],
        receiver: NodeSpec,
    ) -> Iterator[str]:
        """Yield where the books say something else than the nodes."""
        books = self.report.edge(edge.id)
        copies = receiver.replicas if planned.broadcast else 1
        if books.delivered != len(entries):
            yield f"edge {edge.id}: expected {len(entries)} delivered, got {books.delivered}"
        if not self.refuses(f"{edge.sender}.{edge.output}") and books.sent != len(emitted) * copies:
            yield (
                f"edge {edge.id}: expected {len(emitted) * copies} sent in the books,"
                f" got {books.sent}"
            )

    def outside(self, target: str) -> Iterator[str]:
        """Yield what is wrong with what was sent from outside to ``node.port``."""
        node, _, port = target.rpartition(".")
        edge = f"run->{target}"
        planned = self.plan.external_edge(node, port)
        entries = [e for e in self.log.handled[node] if e.edge == edge]
        wanted = Counter(message.ids[0] for message in self.log.sent[target])
        for replica in range(self.case.node(node).replicas) if planned.broadcast else (None,):
            got = Counter(
                e.message.ids[0] for e in entries if replica is None or e.replica == replica
            )
            yield from _too_many(f"edge {edge}", wanted, got)
        books = next((books for books in self.report.edges if books.id == edge), None)
        if books is None or not self.complete:
            return
        copies = self.case.node(node).replicas if planned.broadcast else 1
        if books.delivered != len(entries):
            yield f"edge {edge}: expected {len(entries)} delivered, got {books.delivered}"
        if books.sent > wanted.total() * copies:  # what came too late was refused at once
            yield f"edge {edge}: expected at most {wanted.total() * copies} sent, got {books.sent}"

    # --- nodes ----------------------------------------------------------------------------------

    def node(self, spec: NodeSpec) -> Iterator[str]:
        """Yield what is wrong with what a node made of what it got."""
        outputs = [f"{spec.name}.out", f"{spec.name}.other"]
        if spec.kind == "sink":
            outputs = []
        got = Counter(
            (output.rpartition(".")[2], id)
            for output in outputs
            for message in self.log.emitted[output]
            for id in message.ids
        )
        expected = Counter(("out", id) for id in self.log.extra[spec.name])
        entries = self.log.handled[spec.name]
        raised = 0
        for entry in entries:
            made, raises = results_of(spec, entry.message.ids)
            expected.update(made)
            raised += raises
        source_done = True
        if spec.kind == "source":
            expected.update(_all_of_a_source(spec))
            source_done = self.report.outcome == "finished" and not self._drained(spec)
        if got - expected:
            yield f"{spec.name}: expected what follows from what it got, got {got - expected}"
        refused = any(map(self.refuses, outputs))
        # of what is yielded only the value that is refused is lost; an emit that raises ends more
        partly = refused and (spec.style == "emit" or spec.second or spec.control)
        if self.complete and not partly and source_done and expected - got:
            yield f"{spec.name}: expected {expected.total()} emitted, got {got.total()}"
        if not self.complete:
            return
        books = self.report.node(spec.name)
        if books.handled != len(entries):
            yield f"{spec.name}: expected {len(entries)} handled in the books, got {books.handled}"
        errors = self.log.raised[spec.name] + (
            spec.replicas if spec.raises in ("on_end", "on_stop") else 0
        )
        errors += sum(
            self.report.edge(e.id).refused for e in self.case.edges if e.sender == spec.name
        )
        if books.errors != errors:
            yield f"{spec.name}: expected {errors} errors in the books, got {books.errors}"
        if spec.kind != "source" and not refused and self.log.raised[spec.name] != raised:
            got_raised = self.log.raised[spec.name]
            yield f"{spec.name}: expected {raised} handlers to raise, got {got_raised}"

    def _drained(self, spec: NodeSpec) -> bool:
        return any(action.what in ("drain", "drain_node") for action in self.case.actions)

    # --- hooks ----------------------------------------------------------------------------------

    def hooks(self) -> Iterator[str]:
        """Yield what was out of its order in the lives of the nodes."""
        begun: dict[tuple[str, int, str], int] = {}
        ended: dict[tuple[str, int, str], int] = {}
        for hook in self.log.hooks:
            place = (hook.node, hook.replica, hook.hook)
            known = begun if hook.when == "begin" else ended
            if place in known:
                yield f"{hook.node}[{hook.replica}]: expected {hook.hook} once, got it twice"
            known[place] = hook.at
        starts = [at for (_, _, hook), at in ended.items() if hook == "on_start"]
        first = min(self.log.first_at.values(), default=None)
        if first is not None and starts and first < max(starts):
            yield "hooks: expected every on_start to return before the first message, got one after"
        replicas = [(node, replica) for node in self.case.nodes for replica in range(node.replicas)]
        for node, replica in replicas:
            stop = begun.get((node.name, replica, "on_stop"))
            last = self.log.last_at.get((node.name, replica), 0)
            end = ended.get((node.name, replica, "on_end"), 0)
            if stop is not None and self.complete and stop < max(last, end):
                yield f"{node.name}[{replica}]: expected on_stop after all else, got it before"
            if self.complete and (stop is None or not end):
                yield f"{node.name}[{replica}]: expected on_end and on_stop, got {len(begun)} hooks"
        yield from self._between(begun, ended)

    def _between(
        self, begun: dict[tuple[str, int, str], int], ended: dict[tuple[str, int, str], int]
    ) -> Iterator[str]:
        """Yield what was out of the order of the graph: start and end down it, stop up it."""
        whole = ("on_start", "on_end", "on_stop") if self.complete else ("on_start",)
        for edge in self.case.edges:
            for hook in whole:
                first, second = edge.sender, edge.receiver
                if hook == "on_stop":
                    first, second = second, first
                for worker in self._workers_of(first, second):
                    before = _moments(ended, first, hook, worker)
                    after = _moments(begun, second, hook, worker)
                    if before and after and max(before) > min(after):
                        yield (
                            f"hooks: expected {hook} of {first} before that of {second}, got it"
                            f" after"
                        )

    def _workers_of(self, first: str, second: str) -> Sequence[int | None]:
        """Return the replicas to compare, each with its like; None: all with all."""
        fused = any({first, second} <= set(group) for group in self.case.fused)
        return range(self.case.node(first).replicas) if fused else (None,)


def _moments(
    noted: dict[tuple[str, int, str], int], node: str, hook: str, replica: int | None
) -> list[int]:
    """Return when a hook was noted, of one replica or of all."""
    return [
        at
        for (name, number, called), at in noted.items()
        if (name, called) == (node, hook) and replica in (None, number)
    ]


def _too_many(where: str, wanted: Counter[int], got: Counter[int]) -> Iterator[str]:
    for id, count in (got - wanted).items():
        times = wanted[id]
        what = "a message that nobody emitted" if not times else f"one {times + count} times"
        yield f"{where}: expected each message at most {max(times, 1)} time, got {what} ({id})"


def _numbers(emitted: Sequence[Message], missing: Sequence[int]) -> str:
    lost = set(missing)
    named = [f"{m.number} of replica {m.replica}" for m in emitted if lost & set(m.ids)]
    return ", ".join(named[:5]) + (f" and {len(named) - 5} more" if len(named) > 5 else "")


def _last_numbers(messages: Sequence[Message]) -> dict[int, int]:
    last: dict[int, int] = {}
    for message in messages:
        last[message.replica] = max(last.get(message.replica, -1), message.number)
    return last


def _in_sequence(
    edge: EdgeSpec, sender: NodeSpec, receiver: NodeSpec, entries: Sequence[Entry]
) -> Iterator[str]:
    """Yield where a channel overtook itself; with a limit for each key, where a key did."""
    if sender.ordered and sender.style.startswith("async"):
        return  # what leaves in order was not made in order
    last: dict[object, int] = {}
    for entry in entries:
        lane: tuple[object, ...] = (entry.replica,)
        if edge.keys and (receiver.limit or edge.policy == "coalesce"):
            # with a limit one at once goes from replica to replica; merged is where a key waits
            lane = (entry.message.key % edge.keys, receiver.limit > 1 and entry.replica)
        lane = (entry.message.replica, *lane)
        number = entry.message.number
        if number <= last.get(lane, -1):
            yield (
                f"edge {edge.id}: expected what replica {lane[0]} sent to replica {entry.replica}"
                f" in order, got number {number} after {last[lane]}"
            )
        last[lane] = number


def _in_order(edge: str, case: Case, sender: NodeSpec, entries: Sequence[Entry]) -> Iterator[str]:
    """Yield where results of an ordered node arrived out of the order of its inputs."""
    if _reordered_by_key(case, sender):
        return
    last: dict[int, tuple[int, ...]] = {}
    for entry in entries:
        order = entry.message.order
        if not order:
            continue
        if order <= last.get(entry.replica, ()):
            yield (
                f"edge {edge}, replica {entry.replica}: expected results in the order of their"
                f" inputs, got {order} after {last[entry.replica]}"
            )
        last[entry.replica] = order


def _reordered_by_key(case: Case, node: NodeSpec) -> bool:
    """Whether an order that a node keeps is one in which keys passed each other."""
    if not node.ordered or node.replicas == 1:
        return False
    into = [edge for edge in case.edges if (edge.receiver, edge.input) == (node.name, "into")]
    if node.limit > 0 or any(edge.keys and not edge.lossless for edge in into):
        return True  # a queue for each replica, numbered when it is sent
    return any(_reordered_by_key(case, case.node(edge.sender)) for edge in into)


def _of_one_replica(edge: EdgeSpec, entries: Sequence[Entry]) -> Iterator[str]:
    homes: defaultdict[int, set[int]] = defaultdict(set)
    for entry in entries:
        homes[entry.message.key % edge.keys].add(entry.replica)
    for key, replicas in homes.items():
        if len(replicas) > 1:
            yield f"edge {edge.id}: expected key {key} in one replica, got it in {sorted(replicas)}"


def _all_of_a_source(spec: NodeSpec) -> Iterator[tuple[str, int]]:
    for replica in range(spec.replicas):
        for count in range(spec.count):
            id = tick_id(spec.name, replica, count, 0)
            if spec.raise_every and id % spec.raise_every == 0:
                break
            yield "other" if spec.second and id % 3 == 0 else "out", id
