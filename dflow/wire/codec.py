"""Values to bytes and back, exactly: what is emitted is what arrives, type and value.

The fast path is one call into msgpack's C packer or unpacker. Everything else is kept off
it: values beyond msgpack's types are marked arrays (`dflow.wire.values`), taken apart by the
packer's ``default`` hook and put together by hooks that are only installed when the received
bytes contain a mark. Large parts travel beside the message (`dflow.wire.large`). Once the process
has made an `ExtType` (`dflow.wire.extensions`) values are searched for one. Failures are packed
once more by `dflow.wire.careful`, which knows where in the value it is.

No pickle: decoding can make the values of `dflow.wire.values` and instances of classes named
beforehand, nothing else, and no more of them than the input has bytes for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import msgpack

from dflow.errors import DecodeError, EncodeError
from dflow.wire.arrays import is_array_type, numpy_writer, read_array, read_scalar
from dflow.wire.arrow import read_table, table_writer
from dflow.wire.buffers import LARGE_BYTES, Memory, Parcel
from dflow.wire.careful import CarefulPacker, describe_unsendable
from dflow.wire.extensions import EXT_HEADS, ext_types_made
from dflow.wire.large import (
    KEPT_BUFFER,
    Beside,
    LargePacker,
    LargePart,
    Lifted,
    large_readers,
    may_hold_large,
    require_sendable,
)
from dflow.wire.tensors import read_tensor, tensor_writer
from dflow.wire.types import ClassCodec, class_codec, registered
from dflow.wire.unpack import make_unpackers, require_whole, split_batch
from dflow.wire.values import (
    ARRAY,
    LEAVES,
    MARK_BYTE,
    READERS,
    SCALAR,
    TABLE,
    TENSOR,
    TUPLE,
    WRITERS,
)

__all__ = ["Codec"]

_COPY_BYTES = 1 << 20


class Codec:
    """Encode and decode messages of one thread (packer and hooks hold state: do not share).

    ``types`` are the classes, besides those given to `register_type`, whose instances may
    travel; those that cannot (an abstract base in an annotation) are left out.
    ``encode(value)`` returns bytes, a `Parcel` if there are large parts, and raises `EncodeError`
    with the path to what cannot travel; a codec stays usable after any error. Large parts are
    written to ``memory`` if there is any. ``pack`` is the C function below it, for loops that
    should not call Python for each message: what it returns is right unless the codec is `wary`,
    and whatever it raises, ``encode`` is to be asked. (If it leaves large bytes in a message they
    are taken out when it is decoded; messages of such a size should go through ``encode``.)
    """

    pack: Callable[[Any], bytes]
    _looking: bool

    def __init__(self, types: Iterable[type] = (), memory: Memory | None = None) -> None:
        self._beside = beside = Beside(memory)
        self._received: Sequence[Any] = ()
        self._writers = {**WRITERS, Lifted: beside.put_lifted}
        self._classes: dict[str, ClassCodec] = {}
        self._codecs: dict[type, ClassCodec] = {}
        for cls in types:
            with suppress(EncodeError):
                self._add(class_codec(cls))
        self._leaves = set(LEAVES)
        self._default = default = self._make_default()
        careful = CarefulPacker(default, self._codecs)
        self._new_packer = partial(msgpack.Packer, strict_types=True, default=default)
        self._large = LargePacker(beside, default, careful, self._pack_plainly)
        self._pack_plainly()
        readers = {
            ARRAY.code: read_array,
            SCALAR.code: read_scalar,
            TABLE.code: read_table,
            TENSOR.code: read_tensor,
            **large_readers(lambda: self._received),
            **READERS,
        }
        self._unpack, self._unpack_marked = make_unpackers(readers, self._read_class)

    def twin(self) -> Codec:
        """Return a codec of the same classes, for another thread."""
        return Codec(list(self._codecs))

    def decode(self, payload: bytes | memoryview) -> Any:
        """Return the value in ``payload``; raises `DecodeError` for anything malformed."""
        if type(payload) is Parcel:
            return self.decode_large(bytes(payload), [b.view for b in payload.buffers])
        data = payload if type(payload) is bytes else bytes(payload)
        try:
            if MARK_BYTE in data:
                return self._unpack_marked(data)
            return self._unpack(data)
        except Exception as error:  # noqa: BLE001  # judged there
            return self._decode_again(data, error)

    def decode_large(self, payload: bytes | memoryview, buffers: Sequence[Any]) -> Any:
        """Return the value in ``payload`` with ``buffers`` beside it, views or errors.

        Raises `DecodeError`, also one of ``buffers`` that the value has a use for.
        """
        self._received = buffers
        try:
            return self.decode(payload)
        finally:
            self._received = ()

    def decode_batch(
        self, body: bytes | memoryview, count: int, buffers: Sequence[Any] = ()
    ) -> list[Any]:
        """Return the ``count`` values in a BATCH body; raises `DecodeError` as `decode_large`."""
        if buffers:
            self._received = buffers
            try:
                return self.decode_batch(body, count)
            finally:
                self._received = ()
        # Copying is faster than searching a memoryview, up to a point.
        data: Any = bytes(body) if len(body) < _COPY_BYTES else body
        try:
            if type(data) is memoryview or MARK_BYTE in data:
                values = self._unpack_marked(data)
            else:
                values = self._unpack(data)
        except Exception as error:  # noqa: BLE001  # judged there
            values = self._decode_again(data, error)
        if type(values) is not list or len(values) != count:
            raise DecodeError(f"batch: expected an array of {count} payloads, got another")
        if len(data) > LARGE_BYTES and not self._received and may_hold_large(bytes(data)):
            return self._taken_out(values)
        return values

    def _taken_out(self, values: list[Any]) -> list[Any]:
        """Return the same with large bytes where they arrive otherwise: as memoryviews."""
        codec = self.twin()
        try:
            return [codec.decode(codec.encode(value)) for value in values]
        except EncodeError as error:
            raise DecodeError(f"expected large parts beside the message ({error})") from None

    def decode_each(
        self, body: bytes | memoryview, count: int, buffers: Sequence[Any] = ()
    ) -> list[Any]:
        """Return the values of a BATCH body, with a `DecodeError` for each that can't be decoded.

        Many times slower than `decode_batch`, for what that has refused. Raises `DecodeError`
        if the body cannot be split: then nothing says where a message begins.
        """
        data = bytes(body)
        values: list[Any] = []
        for begin, end in split_batch(data, count):
            try:
                values.append(self.decode_large(data[begin:end], buffers))
            except DecodeError as error:
                values.append(error)
        return values

    def _add(self, codec: ClassCodec) -> None:
        self._classes[codec.name] = self._codecs[codec.cls] = codec
        self._writers[codec.cls] = codec.write

    def _writer(self, kind: type) -> Callable[[Any], list[Any]]:
        """Find how to write a type met for the first time."""
        codec = registered(kind)
        if codec is not None:
            self._add(codec)
            return self._writers[kind]
        beside = self._beside
        writer = (
            numpy_writer(kind, beside) or table_writer(kind, beside) or tensor_writer(kind, beside)
        )
        if writer is None:
            if is_array_type(kind) or issubclass(
                kind, (bytes, bytearray)
            ):  # it would lose its type
                raise EncodeError(describe_unsendable(kind))
            return self._write_buffer
        self._writers[kind] = writer
        self._leaves.add(kind)
        return writer

    def _write_buffer(self, value: Any) -> list[Any]:
        """Write what has no writer of its own, if it has the buffer protocol."""
        kind = type(value)
        try:
            memoryview(value)
        except TypeError:
            raise EncodeError(describe_unsendable(kind)) from None
        self._leaves.add(kind)
        self._writers[kind] = write = self._beside.write_view
        return write(value)

    def _pack_plainly(self) -> None:
        self.pack, self._looking = self._new_packer().pack, False

    @property
    def wary(self) -> bool:
        """Whether ``pack`` alone may not be trusted, so that each message needs ``encode``."""
        return self._looking or bool(ext_types_made)

    def encode(self, value: Any) -> bytes:
        """Return the bytes of ``value``; raises `EncodeError` with the path to the culprit."""
        try:
            data = self.pack(value)
        except LargePart:
            return self._encode_large(value)
        except Exception:  # noqa: BLE001  # raised again there, with the place
            return self._large.pack_carefully(value)
        if len(data) > LARGE_BYTES or ext_types_made:
            return self._checked(value, data)
        return data

    def expect_large(self) -> None:
        """Look for large parts in the messages to come, as after one was met."""
        self.pack, self._looking = self._large.pack, True

    def _encode_large(self, value: Any) -> bytes:
        self.expect_large()
        return self.encode(value)

    def _checked(self, value: Any, data: bytes) -> bytes:
        if len(data) > LARGE_BYTES and type(data) is bytes:
            if not self._looking and may_hold_large(data):
                return self._encode_large(value)
            if len(data) > KEPT_BUFFER and not self._looking:
                self._pack_plainly()
            require_sendable(data, "encoded")
        if not ext_types_made or not any(head in data for head in EXT_HEADS):
            return data
        return self._large.pack_carefully(value) if self._has_ext_type(value) else data

    def _has_ext_type(self, value: Any) -> bool:
        """Return whether a value has an ExtType in it; without recursion."""
        leaves = self._leaves
        waiting = [] if type(value) in leaves else [value]
        for value in waiting:
            kind = type(value)
            if kind is dict:
                parts: Iterable[Any] = [*value.keys(), *value.values()]
            elif kind is list:
                parts = value
            elif kind is msgpack.ExtType:
                return True
            else:
                parts = self._default(value)[1:]
            waiting += [part for part in parts if type(part) not in leaves]
        return False

    def _make_default(self) -> Callable[[Any], list[Any]]:
        writers, find = self._writers, self._writer

        def default(value: Any) -> list[Any]:
            kind = type(value)
            if kind is tuple:
                return [TUPLE, *value]
            return (writers.get(kind) or find(kind))(value)

        return default

    def _read_class(self, values: list[Any]) -> Any:
        name = values[1]
        codec = self._classes.get(name)
        if codec is None:
            codec = registered(name) if type(name) is str else None
            if codec is None:
                raise DecodeError(
                    f"expected an instance of a registered class, got {name!r:.200}; name the "
                    "class in a port's annotation or decorate it with @dflow.register_type"
                )
            self._add(codec)
        if codec.restore is not None:
            codec.restore(values)
        return codec.build(values)

    def _decode_again(self, data: Any, error: Exception) -> Any:
        """Decode what the first try refused for a long array; raise `DecodeError` if it can't."""
        try:
            if "max_array_len" not in str(error):
                raise error
            require_whole(data)
            return self._unpack_marked(data, max_array_len=len(data))
        except DecodeError:
            raise
        except Exception as why:  # noqa: BLE001  # unpacker and constructors raise many types
            raise DecodeError(
                f"expected a valid message, got malformed bytes ({type(why).__name__})"
            ) from None
