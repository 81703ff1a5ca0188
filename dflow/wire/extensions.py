"""Whether this process has ever made a `msgpack.ExtType`: only then can a message hold one.

The packer writes an ExtType by itself, wherever it is, and it has no meaning to the receiver
or, worse, dflow's own (`dflow.wire.values`). Nothing in the packer can be told to refuse it. To
look for it in the packed bytes of each message was rejected: 45 to 180 ns a message, because
seven bytes may begin one and most numbers contain one of them. That user code makes one at
all is rare, so its constructor is made to note that it was called; it does what it did, and
messages are only looked at from then on.
"""

from __future__ import annotations

from typing import Any

from msgpack import ExtType

__all__ = ["EXT_HEADS", "ext_types_made"]

EXT_HEADS = b"\xc7\xc8\xc9\xd4\xd5\xd6\xd7\xd8"
"""First bytes of what msgpack packs as ext."""

ext_types_made: list[bool] = []
"""Empty until this process makes its first ExtType that is not a mark of dflow's."""

_make = ExtType.__new__


def _noticed(cls: type[ExtType], code: int, data: bytes) -> Any:
    if not ext_types_made:
        ext_types_made.append(True)
    return _make(cls, code, data)


ExtType.__new__ = _noticed
