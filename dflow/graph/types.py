"""Types of ports: evaluating annotations, comparing them, and the classes they name.

Comparing is lenient where Python itself cannot tell: a pair is incompatible only when no
value could be both. Annotations that cannot be evaluated count as ``Any``: a forward
reference must never make a graph fail that would run.
"""

from __future__ import annotations

import collections.abc as abc
import dataclasses
import enum
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

__all__ = ["Deferred", "classes_in", "compatible", "evaluate", "in_module", "scope_of", "type_name"]

_SCALARS = {(int, float), (int, complex), (float, complex), (bool, float), (bool, complex)}
_NONE = type(None)


@dataclasses.dataclass(frozen=True, slots=True)
class Deferred:
    """A type to be evaluated when first asked for: its names may be defined later."""

    resolve: Callable[[], Any]


def in_module(text: str, module: str) -> Any:
    """Return the type that ``text`` names in ``module``; ``Any`` if it cannot be evaluated."""
    found = sys.modules.get(module)
    return evaluate(text, vars(found) if found else {})


def evaluate(
    annotation: Any, names: Mapping[str, Any], more: Mapping[str, Any] | None = None
) -> Any:
    """Return ``annotation`` with all text in it evaluated; ``Any`` if that fails."""

    def holder() -> None: ...

    holder.__annotations__ = {"value": annotation}
    try:
        hints = typing.get_type_hints(holder, dict(names), dict(more or {}), include_extras=True)
    except Exception:  # noqa: BLE001 - evaluating a user's text may raise anything
        return Any
    return hints["value"]


