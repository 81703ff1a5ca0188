"""Checks of one node by itself: handlers, ``produce``, hooks, and options that need them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from dflow.errors import GraphError, did_you_mean
from dflow.graph.calls import CallShape, is_async, is_generator
from dflow.graph.function import FunctionNode
from dflow.graph.node import HOOKS, RESERVED, Node
from dflow.graph.problem import Problem

__all__ = ["node_problems"]


def node_problems(name: str, node: Node) -> Iterator[Problem]:
    """Yield what is wrong with ``node`` whatever it is connected to."""
    if isinstance(node, FunctionNode):
        yield from _function(name, node)
        codes = [node.factory.function]
    else:
        yield from _shadowed(name, node)
        yield from _ports(name, node)
        yield from _handlers(name, node)
        yield from _produce(name, node)
        yield from _hooks(name, node)
        codes = [getattr(type(node), method) for method in node._handlers.values()]
    yield from _options(name, node, codes)


def _function(name: str, node: FunctionNode) -> Iterator[Problem]:
    function = node.factory.function
    if node.kind == "source" and is_async(function) and not is_generator(function):
        yield Problem(
            name, "expected an async source to yield its values, got no yield", "use yield"
        )


def _shadowed(name: str, node: Node) -> Iterator[Problem]:
    for attribute in sorted(RESERVED & vars(node).keys()):
        yield Problem(
            f"{name}.{attribute}",
            "this attribute hides one that dflow.Node uses itself",
            f"call it something else in {type(node).__name__}.__init__",
        )


def _ports(name: str, node: Node) -> Iterator[Problem]:
    if not node.inputs and not node.outputs:
        yield Problem(
            name,
            f"expected {type(node).__name__} to declare a port, got none",
            "declare one: numbers = Output(int)",
        )


def _handlers(name: str, node: Node) -> Iterator[Problem]:
    for port in node.inputs:
        method = node._handlers.get(port)
        if method is None:
            yield Problem(
                f"{name}.{port}",
                "expected a method that handles this input, got none",
                f"decorate a method of {type(node).__name__} with @{port}.handler",
            )
            continue
        try:
            shape = CallShape.of(getattr(node, method), takes_message=True)
            shape.config.bind()
        except GraphError:
            yield _cannot_call(name, node, method, "message")
        except TypeError:
            yield _cannot_call(name, node, method, "message")


def _cannot_call(name: str, node: Node, method: str, argument: str) -> Problem:
    code = getattr(type(node), method)
    return Problem(
        name,
        f"expected {method} to be called with the {argument} alone,"
        f" got def {method}{inspect.signature(code)}",
        f"write def {method}(self, {argument})"
        + (" (and ctx: Context if wanted)" if argument == "message" else " or without ctx"),
    )


def _produce(name: str, node: Node) -> Iterator[Problem]:
    code = getattr(type(node), "produce", None)
    if node.inputs:
        if code is not None and "produce" not in node._handlers.values():
            yield Problem(
                f"{name}.produce",
                "this node has inputs, so produce is never called",
                "remove the inputs, or emit in a handler or on_tick",
            )
    elif code is None:
        if node.outputs:
            yield Problem(
                name,
                "expected a class without inputs to define produce, got none",
                "write def produce(self, ctx) with yield, or declare an Input",
            )
    elif is_async(code) and not is_generator(code):
        yield Problem(
            f"{name}.produce", "expected async produce to yield, got no yield", "use yield"
        )
    elif not _callable_with(getattr(node, "produce"), 1):  # noqa: B009 - not an attribute of Node
        yield _cannot_call(name, node, "produce", "ctx")


def _hooks(name: str, node: Node) -> Iterator[Problem]:
    for hook in HOOKS:
        code = getattr(type(node), hook, None)
        if code is not None and not _callable_with(getattr(node, hook), 1):
            yield _cannot_call(name, node, hook, "ctx")
    for attribute in dir(type(node)):
        near = attribute.startswith("on_") and attribute not in HOOKS
        if near and attribute not in node._handlers.values() and did_you_mean(attribute, HOOKS):
            yield Problem(
                f"{name}.{attribute}",
                f"no hook has this name{did_you_mean(attribute, HOOKS)}",
                f"the hooks are {', '.join(HOOKS)}",
            )


def _callable_with(method: Callable[..., Any], arguments: int) -> bool:
    """Return whether a bound method takes ``arguments`` or none."""
    for count in (arguments, 0):
        try:
            inspect.signature(method).bind(*[None] * count)
        except TypeError:
            continue
        return True
    return False


def _options(name: str, node: Node, codes: list[Callable[..., Any]]) -> Iterator[Problem]:
    options = node.node_options
    ticks = callable(getattr(type(node), "on_tick", None))
    if options.tick_s is not None and not ticks:
        yield Problem(
            name,
            f"tick_s={options.tick_s:g}, but there is no on_tick",
            "define on_tick(self, ctx) in a Node class, or remove tick_s",
        )
    if ticks and options.tick_s is None:
        yield Problem(name, "on_tick is never called", "set how often: .options(tick_s=1.0)")
    if options.concurrency > 1 and not any(map(is_async, codes)):
        yield Problem(
            name,
            f"concurrency={options.concurrency}, but no handler is async",
            "write the handler with async def, or use replicas",
        )
