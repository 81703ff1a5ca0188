"""Large bytes arrive as memoryviews, and as what they were where an annotation asks for that.

``bytes`` and ``bytearray`` in the annotation of a port, or of a field, are a promise to the code
behind it: it may hash, decode or change them. It is kept by a copy. Only messages that came with
buffers are looked at, and only where an annotation names one of the two.
"""

from __future__ import annotations

import types
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

__all__ = ["Restore", "restorer"]

Restore = Callable[[Any], Any]

_UNIONS = (Union, types.UnionType)
_LISTS: tuple[type, ...] = (list, deque)
_KINDS: dict[Any, tuple[type, ...]] = {
    Sequence: (list, tuple),
    Mapping: (dict, OrderedDict),
}


def restorer(hint: Any) -> Restore | None:
    """Return what makes a value that arrived what ``hint`` says; None if there is nothing to do."""
    if hint is bytes or hint is bytearray:
        return _copier(hint)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return restorer(arguments[0])
    if origin in _UNIONS:
        return _either(arguments)
    parts = [restorer(argument) for argument in arguments]
    if not any(parts):
        return None
    for kind in _KINDS.get(origin, (origin,)):
        if kind in _LISTS:
            return _each(parts[0])
        if kind is tuple:
            same = origin is not tuple or arguments[1:] == (...,)
            return _each(parts[0]) if same else _positions(parts)
        if isinstance(kind, type) and issubclass(kind, dict):
            return _values(parts[-1])
    return None


def _copier(kind: type) -> Restore:
    def copy(value: Any) -> Any:
        return kind(value) if type(value) is memoryview else value

    copy.__name__ = kind.__name__
    return copy


def _either(options: Sequence[Any]) -> Restore | None:
    """Do what the option says that fits; a memoryview stays one if that is an option."""
    if any(option in (memoryview, Any, object) for option in options):
        options = [option for option in options if option not in (bytes, bytearray)]
    found = [(option, restore) for option in options if (restore := restorer(option))]
    if not found:
        return None

    def choose(value: Any) -> Any:
        for option, restore in found:
            wanted = memoryview if option in (bytes, bytearray) else get_origin(option)
            if isinstance(value, wanted if isinstance(wanted, type) else object):
                return restore(value)
        return value

    return choose


def _each(restore: Restore | None) -> Restore | None:
    if restore is None:
        return None
    part = restore

    def each(value: Any) -> Any:
        if type(value) is deque:
            return deque(map(part, value), value.maxlen)
        return type(value)(map(part, value)) if type(value) in (list, tuple) else value

    return each


def _positions(parts: Sequence[Restore | None]) -> Restore:
    def by_position(value: Any) -> Any:
        if type(value) is not tuple or len(value) != len(parts):
            return value
        return tuple(
            part if restore is None else restore(part)
            for restore, part in zip(parts, value, strict=True)
        )

    return by_position


def _values(restore: Restore | None) -> Restore | None:
    if restore is None:
        return None
    part = restore

    def values(value: Any) -> Any:
        if type(value) in (dict, OrderedDict):
            for key in value:
                value[key] = part(value[key])
        return value

    return values
