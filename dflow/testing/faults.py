"""What may go wrong in a simulation: what is asked for, and what the seed makes of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from random import Random

from dflow.errors import OptionError

__all__ = ["Cut", "Drop", "Duplicate", "Fault", "Faults", "Kill", "Stall", "draw"]


@dataclass(frozen=True, slots=True)
class Kill:
    """Kill the worker of a replica, ``"square[0]"``, as ``kill -9`` does."""

    worker: str
    at_s: float


@dataclass(frozen=True, slots=True)
class Stall:
    """Give a worker no processor for a while, as a busy machine or a debugger does."""

    worker: str
    at_s: float
    for_s: float


@dataclass(frozen=True, slots=True)
class Cut:
    """Break the connection of a channel: what is on its way is lost, and the sender reconnects.

    ``channel``: ``"numbers[0].out->square[1].in"``, or an edge, for its first channel.
    """

    channel: str
    at_s: float


@dataclass(frozen=True, slots=True)
class Drop:
    """Lose the credit report ``number`` of a channel; the first after the welcome is 1."""

    channel: str
    number: int


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Deliver a credit report once more, later."""

    channel: str
    number: int


Fault = Kill | Stall | Cut | Drop | Duplicate


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong in a simulation.

    ``delay_s``: what a frame takes from process to process, at least and at most. Frames of a
    channel never overtake each other; those of different channels do. ``drop_reports`` and
    ``duplicate_reports``: how many of the credit reports are lost, or come twice (0 to 1).
    ``kill_workers``, ``cut_links`` and ``stall_workers``: how often that happens, to whom and
    when the seed decides, ``within_s`` of the start (what would come after the end does not
    happen); ``stall_s`` is how long a stall lasts. ``exactly`` are faults by name and moment.
    """

    delay_s: tuple[float, float] = (20e-6, 200e-6)
    drop_reports: float = 0.0
    duplicate_reports: float = 0.0
    kill_workers: int = 0
    cut_links: int = 0
    stall_workers: int = 0
    within_s: tuple[float, float] = (0.001, 0.1)
    stall_s: tuple[float, float] = (0.001, 0.5)
    exactly: Sequence[Fault] = ()

    def __post_init__(self) -> None:
        for name in ("delay_s", "within_s", "stall_s"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise OptionError(
                    f"Faults({name}=...): expected (least, most) seconds, got {(low, high)}"
                )
        for name in ("drop_reports", "duplicate_reports"):
            if not 0 <= getattr(self, name) <= 1:
                raise OptionError(
                    f"Faults({name}=...): expected a share of 0 to 1, got {getattr(self, name)}"
                )
        for name in ("kill_workers", "cut_links", "stall_workers"):
            count = getattr(self, name)
            if not isinstance(count, int) or count < 0:
                raise OptionError(f"Faults({name}=...): expected a number of times, got {count!r}")
        for fault in self.exactly:
            if not isinstance(fault, Fault):
                raise OptionError(
                    f"Faults(exactly=...): expected Kill, Stall, Cut, Drop and Duplicate, got "
                    f"{fault!r:.200}"
                )

    def __str__(self) -> str:
        """Return it as it is written, without what is as usual."""
        usual = Faults()
        given = [
            f"{field.name}={value!r}"
            for field in fields(self)
            if (value := getattr(self, field.name)) != getattr(usual, field.name)
        ]
        return f"Faults({', '.join(given)})"


def draw(
    faults: Faults, dice: Random, workers: Sequence[str], channels: Sequence[str]
) -> Iterable[Fault]:
    """Return the kills, cuts and stalls that are due, those asked for by name included."""
    found: list[Fault] = list(faults.exactly)
    low, high = faults.within_s

    def moment() -> float:  # as many in the first tenth of the time as in each ten times longer
        return round(low * (high / low) ** dice.random() if low > 0 else high * dice.random(), 9)

    kills = faults.kill_workers if workers else 0
    found += [Kill(dice.choice(workers), moment()) for _ in range(kills)]
    for _ in range(faults.stall_workers if workers else 0):
        lasts = round(dice.uniform(*faults.stall_s), 9)
        found.append(Stall(dice.choice(workers), moment(), lasts))
    cuts = faults.cut_links if channels else 0
    return [*found, *(Cut(dice.choice(channels), moment()) for _ in range(cuts))]
