"""`Node`: one step of a graph, described here and run in worker processes.

The instance in the user's process only describes: it remembers how it was made, and
`Node.fresh` makes an equal one for every replica, inside its worker. So it travels as its
recipe (class and arguments), never with what ``__init__`` put into it, and nodes may hold
files, locks or models.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from dflow.errors import GraphError, OptionError, PortError
from dflow.graph.calls import CallShape, Handler, takes_argument
from dflow.graph.chain import Chainable
from dflow.graph.ports import (
    HANDLES,
    BoundInput,
    BoundOutput,
    Input,
    Output,
    UnknownPort,
    the_only,
    unknown_port,
)
from dflow.options import NodeOptions

if TYPE_CHECKING:
    from typing import Self

    from dflow.graph.subgraph import Subgraph

__all__ = ["HOOKS", "RESERVED", "Handler", "Node", "look_up_plainly", "unknown_attribute"]

HOOKS = ("on_start", "on_tick", "on_end", "on_stop")
RESERVED = frozenset(
    {
        "as_input", "as_output", "attach", "bind", "bind_source", "fresh", "hook", "inputs", "kind",
        "main_output", "name", "node_options", "options", "outputs", "port",
    }
)  # fmt: skip
"""Names of `Node` itself, which a subclass or its instances may not use for something else."""


class Node(Chainable):
    """Base of nodes written as classes.

    Declare ports with `Input` and `Output`, decorate the method for each input with
    ``@port.handler``. A class without inputs is a source: it defines ``produce(self, ctx)``,
    a generator. Optional hooks, each with or without a ``ctx`` parameter: ``on_start``
    (in the worker, before any message), ``on_tick`` (every ``options(tick_s=...)``),
    ``on_end`` (inputs exhausted; may still emit), ``on_stop`` (release; may not emit).
    Each may be ``async``.

    ``__init__`` runs here and in every worker: keep it light, and load models in ``on_start``.
    """

    _inputs: ClassVar[Mapping[str, Input]] = MappingProxyType({})
    _outputs: ClassVar[Mapping[str, Output]] = MappingProxyType({})
    _handlers: ClassVar[Mapping[str, str]] = MappingProxyType({})

    _renamings: ClassVar[int] = 0
    """How often a node was given another name than a graph had given it."""

    _recipe: tuple[tuple[Any, ...], dict[str, Any]]
    _options: NodeOptions
    _name: str | None
    _home: Subgraph | None
    _emitters: Mapping[str, Callable[..., None]] | None

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        self.__dict__.update(
            _recipe=(args, kwargs), _options=NodeOptions(), _name=None, _home=None, _emitters=None
        )
        return self

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in RESERVED & vars(cls).keys():
            if not cls.__module__.startswith("dflow.graph."):
                raise GraphError(
                    f"{cls.__name__}.{name}: expected another name, got one that dflow.Node uses"
                    " itself; rename the attribute or port"
                )
        cls._inputs = MappingProxyType(_declared(cls, Input))
        cls._outputs = MappingProxyType(_declared(cls, Output))
        cls._handlers = MappingProxyType(_declared_handlers(cls))

    # --- describing ---------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Its name in the graph (``clean/parse`` inside a subgraph); until then its own."""
        return self._name or self._options.name or self._default_name()

    @name.setter
    def name(self, value: object) -> None:
        """Raise `GraphError`: it is set with `options`."""
        raise GraphError(
            f"{type(self).__name__}.name: expected to be left alone, got {value!r}; `name` is the"
            " node's name in the graph: set it with .options(name=...), and call an attribute"
            " of yours something else"
        )

    @property
    def kind(self) -> str:
        """``"source"`` (no inputs), ``"sink"`` (no outputs) or ``"node"``."""
        if not self.inputs:
            return "source"
        return "node" if self.outputs else "sink"

    @property
    def inputs(self) -> Mapping[str, Input]:
        """Its input ports by name, in order of declaration."""
        return self._inputs

    @property
    def outputs(self) -> Mapping[str, Output]:
        """Its output ports by name, in order of declaration."""
        return self._outputs

    @property
    def main_output(self) -> str | None:
        """The port that values returned or yielded go to: ``out``, or the only one, or none."""
        if "out" in self.outputs:
            return "out"
        return next(iter(self.outputs)) if len(self.outputs) == 1 else None

    @property
    def node_options(self) -> NodeOptions:
        """What `options` has set so far."""
        return self._options

    def options(self, **changes: Any) -> Self:
        """Set options and return this same node: ``square().options(replicas=2)``.

        ``name``; ``replicas`` (worker processes); ``concurrency`` (messages an ``async def``
        handler may have under way); ``tick_s`` (seconds between ``on_tick``); ``on_error``
        (``"skip"`` or ``"stop"``); ``ordered``, ``max_in_flight_per_key``, ``priority``,
        ``affinity``, ``niceness`` and ``spin_s`` (see `NodeOptions`). Raises `OptionError` for
        anything else.
        """
        try:
            self._options = self._options.updated(changes)
        except OptionError as error:
            raise OptionError(f"{self.name}: {error}") from None
        if "name" in changes and self._name is not None:
            Node._renamings += 1
            self._name = None
        return self

    def port(self, name: str) -> BoundInput | BoundOutput:
        """Return a port by name; raises `PortError` if there is none."""
        if name in self.inputs:
            return BoundInput(self, name)
        if name in self.outputs:
            return BoundOutput(self, name)
        raise unknown_port(self.name, name, (*self.inputs, *self.outputs))

    def as_output(self) -> BoundOutput:
        """Return the only output; raises `PortError` if there is not exactly one."""
        return BoundOutput(self, self.main_output or the_only(self.name, "output", self.outputs))

    def as_input(self) -> BoundInput:
        """Return the only input; raises `PortError` if there is not exactly one."""
        return BoundInput(self, the_only(self.name, "input", self.inputs))

    if not TYPE_CHECKING:  # or every misspelt attribute would type-check

        def __getattr__(self, name: str) -> Any:
            if hasattr(type(self), name):  # a property raised AttributeError: let it say why
                return object.__getattribute__(self, name)
            raise unknown_attribute(self, name)

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name}>"

    def _default_name(self) -> str:
        return snake_case(type(self).__name__)

    def __getstate__(self) -> dict[str, Any]:
        return {key: self.__dict__[key] for key in ("_recipe", "_options", "_name", "_home")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    # --- running: what a worker asks of a fresh instance --------------------------------

    def fresh(self) -> Self:
        """Return a new, equal node made the same way, with the same options and name."""
        args, kwargs = self._recipe
        made = type(self)(*args, **kwargs)
        made.__dict__.update(_options=self._options, _name=self._name, _home=None)
        return made

    def attach(self, emitters: Mapping[str, Callable[..., None]]) -> None:
        """Say where each output's values go from now on: ``self.port.emit`` calls it."""
        for port in self.outputs:
            self.__dict__.pop(port, None)  # what `Output` kept there calls the old one
        self._emitters = emitters

    def bind(self, port: str, ctx: Any) -> Handler:
        """Return the handler of an input port; raises `PortError` if it has none."""
        if port not in self._handlers:
            raise PortError(f"{self.name}.{port}: expected a method decorated @{port}.handler")
        method = getattr(self, self._handlers[port])
        shape = CallShape.of(method, takes_message=True)
        return Handler.of(shape.bind(method, (), {}, ctx), method)

    def bind_source(self, ctx: Any) -> Callable[[], Iterable[Any] | AsyncIterable[Any]]:
        """Return what to call, once, for the values of a source."""
        produce = getattr(self, "produce", None)
        if produce is None:
            raise PortError(f"{self.name}: expected a method produce(self, ctx), got none")
        return partial(produce, ctx) if takes_argument(produce) else produce

    def hook(self, name: str, ctx: Any) -> Callable[[], Any] | None:
        """Return the hook ready to be called, or ``None``; the call may return an awaitable."""
        if name not in HOOKS:
            raise PortError(
                f"{self.name}: expected a hook, one of {', '.join(HOOKS)}, got {name!r}"
            )
        if not callable(getattr(type(self), name, None)):
            return None
        method: Callable[..., Any] = getattr(self, name)
        return partial(method, ctx) if takes_argument(method) else method


def _declared(cls: type, kind: type[Any]) -> dict[str, Any]:
    """Return the ports of ``cls`` and its bases; a subclass may replace or remove one."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        for name, value in vars(base).items():
            if isinstance(value, kind):
                if value.name != name:
                    raise GraphError(
                        f"{cls.__name__}.{name}: expected a port of its own, got the one called"
                        f" {value.name!r}; declare another {kind.__name__}(...)"
                    )
                found[name] = value
            elif name in found:
                del found[name]
    return found


def _declared_handlers(cls: type) -> dict[str, str]:
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        own: dict[str, str] = {}
        for name, value in vars(base).items():
            for port in getattr(inspect.unwrap(value), HANDLES, ()) if callable(value) else ():
                if port.name in own:
                    raise GraphError(
                        f"{cls.__name__}.{port.name}: expected one handler, got {own[port.name]}"
                        f" and {name}; keep one of them"
                    )
                own[port.name] = name
        found |= own
    return found


def snake_case(name: str) -> str:
    """Return ``HTTPReader`` as ``http_reader``."""
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return valid_part(name.lower())


def valid_part(name: str) -> str:
    """Return ``name`` with everything replaced that a node's name may not contain."""
    cleaned = re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_")
    return cleaned if cleaned[:1].isalpha() else f"node_{cleaned}".rstrip("_")


def unknown_attribute(node: Node, name: str) -> UnknownPort:
    """Return the error for an attribute ``node`` does not have; it names the ports there are."""
    cls = type(node)
    return unknown_port(cls.__name__, name, (*cls._inputs, *cls._outputs))


def look_up_plainly() -> None:
    """Look attributes of nodes up at full speed, in a process that only runs them; idempotent.

    `Node` answers a misspelt port with a hint. For that it has a ``__getattr__``, and the
    interpreter does not speed up ``self.count`` for such a class: 50 ns each time in a handler.
    Without it a misspelt name raises a plain AttributeError, for which `unknown_attribute` has the
    hint.
    """
    if "__getattr__" in vars(Node):
        del Node.__getattr__  # type: ignore[attr-defined]  # hidden from type checkers
