"""Can every worker get the user's code? By import path if it has one, else by value.

Only what cannot be imported is tried, so a graph of module-level functions with plain
configuration costs nothing here, and nothing more is imported for it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from dflow.errors import GraphError
from dflow.graph.chain import Connection
from dflow.graph.function import FunctionNode, imported
from dflow.graph.node import Node
from dflow.graph.ports import BoundInput
from dflow.graph.problem import Problem
from dflow.options import EdgeOptions

__all__ = ["Shippable", "shipping_problems", "why_not_shippable"]

Shippable = Callable[[object], str | None]
_PLAIN = (bool, int, float, complex, str, bytes, type(None))


def why_not_shippable(part: object) -> str | None:
    """Return why ``part`` cannot be sent to a worker, or ``None`` if it can."""
    from dflow.launch.ship import dumps

    try:
        dumps(part)
    except GraphError as error:
        return str(error)
    return None


def shipping_problems(
    nodes: Sequence[Node],
    connections: Sequence[Connection],
    shippable: Shippable,
    accepted: Mapping[BoundInput, EdgeOptions],
) -> Iterator[Problem]:
    """Yield a problem for each callable or argument that no worker could get."""
    for node in nodes:
        name = node.name
        code: Any = node.factory if isinstance(node, FunctionNode) else type(node)
        if not is_importable(code) and (reason := shippable(code)):
            yield Problem(
                name,
                f"its code can neither be imported nor sent to a worker ({reason})",
                "define it at the top level of a module, and create what it uses in the worker",
            )
        for argument, value in _arguments(node):
            if not _is_plain(value) and not is_importable(value) and (reason := shippable(value)):
                yield Problem(
                    f"{name}({argument})",
                    f"expected configuration that can be sent to a worker, got"
                    f" {type(value).__name__} ({reason})",
                    "pass a path, address or setting, and open it in the worker",
                )
    edges = [(str(link), link.options) for link in connections]
    edges += [(f"accept({port})", options) for port, options in accepted.items()]
    for name, options in edges:
        for what, code in (("key=", options.key), ("coalesce's function", options.overflow.merge)):
            if callable(code) and not is_importable(code) and (reason := shippable(code)):
                yield Problem(
                    name, f"{what} cannot be sent to a worker ({reason})", "use a function"
                )


def is_importable(part: Any) -> bool:
    """Return whether a worker finds ``part`` by module and name, a script's own included."""
    module, path = getattr(part, "__module__", None), getattr(part, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(path, str):
        return False
    if module == "__main__" and not _has_file(module):
        return False
    return imported(module, path) is part


def _has_file(module: str) -> bool:
    return bool(getattr(sys.modules.get(module), "__file__", None))


def _arguments(node: Node) -> Iterator[tuple[str, Any]]:
    args, kwargs = node.config if isinstance(node, FunctionNode) else node._recipe
    yield from ((f"argument {number}", value) for number, value in enumerate(args, 1))
    yield from kwargs.items()


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple, set, frozenset)) and len(value) < 1000:
        return all(map(_is_plain, value))
    if type(value) is dict and len(value) < 1000:
        return all(_is_plain(part) for item in value.items() for part in item)
    return type(value) in _PLAIN
