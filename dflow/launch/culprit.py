"""Find the part of an object that cannot travel, and the path that leads to it.

Pickle only names the innermost type ("cannot pickle '_thread.lock' object"); a user needs
to know which node holds it and through which attribute, argument, closure or global.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

__all__ = ["find_culprit"]

MAX_DEPTH = 12


def find_culprit(obj: object, travels: Callable[[object], bool]) -> tuple[str, object]:
    """Return (path, part): the deepest part of ``obj`` for which ``travels`` is false."""
    path, part = "", obj
    seen = {id(obj)}
    for _ in range(MAX_DEPTH):
        for step, inner in _parts(part):
            if id(inner) not in seen and not travels(inner):
                seen.add(id(inner))
                path, part = path + step, inner
                break
        else:
            break
    return path.lstrip(".") or type(obj).__name__, part


def _parts(obj: Any) -> Iterator[tuple[str, object]]:
    nodes = getattr(obj, "nodes", None)
    if isinstance(nodes, Mapping):  # a graph: its nodes by name are the best start
        for name, node in nodes.items():
            yield f" node {name!r}", node
    if isinstance(obj, types.FunctionType):
        yield from _function_parts(obj)
    elif isinstance(obj, types.MethodType):
        yield ".__self__", obj.__self__
    elif isinstance(obj, Mapping):
        for key, value in obj.items():
            yield f"[{key!r}]", value
    elif isinstance(obj, (list, tuple, set, frozenset)):
        for index, value in enumerate(obj):
            yield f"[{index}]", value
    elif not isinstance(obj, (type, types.ModuleType)):
        for name in (*getattr(obj, "__dict__", ()), *_slots(obj)):
            yield f".{name}", getattr(obj, name, None)


def _function_parts(function: types.FunctionType) -> Iterator[tuple[str, object]]:
    where = f"{function.__name__}()"
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f" {where} closes over {name!r}", cell.cell_contents
        except ValueError:  # still empty
            continue
    for index, value in enumerate(function.__defaults__ or ()):
        yield f" {where} default {index}", value
    for name in function.__code__.co_names:
        if name in function.__globals__:
            yield f" {where} uses global {name!r}", function.__globals__[name]


def _slots(obj: object) -> Iterator[str]:
    for cls in type(obj).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        yield from (slots,) if isinstance(slots, str) else slots
