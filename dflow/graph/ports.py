"""Ports: where edges begin and end.

`Input` and `Output` declare a port on a class; reading the attribute of an instance gives
it bound to that node (`BoundInput`, `BoundOutput`). Both are non-data descriptors: in a
worker the bound output is kept in the instance's own dict, so ``self.boxes.emit(value)``
costs two attribute reads and the emitter's own call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, overload

from dflow.errors import GraphError, OptionError, PortError, did_you_mean
from dflow.graph.chain import Chainable
from dflow.graph.types import Deferred, in_module
from dflow.message import Priority

if TYPE_CHECKING:
    from typing import Self

    from dflow.graph.node import Node

__all__ = ["BoundInput", "BoundOutput", "BoundPort", "Input", "Output", "UnknownPort"]

HANDLES = "__dflow_handles__"
_Method = TypeVar("_Method", bound=Callable[..., Any])


class UnknownPort(PortError, AttributeError):
    """A port or attribute that the node does not have."""


class _Port:
    """What inputs and outputs share: a name and the type of its messages."""

    side: str

    def __init__(self, type: Any = Any, *, required: bool) -> None:
        if not isinstance(required, bool):
            raise OptionError(f"required: expected True or False, got {required!r}")
        self.name = ""
        self.required = required
        self._type = type

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = self.name or name
        if isinstance(self._type, str):
            self._type = Deferred(partial(in_module, self._type, owner.__module__))

    @property
    def type(self) -> Any:
        """The type of its messages; ``Any`` if none was given or it cannot be evaluated."""
        return self._type.resolve() if isinstance(self._type, Deferred) else self._type

    def __repr__(self) -> str:
        return f"<{self.side} {self.name or '(unnamed)'}>"


class Input(_Port):
    """Declare an input port: ``frames = Input(np.ndarray)``.

    ``priority`` is the band of its edges unless they say otherwise. A ``required`` port must
    be connected; it is by default, except on the CONTROL band, which `Run.send` feeds. Raises
    `OptionError` for a priority that is none.
    """

    side = "input"

    def __init__(
        self, type: Any = Any, *, priority: Priority | None = None, required: bool | None = None
    ) -> None:
        if priority is not None and not isinstance(priority, Priority):
            raise OptionError(f"Input priority: expected a dflow.Priority, got {priority!r}")
        if required is None:
            required = priority is not Priority.CONTROL
        super().__init__(type, required=required)
        self.priority = priority

    def handler(self, method: _Method) -> _Method:
        """Decorate the method that handles this port's messages."""
        if not callable(method):
            raise GraphError(f"@{self.name or 'port'}.handler: expected a method, got {method!r}")
        setattr(method, HANDLES, (*getattr(method, HANDLES, ()), self))
        return method

    @overload
    def __get__(self, node: None, owner: type) -> Self: ...
    @overload
    def __get__(self, node: Node, owner: type) -> BoundInput: ...
    def __get__(self, node: Node | None, owner: type) -> Self | BoundInput:
        return self if node is None else BoundInput(node, self.name)


class Output(_Port):
    """Declare an output port: ``boxes = Output(list)``.

    An output that nothing reads is fine unless it is ``required``.
    """

    side = "output"

    def __init__(self, type: Any = Any, *, required: bool = False) -> None:
        super().__init__(type, required=required)

    @overload
    def __get__(self, node: None, owner: type) -> Self: ...
    @overload
    def __get__(self, node: Node, owner: type) -> BoundOutput: ...
    def __get__(self, node: Node | None, owner: type) -> Self | BoundOutput:
        if node is None:
            return self
        bound = BoundOutput(node, self.name)
        if node._emitters is not None:
            node.__dict__[self.name] = bound
        return bound


