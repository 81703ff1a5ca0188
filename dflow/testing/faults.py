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
        """Raise `OptionError` for what cannot be."""
        for name in ("delay_s", "within_s", "stall_s"):
            if not _is_range(getattr(self, name)):
                raise _refused(name, "(least, most) seconds", getattr(self, name))
        for name in ("drop_reports", "duplicate_reports"):
            share = getattr(self, name)
            if not _is_number(share) or not 0 <= share <= 1:
                raise _refused(name, "a share of 0 to 1", share)
        for name in ("kill_workers", "cut_links", "stall_workers"):
            count = getattr(self, name)
            if type(count) is not int or count < 0:
                raise _refused(name, "how often, 0 or more", count)
        if not isinstance(self.exactly, (list, tuple)):
            raise _refused("exactly", "a list of faults", self.exactly)
        for fault in self.exactly:
            _check(fault)

    def __str__(self) -> str:
        """Return it as it is written, without what is as usual."""
        usual = Faults()
        given = [
            f"{field.name}={value!r}"
            for field in fields(self)
            if (value := getattr(self, field.name)) != getattr(usual, field.name)
        ]
        return f"Faults({', '.join(given)})"


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and type(value) is not bool


def _is_range(value: object) -> bool:
    pair = isinstance(value, (tuple, list)) and len(value) == 2 and all(map(_is_number, value))
    return pair and 0 <= value[0] <= value[1] < float("inf")  # type: ignore[index]  # it is a pair


def _refused(name: str, expected: str, got: object) -> OptionError:
    return OptionError(f"Faults({name}=...): expected {expected}, got {got!r}")


def _check(fault: object) -> None:
    """Raise `OptionError` for a fault by name that cannot be."""
    if not isinstance(fault, Fault):
        raise _refused("exactly", "Kill, Stall, Cut, Drop and Duplicate", fault)
    for field in fields(fault):
        value = getattr(fault, field.name)
        if field.name in ("worker", "channel"):
            fine, expected = isinstance(value, str), "a name"
        elif field.name == "number":
            fine, expected = type(value) is int and value > 0, "a whole number, 1 or more"
        else:
            fine = _is_number(value) and 0 <= value < float("inf")
            expected = "seconds, 0 or more"
        if not fine:
            raise OptionError(f"{fault!r}: expected {expected} as {field.name}, got {value!r}")


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