def scope_of(function: Callable[..., Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the global and the enclosing names that ``function``'s annotations may use."""
    function = getattr(function, "__func__", function)
    code = getattr(function, "__code__", None)
    inner: dict[str, Any] = {}
    for name, cell in zip(
        getattr(code, "co_freevars", ()), getattr(function, "__closure__", None) or (), strict=False
    ):
        try:
            inner[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return getattr(function, "__globals__", {}), inner


def type_name(hint: Any) -> str:
    """Return ``hint`` as a user would write it."""
    if hint is _NONE:
        return "None"
    if hint is Ellipsis:
        return "..."
    arguments = typing.get_args(hint)
    origin = typing.get_origin(hint)
    if origin is typing.Literal or (arguments and origin is abc.Callable):
        return str(hint).replace("typing.", "").replace("collections.abc.", "")
    if _is_union(hint):
        return " | ".join(map(type_name, arguments))
    if origin is typing.Annotated:
        return type_name(arguments[0])
    if arguments:
        return f"{type_name(origin)}[{', '.join(map(type_name, arguments))}]"
    return getattr(hint, "__qualname__", None) or str(hint).replace("typing.", "")


def compatible(produced: Any, accepted: Any) -> bool:
    """Return whether every ``produced`` value may go where ``accepted`` is expected."""
    produced, accepted = _plain(produced), _plain(accepted)
    if _anything(produced) or _anything(accepted):
        return True
    if _is_union(produced):
        return all(compatible(member, accepted) for member in typing.get_args(produced))
    if _is_union(accepted):
        return any(compatible(produced, member) for member in typing.get_args(accepted))
    if typing.get_origin(produced) is typing.Literal:
        return all(_literal_fits(value, accepted) for value in typing.get_args(produced))
    if typing.get_origin(accepted) is typing.Literal:
        return any(isinstance(value, _class(produced)) for value in typing.get_args(accepted))
    return _class_fits(_class(produced), _class(accepted)) and _arguments_fit(produced, accepted)


def _literal_fits(value: Any, accepted: Any) -> bool:
    if typing.get_origin(accepted) is typing.Literal:
        return value in typing.get_args(accepted)
    return compatible(type(value), accepted)


def _plain(hint: Any) -> Any:
    """Return ``hint`` without the wrappers that do not matter at run time."""
    while True:
        origin = typing.get_origin(hint)
        if origin is typing.Annotated or origin in (typing.Final, typing.ClassVar):
            hint = typing.get_args(hint)[0]
        elif hasattr(hint, "__supertype__"):  # NewType
            hint = hint.__supertype__
        elif hint is None:
            return _NONE
        else:
            return hint


def _anything(hint: Any) -> bool:
    if hint is Any or hint is object or isinstance(hint, (typing.TypeVar, str, typing.ForwardRef)):
        return True
    return not _is_union(hint) and not isinstance(_class(hint), type)


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _class(hint: Any) -> Any:
    """Return the class behind ``hint``: ``list`` for ``list[int]``."""
    if typing.is_typeddict(hint):
        return dict
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return object
    return hint if origin is None else origin


def _class_fits(produced: type, accepted: type) -> bool:
    if produced is accepted or (produced, accepted) in _SCALARS:
        return True
    try:
        return issubclass(produced, accepted)
    except TypeError:  # a Protocol that cannot be checked at run time
        return True


def _arguments_fit(produced: Any, accepted: Any) -> bool:
    given, wanted = typing.get_args(produced), typing.get_args(accepted)
    if not given or not wanted:
        return True
    if _class(produced) is tuple and _class(accepted) is tuple:
        return _tuples_fit(given, wanted)
    if not _same_parameters(_class(produced), _class(accepted)) or len(given) != len(wanted):
        return True
    # Messages are copies, so even a mutable container is covariant.
    return all(compatible(p, a) for p, a in zip(given, wanted, strict=True))


def _same_parameters(produced: Any, accepted: Any) -> bool:
    """Return whether both classes' type arguments mean the same: items, or keys and values."""
    if produced is accepted:
        return produced is not abc.Callable
    kinds: tuple[type, ...] = (abc.Mapping, abc.Iterable)
    return any(
        issubclass(produced, kind) and issubclass(accepted, kind) for kind in kinds
    ) and issubclass(produced, abc.Mapping) == issubclass(accepted, abc.Mapping)


def _tuples_fit(given: tuple[Any, ...], wanted: tuple[Any, ...]) -> bool:
    if wanted[-1] is Ellipsis:
        return all(compatible(item, wanted[0]) for item in given if item is not Ellipsis)
    if given[-1] is Ellipsis:
        return all(compatible(given[0], item) for item in wanted)
    return len(given) == len(wanted) and all(map(compatible, given, wanted))


def classes_in(hints: Iterable[Any]) -> frozenset[type]:
    """Return every dataclass, Enum and NamedTuple that ``hints`` name, at any depth."""
    found: set[type] = set()
    seen: set[int] = set()
    todo = list(hints)
    keep: list[Any] = []  # ids in `seen` stay valid only while the objects live
    while todo:
        hint = _plain(todo.pop())
        if id(hint) in seen:
            continue
        seen.add(id(hint))
        keep.append(hint)
        todo.extend(arg for arg in typing.get_args(hint) if arg is not Ellipsis)
        origin = typing.get_origin(hint)
        if origin is not None:
            todo.append(origin)
        if isinstance(hint, type):
            if _is_registered_kind(hint):
                found.add(hint)
            todo.extend(_field_types(hint))
    return frozenset(found)


def _is_registered_kind(cls: type) -> bool:
    named_tuple = issubclass(cls, tuple) and hasattr(cls, "_fields")
    return dataclasses.is_dataclass(cls) or issubclass(cls, enum.Enum) or named_tuple


def _field_types(cls: type) -> list[Any]:
    """Return the types of the fields of a dataclass, NamedTuple or TypedDict."""
    named_tuple = issubclass(cls, tuple) and hasattr(cls, "_fields")
    if not (dataclasses.is_dataclass(cls) or named_tuple or typing.is_typeddict(cls)):
        return []
    found: list[Any] = []
    for base in cls.__mro__:
        module = sys.modules.get(base.__module__)
        names = vars(module) if module else {}
        own = vars(base).get("__annotations__", {})
        found.extend(evaluate(annotation, names, vars(base)) for annotation in own.values())
    return found
