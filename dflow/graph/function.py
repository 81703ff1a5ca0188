"""``@source``, ``@node`` and ``@sink``: nodes written as functions.

Decorating gives a `NodeFactory`; calling it with configuration gives a `FunctionNode`. The
factory takes the function's place in its module, so it is also what travels by import path.
"""

from __future__ import annotations

import sys
import typing
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
)
from functools import cached_property, update_wrapper
from inspect import Parameter
from operator import attrgetter
from types import MappingProxyType, NoneType, UnionType
from typing import Any, NoReturn, Union, overload

from dflow.errors import GraphError
from dflow.graph.calls import CallShape, Handler, is_generator
from dflow.graph.chain import Chainable
from dflow.graph.node import Node, snake_case, valid_part
from dflow.graph.ports import BoundInput, BoundOutput, Input, Output, unknown_port
from dflow.graph.types import Deferred, evaluate, scope_of
from dflow.options import NodeOptions

__all__ = ["FunctionNode", "NodeFactory", "node", "sink", "source"]

_ITERATORS = (Iterator, Generator, AsyncIterator, AsyncGenerator)
_CACHED = ("inputs", "outputs", "shape")


class NodeFactory(Chainable):
    """A decorated function: call it with configuration to get a node.

    ``function`` is the function itself, for calling it without a graph (in tests, say).
    """

    __name__: str

    def __init__(
        self,
        kind: str,
        function: Callable[..., Any],
        outputs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if not callable(function) or isinstance(function, Chainable):
            raise GraphError(f"@{kind}: expected a function, got {function!r}")
        if isinstance(function, type) and issubclass(function, Node):
            raise GraphError(
                f"@{kind}: a Node class needs no decorator; write {function.__name__}()"
            )
        self.kind = kind
        self.function: Callable[..., Any] = function
        given = dict(options or {})
        name = given.pop("name", None) or getattr(function, "__name__", None)
        self.default_name = valid_part(name) if name else snake_case(type(function).__name__)
        self.options = NodeOptions().updated(given)
        self.extra = _extra_outputs(self.default_name, outputs or {})
        update_wrapper(self, function, updated=())
        _ = self.shape  # a function without a parameter for the message raises here

    def __call__(self, *args: Any, **kwargs: Any) -> FunctionNode:
        """Return a new node; raises `GraphError` if the configuration does not fit."""
        self.shape.check(self.default_name, args, kwargs)
        return FunctionNode(self, *args, **kwargs)

    @cached_property
    def shape(self) -> CallShape:
        """Which of its parameters are message, context and configuration."""
        return CallShape.of(self.function, takes_message=self.kind != "source")

    @cached_property
    def inputs(self) -> Mapping[str, Input]:
        """The input of its nodes: ``in``, except for a source."""
        if self.kind == "source":
            return MappingProxyType({})
        port = Input(Deferred(self._message_type))
        port.name = "in"
        return MappingProxyType({"in": port})

    @cached_property
    def outputs(self) -> Mapping[str, Output]:
        """The outputs of its nodes: ``out`` and the extra ones, except for a sink."""
        if self.kind == "sink":
            return MappingProxyType({})
        port = Output(Deferred(self._emitted_type))
        port.name = "out"
        return MappingProxyType({"out": port, **self.extra})

    def _message_type(self) -> Any:
        message = self.shape.message
        if message is None or message.annotation is Parameter.empty:
            return Any
        return evaluate(message.annotation, *scope_of(self.function))

    def _emitted_type(self) -> Any:
        """Return the type of one emitted value: of an item, where the function iterates."""
        hint = getattr(self.function, "__annotations__", {}).get("return", Any)
        hint = evaluate(hint, *scope_of(self.function))
        iterates = self.kind == "source" or is_generator(self.function)
        return _item_type(hint) if iterates else _without_none(hint)

    def check_ready(self) -> NoReturn:
        """Raise `GraphError`: a factory is not a node yet."""
        name = self.default_name
        raise GraphError(
            f"{name}: expected a node, got the @{self.kind} function itself; write {name}()"
        )

    def __repr__(self) -> str:
        return f"<@{self.kind} {self.default_name}>"

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in _CACHED}

    def __reduce_ex__(self, protocol: Any) -> Any:
        # By import path where that leads back here, else by value. `__main__` is another
        # module in the process that loads this, so it is never named here.
        path = getattr(self, "__qualname__", "")
        if path and self.__module__ != "__main__" and imported(self.__module__, path) is self:
            return path
        return super().__reduce_ex__(max(2, protocol))


