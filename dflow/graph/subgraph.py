"""`Subgraph`: nodes composed behind ports of their own.

A subgraph is only a way to write: its nodes become ordinary nodes of the graph, named
``clean/parse``, and its exposed ports *are* the inner ports. Nothing runs in between.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dflow.errors import GraphError
from dflow.graph.chain import Chainable
from dflow.graph.composition import Composition
from dflow.graph.node import Node
from dflow.graph.ports import BoundInput, BoundOutput, the_only, unknown_port

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Subgraph"]


class Subgraph(Composition, Chainable):
    """Nodes with their connections, used like one node.

    ::

        parse, check = parse_line(), check_record()
        clean = Subgraph("clean", parse >> check, inputs={"lines": parse},
                         outputs={"records": check, "rejected": check.rejected})
        graph = Graph("logs", read() >> clean.lines, clean.records >> store())

    Subgraphs nest. To use one twice, build it in a function or a subclass and give each its
    own name. Raises `GraphError` for a name that is taken or a port that is not inside.
    """

    def __init__(
        self,
        name: str,
        *parts: Any,
        inputs: Mapping[str, Chainable] | None = None,
        outputs: Mapping[str, Chainable] | None = None,
    ) -> None:
        super().__init__(name)
        self._inputs: dict[str, BoundInput] = {}
        self._outputs: dict[str, BoundOutput] = {}
        self.add(*parts)
        self.expose(inputs=inputs, outputs=outputs)

    def expose(
        self,
        *,
        inputs: Mapping[str, Chainable] | None = None,
        outputs: Mapping[str, Chainable] | None = None,
    ) -> Self:
        """Give inner ports (or nodes, for their only port) names on the outside."""
        for name, part in (inputs or {}).items():
            self._inputs[self._free_name(name)] = self._inner(part.as_input())
        for name, part in (outputs or {}).items():
            self._outputs[self._free_name(name)] = self._inner(part.as_output())
        return self

    @property
    def inputs(self) -> Mapping[str, BoundInput]:
        """Exposed inputs by their outer names."""
        return dict(self._inputs)

    @property
    def outputs(self) -> Mapping[str, BoundOutput]:
        """Exposed outputs by their outer names."""
        return dict(self._outputs)

    def port(self, name: str) -> BoundInput | BoundOutput:
        """Return the inner port exposed as ``name``; raises `PortError` if there is none."""
        port = self._inputs.get(name) or self._outputs.get(name)
        if port is None:
            raise unknown_port(self.name, name, (*self._inputs, *self._outputs))
        return port

    def __getattr__(self, name: str) -> BoundInput | BoundOutput:
        # Never for private names: unpickling looks for them on an empty object.
        if name.startswith("_"):
            raise AttributeError(name)
        return self.port(name)

    def as_input(self) -> BoundInput:
        """Return the only exposed input; raises `PortError` if there is not exactly one."""
        return self._inputs[the_only(self.name, "input", self._inputs)]

    def as_output(self) -> BoundOutput:
        """Return the only exposed output; raises `PortError` if there is not exactly one."""
        return self._outputs[the_only(self.name, "output", self._outputs)]

    def __repr__(self) -> str:
        return f"<subgraph {self.name}>"

    def _claim(self, part: Node | Subgraph) -> None:
        if part is self or self._is_inside(part):
            raise GraphError(f"subgraph {self.name}: expected another part, got one around itself")
        part.__dict__["_home"] = self

    def _is_inside(self, part: Node | Subgraph) -> bool:
        home = self._home
        while home is not None and home is not part:
            home = home._home
        return home is not None

    def _free_name(self, name: str) -> str:
        own = hasattr(Subgraph, name) or name in vars(self)
        if not isinstance(name, str) or not name.isidentifier() or own:
            raise GraphError(
                f"subgraph {self.name}: expected a name for a port that is a Python name and not"
                f" one of Subgraph's own, got {name!r}"
            )
        if name in self._inputs or name in self._outputs:
            raise GraphError(f"subgraph {self.name}: port {name!r} is already exposed")
        return name

    def _inner(self, port: Any) -> Any:
        home: Subgraph | None = port.node._home
        while home is not None and home is not self:
            home = home._home
        if home is None:
            if port.node._home is None:
                self.add(port.node)
                return port
            raise GraphError(
                f"subgraph {self.name}: expected a port of one of its own nodes, got {port},"
                " which belongs elsewhere"
            )
        return port
