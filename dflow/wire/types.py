"""Which classes of the user may travel, and how their instances are taken apart.

Only classes that a graph's port annotations or `register_type` name are encoded or decoded:
a peer can never make a worker import, look up or construct anything else. An instance is
rebuilt from its fields without calling ``__init__``, ``__post_init__`` or ``__new__`` of the
user's class, so decoding has no side effects and what arrives is what was emitted, not what
a constructor would make of it. (Only bytes arrive as bytes or memoryviews by their size, unless the
field's annotation says which: `dflow.wire.restoring`.) Enum members are looked up by name. (Fields
are not checked against their annotations here; `run(check_types=True)` does that at emit.)

On the wire an instance is ``[<CLASS>, wire name, field, …]``. The functions that write and
build a dataclass are compiled for its fields, as `dataclasses` compiles ``__init__``: three
times faster than a loop over them.
"""

from __future__ import annotations

import dataclasses
import enum
import typing
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from dflow.errors import DecodeError, EncodeError
from dflow.wire.restoring import restorer
from dflow.wire.values import CLASS

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

    ``write(value)`` returns ``[CLASS, name, part, …]`` and ``build(that)`` undoes it, or raises
    `DecodeError` if the parts do not fit. ``steps`` name the parts in the path of an error.
    ``restore(parts)`` makes the parts what the fields' annotations say, if any says bytes.
    """

    cls: type
    name: str
    steps: tuple[str, ...]
    write: Callable[[Any], list[Any]]
    build: Callable[[list[Any]], Any]
    restore: Callable[[list[Any]], None] | None = None


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
        if issubclass(cls, enum.Enum):
            return _flag(cls) if issubclass(cls, enum.Flag) else _enum(cls)
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

    def build(values: list[Any]) -> Any:
        _, _, member = values
        if member not in members:
            raise _misfit(name, "the name of a member")
        return members[member]

    return ClassCodec(cls, name, ("name",), lambda value: [CLASS, name, value._name_], build)


def _flag(cls: type[enum.Flag]) -> ClassCodec:
    # Combinations have no name of their own, so flags travel by value.
    name = wire_name(cls)

    def build(values: list[Any]) -> Any:
        _, _, value = values
        if type(value) is not int:
            raise _misfit(name, "an int")
        return cls(value)

    return ClassCodec(cls, name, ("value",), lambda value: [CLASS, name, value._value_], build)


def _named_tuple(cls: Any) -> ClassCodec:
    name, size, new = wire_name(cls), len(cls._fields) + 2, tuple.__new__

    def build(values: list[Any]) -> Any:
        if len(values) != size:
            raise _misfit(name, f"{size - 2} fields")
        return new(cls, values[2:])

    restore = _restore(cls, cls._fields)
    return ClassCodec(cls, name, cls._fields, lambda value: [CLASS, name, *value], build, restore)


def _restore(cls: Any, fields: tuple[str, ...]) -> Callable[[list[Any]], None] | None:
    """Return what makes parts of an instance what the annotations of its ``fields`` say."""
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except Exception:  # noqa: BLE001  # evaluating a user's text may raise anything
        return None
    found = [(at + 2, restorer(hints.get(field))) for at, field in enumerate(fields)]
    wanted = [(at, part) for at, part in found if part is not None]

    def restore(values: list[Any]) -> None:
        for at, part in wanted:
            if at < len(values):
                values[at] = part(values[at])

    return restore if wanted else None


_DATACLASS_CODE = """
def write(value):
    return [mark, name, {reads}]

def build(values):
    value = new(cls)
    try:
        _, _, {targets} = values
    except ValueError:
        raise misfit(name, "{size} fields") from None
    {puts}
    return value
"""


def _dataclass(cls: Any) -> ClassCodec:
    try:
        object.__new__(cls)
    except TypeError as error:  # abstract, or it extends dict, Exception, …
        raise EncodeError(
            f"register_type: expected a dataclass whose fields are all there is to it, got "
            f"{cls!r} ({error})"
        ) from None
    name, fields = wire_name(cls), tuple(f.name for f in dataclasses.fields(cls))
    plain = cls.__setattr__ is object.__setattr__  # else frozen, or the user's own
    code = _DATACLASS_CODE.format(
        size=len(fields),
        reads=", ".join(f"value.{f}" for f in fields),
        targets=", ".join(f"value.{f}" if plain else f"field_{f}" for f in fields),
        puts="; ".join("pass" if plain else f"put(value, {f!r}, field_{f})" for f in fields),
    )
    space: dict[str, Any] = {
        "mark": CLASS,
        "name": name,
        "cls": cls,
        "misfit": _misfit,
        "new": object.__new__,
        "put": object.__setattr__,
    }
    exec(code, space)
    restore = _restore(cls, fields)
    return ClassCodec(cls, name, fields, space["write"], space["build"], restore)
