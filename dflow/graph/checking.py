"""Whether a value is what a port's annotation says, for ``run(check_types=True)``.

Containers are checked through and through; what cannot be checked by looking (protocols,
type variables, callables' signatures) passes. An ``int`` passes for a ``float``, as it does
for a type checker (PEP 484).
"""

from __future__ import annotations

import collections.abc
import types
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, Union, get_args, get_origin, is_typeddict

from dflow.graph.types import type_name

__all__ = ["checker", "fits"]

_UNIONS = (Union, types.UnionType)


def checker(hint: Any, where: str) -> Callable[[Any], None] | None:
    """Return a function that raises TypeError for a value that is no ``hint``; None for Any."""
    if hint is Any or hint is object:
        return None

    def check(value: Any) -> None:
        if not fits(value, hint):
            raise TypeError(
                f"{where}: expected {type_name(hint)}, got {type_name(type(value))}; "
                f"emit that, or change the port's annotation"
            )

    return check


def fits(value: Any, hint: Any) -> bool:
    """Whether ``value`` is a ``hint``; True where that cannot be told by looking."""
    if hint is None:
        return value is None
    origin = get_origin(hint)
    if origin is None:
        return _is_plain(value, hint)
    arguments = get_args(hint)
    if origin in _UNIONS:
        return any(fits(value, option) for option in arguments)
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in arguments)
    if origin is Annotated or not isinstance(origin, type):  # Annotated is a class in 3.11
        return fits(value, arguments[0]) if arguments else True
    if not isinstance(value, origin):
        return False
    return _parts_fit(value, origin, arguments)


def _is_plain(value: Any, hint: Any) -> bool:
    if is_typeddict(hint):
        return isinstance(value, dict)
    if not isinstance(hint, type) or getattr(hint, "_is_protocol", False):
        return True
    if hint is float:
        return isinstance(value, (float, int)) and not isinstance(value, bool)
    if hint is complex:
        return isinstance(value, (complex, float, int)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _parts_fit(value: Any, origin: type, arguments: tuple[Any, ...]) -> bool:
    if issubclass(origin, tuple):
        return _tuple_fits(value, arguments)
    if issubclass(origin, collections.abc.Mapping) and len(arguments) == 2:
        key, item = arguments
        return _all_fit(value, key) and _all_fit(value.values(), item)
    sized = (collections.abc.Sequence, collections.abc.Set, collections.abc.Collection)
    if issubclass(origin, sized) and len(arguments) == 1:
        return _all_fit(value, arguments[0])
    return True


def _tuple_fits(value: tuple[Any, ...], arguments: tuple[Any, ...]) -> bool:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return _all_fit(value, arguments[0])
    if len(value) != len(arguments):
        return False
    return all(fits(item, hint) for item, hint in zip(value, arguments, strict=True))


def _all_fit(values: Iterable[Any], hint: Any) -> bool:
    return hint is Any or all(fits(value, hint) for value in values)
