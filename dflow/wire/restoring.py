"""Bytes arrive as what an annotation says: ``bytes``, ``bytearray`` or ``memoryview``, of any size.

By themselves small bytes arrive as bytes and large ones as memoryviews. Each of the three in the
annotation of a port, or of a field, is a promise to the code behind it: it may hash, decode or
change them. It is kept, by a copy if need be. What to do is found once for each annotation; where
it names none of the three there is nothing to do, and messages are not looked at.
"""

from __future__ import annotations

import types
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

__all__ = ["Restore", "restored", "restorer"]

Restore = Callable[[Any], Any]

_NATIVE = (bytes, bytearray, memoryview)
_ARRIVING = (bytes, memoryview)
_UNIONS = (Union, types.UnionType)
_LISTS: tuple[type, ...] = (list, deque)
_KINDS: dict[Any, tuple[type, ...]] = {
    Sequence: (list, tuple),
    Mapping: (dict, OrderedDict),
}


def restorer(hint: Any) -> Restore | None:
    """Return what makes a value that arrived what ``hint`` says; None if there is nothing to do."""
    if _is_native(hint):
        return _native((hint,))
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


def restored(restore: Restore | None, values: list[Any]) -> list[Any]:
    """Return ``values`` as ``restore`` makes them."""
    if restore is None or (restore is _to_bytes and memoryview not in set(map(type, values))):
        return values
    return list(map(restore, values))


def _is_native(hint: Any) -> bool:
    return any(hint is kind for kind in _NATIVE)  # an annotation may be anything: not by ==


def _native(wanted: Sequence[type]) -> Restore:
    """Return what makes bytes the first of the ``wanted`` types, unless they are one of them."""
    if len(wanted) == 1 and wanted[0] is bytes:
        return _to_bytes
    other, make = frozenset(_ARRIVING).difference(wanted), wanted[0]

    def restore(value: Any) -> Any:
        return make(value) if type(value) in other else value

    return restore


def _to_bytes(value: Any) -> Any:
    return bytes(value) if type(value) is memoryview else value


def _either(options: Sequence[Any]) -> Restore | None:
    """Do what the option says that fits; bytes stay as they are if that is an option."""
    options = [get_args(each)[0] if get_origin(each) is Annotated else each for each in options]
    wanted = [option for option in options if _is_native(option)]
    native = None
    if wanted and not any(option is Any or option is object for option in options):
        native = _native(wanted)
    found: list[tuple[type, Restore]] = []
    for option in options:
        restore = None if _is_native(option) else restorer(option)
        if restore is not None:
            origin = get_origin(option)
            found.append((origin if isinstance(origin, type) else object, restore))
    if not found:
        return native

    def choose(value: Any) -> Any:
        if type(value) in _ARRIVING:
            return value if native is None else native(value)
        for kind, restore in found:
            if isinstance(value, kind):
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
