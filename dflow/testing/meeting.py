"""How simulated threads wait for each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dflow.testing.kernel import Kernel, Task

__all__ = ["Condition", "Event"]


class Event:
    """One thread waits for what another sets (`threading.Event`)."""

    __slots__ = ("_kernel", "_set", "_waiting")

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._set = False
        self._waiting: list[Task] = []

    def wait(self, timeout: float | None = None) -> bool:
        """Return whether it was set before ``timeout`` seconds have passed."""
        task = self._kernel.current
        if not self._set and task is not None:
            self._waiting.append(task)
            self._kernel.park(timeout)
        return self._set

    def set(self) -> None:
        """Wake whoever waits."""
        self._set = True
        waiting, self._waiting = self._waiting, []
        for task in waiting:
            self._kernel.wake(task)

    def clear(self) -> None:
        """Forget that it was set."""
        self._set = False


class Condition:
    """Threads wait until something holds (`threading.Condition`); ``lock`` is real, and theirs."""

    __slots__ = ("_kernel", "_lock", "_waiting")

    def __init__(self, kernel: Kernel, lock: Any) -> None:
        self._kernel = kernel
        self._lock = lock
        self._waiting: list[Task] = []

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *raised: object) -> None:
        self._lock.release()

    def wait_for(self, holds: Callable[[], Any], timeout: float | None = None) -> Any:
        """Return what ``holds`` returns, once it is true or ``timeout`` seconds have passed."""
        kernel = self._kernel
        task = kernel.current
        by = None if timeout is None else kernel.now + int(timeout * 1e9)
        while not (found := holds()):
            left = None if by is None else (by - kernel.now) / 1e9
            if task is None or (left is not None and left <= 0):
                break
            self._waiting.append(task)
            self._lock.release()
            try:
                kernel.park(left)
            finally:
                self._lock.acquire()
        return found

    def notify_all(self) -> None:
        """Let whoever waits look again."""
        waiting, self._waiting = self._waiting, []
        for task in waiting:
            self._kernel.wake(task)
