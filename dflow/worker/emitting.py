"""The innermost loops: take a result, emit it, until a turn is over.

All do the same. `emit_directly` is for the common case of one unkeyed edge on the only
output: it does without a call of ``emit`` for each message and keeps its counters in locals,
which saves about 60 ns a message over `Lane.push` (benchmarks/micro/test_appending.py).
`emit_locally` is for the same case inside a worker, where nothing is encoded.
tests/property/test_worker_emitting.py holds them to the same behaviour.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import GeneratorType
from typing import TYPE_CHECKING, Any

from dflow.errors import EncodeError
from dflow.worker.context import LocalDirect

if TYPE_CHECKING:
    from dflow.worker.context import Direct
    from dflow.worker.plane import Gate

__all__ = [
    "ALL", "ReturnedGenerator", "emit_directly", "emit_each", "emit_locally", "emit_results",
]  # fmt: skip

ALL = 1 << 62
"""As many results as there are."""


class ReturnedGenerator(Exception):
    """A plain function returned a generator object: its values are meant."""

    def __init__(self, values: Iterator[Any]) -> None:
        super().__init__("expected a value, got a generator; write `yield from`")
        self.values = values


def emit_results(
    emit: Callable[[Any], None],
    direct: Direct | LocalDirect | None,
    results: Iterator[Any],
    gate: Gate,
    most: int,
) -> tuple[int, bool]:
    """Do as `emit_each` does, the direct way where there is one."""
    if direct is not None:
        if isinstance(direct, LocalDirect):
            return emit_locally(direct, results, gate, most)
        return emit_directly(direct, results, gate, most)
    return emit_each(emit, results, gate, most)


def emit_each(
    emit: Callable[[Any], None], results: Iterator[Any], gate: Gate, most: int
) -> tuple[int, bool]:
    """Emit up to ``most`` results, until the gate shuts; None is not emitted.

    Returns how many were taken, and whether that was all there are. Raises what the iterator
    or ``emit`` raises, and `ReturnedGenerator`.
    """
    left = most
    result: Any = None
    try:
        for result in results:
            if result is not None:
                emit(result)
            left -= 1
            if gate.shut or left <= 0:
                return most - left, False
    except EncodeError:
        if isinstance(result, GeneratorType):
            raise ReturnedGenerator(result) from None
        raise
    return most - left, True


def emit_directly(
    direct: Direct, results: Iterator[Any], gate: Gate, most: int
) -> tuple[int, bool]:
    """Do as `emit_each` does, on one lane."""
    lane, encode, attend = direct.lane, direct.encode, direct.attend
    pending = lane.pending
    append = pending.append
    mark = lane.mark
    room = lane.byte_mark - lane.queued_bytes
    size = 0  # of what is appended but not yet in lane.queued_bytes
    left = most
    result: Any = None
    try:
        for result in results:
            if result is not None:
                payload = encode(result)
                append(payload)
                size += len(payload)
                if len(pending) >= mark or size >= room:
                    lane.queued_bytes += size
                    size = 0
                    attend()
                    mark = lane.mark
                    room = lane.byte_mark - lane.queued_bytes
            left -= 1
            if gate.shut or left <= 0:
                return most - left, False
    except EncodeError:
        if isinstance(result, GeneratorType):
            raise ReturnedGenerator(result) from None
        raise
    finally:
        lane.queued_bytes += size
    return most - left, True


def emit_locally(
    direct: LocalDirect, results: Iterator[Any], gate: Gate, most: int
) -> tuple[int, bool]:
    """Do as `emit_each` does, on one edge inside the worker."""
    edge, attend = direct.edge, direct.attend
    pending = edge.pending
    append = pending.append
    left = most
    step = budget = max(1, min(left, edge.mark - len(pending)))  # until there is more to look at
    for result in results:
        if result is not None:
            if type(result) is GeneratorType:
                raise ReturnedGenerator(result)
            append(result)
        budget -= 1
        if gate.shut or budget <= 0:
            left -= step - budget
            if len(pending) >= edge.mark:
                attend()
            if gate.shut or left <= 0:
                return most - left, False
            step = budget = max(1, min(left, edge.mark - len(pending)))
    return most - left + step - budget, True
