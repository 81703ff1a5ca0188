"""The account of every message by origin and number: what is lost, repeated or out of place.

A count alone would not do: one message lost and another delivered twice add up to the right
number. A set of all numbers would grow for as long as a test runs. So a ledger keeps the first
number that is missing and the few that came before it was their turn.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Ledger", "Verdict"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a `Ledger` says: numbers by origin, each counted once, and what was wrong.

    ``missing`` were passed over, ``repeated`` came again, ``misplaced`` came after a later one
    by the same way. Nothing was lost or repeated exactly if ``counts`` is what was sent and the
    others are 0.
    """

    counts: dict[str, int]
    misplaced: int = 0
    repeated: int = 0
    missing: int = 0


class Ledger:
    """Takes numbers 0, 1, 2 … of any origins, in any order; memory for the gaps only."""

    def __init__(self) -> None:
        self.misplaced = 0
        self.repeated = 0
        self._due: dict[str, int] = {}
        self._ahead: dict[str, set[int]] = {}
        self._last: dict[tuple[str, object], int] = {}

    def add(self, origin: str, number: int, way: object = None) -> None:
        """Enter ``number`` of ``origin``, which came by ``way``: one that promises order."""
        last = self._last.get((origin, way), -1)
        if number < last:
            self.misplaced += 1
        else:
            self._last[origin, way] = number
        due = self._due.get(origin, 0)
        ahead = self._ahead.setdefault(origin, set())
        if number < due or number in ahead:
            self.repeated += 1
            return
        if number > due:
            ahead.add(number)
            return
        due += 1
        while due in ahead:
            ahead.remove(due)
            due += 1
        self._due[origin] = due

    def verdict(self) -> Verdict:
        """Return what is known so far."""
        counts, missing = {}, 0
        for origin, ahead in self._ahead.items():
            due = self._due.get(origin, 0)
            counts[origin] = due + len(ahead)
            missing += max(ahead) + 1 - due - len(ahead) if ahead else 0
        return Verdict(counts, self.misplaced, self.repeated, missing)
