"""Passing messages on from one fused node to the next by a call: the decisions. Pure.

`dflow.worker.way` carries them out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from types import GeneratorType
from typing import Any

from dflow.flow.local_edge import LocalEdge

__all__ = ["EVERY", "MOST_NS", "Call", "Detour", "compose", "may_pass", "shares_of_time"]

EVERY = 64
"""Of about so many turns one goes the queued way, so that each node is measured by itself."""

MOST_NS = 200_000
"""What a message may cost all nodes of a chain together: beyond it others should have turns in
between, and there is nothing to be saved."""

Call = Callable[[Any], Any]


COMPOSED = str(Path(__file__).resolve().with_name("composed"))
"""Where the code of composed functions says it is: by its place, tracebacks know it as dflow's."""


def may_pass(turn: int, links: int, each_ns: int, *, idle: bool) -> bool:
    """Return whether turn number ``turn`` of a chain may pass through.

    ``idle``: nothing is queued on the way, and nobody on it waits or is held. ``each_ns``: what a
    message costs all the nodes together. A turn that is measured is followed by those of the
    nodes behind, which are measured, too: ``links`` turns in a row.
    """
    return idle and each_ns <= MOST_NS and turn % (EVERY + links) >= links


def shares_of_time(elapsed_ns: int, messages: Sequence[int], each_ns: Sequence[int]) -> list[int]:
    """Return what each node used of ``elapsed_ns``: in proportion to what its messages cost.

    ``messages`` it had, at ``each_ns`` when it was last measured; if none was, all cost the same.
    The shares add up to ``elapsed_ns``.
    """
    weights = [count * cost for count, cost in zip(messages, each_ns, strict=True)]
    if not any(weights):
        weights = list(messages)
    left_ns, left = elapsed_ns, sum(weights)
    shares = []
    for weight in weights:
        share = left_ns * weight // left if left else 0
        shares.append(share)
        left_ns -= share
        left -= weight
    shares[0] += left_ns  # all of it, if nobody had a message
    return shares


class Detour(BaseException):
    """A handler on the way returned a generator: its values are emitted by its own node.

    No `Exception`, so that no loop on the way takes it for one of the user's.
    """

    def __init__(self, at: int, values: Iterator[Any]) -> None:
        super().__init__(at)
        self.at = at
        self.values = values


def compose(
    calls: Sequence[Call | None],
    edges: Sequence[LocalEdge | None],
    odd: Callable[[int, Any], None],
    failed: Callable[[int, Exception], None],
    lost: Callable[[int], None],
) -> Call:
    """Return a function that calls ``calls`` one after the other, each with the last one's result.

    If the first is None, what is passed in counts as its result. ``odd(position, result)`` is
    called, and nothing comes out, if a result is None or a generator, or after an emit by hand on
    an edge (of ``edges``; None where the code cannot). The same with ``failed(position, error)``
    after an error. ``lost(position)`` is called if an exception that is no `Exception` passes.
    """
    talks = tuple(edge is not None for edge in edges)
    make = _template(calls[0] is not None, talks)
    return make(calls, edges, odd, failed, lost, GeneratorType, Detour)


@cache
def _template(first: bool, talks: tuple[bool, ...]) -> Callable[..., Call]:
    """Return what makes a composed function of so many calls.

    The code is generated, as that of dataclasses is: one frame without a loop is what saves the
    time. Functions made of pairs of functions cost twice as much for each node.
    """
    places = range(len(talks) + 1)
    calls = "".join(f"call_{at}, " for at in places)
    edges = "".join(f"edge_{at}, " for at in places[:-1])
    lines = [
        "def make(calls, edges, odd, failed, lost, Generator, Detour, type=type):",
        f"    {calls} = calls",
        f"    {edges} = edges",
        "    def through(value):",
        "        at = 0",
        "        try:",
    ]
    for at, talk in enumerate(talks):
        if at or first:
            lines.append(f"            value = call_{at}(value)")
        by_hand = f" or edge_{at}.pushed" if talk else ""
        lines += [
            f"            if value is None or type(value) is Generator{by_hand}:",
            f"                return odd({at}, value)",
            f"            at = {at + 1}",
        ]
    lines += [
        f"            return call_{len(talks)}(value)",
        "        except Exception as error:",
        "            return failed(at, error)",
        "        except Detour:",
        "            raise",
        "        except BaseException:",
        "            lost(at)",
        "            raise",
        "    return through",
    ]
    scope: dict[str, Any] = {}
    # it holds nothing from outside
    exec(
        compile("\n".join(lines), COMPOSED, "exec"),
        scope,
    )
    make: Callable[..., Call] = scope["make"]
    return make
