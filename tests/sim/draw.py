"""A case of a seed: a graph that can run, something that is done to it, and faults.

Drawn small, so that thousands fit into minutes: most bugs need few nodes and few messages, but an
odd combination of options.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

from tests.sim.build import build
from tests.sim.nodes import KEYS, STYLES
from tests.sim.spec import Action, Case, EdgeSpec, NodeSpec

__all__ = ["FAULTS", "draw"]

POLICIES = ("drop", "drop_oldest", "latest", "coalesce", "reject")
CAPACITIES = (1, 1, 1, 2, 2, 3, 4, 5, 8, 16, 64, 2048)
TRIES = 50

FAULTS = ("none", "delays", "reports", "stalls", "deaths", "all")
"""What may be drawn of faults."""


def draw(seed: int, faults: str = "all") -> Case:
    """Return the case of a seed, with some of the `FAULTS`; the same each time."""
    for attempt in range(TRIES):
        case = _Draw(Random(f"{seed}/{attempt}"), seed).case(faults)
        if not build(case).problems():
            return case
    raise AssertionError(f"seed {seed}: expected a valid graph within {TRIES} tries, got none")


class _Draw:
    """One attempt."""

    def __init__(self, random: Random, seed: int) -> None:
        self.random = random
        self.seed = seed
        self.nodes: list[NodeSpec] = []
        self.edges: list[EdgeSpec] = []

    def chance(self, share: float) -> bool:
        """Return True so often."""
        return self.random.random() < share

    def one_of(self, *values: Any) -> Any:
        """Return one of some values."""
        return self.random.choice(values)

    def case(self, faults: str) -> Case:
        """Return a case that may not be valid."""
        sources = self.one_of(1, 1, 1, 2, 2, 3)
        inner = self.one_of(0, 1, 1, 2, 2, 3, 4)
        sinks = self.one_of(1, 1, 1, 2, 3)
        for number in range(sources):
            self.nodes.append(self.source(f"s{number}"))
        for number in range(inner):
            self.add(self.inner(f"n{number}"))
        for number in range(sinks):
            self.add(self.sink(f"z{number}"))
        self.control_edges()
        actions = self.actions()
        going_wrong = self.faults(faults)
        if "drop_reports" in going_wrong:  # seconds until a sender asks: no thousand ticks in each
            self.nodes = [
                replace(node, tick_us=20_000) if node.tick_us else node for node in self.nodes
            ]
        return Case(
            self.seed,
            tuple(self.nodes),
            tuple(self.edges),
            self.fused(),
            actions,
            going_wrong,
            self.options(),
        )

    # --- nodes --------------------------------------------------------------------------------

    def source(self, name: str) -> NodeSpec:
        """Return a source."""
        many = self.chance(0.05)
        return self.seasoned(
            NodeSpec(
                name,
                "source",
                self.one_of("yield", "yield", "emit", "async"),
                count=self.random.randrange(150, 400) if many else self.random.randrange(60),
                replicas=self.one_of(1, 1, 1, 1, 2),
                watched=self.chance(0.1),
            )
        )

    def inner(self, name: str) -> NodeSpec:
        """Return a node between others."""
        style = self.random.choice(STYLES["node"])
        replicas = self.one_of(1, 1, 1, 1, 2, 2, 3)
        return self.seasoned(
            NodeSpec(
                name,
                "node",
                style,
                replicas=replicas,
                concurrency=self.one_of(1, 2, 4) if style.startswith("async") else 1,
                ordered=self.chance(0.35) and (replicas > 1 or style.startswith("async")),
                filter_every=self.one_of(0, 0, 0, 2, 5),
                fan=self.one_of(1, 2, 4) if style in ("yield", "emit", "async_yield") else 1,
                control=self.chance(0.15),
            )
        )

    def sink(self, name: str) -> NodeSpec:
        """Return a sink."""
        style = self.one_of("return", "return", "async")
        return self.seasoned(
            NodeSpec(
                name,
                "sink",
                style,
                replicas=self.one_of(1, 1, 1, 2, 3),
                concurrency=self.one_of(1, 3) if style == "async" else 1,
                control=self.chance(0.15),
            )
        )

    def seasoned(self, spec: NodeSpec) -> NodeSpec:
        """Add what any node may have."""
        changes: dict[str, Any] = {}
        if self.chance(0.5):
            changes["cost_us"] = self.one_of(1, 20, 100, 300, 1000, 5000)
        if self.chance(0.06 if spec.kind == "source" else 0.15):
            changes["raise_every"] = self.one_of(11, 40) if spec.count else self.one_of(2, 5, 11)
            several = spec.style in ("yield", "emit", "async_yield")
            changes["late"] = spec.kind == "node" and several and self.chance(0.5)
            if self.chance(0.25):
                changes["on_error"] = "stop"
        if self.chance(0.03):
            changes["raises"] = self.one_of("on_start", "on_end", "on_stop")
        if self.chance(0.15):
            changes["tick_us"] = self.one_of(1000, 5000, 20_000)
        if spec.kind != "sink":
            changes["second"] = self.chance(0.2)
            if self.chance(0.1):
                changes["at_end"] = self.one_of(1, 3)
            if self.chance(0.15):
                changes["pad"] = self.one_of(50, 500, 5000, 70_000)
            if spec.style == "emit" and self.chance(0.3):
                changes["ids"] = True
        if self.chance(0.1):
            changes["priority"] = self.one_of(1, 2, 3)
        return replace(spec, **changes)

    def add(self, spec: NodeSpec) -> None:
        """Add a node with edges from nodes that are there already."""
        senders = [node for node in self.nodes if node.kind != "sink"]
        alone = spec.ordered and spec.replicas > 1
        limited = not alone and self.chance(0.08)
        count = 1 if alone or limited else self.one_of(1, 1, 1, 2, 2, 3)
        if alone:
            senders = [s for s in senders if s.replicas == 1 or s.ordered] or senders
        if limited:
            senders = [s for s in senders if s.replicas == 1]
            limited = bool(senders)
            spec = replace(spec, limit=self.one_of(1, 1, 2) if limited else 0)
            senders = senders or [node for node in self.nodes if node.kind != "sink"]
        self.nodes.append(spec)
        ends = [(s.name, "out") for s in senders]
        ends += [(s.name, "other") for s in senders if s.second]
        weights = [1 + at for at in range(len(ends))]  # rather chains than stars
        chosen = dict.fromkeys(self.random.choices(ends, weights, k=count))
        for sender, output in chosen:
            self.edges.append(self.edge(sender, output, spec, limited=limited))

    # --- edges --------------------------------------------------------------------------------

    def edge(self, sender: str, output: str, receiver: NodeSpec, *, limited: bool) -> EdgeSpec:
        """Return an edge for data."""
        before = next(node for node in self.nodes if node.name == sender)
        between = before.ordered and receiver.ordered
        policy = "block" if between or self.chance(0.65) else self.random.choice(POLICIES)
        keyed = limited or self.chance(0.25)
        return EdgeSpec(
            sender,
            receiver.name,
            output,
            policy=policy,
            capacity=self.random.choice(CAPACITIES),
            max_bytes=self.one_of(1, 200, 2000) if self.chance(0.15) else 64 << 20,
            keys=self.random.choice(tuple(KEYS)) if keyed else 0,
            band=self.one_of(1, 2, 3) if self.chance(0.25) else -1,
            ttl_us=self.one_of(100, 2000, 50_000) if not between and self.chance(0.06) else 0,
            cancellable=before.ids or self.chance(0.05),
        )

    def control_edges(self) -> None:
        """Connect some of the control inputs."""
        for at, spec in enumerate(self.nodes):
            senders = [node for node in self.nodes[:at] if node.kind != "sink"]
            if not spec.control or not senders or self.chance(0.3):
                continue
            sender = self.random.choice(senders)
            self.edges.append(
                EdgeSpec(
                    sender.name,
                    spec.name,
                    input="command",
                    policy="block" if self.chance(0.7) else self.random.choice(POLICIES),
                    capacity=self.random.choice(CAPACITIES),
                    cancellable=sender.ids,
                )
            )

    def fused(self) -> tuple[tuple[str, ...], ...]:
        """Return nodes that share a worker."""
        if not self.chance(0.25):
            return ()
        group = [self.random.choice(self.nodes).name]
        for edge in self.edges:
            near = edge.sender in group or edge.receiver in group
            if near and self.chance(0.6):
                group += [end for end in (edge.sender, edge.receiver) if end not in group]
        counts = {node.name: node.replicas for node in self.nodes}
        group = [name for name in group if counts[name] == counts[group[0]]]
        return (tuple(group),) if len(group) > 1 else ()

    # --- what is done to it -------------------------------------------------------------------

    def actions(self) -> tuple[Action, ...]:
        """Return what is done from outside, in order of time."""
        found: list[Action] = []
        # of what comes from outside the keys are counted apart from those of the edge
        data = [node for node in self.nodes if node.kind != "source" and not node.limit]
        takers = [f"{node.name}.into" for node in data]
        takers += [f"{node.name}.command" for node in self.nodes if node.control]
        if takers and self.chance(0.15):
            count = self.one_of(1, 5, 40)
            target = self.random.choice(takers)
            found.append(Action(0, "send", target, count))
        if self.chance(0.12):
            target = self.random.choice(self.nodes).name
            at_us = self.moment()
            found.append(Action(at_us, "pause", target))
            found.append(Action(at_us + self.moment(), "resume", target))
        if self.chance(0.05):
            found.append(Action(self.moment(), "drain_node", self.random.choice(self.nodes).name))
        if self.chance(0.15):
            found.append(Action(self.moment(), "drain"))
        if self.chance(0.04):
            found.append(Action(self.moment(), "abort"))
        return tuple(sorted(found, key=lambda action: action.at_us))

    def moment(self) -> int:
        """Return a time in microseconds, rather early than late."""
        return int(10 ** (self.random.random() * 4 + 1.5))

    def faults(self, wanted: str) -> dict[str, Any]:
        """Return the faults, as what `dflow.testing.Faults` takes."""
        found: dict[str, Any] = {}
        if wanted in ("all", "delays") and self.chance(0.7):
            most_us = self.one_of(10, 200, 3000, 30_000)
            found["delay_s"] = [0.0, most_us / 1e6]
        if wanted in ("all", "reports"):
            if self.chance(0.25):
                found["drop_reports"] = self.one_of(0.02, 0.1, 0.3)
            if self.chance(0.25):
                found["duplicate_reports"] = self.one_of(0.05, 0.5)
        if wanted in ("all", "stalls") and self.chance(0.1):
            found["stall_workers"] = self.one_of(1, 2)
        if wanted in ("all", "deaths"):
            if self.chance(0.03):
                found["kill_workers"] = 1
            if self.chance(0.03):
                found["cut_links"] = 1
        return found

    def options(self) -> dict[str, Any]:
        """Return options of the run."""
        found: dict[str, Any] = {}
        if self.chance(0.25):
            found["slots"] = self.one_of(0, 1, 1, 2)
        if self.chance(0.1):
            found["drain_timeout_s"] = self.one_of(0.0, 0.01, 2.0)
        return found
