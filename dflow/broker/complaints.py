"""What is ignored because a peer should not have said it: counted, and said once a peer.

Anybody who reaches the coordinator can send it nonsense without end; that must fill neither the
log nor the memory.
"""

from __future__ import annotations

from collections import Counter

from dflow.broker.events import Instruction, Say

__all__ = ["Complaints"]

_MOST = 1000
"""Peers complained of: as many as one can read about."""


class Complaints:
    """``counts``: how often something was ignored, by kind."""

    __slots__ = ("_told", "counts")

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._told: set[bytes] = set()

    def about(self, key: bytes, kind: str, text: str) -> list[Instruction]:
        """Count what the peer ``key`` said; return what to say about it."""
        self.counts[kind] += 1
        if key in self._told or len(self._told) >= _MOST:
            return []
        self._told.add(key)
        return [Say("WARNING", f"ignored ({kind}): {text}")]
