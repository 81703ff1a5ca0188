"""How user code is called: which parameter is the message, which the context.

The decision is made once, when a function is decorated or a handler bound; what the worker
then calls a million times is the user's own function whenever nothing has to be added to
the message, and a C-level `functools.partial` in nearly every other case.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from inspect import Parameter, Signature
from typing import Any

from dflow.errors import GraphError, did_you_mean
from dflow.graph.types import evaluate, scope_of

__all__ = ["CallShape", "Handler", "is_async", "is_generator"]

_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True, slots=True)
class Handler:
    """What a worker calls for each message.

    ``is_async``: the call returns an awaitable, or with ``is_generator`` an async iterator.
    ``is_generator``: it returns an iterator of values to emit. ``restore`` makes bytes in a
    message what the annotation says (`dflow.wire.restoring`).
    """

    call: Callable[[Any], Any]
    is_async: bool
    is_generator: bool
    restore: Callable[[Any], Any] | None = None

    @classmethod
    def of(cls, call: Callable[[Any], Any], code: Callable[..., Any]) -> Handler:
        """Return the handler that calls ``call``, made of the user's ``code``."""
        return cls(call, is_async(code), is_generator(code))


def is_async(code: Callable[..., Any]) -> bool:
    """Return whether ``code`` is ``async def``, generator or not."""
    code = _function(code)
    return inspect.iscoroutinefunction(code) or inspect.isasyncgenfunction(code)


def is_generator(code: Callable[..., Any]) -> bool:
    """Return whether ``code`` contains ``yield``, async or not."""
    code = _function(code)
    return inspect.isgeneratorfunction(code) or inspect.isasyncgenfunction(code)


def _function(code: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.isroutine(code) or isinstance(code, (type, partial)):
        return code
    return type(code).__call__  # an object with __call__


@dataclass(frozen=True, slots=True)
class CallShape:
    """The parameters of a callable by their part: message, context, configuration."""

    message: Parameter | None
    contexts: tuple[str, ...]
    config: Signature
    parameters: tuple[Parameter, ...]

    @classmethod
    def of(cls, function: Callable[..., Any], *, takes_message: bool) -> CallShape:
        """Return the shape; raises `GraphError` if there is no parameter for the message."""
        parameters = _parameters(function)
        contexts = tuple(p.name for p in parameters if is_context(p, function))
        others = [p for p in parameters if p.name not in contexts]
        message = None
        if takes_message:
            message = _message(function, others)
            if message.kind in _POSITIONAL:
                others.remove(message)
        return cls(message, contexts, Signature(others), tuple(parameters))

    def check(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Raise `GraphError` unless the arguments fit the configuration parameters."""
        try:
            self.config.bind(*args, **kwargs)
            given_twice = self.message is not None and self.message.name in kwargs
            if not given_twice and not set(self.contexts) & set(kwargs):
                return
            wrong = "the message and the context are passed by dflow"
        except TypeError as error:
            wrong = str(error)
        unknown = [key for key in kwargs if key not in self.config.parameters]
        hint = did_you_mean(unknown[0], self.config.parameters) if unknown else ""
        raise GraphError(f"{name}(): {wrong}{hint or ';'} {self._usage(name)}")

    def _usage(self, name: str) -> str:
        shown = Signature(
            [p.replace(annotation=Parameter.empty) for p in self.config.parameters.values()]
        )
        if self.message is None:
            return f"expected {name}{shown}"
        return (
            f"expected {name}{shown}: its parameter {self.message.name!r} is the message and"
            f" comes from the graph (to call the plain function, use {name}.function)"
        )

    def bind(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        ctx: Any,
    ) -> Callable[..., Any]:
        """Return a callable of the message alone (of nothing, without a message)."""
        given = dict(self.config.bind(*args, **kwargs).arguments)
        given.update(dict.fromkeys(self.contexts, ctx))
        if not given:
            return function
        before, after, named = self._arrange(given)
        if not after:
            return partial(function, *before, **named)
        return lambda *message: function(*before, *message, *after, **named)

    def _arrange(self, given: dict[str, Any]) -> tuple[list[Any], list[Any], dict[str, Any]]:
        """Return the arguments before and after the message, and those passed by name."""
        before: list[Any] = []
        after: list[Any] = []
        named: dict[str, Any] = {}
        ahead = self.message is not None and self.message.kind in _POSITIONAL
        by_position = any(
            p.name in given and p.kind in (Parameter.VAR_POSITIONAL, Parameter.POSITIONAL_ONLY)
            for p in self.parameters
        )
        for parameter in self.parameters:
            if self.message is not None and parameter.name == self.message.name:
                ahead = False
            if parameter.name not in given:
                continue
            value = given[parameter.name]
            place = before if ahead else after
            if parameter.kind is Parameter.VAR_KEYWORD:
                named.update(value)
            elif parameter.kind is Parameter.VAR_POSITIONAL:
                place.extend(value)
            elif parameter.kind in _POSITIONAL and (ahead or by_position):
                place.append(value)
            else:
                named[parameter.name] = value
        return before, after, named


def _parameters(function: Callable[..., Any]) -> list[Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except ValueError:  # a builtin without a signature: take it at its word
        return [Parameter("message", Parameter.POSITIONAL_ONLY)]


def _message(function: Callable[..., Any], parameters: list[Parameter]) -> Parameter:
    for parameter in parameters:
        if parameter.kind in (*_POSITIONAL, Parameter.VAR_POSITIONAL):
            return parameter
    name = getattr(function, "__qualname__", repr(function))
    raise GraphError(
        f"{name}{inspect.signature(function)}: expected a first parameter for the message,"
        f" got none; write def {getattr(function, '__name__', 'f')}(message, ...)"
    )


def is_context(parameter: Parameter, function: Callable[..., Any]) -> bool:
    """Return whether ``parameter`` is annotated `dflow.Context`, even only for type checkers."""
    annotation = parameter.annotation
    if annotation is Parameter.empty:
        return False
    hint = evaluate(annotation, *scope_of(function)) if _may_name(annotation) else annotation
    for option in (hint, *typing.get_args(hint)):
        if getattr(option, "__dflow_context__", False):
            return True
    if hint is not Any or not isinstance(annotation, str):
        return False
    text = annotation.strip("'\"").removeprefix("Optional[").removesuffix("]")
    options = [option.strip() for option in text.split("|")]
    return "Context" in options or "dflow.Context" in options


def _may_name(annotation: Any) -> bool:
    """Return whether evaluating could change the answer: skip the cost for plain classes."""
    return not isinstance(annotation, type)


def takes_argument(function: Callable[..., Any]) -> bool:
    """Return whether a bound hook wants the context: it has any positional parameter."""
    kinds = (*_POSITIONAL, Parameter.VAR_POSITIONAL)
    return any(parameter.kind in kinds for parameter in _parameters(function))
