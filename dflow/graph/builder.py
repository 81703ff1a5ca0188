"""`Graph`: what a user builds, validates and runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from dflow.errors import GraphError, OptionError, PortError, did_you_mean
from dflow.graph.chain import Chainable, Connection
from dflow.graph.composition import Composition
from dflow.graph.node import Node
from dflow.graph.plan import Plan, external_edge_id
from dflow.graph.planning import build_plan
from dflow.graph.ports import BoundInput, BoundOutput, BoundPort
from dflow.graph.types import classes_in
from dflow.graph.validate import Problem, Shippable, find_problems, why_not_shippable
from dflow.options import EdgeOptions

if TYPE_CHECKING:
    from dflow.graph.subgraph import Subgraph
    from dflow.report import RunReport
    from dflow.runtime import Run

__all__ = ["Graph"]

Endpoint = Node | BoundPort | str


class Graph(Composition):
    """Nodes and the edges between them.

    ``Graph("squares", numbers(10) >> square() >> show())``, or `add` and `connect` step by
    step. Two edges into one input merge; one output to several inputs copies.
    """

    def __init__(self, name: str, *parts: Any) -> None:
        super().__init__(name)
        self._unnamed: list[Node | Subgraph] = []
        self._alone = True  # no subgraphs: nothing is added behind its back
        self._accepted: dict[BoundInput, EdgeOptions] = {}
        self._fused: list[tuple[Node, ...]] = []
        self.add(*parts)

    @property
    def nodes(self) -> Mapping[str, Node]:
        """Every node by its name, in the order they were added."""
        found: dict[str, Node] = {}
        for named in self._name_all():
            if isinstance(named.part, Node):
                found.setdefault(named.name, named.part)
        return found

    @property
    def connections(self) -> tuple[Connection, ...]:
        """Every edge to be, in the order they were connected: `EdgePlan.index` counts these."""
        return tuple(self._connections())

    def __repr__(self) -> str:
        return f"<graph {self.name}: {len(self.nodes)} nodes, {len(self.connections)} edges>"

    # --- looking things up ----------------------------------------------------------------

    def find(self, target: Endpoint) -> Node:
        """Return the node meant by a node, a port or a name; raises `GraphError`."""
        nodes = self.nodes
        if isinstance(target, str):
            name = target if target in nodes else target.rpartition(".")[0] or target
            if name not in nodes:
                raise GraphError(
                    f"graph {self.name!r}: no node {name!r}{did_you_mean(name, nodes)}"
                    f" ({self._node_names()})"
                )
            return nodes[name]
        node = target.node if isinstance(target, BoundPort) else target
        if not isinstance(node, Node):
            raise GraphError(
                f"graph {self.name!r}: expected a node, a port or a name, got {target!r}"
                f" ({self._node_names()})"
            )
        if not any(node is own for own in nodes.values()):
            raise GraphError(f"graph {self.name!r}: {node.name!r} is not in it; add or connect it")
        return node

    def find_input(self, target: Endpoint | Chainable) -> BoundInput:
        """Return the input meant by a port, ``"node.port"``, or a node with only one.

        Raises `PortError`, with what there is, for anything else.
        """
        return self._endpoint(target).as_input()

    def find_output(self, target: Endpoint | Chainable) -> BoundOutput:
        """Return the output meant by a port, ``"node.port"``, or a node with only one.

        Raises `PortError`, with what there is, for anything else.
        """
        return self._endpoint(target).as_output()

    def _endpoint(self, target: Any) -> Chainable:
        if isinstance(target, Composition) and isinstance(target, Chainable):
            return target
        try:
            node = self.find(target)
        except GraphError as error:
            raise PortError(str(error)) from None
        if isinstance(target, BoundPort):
            return target
        if isinstance(target, str) and target not in self.nodes:
            return node.port(target.rpartition(".")[2])
        return node

    def _node_names(self) -> str:
        return f"its nodes are {', '.join(self.nodes) or 'none'}"

    # --- checking and planning ------------------------------------------------------------

    def problems(
        self,
        results: Sequence[Endpoint] = (),
        *,
        shippable: Shippable = why_not_shippable,
    ) -> tuple[Problem, ...]:
        """Return everything that keeps the graph from running, or an empty tuple.

        ``results`` are outputs the launching process is going to read. ``shippable`` returns
        why an object cannot be sent to a worker, or ``None``.
        """
        read = [self.find_output(target) for target in results]
        return find_problems(
            tuple(self._name_all()),
            self.connections,
            read,
            shippable,
            accepted=self._accepted,
            fused=self._fused,
        )

    def validate(self, results: Sequence[Endpoint] = ()) -> None:
        """Raise one `GraphError` that lists every problem; ``.problems`` holds them."""
        problems = self.problems(results)
        if not problems:
            return
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        listed = "".join(f"\n  {number}. {p}" for number, p in enumerate(problems, 1))
        raise GraphError(f"graph {self.name!r} has {count}:{listed}", problems)

    def plan(self, results: Sequence[Endpoint] = ()) -> Plan:
        """Return the plan; raises `GraphError` as `validate` does. Equal graphs, equal plans."""
        self.validate(results)
        read = dict.fromkeys(self.find_output(target) for target in results)
        return build_plan(
            self.name, self.nodes, self.connections, list(read), self._accepted, self._fused
        )

    def types(self) -> frozenset[type]:
        """Return the dataclasses, Enums and NamedTuples that the ports' types name."""
        nodes = self.nodes.values()
        ports = [p for node in nodes for p in (*node.inputs.values(), *node.outputs.values())]
        return classes_in(port.type for port in ports)

    def edge_key(self, edge_index: int) -> Callable[[Any], Any] | None:
        """Return the function from a message to its routing key, if the edge has one."""
        connections = self.connections
        if edge_index >= len(connections):  # a results edge
            return None
        link = connections[edge_index]
        return _key_function(str(link), link.options.key)

    def external_key(self, node: str, port: str) -> Callable[[Any], Any] | None:
        """Return the same for what `Run.send` sends: its own key, or the only keyed edge's."""
        into = self.find_input(f"{node}.{port}")
        if into in self._accepted and self._accepted[into].key is not None:
            return _key_function(external_edge_id(node, port), self._accepted[into].key)
        keyed = [link for link in self.connections if link.receiver == into and link.options.key]
        return _key_function(str(keyed[0]), keyed[0].options.key) if len(keyed) == 1 else None

    def merge(self, edge_id: str) -> Callable[[Any, Any], Any] | None:
        """Return the function of an edge with policy coalesce; None for any other edge."""
        for link in self.connections:
            if str(link) == edge_id:
                return link.options.overflow.merge
        for into, options in self._accepted.items():
            if external_edge_id(into.node.name, into.name) == edge_id:
                return options.overflow.merge
        return None

    # --- where nodes run --------------------------------------------------------------------

    def fuse(self, *parts: Node | Subgraph | str) -> Graph:
        """Run several nodes in one worker process: ``graph.fuse(parse, clean, "store")``.

        A subgraph stands for all its nodes. Edges between them hand values over as they are, not
        as copies; everything else stays as it is: order, policies, hooks and the report. Worth it
        for light nodes; whatever blocks in one of them holds up the others. Raises `GraphError`
        for what is not in this graph; `validate` tells which nodes cannot share a process.
        """
        found = {id(node): node for part in parts for node in self._nodes_of(part)}
        if len(found) < 2:
            got = ", ".join(node.name for node in found.values()) or "none"
            raise GraphError(f"graph {self.name!r}: fuse: expected two nodes or more, got {got}")
        self._fused.append(tuple(found.values()))
        return self

    def _nodes_of(self, part: Node | Subgraph | str) -> list[Node]:
        """Return the nodes of a subgraph, or the one node meant; raises `GraphError`."""
        for named in self._name_all():
            if isinstance(named.part, Composition) and (part is named.part or part == named.name):
                inside = f"{named.name}/"
                return [node for name, node in self.nodes.items() if name.startswith(inside)]
        return [self.find(part)]  # type: ignore[arg-type]  # it says what is expected

    # --- messages from outside --------------------------------------------------------------

    def accept(self, into: Endpoint | Chainable, **options: Any) -> Graph:
        """Say how an input takes what `Run.send` sends: ``options`` are those of `edge`.

        ``graph.accept(jobs, policy="reject", capacity=10, key="user")``. An input that accepts
        need not be connected. Raises `PortError` for what is no input of this graph,
        `OptionError` for a wrong option.
        """
        port = self.find_input(into)
        try:
            self._accepted[port] = EdgeOptions().updated(options)
        except OptionError as error:
            raise OptionError(f"accept({port}): {error}") from None
        return self

    # --- running --------------------------------------------------------------------------

    def run(self, **options: Any) -> RunReport:
        """Run until drained and return the report.

        ``options`` are the fields of `RunOptions`, ``progress`` and ``on_status``. Raises
        `GraphError` with every problem found, `OptionError`, and a `RunError` (with
        ``.report``) if the run fails; see `dflow.runtime.run`.
        """
        from dflow import runtime

        return runtime.run(self, **options)

    def start(self, **options: Any) -> Run:
        """Start and return a handle, once every node is ready and the sources run.

        ``options`` are the fields of `RunOptions` and ``results`` (outputs to read here).
        Raises `GraphError`, `OptionError`, `StartError`, `HookFailed`; see
        `dflow.runtime.start`.
        """
        from dflow import runtime

        return runtime.start(self, **options)

    def _claim(self, part: Node | Subgraph) -> None:
        self._unnamed.append(part)
        self._alone = self._alone and isinstance(part, Node)

    def _changed(self) -> None:
        """Give new nodes their names, so that ``node.name`` is right from now on."""
        unnamed, self._unnamed = self._unnamed, []
        names = self._names if self._alone else None
        named = names is not None and all(isinstance(p, Node) and names.add(p) for p in unnamed)
        if unnamed and not named:
            deque(self._name_all(), maxlen=0)


def _key_function(edge: str, key: str | Callable[[Any], Any] | None) -> Callable[[Any], Any] | None:
    return _field_getter(edge, key) if isinstance(key, str) else key


def _field_getter(edge: str, name: str) -> Callable[[Any], Any]:
    """Return a function that reads field ``name`` of a mapping or an object."""

    def get(value: Any) -> Any:
        try:
            return value[name] if isinstance(value, Mapping) else getattr(value, name)
        except (KeyError, AttributeError):
            raise KeyError(_no_field(edge, name, value)) from None

    return get


def _no_field(edge: str, name: str, value: Any) -> str:
    if isinstance(value, Mapping):
        known = [key for key in value if isinstance(key, str)]
    else:
        named = [f.name for f in fields(value)] if is_dataclass(value) else []
        known = named or [key for key in getattr(value, "__dict__", {}) if key[:1] != "_"]
    return (
        f"edge {edge}: expected a message with the field {name!r} for key=, got"
        f" {type(value).__name__} without it{did_you_mean(name, known)}"
    )
