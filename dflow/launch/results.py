"""What arrives for the launching process, taken off its channels a piece at a time.

A piece is the part of a batch that may be read now: all of it, unless the node that sent it is
ordered and its replicas take turns. It is decoded by whoever reads it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from dflow.flow.in_edge import Batch, InChannel
from dflow.wire.codec import Codec
from dflow.wire.restoring import Restore, restored

__all__ = ["Piece", "next_piece"]


@dataclass(frozen=True, slots=True)
class Piece:
    """Messages ``begin`` to ``end`` of a batch."""

    batch: Batch
    begin: int
    end: int

    def values(self, codec: Codec, restore: Restore | None = None) -> list[Any]:
        """Return the messages, bytes as ``restore`` makes them; raises `DecodeError`."""
        batch = self.batch
        if batch.values is None:
            values = codec.decode_batch(batch.body, batch.count, batch.buffers)
            batch.values, batch.body, batch.buffers = restored(restore, values), None, ()
        return batch.values[self.begin : self.end]


def next_piece(channels: Iterable[InChannel], wall_ns: int) -> Piece | None:
    """Return what may be read next, counted as delivered and done; None if nothing may.

    ``wall_ns``: the time now.
    """
    for channel in channels:
        while channel.deliverable:
            batch = channel.inbox[0]
            unwanted, count = channel.pick(batch.count, wall_ns)
            if unwanted is not None:
                channel.pass_over(unwanted, count)
                continue
            begin = batch.position
            channel.take(count)
            channel.finish(count)
            return Piece(batch, begin, begin + count)
    return None