class BoundPort(Chainable):
    """A port of one particular node."""

    __slots__ = ("name", "node")

    def __init__(self, node: Node, name: str) -> None:
        self.node = node
        self.name = name

    def __getstate__(self) -> tuple[Node, str]:
        return self.node, self.name

    def __setstate__(self, state: tuple[Node, str]) -> None:
        # Not through a constructor call: a node may hold its own port, and be half built here.
        self.node, self.name = state

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BoundPort):
            return NotImplemented
        same = type(self) is type(other) and self.name == other.name
        return same and self.node is other.node

    def __hash__(self) -> int:
        return hash((id(self.node), self.name))

    def __str__(self) -> str:
        return f"{self.node.name}.{self.name}"

    def __repr__(self) -> str:
        return f"<{'input' if isinstance(self, BoundInput) else 'output'} {self}>"


class BoundInput(BoundPort):
    """An input of one particular node: where an edge, or `Run.send`, leads to."""

    __slots__ = ()

    @property
    def type(self) -> Any:
        """The type of its messages."""
        return self.node.inputs[self.name].type

    @property
    def priority(self) -> Priority | None:
        """The band it declares for its edges, if any."""
        return self.node.inputs[self.name].priority

    def as_input(self) -> BoundInput:
        """Return itself."""
        return self

    def as_output(self) -> NoReturn:
        """Raise `PortError`: nothing comes out of an input."""
        raise PortError(_wrong_side(self, "output", self.node.outputs))


class BoundOutput(BoundPort):
    """An output of one particular node."""

    __slots__ = {
        "emit": "``emit(value)`` sends a copy of ``value`` along every edge of the port; "
        "``emit(value, id=...)`` lets `Run.cancel` find it, see `Context.emit`."
    }

    emit: Callable[..., None]

    def __init__(self, node: Node, name: str) -> None:
        super().__init__(node, name)
        emitters = node._emitters
        self.emit = self._emit if emitters is None else emitters[name]

    def __setstate__(self, state: tuple[Node, str]) -> None:
        super().__setstate__(state)
        self.emit = self._emit

    def _emit(self, value: Any, *, id: str | None = None) -> None:
        """Emit through the node's emitter of this moment: this port was read before the run."""
        emitters = self.node._emitters
        if emitters is None:
            raise PortError(
                f"{self}.emit: expected to be inside a run, got a node that only describes the"
                " graph; emit in a handler, on_start, on_tick or on_end"
            )
        if id is None:
            emitters[self.name](value)
        else:
            emitters[self.name](value, id=id)

    @property
    def type(self) -> Any:
        """The type of its messages."""
        return self.node.outputs[self.name].type

    def as_output(self) -> BoundOutput:
        """Return itself."""
        return self

    def as_input(self) -> NoReturn:
        """Raise `PortError`: nothing goes into an output."""
        raise PortError(_wrong_side(self, "input", self.node.inputs))


def _wrong_side(port: BoundPort, wanted: str, others: Iterable[str]) -> str:
    side = "input" if isinstance(port, BoundInput) else "output"
    names = ", ".join(f"{port.node.name}.{name}" for name in others)
    hint = f"; the {wanted}s of {port.node.name} are {names}" if names else ""
    return f"{port}: expected an {wanted}, got an {side}{hint}"


def unknown_port(owner: str, name: str, known: Iterable[str]) -> UnknownPort:
    """Return the error for a port or attribute ``name`` that ``owner`` does not have."""
    ports = list(known)
    listed = f" (its ports are {', '.join(ports)})" if ports else " (it has no ports)"
    hint = did_you_mean(name, ports)
    return UnknownPort(f"{owner}: no port or attribute {name!r}{hint}{listed}")


def the_only(owner: str, side: str, names: Iterable[str]) -> str:
    """Return the only one of ``names``; raises `PortError` that says how to name one."""
    ports = list(names)
    if len(ports) == 1:
        return ports[0]
    if not ports:
        raise PortError(f"{owner}: expected an {side} port, got a node without {side}s")
    listed = " or ".join(f"{owner}.{name}" for name in ports)
    raise PortError(f"{owner}: expected one {side}, got {len(ports)}; name it: {listed}")
