"""The sending half of a plain edge: which lane a message takes, and the batches that leave.

An unkeyed edge has one lane over all its channels; a keyed edge has one lane a channel, so
that every message of a key goes to the same replica. The hash of a key is the CRC-32 of its
encoded bytes: the same in every process and every run (Python's own ``hash`` is not).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from zlib import crc32

from dflow.errors import OptionError
from dflow.flow.allowance import SHARED_NS, Allowance
from dflow.flow.batch import Cut, Lane
from dflow.flow.credit import SendWindow
from dflow.flow.keyed_lane import KeyedLane
from dflow.flow.keys import DoneByKey
from dflow.stats import QueueStats
from dflow.wire.buffers import Parcel

__all__ = ["OutEdge", "key_bytes", "key_slot"]

_SCALARS = frozenset({str, int, float, bool, type(None)})
_UNORDERED = (set, frozenset, dict)
_CONTAINERS = (*_UNORDERED, tuple, list)


def key_slot(key: Any, slots: int, encode: Callable[[Any], bytes]) -> int:
    """Return which of ``slots`` replicas owns ``key``; equal in every process and run.

    Raises `OptionError` for a key whose encoding has no defined order (a set or dict, or a
    tuple or list with one in it).
    """
    return crc32(key_bytes(key, encode)) % slots


def key_bytes(key: Any, encode: Callable[[Any], bytes]) -> bytes:
    """Return what identifies ``key`` everywhere; raises `OptionError` as `key_slot` does."""
    if type(key) not in _SCALARS and isinstance(key, _CONTAINERS):
        _refuse_unordered(key)
    encoded = encode(key)
    if type(encoded) is Parcel:
        raise OptionError(
            f"key=: expected a small value, got {type(key).__name__} with {len(encoded):,} bytes"
        )
    return encoded


def _refuse_unordered(key: Any) -> None:
    if isinstance(key, _UNORDERED):
        raise OptionError(
            f"key=: expected a value with one encoding (text, number, tuple …), "
            f"got {type(key).__name__}; use e.g. a sorted tuple of it"
        )
    for part in key:
        if isinstance(part, _CONTAINERS):
            _refuse_unordered(part)


class OutEdge:
    """One edge at one sender replica, whose messages wait in lanes for credit.

    ``channels`` are the channel numbers, ``windows`` their credit, in replica order.
    ``news``: nothing to tell the receivers beside messages. ``decode`` makes a key of its bytes,
    for people; it is called by the thread that asks for `queue_stats`. ``least``: if not 0, a
    channel is sent what its receiver works off soon, and at least so many messages.
    """

    news = False

    __slots__ = (
        "_by_key", "_counts", "_decode", "_only", "_place", "channels", "closed", "ended", "id",
        "index", "key", "lanes", "windows",
    )  # fmt: skip

    def __init__(
        self,
        index: int,
        edge_id: str,
        channels: Sequence[int],
        capacity: int,
        max_bytes: int,
        key: Callable[[Any], Any] | None = None,
        decode: Callable[[bytes], Any] = bytes,
        least: int = 0,
    ) -> None:
        self.index = index
        self.id = edge_id
        self.channels = tuple(channels)
        self.key = key
        self.windows = tuple(SendWindow(capacity, max_bytes) for _ in channels)
        self._decode = decode
        self._by_key: tuple[KeyedLane, ...] = ()
        self._counts = DoneByKey()
        if key is None:
            allowances = [Allowance(capacity, least, SHARED_NS) for _ in channels] if least else ()
            self.lanes: tuple[Lane, ...] = (Lane(self.windows, allowances),)
        else:
            self.lanes = self._by_key = tuple(KeyedLane(window) for window in self.windows)
        self._only = (self.lanes[0], b"")
        self._place = {number: i for i, number in enumerate(self.channels)}
        self.ended = False
        self.closed = False  # the receiver takes no more (it ended before this sender)

    def route(self, value: Any, encode: Callable[[Any], bytes]) -> tuple[Lane, bytes]:
        """Return the lane ``value`` belongs to, and the bytes of its key, both for `Lane.push`.

        Raises what the key function does, and `OptionError` as `key_slot` does.
        """
        if self.key is None:
            return self._only
        found = self.key(value)
        # once a message: scalars do without the call
        key = encode(found) if type(found) in _SCALARS else key_bytes(found, encode)
        lanes = self.lanes
        return lanes[crc32(key) % len(lanes)], key

    @property
    def full(self) -> bool:
        """Whether the next message might find no credit."""
        for lane in self.lanes:  # noqa: SIM110  # once a turn: a generator costs 5 times as much
            if lane.full:
                return True
        return False

    @property
    def waiting(self) -> int:
        """Messages emitted but still without credit or not yet flushed."""
        if len(self.lanes) == 1:
            return self.lanes[0].waiting
        return sum([lane.waiting for lane in self.lanes])

    @property
    def offered(self) -> int:
        """Messages ever emitted onto this edge."""
        return sum(lane.offered for lane in self.lanes)

    @property
    def peak(self) -> int:
        """The most messages that were waiting or in flight at once."""
        return sum(lane.peak for lane in self.lanes)

    @property
    def emitted(self) -> int:
        """Messages emitted that this edge was to carry."""
        return self.offered

    def flush(self, now: int) -> list[Cut]:
        """Return everything that has credit; ``now`` is the monotonic clock.

        The caller must send what it gets, in order.
        """
        if self.key is None:
            channels = self.channels
            return [Cut(channels[i], first, batch) for i, batch, first in self.lanes[0].cut(now)]
        return [
            Cut(number, first, batch)
            for number, lane in zip(self.channels, self.lanes, strict=True)
            for _, batch, first in lane.cut(now)
        ]

    def on_credit(
        self, channel: int, taken: int, taken_bytes: int, done: int, beyond: Sequence[int] = ()
    ) -> None:
        """Take in a report; raises `ProtocolError` and changes nothing if it is impossible."""
        at = self._place[channel]
        credited = self.windows[at].report(taken, taken_bytes, done)
        if self.key is None:
            if credited:
                self.lanes[0].update()
            return
        lane = self._by_key[at]
        if credited:
            lane.update()
        self._counts.add(lane.finish(done), self._by_key)

    def end(self) -> list[tuple[int, int]]:
        """Return what END says, (channel number, messages sent), once everything was flushed.

        Once: later calls return nothing.
        """
        if self.ended or self.waiting:
            return []
        self.ended = True
        return [(n, window.sent) for n, window in zip(self.channels, self.windows, strict=True)]

    @property
    def settled(self) -> bool:
        """Whether the receivers have reported everything that was sent as done."""
        return not self.waiting and all(w.done == w.sent for w in self.windows)

    def queue_stats(self, now: int) -> QueueStats:
        """Return the age of what is under way for longest, and the busiest keys; from any thread.

        What a receiver that has ended did not take is not waited for, so it has no age.
        """
        times = [] if self.closed else [lane.oldest() for lane in self.lanes]
        oldest = min([now, *(time for time in times if time is not None)])
        keys = self._counts.busiest(self._by_key, self._decode) if self._by_key else ()
        return QueueStats((now - oldest) / 1e9, keys)
