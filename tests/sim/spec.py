"""A case as plain data: a graph, what is done to its run, and the faults.

A seed alone is worth nothing once the generator has changed, so what is kept of a failure is the
case itself: it travels as JSON, without what is at its default.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

__all__ = ["Action", "Case", "EdgeSpec", "NodeSpec"]


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """One node. ``*_every``: of the messages, one in so many (0: none), chosen by their contents.

    ``style``: how its code is written, one of `tests.sim.nodes.STYLES`. ``count``: messages of a
    source, of each replica. ``fan``: at most so many results a message. ``cost_us``: what a message
    takes, up to four times as much. ``late``: it raises after its results, not before. ``limit``:
    messages of one key at once. ``raises``: the hook that raises, or none.
    """

    name: str
    kind: str
    style: str
    count: int = 0
    replicas: int = 1
    concurrency: int = 1
    ordered: bool = False
    limit: int = 0
    tick_us: int = 0
    on_error: str = "skip"
    raise_every: int = 0
    filter_every: int = 0
    fan: int = 1
    late: bool = False
    cost_us: int = 0
    pad: int = 0
    at_end: int = 0
    raises: str = ""
    control: bool = False
    second: bool = False
    ids: bool = False
    priority: int = -1
    watched: bool = False


@dataclass(frozen=True, slots=True)
class EdgeSpec:
    """One edge; ``keys``: how many different keys there are (0: no key); ``band`` -1: the usual."""

    sender: str
    receiver: str
    output: str = "out"
    input: str = "into"
    policy: str = "block"
    capacity: int = 2048
    max_bytes: int = 64 << 20
    keys: int = 0
    band: int = -1
    ttl_us: int = 0
    cancellable: bool = False

    @property
    def id(self) -> str:
        """The id of the edge in its graph."""
        return f"{self.sender}.{self.output}->{self.receiver}.{self.input}"

    @property
    def lossless(self) -> bool:
        """Whether nothing that was emitted onto it may be missing at its receiver."""
        return self.policy == "block" and not self.ttl_us


@dataclass(frozen=True, slots=True)
class Action:
    """Something done from outside.

    ``what`` is send (``count`` messages, from the start of the run), drain, abort, pause, resume or
    drain_node.
    """

    at_us: int
    what: str
    target: str = ""
    count: int = 0


@dataclass(frozen=True, slots=True)
class Case:
    """Everything that makes a simulation what it is, except for the program itself."""

    seed: int
    nodes: tuple[NodeSpec, ...]
    edges: tuple[EdgeSpec, ...]
    fused: tuple[tuple[str, ...], ...] = ()
    actions: tuple[Action, ...] = ()
    faults: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    def node(self, name: str) -> NodeSpec:
        """Return a node by its name."""
        return next(node for node in self.nodes if node.name == name)

    def to_json(self) -> str:
        """Return the case as one line of text, for `from_json`."""
        plain = {
            "seed": self.seed,
            "nodes": [_brief(node) for node in self.nodes],
            "edges": [_brief(edge) for edge in self.edges],
            "fused": self.fused,
            "actions": [_brief(action) for action in self.actions],
            "faults": dict(self.faults),
            "options": dict(self.options),
        }
        return json.dumps({key: value for key, value in plain.items() if value or key == "seed"})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the case that `to_json` was called on."""
        return cls.from_dict(json.loads(text))

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        """Return the case of what `to_json` wrote, parsed."""
        return cls(
            plain["seed"],
            tuple(NodeSpec(**node) for node in plain["nodes"]),
            tuple(EdgeSpec(**edge) for edge in plain.get("edges", ())),
            tuple(tuple(group) for group in plain.get("fused", ())),
            tuple(Action(**action) for action in plain.get("actions", ())),
            plain.get("faults", {}),
            plain.get("options", {}),
        )


def _brief(spec: NodeSpec | EdgeSpec | Action) -> dict[str, Any]:
    """Return the fields that are not at their default."""
    defaults = {f.name: f.default for f in fields(spec)}
    return {name: value for name, value in asdict(spec).items() if value != defaults[name]}
