"""The two ends of a channel's credit window.

Counters are cumulative, so a report may be lost, repeated or overtaken. Increments (as in
HTTP/2) were rejected: one lost frame would shrink the window for ever.
"""

from __future__ import annotations

from dflow.errors import ProtocolError

__all__ = ["ReceiveWindow", "SendWindow"]

PROMPT_BYTES = 4 << 20
"""So many bytes are worth a report: the memory of large messages is then used again while it is
still in the processor's cache."""


class SendWindow:
    """What a channel's sender may still send: messages and payload bytes."""

    __slots__ = ("capacity", "done", "max_bytes", "sent", "sent_bytes", "taken", "taken_bytes")

    def __init__(self, capacity: int, max_bytes: int) -> None:
        self.capacity = capacity
        self.max_bytes = max_bytes
        self.sent = 0
        self.sent_bytes = 0
        self.taken = 0
        self.taken_bytes = 0
        self.done = 0

    @property
    def room(self) -> int:
        """Messages that may be sent now."""
        return self.capacity - (self.sent - self.taken)

    @property
    def room_bytes(self) -> int:
        """Payload bytes that may be sent now; negative after a message larger than the window."""
        return self.max_bytes - (self.sent_bytes - self.taken_bytes)

    @property
    def idle(self) -> bool:
        """Whether nothing is outstanding, so that a message of any size may pass."""
        return self.sent == self.taken

    def spend(self, messages: int, size_bytes: int) -> None:
        """Count a batch as sent."""
        self.sent += messages
        self.sent_bytes += size_bytes

    def report(self, taken: int, taken_bytes: int, done: int) -> bool:
        """Take in the receiver's counters; return whether credit came back.

        Raises `ProtocolError`, and changes nothing, if more was reported than was sent.
        """
        if taken > self.sent or taken_bytes > self.sent_bytes or done > taken:
            raise ProtocolError(
                f"credit report: expected taken <= {self.sent} messages / {self.sent_bytes} bytes "
                f"and done <= taken, got {taken} / {taken_bytes}, done {done}"
            )
        gained = taken > self.taken or taken_bytes > self.taken_bytes
        self.taken = max(self.taken, taken)
        self.taken_bytes = max(self.taken_bytes, taken_bytes)
        self.done = max(self.done, done)
        return gained


class ReceiveWindow:
    """What a channel's receiver has taken, and when the sender should hear of it.

    ``reports`` is `EdgePlan.reports`. With "prompt", the sender shares messages out among several,
    and sends each a few: it wants to know when half of them are gone. With "ready", what is
    reported as taken is what is done, in whatever order: a sender may then send as many as there
    are hands free. ``beyond`` are the
    numbers of messages done while an earlier one is not; they are reported with "ready" only.
    ``lent``: messages asked for although as many are here as there are hands free, because what is
    here may be out of date.
    """

    __slots__ = (
        "_at", "_at_bytes", "_prompt", "_ready", "beyond", "capacity", "done", "lent", "max_bytes",
        "received", "received_bytes", "reported", "reported_bytes", "reported_done", "taken",
        "taken_bytes",
    )  # fmt: skip

    def __init__(self, capacity: int, max_bytes: int, reports: str = "half") -> None:
        self.capacity = capacity
        self.max_bytes = max_bytes
        self._ready = reports == "ready"
        self._prompt = reports == "prompt"
        # a report is due when so many messages, or bytes, are owed
        self._at = (capacity + 1) // 2 if reports in ("half", "prompt") else 1
        self._at_bytes = min(PROMPT_BYTES, (max_bytes + 1) // 2)
        self.received = 0
        self.received_bytes = 0
        self.taken = 0
        self.taken_bytes = 0
        self.done = 0
        self.beyond: set[int] = set()
        self.lent = 0
        self.reported = 0
        self.reported_bytes = 0
        self.reported_done = 0

    def receive(self, sequence: int, messages: int, size_bytes: int) -> None:
        """Count an arriving batch; raises `ProtocolError` for a gap or an overrun."""
        if sequence != self.received:
            raise ProtocolError(f"batch: expected sequence {self.received}, got {sequence}")
        room = self.capacity + self.lent - (self.received - self.taken)
        if messages > room:
            raise ProtocolError(
                f"batch: expected at most {room} messages (capacity {self.capacity}), "
                f"got {messages}"
            )
        room_bytes = self.max_bytes - (self.received_bytes - self.taken_bytes)
        # what is reported as lent counts as taken at the sender
        alone = messages == 1 and self.received - self.taken <= self.lent
        if size_bytes > room_bytes and not alone:
            raise ProtocolError(
                f"batch: expected at most {max(room_bytes, 0)} bytes "
                f"(max_bytes {self.max_bytes}), got {size_bytes}"
            )
        self.received += messages
        self.received_bytes += size_bytes

    def advance(self, count: int) -> None:
        """Count the next ``count`` messages as done."""
        if not self.beyond:
            self.done += count
            return
        for _ in range(count):
            self.finish(self.done)

    def finish(self, sequence: int) -> None:
        """Count one message as done, though earlier ones may not be."""
        if sequence != self.done:
            self.beyond.add(sequence)
            return
        self.done += 1
        while self.done in self.beyond:
            self.beyond.remove(self.done)
            self.done += 1

    def due(self, *, idle: bool) -> bool:
        """Whether a report should be sent now; when ``idle``, whether anything is owed."""
        taken = self._credit
        if idle or self._at == 1:
            return taken != self.reported or self.done != self.reported_done
        if self._prompt and 2 * (taken - self.reported) >= self.received - self.reported > 0:
            return True
        return (
            taken - self.reported >= self._at
            or self.taken_bytes - self.reported_bytes >= self._at_bytes
        )

    @property
    def _credit(self) -> int:
        """What is reported as taken."""
        return self.done + len(self.beyond) + self.lent if self._ready else self.taken

    def report(self) -> tuple[int, int, int, tuple[int, ...]]:
        """Return (taken, taken_bytes, done, beyond) and remember that it was sent."""
        self.reported = self._credit
        self.reported_bytes = self.taken_bytes
        self.reported_done = self.done
        beyond = tuple(self.beyond) if self._ready else ()
        return self.reported, self.taken_bytes, self.done, beyond
