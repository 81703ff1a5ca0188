"""Asking everybody what they know of themselves: for a run that failed, or because someone looks.

A participant answers from its pulse thread, whatever its user code does, and what it is told on one
connection arrives in order. So `Dump` goes out just before `Abort`, and the answer is here
before the participant has ended: a run that fails in an orderly way waits for nothing. Who is
silent is waited for `ANSWER_S` and then looked at from outside (`Probe`), as long as it lives.

Rejected: files that each process writes for itself (workers on other hosts; one that hangs writes
none), and dumps at a steady pace for the case of a crash (they cost while nothing is wrong; the
last counters and log lines of a worker that was killed are here anyway).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dflow.broker.case import Case
from dflow.broker.events import Hand, Instruction, Keep, Probe, Send
from dflow.broker.lifecycle import Step
from dflow.broker.participants import Participant, Participants
from dflow.wire import control as c

__all__ = ["ANSWER_S", "Asker", "Gathering"]

ANSWER_S = 1.0
"""How long anybody may take to answer: the pulse has nothing better to do."""

KEEP_S = 10.0
"""What looking at silent processes and writing the bundle may take before the run ends without."""

MOST_TEXT = 4 * 1024 * 1024
"""Characters of one answer that are kept."""

_AWAY = frozenset({Step.ABSENT, Step.LEAVING, Step.GONE})

Asker = tuple[bytes, int]
"""Routing id and number of a request."""


class Gathering:
    """One run's bundles; ``make`` returns the case as it is now, of what was said.

    ``kept``: where the bundle of the failed run is; ``why_not``: why there is none.
    """

    def __init__(self, roll: Participants, make: Callable[[Mapping[str, str]], Case]) -> None:
        self.kept = ""
        self.why_not = ""
        self._roll = roll
        self._make = make
        self._number = 0
        self._words: dict[str, str] = {}
        self._awaited: list[Participant] = []
        self._askers: list[Asker] = []
        self._until: float | None = None
        self._wanted = False  # for the run itself
        self._case: Case | None = None
        self._give_up: float | None = None

    @property
    def begun(self) -> bool:
        """Whether a bundle of the failed run is wanted, or made."""
        return self._wanted or self.settled

    @property
    def settled(self) -> bool:
        """Whether the bundle of the failed run is written, or will never be."""
        return bool(self.kept or self.why_not)

    def ask(self, now: float, asker: Asker | None = None) -> list[Instruction]:
        """Ask everybody; for the run itself, or for a peer that will be handed the bundle."""
        if asker is None:
            if self.begun:
                return []
            self._wanted = True
        else:
            self._askers.append(asker)
        if self._until is not None:  # they have just been asked
            return []
        self._number += 1
        self._words = {}
        self._awaited = [p for p in self._roll if p.key is not None and p.step not in _AWAY]
        self._until = now + ANSWER_S
        word = c.Dump(self._number)
        return [Send(p.key, word) for p in self._awaited if p.key is not None]

    def heard(self, p: Participant, dumped: c.Dumped) -> None:
        """Take in an answer; one that is too late is ignored."""
        if dumped.request == self._number and self._until is not None:
            self._words[str(p.worker)] = dumped.text[:MOST_TEXT]
            self._awaited = [other for other in self._awaited if other is not p]

    def next_timer(self) -> float | None:
        """Return when somebody has been waited for long enough, or None."""
        return min((t for t in (self._until, self._give_up) if t is not None), default=None)

    def check(self, now: float) -> list[Instruction]:
        """Return what follows once all have answered, or nobody else will."""
        if self._give_up is not None and now >= self._give_up and not self.settled:
            self.why_not = f"not written within {KEEP_S:g} s"
        if self._until is None:
            return []
        self._awaited = [p for p in self._awaited if p.step is not Step.GONE]
        if self._awaited and now < self._until:
            return []
        self._until = None
        case = self._make(self._words)
        if self._wanted and self._case is None:
            self._case = case
        todo: list[Instruction] = [Probe(case.silent)] if case.silent else []
        todo += [Hand(case, key, number) for key, number in self._askers]
        self._askers.clear()
        return todo

    def silent(self) -> tuple[Participant, ...]:
        """Return those that have not answered the last question."""
        return tuple(self._awaited)

    def keep(self, now: float, finish: Callable[[Case], Case]) -> list[Instruction]:
        """Have the bundle of the failed run written, once all have answered; see `settled`."""
        if self._case is None or self._give_up is not None:
            return []
        self._give_up = now + KEEP_S
        return [Keep(finish(self._case))]

    def was_kept(self, path: str, why_not: str) -> None:
        """Hear what became of the bundle."""
        self.kept, self.why_not = path, why_not or ("" if path else "nobody writes bundles here")
