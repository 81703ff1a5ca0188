"""What every decoder promises for any input: a value or a typed error, soon, and for little memory.

Memory is counted by tracemalloc: the peak while one input is handled, above what there was
before. What an input *claims* may cost nothing; what it spells out may cost what it weighs. So
the bound is `TIMES` the size of the input and a fixed amount. Where values of any
type are made, there is one more term: one byte of MessagePack can be an empty list, for which
Python takes 64 bytes and the collector 16, and a sender may well mean that. That is counted by the
bytes that may begin such a value (`spelled_bytes`): what is claimed and not there, counts nothing.

Time is that of this process, not the clock's: a busy machine is not a hang.
"""

from __future__ import annotations

import base64
import importlib.util
import signal
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

__all__ = ["TIMES", "BrokenPromise", "Target", "check", "spelled_bytes"]

TIMES = 10
"""Bytes of memory for each byte of the input."""

CONTAINER_BYTES = 96
"""What Python takes for an empty list or dict, and for the place it is in."""

TEXT_BYTES = 80
"""The same for a short text or a number: two letters, which take three bytes of the input."""

MARKED_BYTES = 1024
"""The same for the largest of the values that begin with a mark: an empty deque."""

SLOW_S = 1.0
"""Processor time that an input of at most 64 KiB may take."""

HANG_S = 10.0
"""After which it is interrupted."""

_MARK = 0xC1
_CONTAINERS = bytes(n for n in range(256) if 0x80 <= n <= 0x9F or 0xDC <= n <= 0xDF)
_TEXTS = bytes(n for n in range(256) if 0xA1 <= n <= 0xBF or 0xC4 <= n <= 0xDB)


class BrokenPromise(AssertionError):
    """A target did with an input what it must not; says how to see it again."""


class Hang(BaseException):
    """An input takes too long. Decoders may catch any `Exception`, but not this."""


@dataclass(frozen=True)
class Target:
    """Something that takes bytes of a peer.

    ``run`` does with them all that a participant would, and checks what it can of the result; it
    may raise ``typed`` errors. ``seeds`` returns valid inputs. ``fixed_bytes`` of memory are free.
    ``values``: whether it makes values of any type. ``script``: inputs are lists of chunks
    (`dflow`'s own format, `tests.fuzz.mutations.pack`). ``needs`` are packages without which there
    is nothing to attack.
    """

    name: str
    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    typed: tuple[type[Exception], ...]
    fixed_bytes: int = 256 << 10
    values: bool = False
    script: bool = False
    needs: tuple[str, ...] = ()

    @property
    def missing(self) -> list[str]:
        """The packages it needs that are not installed here."""
        return [name for name in self.needs if importlib.util.find_spec(name) is None]

    def most_bytes(self, data: bytes) -> int:
        """How much memory ``data`` may cost at any moment."""
        spelled = spelled_bytes(data) if self.values else 0
        return self.fixed_bytes + TIMES * len(data) + spelled


def spelled_bytes(data: bytes) -> int:
    """Return at least what Python takes for the containers and marked values in ``data``."""
    containers = len(data) - len(data.translate(None, _CONTAINERS))
    texts = len(data) - len(data.translate(None, _TEXTS))
    marks = data.count(_MARK)
    return containers * CONTAINER_BYTES + texts * TEXT_BYTES + marks * MARKED_BYTES


def check(target: Target, data: bytes) -> int:
    """Give ``data`` to a target; raises `BrokenPromise` if it does what none may do.

    Memory is checked only while tracemalloc traces. Returns how much of it was taken.
    """
    weighed = tracemalloc.is_tracing()
    before = 0
    if weighed:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
    began = time.process_time()
    try:
        with _interrupted_after(HANG_S):
            target.run(data)
    except target.typed:
        pass
    except Hang:
        raise BrokenPromise(_told(target, data, f"hangs: {HANG_S:g} s were not enough")) from None
    except Exception as error:
        what = f"expected a value or {_names(target)}, got {type(error).__name__}: {error!s:.300}"
        raise BrokenPromise(_told(target, data, what)) from error
    took_s = time.process_time() - began
    peak = 0
    if weighed:
        peak = tracemalloc.get_traced_memory()[1] - before
        if peak > target.most_bytes(data):
            what = f"expected at most {target.most_bytes(data):,} bytes of memory, got {peak:,}"
            raise BrokenPromise(_told(target, data, what))
    if took_s > SLOW_S * max(1.0, len(data) / 65536):
        raise BrokenPromise(_told(target, data, f"took {took_s:.1f} s"))
    return peak


def _names(target: Target) -> str:
    return " or ".join(kind.__name__ for kind in target.typed) or "no error"


def _told(target: Target, data: bytes, what: str) -> str:
    text = base64.b64encode(data).decode()
    again = f"scripts/fuzz --target {target.name} --replay FILE" if len(text) > 2000 else (
        f"python -m tests.fuzz --target {target.name} --base64 {text}"
    )  # fmt: skip
    return f"{target.name}, {len(data):,} bytes: {what}; again: {again}"


@contextmanager
def _interrupted_after(seconds: float) -> Iterator[None]:
    """Raise `Hang` inside after so much processor time; in the main thread only."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Hang

    before = signal.signal(signal.SIGVTALRM, interrupt)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
