"""The slow way to pack a value: exact where the fast way is not, and it knows where it is.

Every container is wrapped in a `_Box` that remembers its place, so that the packer calls
back for each one and unwraps the value level by level, without recursion in Python. It is
used when the fast way failed (to raise an error that names the place), and for the rare
values that msgpack packs wrongly: `ExtType` and text with lone surrogates.
"""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import is_dataclass
from enum import Enum
from typing import Any

import msgpack

from dflow.errors import EncodeError
from dflow.wire.large import Lifted, is_large
from dflow.wire.types import ClassCodec, class_codec, wire_name
from dflow.wire.values import BUFFER, WRITERS

__all__ = ["CarefulPacker", "describe_unsendable"]

_PLAIN = frozenset({type(None), bool, int, float, str, bytes, bytearray})
_MAX_PATH_STEPS = 12
_MAX_KEY_CHARS = 60
_TEXT_ERRORS = "surrogatepass"


class _Box:
    """A value and the way to it from the payload."""

    __slots__ = ("parent", "step", "value")

    def __init__(self, value: Any, parent: _Box | None, step: str) -> None:
        self.value = value
        self.parent = parent
        self.step = step

    def path(self) -> str:
        steps: list[str] = []
        box: _Box | None = self
        while box is not None:
            steps.append(box.step)
            box = box.parent
        steps.reverse()
        if len(steps) > _MAX_PATH_STEPS:
            steps = [*steps[:_MAX_PATH_STEPS], "…"]
        return "".join(steps)


class CarefulPacker:
    """Pack one value at a time. ``write`` takes an extended value apart or raises."""

    def __init__(
        self, write: Callable[[Any], list[Any]], codecs: Mapping[type, ClassCodec]
    ) -> None:
        self._write = write
        self._codecs = codecs
        self._last: _Box | None = None
        self._packer = msgpack.Packer(
            strict_types=True, default=self._unwrap, unicode_errors=_TEXT_ERRORS
        )

    def pack(self, value: Any) -> bytes:
        """Return the bytes of ``value``; raises `EncodeError` with the path to the culprit."""
        self._last = box = _Box(value, None, "payload")
        try:
            plain = type(value) in _PLAIN and not is_large(value)
            packed: bytes = self._packer.pack(value if plain else box)
            return packed
        except EncodeError:
            raise
        except Exception as error:  # whatever the packer or the user's attributes raise
            path = self._last.path()
            if "recursion limit" in str(error):
                problem = "expected at most 500 levels, got a value nested deeper or in itself"
            else:
                problem = f"expected a value that can be packed, got {error}"
            raise EncodeError(f"{path}: {problem}", path) from error
        finally:
            self._last = None

    def _unwrap(self, box: Any) -> Any:
        """Return the box's value with its own containers boxed; called by the packer."""
        if type(box) is not _Box:  # an int beyond 64 bits, which the packer offers itself
            return WRITERS[int](box)
        self._last = box
        value, kind = box.value, type(box.value)
        if is_large(value):
            value, kind = Lifted(value), Lifted
        if kind is bytes or kind is memoryview:
            return bytes(value)
        if kind is msgpack.Timestamp:
            return value
        if kind is list:
            return [self._wrap(x, box, f"[{i}]") for i, x in enumerate(value)]
        if kind is dict:
            return {
                self._wrap_key(k, box, f".keys()[{i}]"): self._wrap(v, box, _key_step(k))
                for i, (k, v) in enumerate(value.items())
            }
        try:
            mark, *parts = self._write(value)
        except EncodeError as error:
            path = box.path()
            raise EncodeError(f"{path}: {error}", path) from None
        if kind in (set, frozenset):
            return [mark, *(self._wrap_key(part, box, "{…}") for part in parts)]
        return [mark, *map(self._wrap, parts, [box] * len(parts), self._steps(value, len(parts)))]

    def _wrap(self, value: Any, parent: _Box, step: str) -> Any:
        if type(value) is list and value and value[0] is BUFFER:  # a writer's, not the user's
            return value
        if is_large(value):
            return _Box(value, parent, step)
        if type(value) in _PLAIN:
            return value
        return _Box(value, parent, step)

    def _wrap_key(self, value: Any, parent: _Box, step: str) -> Any:
        """Wrap the key of a dict or the element of a set: large bytes stay in the message."""
        if type(value) is bytes or type(value) is memoryview:
            return bytes(value)
        return self._wrap(value, parent, step)

    def _steps(self, value: Any, size: int) -> Iterable[str]:
        """How to get from ``value`` to each of the parts its writer took it apart into."""
        kind = type(value)
        codec = self._codecs.get(kind)
        if codec is not None:
            return ["", *(f".{name}" for name in codec.steps)]
        if kind is deque:
            return [".maxlen", *(f"[{i}]" for i in range(size - 1))]
        if hasattr(value, "tzinfo"):
            return [".tzinfo"] * size
        if isinstance(value, dict):
            return [""]
        return [f"[{i}]" for i in range(size)]


def _key_step(key: Any) -> str:
    if type(key) is str and len(key) <= _MAX_KEY_CHARS:
        return f"[{json.dumps(key, ensure_ascii=False)}]"
    return f"[{key}]" if type(key) is int else f"[<{type(key).__name__}>]"


def describe_unsendable(kind: type) -> str:
    """Return what was expected instead of an instance of ``kind``, and what to do."""
    name = kind.__qualname__
    if kind is msgpack.ExtType:
        return "expected a value, got msgpack.ExtType, which has no meaning here; emit its data"
    if is_dataclass(kind) or issubclass(kind, Enum) or hasattr(kind, "_fields"):
        try:
            class_codec(kind)
        except EncodeError as error:
            return str(error)
        return (
            f"expected a class that is registered, got {wire_name(kind)}; name it in a port's "
            "annotation or decorate it with @dflow.register_type"
        )
    if kind is defaultdict:
        return "expected a dict, got defaultdict, whose factory cannot travel; emit dict(...)"
    for base in WRITERS.keys() | _PLAIN | {list, dict}:
        if issubclass(kind, base):
            return f"expected {base.__name__}, got its subclass {name}; emit {base.__name__}(...)"
    return (
        "expected plain data (numbers, text, bytes, containers, dates, Decimal, UUID, Path, "
        f"numpy arrays) or a registered dataclass, Enum or NamedTuple, got {name}"
    )
