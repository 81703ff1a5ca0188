"""Questions to the coordinator that wait for an answer, each known by its number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Event, Lock
from typing import Any

from dflow.errors import NodeEnded
from dflow.transport.system import SYSTEM, System
from dflow.wire.control import Control

__all__ = ["Questions"]


@dataclass(slots=True)
class _Open:
    """A question without an answer. ``over``: nobody is left to give one."""

    settled: Event
    answer: Any = None
    over: bool = False


class Questions:
    """What this process has asked and not heard about; every method from any thread.

    ``post`` sends a message to the coordinator. Number 0 is never given away: it stands for
    what nobody waits for.
    """

    def __init__(self, post: Callable[[Control], None], system: System = SYSTEM) -> None:
        self._post = post
        self._event = system.event
        self._lock = Lock()
        self._waiting: dict[int, _Open] = {}
        self._number = 0
        self._over = False

    def ask(self, make: Callable[[int], Control], timeout_s: float | None) -> Any:
        """Send ``make(number)`` and return the answer.

        Raises `NodeEnded` once the run is over, `TimeoutError` without an answer in time.
        """
        mine = _Open(self._event())
        with self._lock:
            if self._over:
                raise NodeEnded("the run has ended; its report is in run.report")
            self._number += 1
            number = self._number
            self._waiting[number] = mine
        self._post(make(number))
        try:
            if not mine.settled.wait(timeout_s):
                raise TimeoutError(f"no answer from the coordinator within {timeout_s:g} s")
        finally:
            with self._lock:
                self._waiting.pop(number, None)
        if mine.over:
            raise NodeEnded("the run has ended")
        return mine.answer

    def answered(self, number: int, answer: Any) -> None:
        """Hand over an answer; one that nobody waits for is dropped."""
        with self._lock:
            asked = self._waiting.pop(number, None)
        if asked is not None:
            asked.answer = answer
            asked.settled.set()

    def over(self) -> None:
        """Let go whoever waits: nobody is left to answer."""
        with self._lock:
            self._over = True
            waiting, self._waiting = self._waiting, {}
        for asked in waiting.values():
            asked.over = True
            asked.settled.set()
