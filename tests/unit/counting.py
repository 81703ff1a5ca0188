"""How much work a piece of Python is, by what no other program on the machine can change.

Counted are the instructions the interpreter carries out. What happens inside one call to C (a
search through a list, say) counts as one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

__all__ = ["grows", "instructions"]


def instructions(work: Callable[[], object]) -> int:
    """Return how many instructions of the interpreter ``work()`` takes."""
    count = 0

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def grows(make: Callable[[int], Callable[[], object]], small: int, times: int) -> float:
    """Return by what factor the work grows, in parts of ``times``, when its size does.

    ``make(size)`` prepares, and returns the work to count. 1.0 is linear growth, or better;
    ``times`` is quadratic.
    """
    return instructions(make(small * times)) / instructions(make(small)) / times
