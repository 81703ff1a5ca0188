"""Adversarial fairness: one hog, one trickle a band, and the trickle does not wait for the hog.

All is compared within one run, so a machine that is slow for any reason is slow for both. What a
trickle waits is told by turns, so it may not depend on how much of the hog's waits before it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from dflow import Graph, Input, Node, Output, Priority, source
from stress.conftest import Keep
from stress.histogram import Histogram
from stress.ledger import Ledger, Verdict
from stress.nodes import numbered_now, paced, run_checked

HOG = "hog"
HOG_WINDOW = 1024
HANDLER_S = 0.0003
"""Of the hog's messages: its queue alone is a third of a second of work."""

TRICKLE_PER_S = 15
"""Far below what a band gets of its receiver, however slow that is: else it is no trickle."""

FAIR = 4
"""What a trickle waits, times this, is less than the median of the hog: its P99 in the long form.
In the short form its median, because other programs may hold up any process for a while."""

BURNS_S = 3.0
SETTLES_S = 1.0
"""Who burns a core has to be found out before turns begin."""

PIECE_S = 0.001
TURN_S = 0.02
WEIGHTS = {"high": 4, "normal": 2, "low": 1}
"""Turns in a cycle; those of HIGH are shared by its burners (docs/scheduler.md)."""

Message = tuple[str, int, int]


def burn(seconds: float) -> None:
    """Use the processor for a while."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


class Receiver(Node):
    """Takes messages on every band; its one result is a verdict and the ages of each origin."""

    control = Input(tuple, priority=Priority.CONTROL)
    high = Input(tuple, priority=Priority.HIGH)
    normal = Input(tuple, priority=Priority.NORMAL)
    low = Input(tuple, priority=Priority.LOW)
    judged = Output(tuple[Verdict, dict[str, Any]], required=True)

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.ages: dict[str, Histogram] = {}

    @control.handler
    def take_control(self, message: Message) -> None:
        """Take it."""
        self.take(message)

    @high.handler
    def take_high(self, message: Message) -> None:
        """Take it."""
        self.take(message)

    @normal.handler
    def take_normal(self, message: Message) -> None:
        """Take it."""
        self.take(message)

    @low.handler
    def take_low(self, message: Message) -> None:
        """Take it."""
        self.take(message)

    def take(self, message: Message) -> None:
        """Enter it; the hog's are work."""
        origin, number, due_ns = message
        self.ledger.add(origin, number)
        self.ages.setdefault(origin, Histogram()).add(time.monotonic_ns() - due_ns)
        if origin == HOG:
            burn(HANDLER_S)

    def on_end(self) -> None:
        """Emit what was found."""
        ages = {origin: one.to_dict() for origin, one in self.ages.items()}
        self.judged.emit((self.ledger.verdict(), ages))


@pytest.mark.parametrize("band", ["control", "high", "normal", "low"])
def test_hog_of_a_band_holds_up_no_trickle_of_any(
    band: str, scale: int, long_form: bool, keep: Keep
) -> None:
    hogs = 4_000 * scale
    trickles = int(hogs * HANDLER_S * TRICKLE_PER_S)
    receiver, graph = Receiver(), Graph("fair")
    hog = numbered_now(HOG, hogs).options(name=HOG, niceness=0)  # the kernel shall not take sides
    graph.connect(hog, getattr(receiver, band), capacity=HOG_WINDOW)
    for name in ("control", "high", "normal", "low"):
        trickle = paced(name, trickles, TRICKLE_PER_S).options(name=f"from_{name}", niceness=0)
        graph.connect(trickle, getattr(receiver, name))
    checked = run_checked(graph, receiver)
    verdict, kept = checked.result
    ages = {name: Histogram.from_dict(one) for name, one in kept.items()}
    keep(ages, peaks_mb=checked.peaks_mb)
    names = ("control", "high", "normal", "low")
    assert verdict == Verdict(dict.fromkeys(names, trickles) | {HOG: hogs})
    hog_ns = ages[HOG].percentile_ns(50)
    worst = {name: ages[name].percentile_ns(99 if long_form else 50) for name in names}
    assert all(FAIR * ns < hog_ns for ns in worst.values()), f"hog {hog_ns}, trickles {worst}"


@source
def burner(band: str, seconds: float) -> Iterator[tuple[str, int, int]]:
    """Yield ``(band, began, ended)`` of pieces of work, as fast as turns allow."""
    over = time.monotonic() + seconds
    while time.monotonic() < over:
        began_ns = time.monotonic_ns()
        burn(PIECE_S)
        yield band, began_ns, time.monotonic_ns()


class Turns(Node):
    """Its one result: by burner how long it waited between pieces, and how many it had."""

    pieces = Input(tuple)
    judged = Output(dict, required=True)

    def __init__(self) -> None:
        self.last_ns: dict[str, int] = {}
        self.waits: dict[str, Histogram] = {}
        self.from_ns = 0

    @pieces.handler
    def take(self, piece: tuple[str, int, int]) -> None:
        """Count the wait before it, unless the run was still settling."""
        name, began_ns, ended_ns = piece
        self.from_ns = self.from_ns or began_ns + int(SETTLES_S * 1e9)
        if began_ns > self.from_ns:
            wait_ns = began_ns - self.last_ns.get(name, began_ns)
            self.waits.setdefault(name, Histogram()).add(wait_ns)
        self.last_ns[name] = ended_ns

    def on_end(self) -> None:
        """Emit what was found."""
        self.judged.emit({name: one.to_dict() for name, one in self.waits.items()})


def test_hogs_of_a_higher_band_leave_the_lower_ones_their_turns(
    scale: int, long_form: bool, keep: Keep
) -> None:
    seconds = BURNS_S * scale
    turns, graph = Turns().options(priority=Priority.HIGH), Graph("turns")
    for name, band in (("high", "high"), ("high 2", "high"), ("normal", "normal"), ("low", "low")):
        burning = burner(name, seconds).options(
            name=name.replace(" ", "_"), priority=Priority[band.upper()], niceness=0
        )
        graph.connect(burning, turns.pieces)
    checked = run_checked(graph, turns, slots=1, stats_interval_s=0.1)
    waits = {name: Histogram.from_dict(one) for name, one in checked.result.items()}
    keep(waits, peaks_mb=checked.peaks_mb)
    pieces = sum(one.count for one in waits.values())
    cycle_s = TURN_S * sum(WEIGHTS.values())
    for name in ("normal", "low"):
        due = pieces * WEIGHTS[name] / sum(WEIGHTS.values())
        assert waits[name].count > due / 3, f"{name}: {waits[name].count} of {pieces} pieces"
        assert waits[name].most_ns / 1e9 < cycle_s * (4 if long_form else 8), str(waits[name])
