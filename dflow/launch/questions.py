"""Questions to the coordinator that wait for an answer, each known by its number."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from threading import Lock
from typing import Any

from dflow.errors import NodeEnded
from dflow.wire.control import Control

__all__ = ["Questions"]


class Questions:
    """What this process has asked and not heard about; every method from any thread.

    ``post`` sends a message to the coordinator. Number 0 is never given away: it stands for
    what nobody waits for.
    """

    def __init__(self, post: Callable[[Control], None]) -> None:
        self._post = post
        self._lock = Lock()
        self._waiting: dict[int, Future[Any]] = {}
        self._number = 0
        self._over = False

    def ask(self, make: Callable[[int], Control], timeout_s: float | None) -> Any:
        """Send ``make(number)`` and return the answer.

        Raises `NodeEnded` once the run is over, `TimeoutError` without an answer in time.
        """
        future: Future[Any] = Future()
        with self._lock:
            if self._over:
                raise NodeEnded("the run has ended; its report is in run.report")
            self._number += 1
            number = self._number
            self._waiting[number] = future
        self._post(make(number))
        try:
            return future.result(timeout_s)
        except TimeoutError:
            raise TimeoutError(f"no answer from the coordinator within {timeout_s:g} s") from None
        finally:
            with self._lock:
                self._waiting.pop(number, None)

    def answered(self, number: int, answer: Any) -> None:
        """Hand over an answer; one that nobody waits for is dropped."""
        with self._lock:
            future = self._waiting.pop(number, None)
        if future is not None:
            future.set_result(answer)

    def over(self) -> None:
        """Let go whoever waits: nobody is left to answer."""
        with self._lock:
            self._over = True
            waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            future.set_exception(NodeEnded("the run has ended"))
