"""How user code passes virtual time; nothing here needs a simulation, or greenlet."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["sleeping_virtually", "spend"]

_sleep = time.sleep
_lock = threading.Lock()
_simulations = 0
_virtually: Callable[[float], bool] = lambda seconds: False  # noqa: E731  # set by simulations


def spend(seconds: float) -> None:
    """Take so long: in virtual time inside a simulation, by sleeping anywhere else.

    Stands for work in a handler, so that a simulation (`simulate`) knows what it costs.
    """
    if not _virtually(seconds):
        _sleep(seconds)


@contextmanager
def sleeping_virtually(virtually: Callable[[float], bool]) -> Iterator[None]:
    """Make `spend` and `time.sleep` ask ``virtually``, which returns whether time has passed."""
    global _simulations, _virtually
    with _lock:
        _simulations += 1
        _virtually = virtually
        time.sleep = spend  # type: ignore[assignment]  # takes seconds as well
    try:
        yield
    finally:
        with _lock:
            _simulations -= 1
            if not _simulations:
                time.sleep = _sleep
