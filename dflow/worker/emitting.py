"""The innermost loops: hand a message to its handler, emit the result, until a turn is over.

`call_each` takes messages, `emit_results` takes what a source or generator yields. Both know the
common cases: one unkeyed edge on the only output (`Direct`), the same inside the worker
(`LocalDirect`), no output at all (`Discard`); for the rest they call ``emit`` for each result. On a
`Direct` one nothing but the packer is called for a result, and all bookkeeping is done once a
chunk (`Lane.begin`, `Lane.settle`): that saves 150 to 200 ns a message
(docs/decisions/0012-results-leave-in-chunks.md). Every value is packed before the next is asked
for: what is emitted is frozen; and it is on the lane at once, where the pulse thread finds it
while the next handler blocks.

tests/property/test_worker_emitting.py holds all to the same behaviour.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from operator import length_hint
from types import GeneratorType
from typing import TYPE_CHECKING, Any

from dflow.errors import EncodeError
from dflow.worker.context import Direct, Discard, LocalDirect

if TYPE_CHECKING:
    from dflow.worker.plane import Gate

__all__ = [
    "ALL", "ReturnedGenerator", "call_each", "emit_directly", "emit_each", "emit_locally",
    "emit_results", "stopped_iteration",
]  # fmt: skip

ALL = 1 << 62
"""As many results as there are."""


class ReturnedGenerator(Exception):
    """A plain function returned a generator object: its values are meant."""

    def __init__(self, values: Iterator[Any]) -> None:
        super().__init__("expected a value, got a generator; write `yield from`")
        self.values = values


def stopped_iteration(error: StopIteration | None = None) -> RuntimeError:
    """Return what is reported when a handler raised ``error``, if that is at hand."""
    text = "handler raised StopIteration; use next(iterator, default)"
    return RuntimeError(text).with_traceback(error.__traceback__ if error else None)


def call_each(
    call: Callable[[Any], Any],
    each: Iterator[Any],
    emit: Callable[[Any], None],
    direct: Direct | LocalDirect | Discard | None,
    gate: Gate,
) -> None:
    """Call ``call`` with each of a list's values, and emit what it returns, until the gate shuts.

    ``each`` tells how many are left. None is not emitted. Raises what ``call`` or ``emit`` raises,
    and `ReturnedGenerator`.
    """
    count = length_hint(each)
    if isinstance(direct, Direct) and count > 1 and not direct.codec.wary:
        _call_directly(direct, call, each, gate)
    elif isinstance(direct, Discard):
        for value in each:
            call(value)
            if gate.shut:
                break
    else:
        results = map(call, each)
        if isinstance(direct, LocalDirect):
            over = emit_locally(direct, results, gate, count)[1]
        else:
            over = emit_each(emit, results, gate, count)[1]
        if over:  # before `count`: `map` took a StopIteration of the handler for its own end
            raise stopped_iteration()


def emit_results(
    emit: Callable[[Any], None],
    direct: Direct | LocalDirect | Discard | None,
    results: Iterator[Any],
    gate: Gate,
    most: int,
) -> tuple[int, bool]:
    """Do as `emit_each` does, the direct way where there is one."""
    if isinstance(direct, Direct) and most > 1 and not direct.codec.wary:
        return emit_directly(direct, results, gate, most)
    if isinstance(direct, LocalDirect):
        return emit_locally(direct, results, gate, most)
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
    """Do as `emit_each` does, on one lane.

    What the iterator itself emits on the same output counts as taken, too.
    """
    lane, codec = direct.lane, direct.codec
    left = most
    while True:
        with direct.lock:
            chunk = lane.begin(left)
        append, pack = lane.pending.append, codec.pack
        nothing = 0
        ended = True
        try:
            for result in islice(results, chunk):
                if result is None:
                    nothing += 1
                else:
                    try:  # not around the loop: what user code raises says nothing of a result
                        append(pack(result))
                    except Exception:  # noqa: BLE001  # judged there
                        _emit_carefully(direct, result)
                        ended = False
                        break
                if gate.shut:
                    ended = False
                    break
        finally:
            with direct.lock:
                taken = lane.settle() + nothing
        left -= taken
        _look_after(direct)
        if ended and taken < chunk:
            return most - left, True
        if gate.shut or left <= 0 or codec.wary:
            return most - left, False


def _call_directly(
    direct: Direct, call: Callable[[Any], Any], each: Iterator[Any], gate: Gate
) -> None:
    """Do as `call_each` does, on one lane."""
    lane, codec = direct.lane, direct.codec
    while True:
        with direct.lock:
            chunk = lane.begin(ALL)
        append, pack = lane.pending.append, codec.pack
        try:
            for value in islice(each, chunk):
                result = call(value)
                if result is not None:
                    try:
                        append(pack(result))
                    except Exception:  # noqa: BLE001  # judged there
                        _emit_carefully(direct, result)
                        break
                if gate.shut:
                    break
        finally:
            with direct.lock:
                lane.settle()
        _look_after(direct)
        if gate.shut or codec.wary or not length_hint(each):
            return


def _look_after(direct: Direct) -> None:
    """Do what a chunk that was counted calls for."""
    if direct.lane.heavy:
        direct.codec.expect_large()
    if direct.lane.wants_attention:
        direct.attend()


def _emit_carefully(direct: Direct, value: Any) -> None:
    """Emit ``value``, which C could not pack."""
    try:
        payload = direct.codec.encode(value)
    except EncodeError:
        if isinstance(value, GeneratorType):
            raise ReturnedGenerator(value) from None
        raise
    direct.lane.pending.append(payload)


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
