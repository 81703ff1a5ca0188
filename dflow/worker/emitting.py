"""The innermost loops: take a result, emit it, until a turn is over.

All do the same. `emit_each` calls ``emit`` for each result, in Python. The others run in C, a
chunk of results at a time: one `map` takes results and remembers them, a filter drops None,
another `map` packs, and `list.extend` appends to the lane, where the pulse thread finds what is
there already even while a handler blocks in the middle of a chunk. That saves 150 to 200 ns a
message (benchmarks/micro/test_appending.py). `emit_directly` is for the common case of one unkeyed
edge on the only output, `discard_results` for a node without outputs. `emit_locally`, for one edge
inside the worker, has nothing to pack, and must not miss a generator among the results.

A loop in C can neither look at the gate nor at what a result weighs. It walks along the steps of
the gate, which end when the gate shuts; and `Lane.begin` says how long a chunk may be, by what
messages have weighed so far. Every value is packed before the next is asked for: what is emitted
is frozen. tests/property/test_worker_emitting.py holds all to the same behaviour.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from operator import is_not
from types import GeneratorType
from typing import TYPE_CHECKING, Any

from dflow.errors import EncodeError
from dflow.flow.batch import MAX_BATCH
from dflow.worker.context import Direct, Discard

if TYPE_CHECKING:
    from dflow.worker.context import LocalDirect
    from dflow.worker.plane import Gate

__all__ = [
    "ALL", "ReturnedGenerator", "discard_results", "emit_directly", "emit_each", "emit_locally",
    "emit_results",
]  # fmt: skip

ALL = 1 << 62
"""As many results as there are."""

_is_something = partial(is_not, None)


class ReturnedGenerator(Exception):
    """A plain function returned a generator object: its values are meant."""

    def __init__(self, values: Iterator[Any]) -> None:
        super().__init__("expected a value, got a generator; write `yield from`")
        self.values = values


def emit_results(
    emit: Callable[[Any], None],
    direct: Direct | LocalDirect | Discard | None,
    results: Iterator[Any],
    gate: Gate,
    most: int,
) -> tuple[int, bool]:
    """Do as `emit_each` does, the direct way where there is one."""
    if direct is None or most == 1:  # a chunk of one costs more than the call it saves
        return emit_each(emit, results, gate, most)
    if isinstance(direct, Direct):
        if direct.codec.wary:
            return emit_each(emit, results, gate, most)
        return emit_directly(direct, results, gate, most)
    if isinstance(direct, Discard):
        return discard_results(results, gate, most)
    return emit_locally(direct, results, gate, most)


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
    lane, codec = direct.lane, direct.codec
    left = most
    while True:
        with direct.lock:
            chunk = lane.begin(left)
        steps = gate.allow(chunk)
        taken: dict[int, Any] = {}
        whole = True
        try:
            each = filter(_is_something, map(taken.setdefault, steps, results))
            lane.pending.extend(map(codec.pack, each))
        except Exception as error:  # noqa: BLE001  # of user code, or of what cannot be packed
            whole = False
            _emit_carefully(direct, taken, error)
        finally:
            with direct.lock:
                wanted = lane.settle()
        left -= len(taken)
        if lane.heavy and not codec.wary:
            codec.expect_large()
        if wanted:
            direct.attend()
        if whole and len(taken) < chunk == len(steps):
            return most - left, True
        if gate.shut or left <= 0 or codec.wary:
            return most - left, False


def _emit_carefully(direct: Direct, taken: dict[int, Any], error: Exception) -> None:
    """Emit the last value taken if it is what C could not pack, or raise ``error`` again."""
    value = taken.get(len(taken) - 1)
    try:
        direct.codec.pack(value)
    except Exception:  # noqa: BLE001  # it is the value's
        pass
    else:
        raise error
    try:
        payload = direct.codec.encode(value)
    except EncodeError:
        if isinstance(value, GeneratorType):
            raise ReturnedGenerator(value) from None
        raise
    direct.lane.pending.append(payload)


def discard_results(results: Iterator[Any], gate: Gate, most: int) -> tuple[int, bool]:
    """Do as `emit_each` does where there is no output: ask for results, and forget them."""
    left = most
    while True:
        chunk = min(left, MAX_BATCH)
        steps = gate.allow(chunk)
        last = deque(zip(steps, results, strict=False), maxlen=1)
        count = last[0][0] + 1 if last else 0
        left -= count
        if count < chunk == len(steps):
            return most - left, True
        if gate.shut or left <= 0:
            return most - left, False


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
