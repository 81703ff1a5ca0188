"""Who may compute when there are more workers that want to than cores.

A *burner* is a worker that keeps a core busy, or would if it got one. While the burners fit the
``slots``, everybody has a *standing* turn and nothing is sent. When they do not, burners take
timed turns, at most one a slot, in the order of their bands (`dflow.flow.bands`); everybody
else, such as the nodes of a path that handles a message now and then, keeps the standing turn.

The states of a worker::

    STANDING   computes as it likes
    WAITING    stands in the queue; computes nothing
    HOLDING    has a slot until its turn is over
    RESTING    has given its turn back for want of something to do, and will say when it has
    OVERDUE    has not given its turn back, and its slot was taken from it

A worker says `TurnOver` when its turn is over, when it has nothing to do (wanting 0), and when it
has again (wanting 1). Its last word decides, so words that cross do no harm. It cannot stop in
the middle of a handler, so a turn may last longer; one that lasts much longer without using
the core, or for `OVERDUE_S`, no longer counts. So no slot is lost to a worker that is blocked, and
none to one that has ended or died (`ended`).

When there are turns at all: always, if somebody asked for slots. Otherwise the kernel shares the
cores, and does it better: workers of a lower band have a higher niceness (`niceness_of`), so
that a path of light HIGH nodes does not wait for burners. Only burners of different bands would
be shared badly, since the nicer get next to nothing; they take turns, for their weights.

What is measured: a standing worker wants a core as long as it computes or waits for one
(`Use`), since eight on two cores get a quarter each and all want a whole. One in turns wants one
while it waits for a turn, and while it holds one as far as it uses it. Above `BURNS` of the
interval makes a burner, below `RESTS` unmakes it. A light worker that the burners keep waiting
looks as if it wanted a core; it is told by how little it uses when it gets one (`FAIR`), unless a
burner of a higher band takes what there is.

Rejected: taking a turn away before it is over when a higher band wants one (what is in a hurry is
light, and has a standing turn); slots reserved for a band (they are idle when it is).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from dflow.flow.bands import BandQueue
from dflow.graph.plan import Plan, WorkerId
from dflow.message import Priority
from dflow.options import RunOptions

__all__ = ["OVERDUE_S", "QUANTUM_S", "TurnScheduler", "TurnState", "Use", "niceness_of", "turns_of"]

QUANTUM_S = 0.02
"""Length of a turn: long beside the two messages that change hands, short beside a person."""

OVERDUE_S = 1.0
"""How long a turn may last beyond its end before its slot goes to another."""

BURNS, RESTS = 0.5, 0.25
"""Parts of a core over one interval: from when on, and until when, a worker is a burner."""

FAIR = 0.25
"""A burner uses at least this part of what it would get if all that want a core shared evenly."""

SHORTEST_S = 0.1
"""Shorter intervals are added to the next: what they measured would be chance."""

AT_ONCE = 100
"""Up to so many workers, who takes turns is decided anew whenever one of them has reported."""

DECIDE_EACH_S = 50e-6
"""With more, no sooner than so long for each after the last time: about 2 % of a core."""

NICENESS: Mapping[int, int] = {Priority.HIGH: 0, Priority.NORMAL: 10, Priority.LOW: 19}
"""By band, where there is a better one. To the kernel they weigh 1024, 110 and 15."""

STANDING_TURN, NO_TURN = 0.0, -1.0
"""What `Turn` carries besides a length."""


class TurnState(Enum):
    """See the module."""

    STANDING = "standing"
    WAITING = "waiting"
    HOLDING = "holding"
    RESTING = "resting"
    OVERDUE = "overdue"


@dataclass(frozen=True, slots=True)
class Use:
    """What a worker has used since it started, in nanoseconds.

    ``cpu_ns``: computing; ``delayed_ns``: ready to compute and without a core.
    """

    cpu_ns: int
    delayed_ns: int = 0


@dataclass(slots=True)
class _Worker:
    band: int
    state: TurnState = TurnState.STANDING
    since_s: float = 0.0
    until_s: float = 0.0
    burns: bool = False
    wanted: float = 0.0  # parts of a core, over the last interval
    used: float = 0.0
    last: Use | None = None
    measured_s: float = 0.0
    waited_s: float = 0.0
    held_s: float = 0.0

    def enter(self, state: TurnState, now: float) -> None:
        """Change state, and count the time spent in the one before."""
        spent_s = now - self.since_s
        if self.state is TurnState.WAITING:
            self.waited_s += spent_s
        elif self.state is TurnState.HOLDING:
            self.held_s += spent_s
        self.state, self.since_s = state, now

    def measure(self, use: Use, now: float) -> bool:
        """Set ``wanted`` and ``used``; return False if it is too soon to say."""
        if self.last is None:
            self.last, self.measured_s = use, now
            return False
        interval_s = now - self.measured_s
        if interval_s < SHORTEST_S:
            return False
        self.enter(self.state, now)
        cpu_s = (use.cpu_ns - self.last.cpu_ns) / 1e9
        busy_s = cpu_s + (use.delayed_ns - self.last.delayed_ns) / 1e9
        if self.state not in (TurnState.STANDING, TurnState.OVERDUE):
            waited_s = self.waited_s if busy_s >= RESTS * self.held_s else 0.0
            busy_s = waited_s + min(busy_s, self.held_s)
        self.wanted, self.used = busy_s / interval_s, cpu_s / interval_s
        self.last, self.measured_s = use, now
        self.waited_s = self.held_s = 0.0
        return True

    @property
    def wants(self) -> bool:
        """Whether it wants a core, with a margin for what it was taken for until now."""
        return self.wanted >= RESTS if self.burns else self.wanted > BURNS


class TurnScheduler:
    """The turns of one run. ``bands``: every worker's band. ``slots`` 0: no turns at all.

    ``always``: otherwise there are turns only while burners of different bands compete.

    `take` returns what to send, [(worker, seconds of `Turn`)], and must be called after every
    event and at `next_timer`.
    """

    def __init__(
        self,
        bands: Mapping[WorkerId, int],
        slots: int,
        *,
        always: bool = False,
        quantum_s: float = QUANTUM_S,
    ) -> None:
        self.slots = slots
        self.quantum_s = quantum_s
        self._always = always
        self._all = {worker: _Worker(band) for worker, band in bands.items()}
        self._queue: BandQueue[WorkerId] = BandQueue()
        self._holders: set[WorkerId] = set()
        self._orders: dict[WorkerId, float] = {}
        self._released = not slots
        self._undecided = False
        self._decide_at = 0.0

    def state_of(self, worker: WorkerId) -> TurnState:
        """Return how ``worker`` stands; STANDING if it is not known any more."""
        known = self._all.get(worker)
        return TurnState.STANDING if known is None else known.state

    def snapshot(self, now: float) -> dict[str, Any]:
        """Return who may compute and who waits, as plain data; the queue in order of waiting."""
        rows = {
            str(worker): {
                "state": w.state.value,
                "for_s": round(now - w.since_s, 6),
                "band": Priority(w.band).name,
                "wants": round(w.wanted, 3),
                "uses": round(w.used, 3),
            }
            for worker, w in self._all.items()
        }
        waiting = [worker for worker in self._all if worker in self._queue]
        waiting.sort(key=lambda worker: (self._all[worker].band, self._all[worker].since_s))
        return {
            "slots": self.slots,
            "in_turns": not self._released and bool(self._holders or self._queue),
            "holders": sorted(str(worker) for worker in self._holders),
            "queue": [str(worker) for worker in waiting],
            "workers": rows,
        }

    # --- events -------------------------------------------------------------------------

    def measured(self, worker: WorkerId, use: Use, now: float) -> None:
        """Take in what ``worker`` has used so far."""
        w = self._all.get(worker)
        if w is None or self._released:
            return
        mattered = w.wants or w.burns
        if not w.measure(use, now) or not (mattered or w.wants):
            return
        if w.state is TurnState.HOLDING and now > w.until_s + self.quantum_s and w.wanted < BURNS:
            self._enter(worker, TurnState.OVERDUE, now)  # it is blocked in a handler
        self._undecided = True

    def over(self, worker: WorkerId, wanting: bool, now: float) -> None:
        """``worker`` has no turn (any more); ``wanting``: it wants one."""
        w = self._all.get(worker)
        if w is None or w.state is TurnState.STANDING:
            return  # it has not read yet that it may compute as it likes
        self._enter(worker, TurnState.WAITING if wanting else TurnState.RESTING, now)

    def ended(self, worker: WorkerId) -> None:
        """``worker`` has drained, ended or died: it keeps no slot."""
        if self._all.pop(worker, None) is not None:
            self._queue.remove(worker)
            self._holders.discard(worker)
            self._orders.pop(worker, None)

    def release(self, now: float) -> None:
        """The run drains or ends: everybody computes as it likes from now on."""
        for worker in self._all:
            self._enter(worker, TurnState.STANDING, now)
        self._released, self._undecided = True, False

    # --- what follows -------------------------------------------------------------------

    def take(self, now: float) -> list[tuple[WorkerId, float]]:
        """Return the turns to tell, after handing out what slots are free."""
        if self._undecided and now >= self._decide_at:
            self._decide(now)
            self._undecided, self._decide_at = False, now + _decide_after_s(len(self._all))
        if not self._holders and not self._queue and not self._orders:
            return []
        for worker in [w for w in self._holders if now >= self._all[w].until_s + OVERDUE_S]:
            self._enter(worker, TurnState.OVERDUE, now)
        while len(self._holders) < self.slots:
            first = self._queue.pop()
            if first is None:
                break
            self._enter(first, TurnState.HOLDING, now)
        orders, self._orders = list(self._orders.items()), {}
        return orders

    def next_timer(self) -> float | None:
        """Return when `take` is due again, or None."""
        ends = [self._all[worker].until_s + OVERDUE_S for worker in self._holders]
        ends += [self._decide_at] if self._undecided else []
        return min(ends, default=None)

    def _decide(self, now: float) -> None:
        """Begin turns for new burners, and end them for those that are none any more."""
        wanting = sum(w.wants for w in self._all.values())
        least = FAIR * min(1.0, self.slots / max(1, wanting))
        best = min((w.band for w in self._all.values() if w.burns), default=None)
        for w in self._all.values():
            starved = best is not None and w.band > best
            w.burns = w.wants and (w.burns or starved or w.used >= least)
        burners = {worker for worker, w in self._all.items() if w.burns}
        bands = {self._all[worker].band for worker in burners}
        if len(burners) <= self.slots or (len(bands) == 1 and not self._always):
            burners = set()
        for worker, w in self._all.items():
            if worker not in burners:
                self._enter(worker, TurnState.STANDING, now)
            elif w.state is TurnState.STANDING:
                self._enter(worker, TurnState.WAITING, now)

    def _enter(self, worker: WorkerId, state: TurnState, now: float) -> None:
        """Move ``worker`` to ``state`` and note what it has to be told."""
        w = self._all[worker]
        before = w.state
        if before is state:
            return
        w.enter(state, now)
        self._holders.discard(worker)
        if before is TurnState.WAITING:
            self._queue.remove(worker)
        if state is TurnState.STANDING:
            self._orders[worker] = STANDING_TURN
        elif state is TurnState.WAITING:
            self._queue.push(worker, w.band)
            if before is TurnState.STANDING:
                self._orders[worker] = NO_TURN
        elif state is TurnState.HOLDING:
            w.until_s = now + self.quantum_s
            self._holders.add(worker)
            self._orders[worker] = self.quantum_s


def _decide_after_s(workers: int) -> float:
    """Return how long a decision about so many workers has to do: it looks at all of them."""
    return DECIDE_EACH_S * max(0, workers - AT_ONCE)


def turns_of(plan: Plan, options: RunOptions, cores: int) -> TurnScheduler:
    """Return the turns of a run; ``cores``: the slots unless the options say (0: no turns)."""
    bands = {worker: plan.band(worker) for worker in plan.workers}
    asked = options.slots
    return TurnScheduler(bands, cores if asked is None else asked, always=asked is not None)


def niceness_of(plan: Plan, worker: WorkerId) -> int:
    """Return the niceness of a worker whose options say none: the lower its band, the nicer.

    0 for the best band there is in the graph, so one without bands is not nice to strangers.
    """
    band = plan.band(worker)
    return 0 if band == plan.best_band else NICENESS[band]
