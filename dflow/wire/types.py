"""Which classes of the user may travel, and how their instances are taken apart.

Only classes that a graph's port annotations or `register_type` name are encoded or decoded:
a peer can never make a worker import, look up or construct anything else. An instance is
rebuilt from its fields without calling ``__init__``, ``__post_init__``, ``__new__`` or
``_missing_`` of the user's class, so decoding has no side effects and what arrives is what
was emitted, not what a constructor would make of it. (Fields are not checked against their
annotations here; `run(check_types=True)` does that at emit.)
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar

from dflow.errors import DecodeError, EncodeError

__all__ = [
    "ClassCodec",
    "class_codec",
    "register_type",
    "registered",
    "registered_types",
    "wire_name",
]

_T = TypeVar("_T")
_MAIN_IN_WORKERS = "__dflow_main__"

_REGISTERED: dict[type, ClassCodec] = {}
_BY_NAME: dict[str, ClassCodec] = {}


class ClassCodec(NamedTuple):
    """How to take instances of one class apart and put them together.

    ``parts(value)`` returns plain or encodable values; ``build(parts)`` undoes it and raises
    `DecodeError` if they do not fit. ``steps`` name the parts in the path of an error.
    """

    cls: type
    name: str
    steps: tuple[str, ...]
    parts: Callable[[Any], tuple[Any, ...]]
    build: Callable[[list[Any]], Any]


def wire_name(cls: type) -> str:
    """Return ``module:qualname``, the same in the user's process and in workers."""
    module = "__main__" if cls.__module__ == _MAIN_IN_WORKERS else cls.__module__
    return f"{module}:{cls.__qualname__}"


def register_type(cls: type[_T]) -> type[_T]:
    """Allow instances of ``cls`` to travel on every edge; returns ``cls`` (a decorator).

    ``cls`` is a dataclass, an Enum or a NamedTuple. Classes that port annotations name need
    no registration. Raises `EncodeError` for any other class.
    """
    codec = class_codec(cls)
    _REGISTERED[cls] = _BY_NAME[codec.name] = codec
    return cls


def registered(key: type | str) -> ClassCodec | None:
    """Return the codec of a class, or of a wire name, that `register_type` was given."""
    return _REGISTERED.get(key) if isinstance(key, type) else _BY_NAME.get(key)


def registered_types() -> tuple[type, ...]:
    """Return the classes `register_type` was given, in that order: workers need them too."""
    return tuple(_REGISTERED)


def class_codec(cls: type) -> ClassCodec:
    """Return the codec of ``cls``; raises `EncodeError` if it has no fields to go by."""
    if isinstance(cls, type):
        if issubclass(cls, enum.Flag):
            return _flag(cls)
        if issubclass(cls, enum.Enum):
            return _enum(cls)
        if issubclass(cls, tuple) and hasattr(cls, "_fields"):
            return _named_tuple(cls)
        if dataclasses.is_dataclass(cls):
            return _dataclass(cls)
    raise EncodeError(
        f"register_type: expected a dataclass, an Enum or a NamedTuple class, got {cls!r}; "
        "make it a dataclass, or emit its fields as a dict or tuple"
    )


def _misfit(name: str, expected: str) -> DecodeError:
    return DecodeError(f"{name}: expected {expected}; do all workers run the same code?")


def _enum(cls: type[enum.Enum]) -> ClassCodec:
    name, members = wire_name(cls), cls._member_map_

    def build(parts: list[Any]) -> Any:
        (member,) = parts
        if member not in members:
            raise _misfit(name, "the name of a member")
        return members[member]

    return ClassCodec(cls, name, ("name",), lambda value: (value._name_,), build)


def _flag(cls: type[enum.Flag]) -> ClassCodec:
    # Combinations have no name of their own, so flags travel by value.
    name = wire_name(cls)

    def build(parts: list[Any]) -> Any:
        (value,) = parts
        if type(value) is not int:
            raise _misfit(name, "an int")
        return cls(value)

    return ClassCodec(cls, name, ("value",), lambda value: (value._value_,), build)


def _named_tuple(cls: Any) -> ClassCodec:
    name, size, new = wire_name(cls), len(cls._fields), tuple.__new__

    def build(parts: list[Any]) -> Any:
        if len(parts) != size:
            raise _misfit(name, f"{size} fields")
        return new(cls, parts)

    return ClassCodec(cls, name, cls._fields, tuple, build)


def _dataclass(cls: Any) -> ClassCodec:
    name, fields = wire_name(cls), tuple(f.name for f in dataclasses.fields(cls))
    size, new, set_field = len(fields), object.__new__, object.__setattr__
    try:
        has_dict = hasattr(new(cls), "__dict__")
    except TypeError:
        raise EncodeError(
            f"register_type: expected a dataclass that extends only plain classes, got {cls!r}"
        ) from None
    has_slots = any(name in vars(base) for base in cls.__mro__ for name in fields
                    if "__slots__" in vars(base))

    def build(parts: list[Any]) -> Any:
        if len(parts) != size:
            raise _misfit(name, f"{size} fields")
        value = new(cls)
        if has_dict and not has_slots:
            value.__dict__.update(zip(fields, parts, strict=True))
        else:
            for field, part in zip(fields, parts, strict=True):
                set_field(value, field, part)
        return value

    return ClassCodec(cls, name, fields, _getter(fields), build)


def _getter(fields: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    if not fields:
        return lambda value: ()
    if len(fields) == 1:
        get_one = attrgetter(fields[0])
        return lambda value: (get_one(value),)
    return attrgetter(*fields)
