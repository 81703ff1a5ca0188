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

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from dflow.broker.case import Case, cause_row, counters, seats
from dflow.broker.events import Hand, Instruction, Keep, Probe, Send
from dflow.broker.lifecycle import Phase, Step
from dflow.broker.outcome import Cause
from dflow.broker.participants import Participant, Participants
from dflow.broker.requests import Requests
from dflow.broker.turns import TurnScheduler
from dflow.graph.plan import Plan, WorkerId
from dflow.options import RunOptions
from dflow.report import RunReport
from dflow.stats import WorkerStats
from dflow.story import Story
from dflow.wire import control as c

__all__ = ["ANSWER_S", "About", "Gathering"]

ANSWER_S = 1.0
"""How long anybody may take to answer: the pulse has nothing better to do."""

KEEP_S = 10.0
"""What looking at silent processes and writing the bundle may take before the run ends without."""

MOST_TEXT = 4 * 1024 * 1024
"""Characters of one answer that are kept."""

MOST_ASKERS = 64
"""Requests that wait for the same answers; more are not answered."""

_AWAY = frozenset({Step.ABSENT, Step.LEAVING, Step.GONE})


@dataclass(frozen=True, slots=True)
class About:
    """What never changes in a run; ``began_s`` and ``wall_s`` are the same moment on two clocks."""

    plan: Plan
    run_id: str
    epoch: int
    options: RunOptions
    began_s: float
    wall_s: float
    managed: bool

    @property
    def clock_s(self) -> float:
        """What to add to a time of the coordinator's for Unix time."""
        return self.wall_s - self.began_s


@dataclass(frozen=True, slots=True)
class Moment:
    """How things stood when everybody was asked: the end of a failed run soon blurs that."""

    phase: Phase
    cause: Cause | None
    turns: Mapping[str, Any]
    steps: Mapping[WorkerId, str]


class Gathering:
    """One run's bundles. ``kept``: where that of the failed run is; ``why_not``: why there is none.

    The counters of a case are those each sent with its answer.
    """

    def __init__(
        self,
        about: About,
        roll: Participants,
        requests: Requests,
        turns: TurnScheduler,
        story: Story,
    ) -> None:
        self.kept = ""
        self.why_not = ""
        self._about = about
        self._roll = roll
        self._requests = requests
        self._turns = turns
        self._story = story
        self._number = 0
        self._moment: Moment | None = None
        self._words: dict[str, str] = {}
        self._stats: dict[WorkerId, WorkerStats] = {}
        self._awaited: list[Participant] = []
        self._askers: list[tuple[bytes, int]] = []
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

    def ask(
        self, now: float, phase: Phase, cause: Cause | None, asker: tuple[Any, ...] = ()
    ) -> list[Instruction]:
        """Ask everybody; for the run itself, or for the peer (key, number of the request)."""
        if asker:
            if len(self._askers) < MOST_ASKERS:
                self._askers.append((asker[0], asker[1]))
        elif self.begun:
            return []
        else:
            self._wanted = True
        if self._until is not None:  # they have just been asked
            return []
        self._number += 1
        self._words, self._stats = {}, {}
        steps = {p.worker: p.step.value for p in self._roll}
        self._moment = Moment(phase, cause, self._turns.snapshot(now), steps)
        self._awaited = [p for p in self._roll if p.key is not None and p.step not in _AWAY]
        self._until = now + ANSWER_S
        word = c.Dump(self._number)
        return [Send(p.key, word) for p in self._awaited if p.key is not None]

    def heard(self, p: Participant, dumped: c.Dumped) -> None:
        """Take in an answer; one that is too late is ignored."""
        if dumped.request == self._number and self._until is not None:
            self._words[str(p.worker)] = dumped.text[:MOST_TEXT]
            self._stats[p.worker] = p.stats
            self._awaited = [other for other in self._awaited if other is not p]

    def next_timer(self) -> float | None:
        """Return when somebody has been waited for long enough, or None."""
        give_up = None if self.settled else self._give_up
        return min((t for t in (self._until, give_up) if t is not None), default=None)

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
        case = self._make(now)
        if self._wanted and self._case is None:
            self._case = case
        todo: list[Instruction] = [Probe(case.silent)] if case.silent else []
        todo += [Hand(case, key, number) for key, number in self._askers]
        self._askers.clear()
        return todo

    def _make(self, now: float) -> Case:
        about, at = self._about, self._moment
        assert at is not None  # somebody has asked
        clock_s = about.clock_s
        counted = self._roll.stats() | self._stats
        status = self._requests.standing(
            about.run_id, at.phase, now - about.began_s, now, counted, at.steps
        )
        silent = tuple((p.worker, p.pid) for p in self._awaited if about.managed)
        return Case(
            about.plan, about.run_id, about.epoch, at.phase.value, now + clock_s, about.wall_s,
            clock_s, asdict(about.options), status, counters(counted),
            seats(self._roll, now, self._words), at.turns, self._story.rows(), dict(self._words),
            silent, cause_row(at.cause),
        )  # fmt: skip

    def keep(self, now: float, report: RunReport) -> list[Instruction]:
        """Have the bundle of the failed run written, once all have answered; see `settled`.

        With how it went on: exits, and the ``report``.
        """
        case = self._case
        if case is None or self._give_up is not None:
            return []
        self._give_up = now + KEEP_S
        after = seats(self._roll, now, case.words)
        return [Keep(replace(case, seats=after, story=self._story.rows(), report=report))]

    def was_kept(self, path: str, why_not: str) -> None:
        """Hear what became of the bundle; ignored if none was to be written."""
        if self._give_up is None:
            return
        self.kept, self.why_not = path, why_not or ("" if path else "nobody writes bundles here")
