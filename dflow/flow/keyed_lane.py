"""A lane that remembers whose its messages are, so that keys can be counted when somebody asks.

Nothing is counted for each message: its key's bytes are appended, and cut off again when the
receiver reports it done. As for the payloads, appending needs no lock, and all else is done under
the lock of the data plane. Somebody who reads without it while messages move may see a few of them
twice or not at all; at rest what is read is exact.
"""

from __future__ import annotations

from dflow.flow.batch import Lane
from dflow.flow.credit import SendWindow

__all__ = ["KeyedLane"]


class KeyedLane(Lane):
    """Messages with a key, waiting for the credit of one channel.

    Patient: a node may go on while the next message may be for another channel.

    Invariant: ``_keys[_at:]`` are the keys of the messages of the channel from number ``_done`` on,
    in order.
    """

    patient = True

    __slots__ = ("_at", "_done", "_keys")

    def __init__(self, window: SendWindow) -> None:
        super().__init__((window,))
        self._keys: list[bytes] = []
        self._at = 0
        self._done = 0

    def push(self, payload: bytes, key: bytes = b"") -> bool:
        """Queue one encoded message; return whether the lane wants attention."""
        try:
            self._keys.append(key)
        finally:  # an interrupt must not come between: each later message would get another's key
            self.pending.append(payload)
        self.queued_bytes += len(payload)
        return len(self.pending) >= self.mark or self.queued_bytes >= self.byte_mark

    def finish(self, done: int) -> list[bytes]:
        """Return the keys of the messages up to number ``done`` that were not returned before."""
        begin = self._at
        end = begin + max(0, done - self._done)
        keys = self._keys[begin:end]
        if 2 * end >= len(self._keys):  # amortised: long backlogs are not moved each time
            del self._keys[:end]
            self._at = 0
        else:
            self._at = end
        self._done += len(keys)
        return keys

    @property
    def undone(self) -> int:
        """Messages pushed and not done."""
        return len(self._keys) - self._at

    def under_way(self) -> tuple[list[bytes], list[bytes]]:
        """Return the keys of what waits and of what is in flight; from any thread."""
        in_flight = max(0, self.flushed - self._done)
        keys = self._keys[self._at :]
        return keys[in_flight:], keys[:in_flight]