class FunctionNode(Node):
    """A node made of a function and its configuration.

    Ports: ``in_`` (called ``in``), ``out``, and the extra outputs by their names.
    """

    def __init__(self, factory: NodeFactory, /, *args: Any, **kwargs: Any) -> None:
        self._options = factory.options

    @property
    def factory(self) -> NodeFactory:
        """What it was made by."""
        factory: NodeFactory = self._recipe[0][0]
        return factory

    @property
    def config(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments it was made with."""
        (_, *args), kwargs = self._recipe
        return tuple(args), kwargs

    @property
    def kind(self) -> str:
        """``"source"``, ``"node"`` or ``"sink"``: the decorator."""
        return self.factory.kind

    @property
    def inputs(self) -> Mapping[str, Input]:
        """``in``, or nothing for a source."""
        return self.factory.inputs

    @property
    def outputs(self) -> Mapping[str, Output]:
        """``out`` and the extra outputs, or nothing for a sink."""
        return self.factory.outputs

    @property
    def in_(self) -> BoundInput:
        """Its input port, called ``in``."""
        if "in" not in self.inputs:
            raise unknown_port(self.name, "in", self.outputs)
        return BoundInput(self, "in")

    @property
    def out(self) -> BoundOutput:
        """Its main output port."""
        if "out" not in self.outputs:
            raise unknown_port(self.name, "out", self.inputs)
        return BoundOutput(self, "out")

    def __getattr__(self, name: str) -> BoundOutput:
        # Never for private names: unpickling and copying look for them on an empty object.
        if not name.startswith("_") and name in self.outputs:
            return BoundOutput(self, name)
        known = () if name.startswith("_") else (*self.inputs, *self.outputs)
        raise unknown_port(self.name if known else type(self).__name__, name, known)

    def _default_name(self) -> str:
        return self.factory.default_name

    def bind(self, port: str, ctx: Any) -> Handler:
        """Return the handler of ``in``."""
        if port not in self.inputs:
            raise unknown_port(self.name, port, self.inputs)
        function, (args, kwargs) = self.factory.function, self.config
        return Handler.of(self.factory.shape.bind(function, args, kwargs, ctx), function)

    def bind_source(self, ctx: Any) -> Callable[[], Iterable[Any] | AsyncIterable[Any]]:
        """Return what to call, once, for the values of a source."""
        args, kwargs = self.config
        return self.factory.shape.bind(self.factory.function, args, kwargs, ctx)

    def hook(self, name: str, ctx: Any) -> Callable[[], Any] | None:
        """Return ``None``: functions have no hooks."""
        return None


def _extra_outputs(name: str, outputs: Mapping[str, Any]) -> dict[str, Output]:
    found: dict[str, Output] = {}
    for output, hint in outputs.items():
        taken = output in ("in", "out") or hasattr(FunctionNode, output)
        if not isinstance(output, str) or not output.isidentifier() or taken:
            raise GraphError(
                f"{name}: expected names for extra outputs that are not used otherwise,"
                f" got {output!r}; choose another name"
            )
        found[output] = hint if isinstance(hint, Output) else Output(hint)
        found[output].name = output
    return found


def imported(module: str, path: str) -> object | None:
    """Return what ``path`` names in an already imported module, or ``None``."""
    try:
        found: object = attrgetter(path)(sys.modules[module])
    except (KeyError, AttributeError):
        return None
    return found


def _item_type(hint: Any) -> Any:
    origin = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    known = isinstance(origin, type) and issubclass(origin, (Iterable, AsyncIterable))
    if not known or not arguments or issubclass(origin, Mapping):
        return Any
    if origin is tuple:
        return arguments[0] if arguments[-1] is Ellipsis else Any
    return _without_none(arguments[0])


def _without_none(hint: Any) -> Any:
    """Return the type of what is emitted: ``None`` emits nothing, an iterator its items."""
    if hint is NoneType:
        return Any
    origin = typing.get_origin(hint)
    if origin in _ITERATORS:
        return _item_type(hint)
    if origin in (Union, UnionType):
        rest = tuple(arg for arg in typing.get_args(hint) if arg is not NoneType)
        return Union[rest] if rest else Any  # noqa: UP007 - built at run time
    return hint


_Decorator = Callable[[Callable[..., Any]], NodeFactory]


def _decorator(
    kind: str, function: Callable[..., Any] | None, outputs: Any, options: dict[str, Any]
) -> NodeFactory | _Decorator:
    if function is not None:
        return NodeFactory(kind, function, outputs, options)
    return lambda function: NodeFactory(kind, function, outputs, options)


@overload
def source(function: Callable[..., Any], /) -> NodeFactory:
    """Decorate bare: ``@source``."""


@overload
def source(*, outputs: Mapping[str, Any] | None = None, **options: Any) -> _Decorator:
    """Decorate with arguments: ``@source(name=...)``."""


def source(
    function: Callable[..., Any] | None = None,
    /,
    *,
    outputs: Mapping[str, Any] | None = None,
    **options: Any,
) -> NodeFactory | _Decorator:
    """Make a generator function (sync or async) a source: each value it yields is emitted.

    All parameters are configuration, given when a node is made: ``numbers(10)``; one
    annotated `Context` is passed by dflow. ``outputs={"name": type}`` declares more output
    ports, reached by ``ctx.emit(value, "name")``; ``options`` are defaults for
    `Node.options`. Raises `GraphError` for what cannot be a node, `OptionError` for a wrong
    option.
    """
    return _decorator("source", function, outputs, options)


@overload
def node(function: Callable[..., Any], /) -> NodeFactory:
    """Decorate bare: ``@node``."""


@overload
def node(*, outputs: Mapping[str, Any] | None = None, **options: Any) -> _Decorator:
    """Decorate with arguments: ``@node(name=...)``."""


def node(
    function: Callable[..., Any] | None = None,
    /,
    *,
    outputs: Mapping[str, Any] | None = None,
    **options: Any,
) -> NodeFactory | _Decorator:
    """Make a function a node: its first parameter is the message, the rest configuration.

    Returning ``None`` emits nothing, a generator emits each value, anything else is emitted
    as it is. ``async def`` works. ``outputs`` and ``options`` as for `source`.
    """
    return _decorator("node", function, outputs, options)


@overload
def sink(function: Callable[..., Any], /) -> NodeFactory:
    """Decorate bare: ``@sink``."""


@overload
def sink(**options: Any) -> _Decorator:
    """Decorate with arguments: ``@sink(name=...)``."""


def sink(function: Callable[..., Any] | None = None, /, **options: Any) -> NodeFactory | _Decorator:
    """Make a function a sink: as `node`, but it emits nothing."""
    return _decorator("sink", function, None, options)
