"""Make what fails smaller: fewer faults, a smaller graph, only the lines that matter.

Delta debugging (Zeller, 1999), as a walk: of all that is a little simpler take the first that still
fails, until nothing does or the time is over. What is "a little simpler" is the caller's business,
so the same walk serves lists of faults and whole graphs. Pure but for the clock it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from dflow.clock import CLOCK
from dflow.wire import control as c
from dflow.wire import frames as f

if TYPE_CHECKING:
    from dflow.testing.invariants import Broken
    from dflow.testing.trace import Event, Trace

__all__ = ["BUDGET_S", "fewer", "relevant", "simplest"]

BUDGET_S = 20.0
"""How long a failing case is made smaller."""

MOST_LINES = 60

_T = TypeVar("_T")
_EVERYWHERE = frozenset({"fault", "exit", "phase", "says"})


def simplest(
    case: _T,
    simpler: Callable[[_T], Iterable[_T]],
    fails: Callable[[_T], bool],
    *,
    budget_s: float = BUDGET_S,
    clock_s: Callable[[], float] = CLOCK.monotonic_s,
) -> _T:
    """Return the simplest case found that still fails; ``case`` itself, which does, if none.

    ``simpler`` yields what to try, the boldest first; each must be simpler in some sense, or this
    only ends with the budget.
    """
    ends_s = clock_s() + budget_s
    found = True
    while found:
        found = False
        for candidate in simpler(case):
            if clock_s() >= ends_s:
                return case
            if fails(candidate):
                case, found = candidate, True
                break
    return case


def fewer(items: Sequence[_T]) -> Iterator[tuple[_T, ...]]:
    """Yield the sequence without some of its items: without all, each half, each quarter, each."""
    count = len(items)
    size = count
    while size >= 1:
        for begin in range(0, count, size):
            yield (*items[:begin], *items[begin + size :])
        size //= 2


def relevant(
    trace: Trace, broken: Broken | None, channels: Mapping[int, str], most: int = MOST_LINES
) -> Iterator[str]:
    """Yield the last lines that are about what broke; of what failed otherwise, all the last ones.

    That is what concerns its channels, the control messages of the participants it names, and
    every phase, fault, exit and error, but no statistics. Where no channel is to blame, the last
    frame of each and the last report are among it. ``channels`` tells the names of channels.
    """
    everything = broken is None or not broken.channels
    chosen = [
        (at, event)
        for at, event in enumerate(trace.events)
        if not _is_routine(event) and (everything or (broken and _about(event, broken)))
    ]
    shown = dict(chosen[-most:])
    if everything:
        frames = [(at, event) for at, event in chosen if event.what in ("data", "report")]
        last = {(f.parse(event.detail).channel, event.what): (at, event) for at, event in frames}
        shown |= dict(list(last.values())[-most:])
    if len(chosen) > len(shown):
        yield f"({len(chosen) - len(shown)} earlier lines are left out)"
    yield from (str(shown[at]) for at in sorted(shown))
    if broken is not None and broken.channels:
        named = ", ".join(f"channel {number} is {channels[number]}" for number in broken.channels)
        yield f"({named})"


def _is_routine(event: Event) -> bool:
    """Whether it is what everybody says all the time."""
    if event.what == "log":
        return True
    return event.what == "control" and type(c.decode(event.detail)) in (c.Stats, c.Ping)


def _about(event: Event, broken: Broken) -> bool:
    if event.what in _EVERYWHERE:
        return True
    if event.what in ("data", "report"):
        return f.parse(event.detail).channel in broken.channels
    return any(name in broken.where for name in event.place.split(" > "))
