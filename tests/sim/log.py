"""What the nodes of a simulated graph saw and did, kept by themselves beside the machinery.

A simulation runs in one process, so one log serves all its nodes: it owes nothing to the counters
and traces that it is compared with.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

__all__ = ["LOGS", "Entry", "Hook", "Log", "Message", "logging_into", "the_log"]


class Message(NamedTuple):
    """What travels: ``ids`` says which it is, of one or of several that were merged.

    ``number`` counts what ``replica`` of its sender put onto an output. ``order``: where it stands
    among the results of an ordered node; empty outside any order.
    """

    ids: tuple[int, ...]
    replica: int
    number: int
    order: tuple[int, ...]
    pad: bytes

    @property
    def key(self) -> int:
        """What its key is made of."""
        return self.ids[0]


class Entry(NamedTuple):
    """One message, as ``replica`` of a node got it by ``edge`` on ``port``."""

    edge: str
    port: str
    replica: int
    message: Message


class Hook(NamedTuple):
    """A hook of a replica, as it began or ended (``when``); ``at`` counts all that is noted."""

    node: str
    replica: int
    hook: str
    when: str
    at: int


@dataclass
class Log:
    """All of one simulation. ``raised``: errors by node, of handlers and ticks."""

    emitted: defaultdict[str, list[Message]] = field(default_factory=lambda: defaultdict(list))
    handled: defaultdict[str, list[Entry]] = field(default_factory=lambda: defaultdict(list))
    first_at: dict[tuple[str, int], int] = field(default_factory=dict)
    last_at: dict[tuple[str, int], int] = field(default_factory=dict)
    hooks: list[Hook] = field(default_factory=list)
    raised: Counter[str] = field(default_factory=Counter)
    extra: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    broken: list[str] = field(default_factory=list)
    sent: defaultdict[str, list[Message]] = field(default_factory=lambda: defaultdict(list))
    counted: int = 0
    _underway: defaultdict[str, Counter[Any]] = field(default_factory=lambda: defaultdict(Counter))

    def tick(self) -> int:
        """Return the next number of what is noted."""
        self.counted += 1
        return self.counted

    def hook(self, node: str, replica: int, hook: str, when: str) -> None:
        """Note that a hook begins or ends."""
        self.hooks.append(Hook(node, replica, hook, when, self.tick()))

    def begin(
        self, node: str, replica: int, entry: Entry, *, most: int, keys: int, limit: int
    ) -> None:
        """Note a message that a handler has got, and that there are not too many of them."""
        at = self.tick()
        self.first_at.setdefault((node, replica), at)
        self.last_at[node, replica] = at
        self.handled[node].append(entry)
        if entry.port != "into":
            return
        underway = self._underway[node]
        underway[replica] += 1
        if underway[replica] > most:
            self.broken.append(
                f"{node}[{replica}]: expected at most {most} messages under way at once,"
                f" got {underway[replica]}"
            )
        if limit:
            key = ("key", entry.message.key % keys)
            underway[key] += 1
            if underway[key] > limit:
                self.broken.append(
                    f"{node}: expected at most {limit} messages of key {key[1]} under way at once,"
                    f" got {underway[key]}"
                )

    def end(self, node: str, replica: int, entry: Entry, *, keys: int, limit: int) -> None:
        """Note that a handler is done with a message."""
        self.last_at[node, replica] = self.tick()
        if entry.port == "into":
            self._underway[node][replica] -= 1
            if limit:
                self._underway[node]["key", entry.message.key % keys] -= 1


LOGS: list[Log] = []
"""The log of the simulation under way, last."""


def the_log() -> Log:
    """Return where nodes write to; one that nobody reads outside a trial."""
    return LOGS[-1] if LOGS else Log()


@contextmanager
def logging_into(log: Log) -> Iterator[Log]:
    """Let the nodes of this process write into ``log``."""
    LOGS.append(log)
    try:
        yield log
    finally:
        LOGS.pop()
