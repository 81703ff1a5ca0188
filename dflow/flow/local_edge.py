"""An edge between two nodes of one worker: values are handed over as they are.

Nothing is encoded and nothing is sent; credit is what room the receiver has at this moment. For
the rest it is an edge like any other: bounded by its capacity, counted at both ends, ended once.
Bytes are not counted: a value that is handed over by reference has no size of its own.

Such an edge with a policy, a time to live or ids is a `dflow.flow.queue_edge.QueueEdge` whose
payloads are `Ref` objects.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import GeneratorType
from typing import Any

from dflow.errors import EncodeError
from dflow.flow.batch import MAX_BATCH, Cut
from dflow.flow.credit import ReceiveWindow, SendWindow
from dflow.flow.out_edge import key_bytes
from dflow.graph.plan import EdgePlan

__all__ = ["LocalEdge", "Ref", "refuse_generator"]


def refuse_generator(value: Any) -> None:
    """Raise `EncodeError`, as an edge that encodes does, for a generator: its values are meant."""
    if type(value) is GeneratorType:
        raise EncodeError("expected a value, got a generator; emit what it yields")


class Ref:
    """A value in the place of a payload."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __len__(self) -> int:
        return 0


class LocalEdge:
    """The sending half of a plain edge inside a worker; ``window`` is that of its receiver.

    ``pushed``: something was emitted by a call of ``emit`` since that was last set to False.

    Two threads meet here as they do at a lane (`dflow.flow.batch`): `push` needs no lock.
    """

    news = False

    __slots__ = (
        "_window", "channels", "closed", "ended", "id", "index", "key", "mark", "peak", "pending",
        "pushed",
    )  # fmt: skip

    def __init__(
        self,
        plan: EdgePlan,
        channel: int,
        window: ReceiveWindow,
        key: Callable[[Any], Any] | None = None,
    ) -> None:
        self.index = plan.index
        self.id = plan.id
        self.key = key
        self.channels = (channel,)
        self._window = window
        self.pending: list[Any] = []
        self.mark = min(MAX_BATCH, window.capacity)
        self.peak = 0
        self.pushed = False
        self.ended = False
        self.closed = False

    def check(self, value: Any, encode: Callable[[Any], bytes]) -> None:
        """Raise what the key function raises for ``value``; there is one receiver whatever it is.

        Raises `OptionError` for a key that could not be told apart from others.
        """
        if self.key is not None:
            key_bytes(self.key(value), encode)

    def push(self, value: Any) -> bool:
        """Let ``value`` wait; return whether the edge should be flushed now."""
        self.pending.append(value)
        self.pushed = True
        return len(self.pending) >= self.mark

    def passed_on(self, count: int) -> None:
        """Count messages that the receiver was called with: taken, but not done yet."""
        self._window.received += count
        self._window.taken += count
        self.peak = max(self.peak, 1)

    @property
    def room(self) -> int:
        """How many more messages the receiver has room for."""
        window = self._window
        return window.capacity - (window.received - window.taken)

    @property
    def full(self) -> bool:
        """Whether the next message might find no room."""
        return self.room <= len(self.pending)

    @property
    def waiting(self) -> int:
        """Messages emitted but not handed over."""
        return len(self.pending)

    @property
    def offered(self) -> int:
        """Messages ever emitted onto this edge."""
        return self._window.received + len(self.pending)

    @property
    def emitted(self) -> int:
        """Messages emitted that this edge was to carry."""
        return self.offered

    @property
    def windows(self) -> tuple[SendWindow, ...]:
        """The receiver's counters, as a sender would know them."""
        at = self._window
        known = SendWindow(at.capacity, at.max_bytes)
        known.sent, known.taken, known.done = at.received, at.taken, at.done
        return (known,)

    def flush(self, now: int) -> list[Cut]:
        """Return all there is room for, once; ``now`` does not matter here."""
        waiting, room = len(self.pending), self.room
        self.peak = max(self.peak, waiting + self._window.capacity - room)
        count = min(waiting, room)
        left = room - count
        # without room there is nothing to gain before some returns: ask again after a full batch
        self.mark = min(MAX_BATCH, left) if left > 0 else waiting - count + MAX_BATCH
        if count <= 0:
            return []
        values = self.pending[:count]
        del self.pending[:count]
        return [Cut(self.channels[0], self._window.received, values)]

    def on_credit(
        self, channel: int, taken: int, taken_bytes: int, done: int, beyond: Sequence[int] = ()
    ) -> None:
        """Nothing to learn: the receiver's counters are at hand."""

    def end(self) -> list[tuple[int, int]]:
        """Return what END says, (channel number, messages sent), once everything was flushed."""
        if self.ended or self.pending:
            return []
        self.ended = True
        return [(self.channels[0], self._window.received)]

    @property
    def settled(self) -> bool:
        """Whether everything emitted is done."""
        return not self.pending and self._window.done == self._window.received
