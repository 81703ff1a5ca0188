"""Start the processes of one measurement and wait for them; shared by the plain adapters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["run_all"]


def run_all(context: Any, calls: list[tuple[Any, ...]], opened: Iterable[Any] = ()) -> None:
    """Run ``(function, *arguments)`` each in a process; raise unless all end well.

    ``opened``: this process's copies of the connections, closed once the others have theirs.
    The time limit is the caller's, who ends this process and all below it.
    """
    running = [context.Process(target=call[0], args=call[1:]) for call in calls]
    for process in running:
        process.start()
    for one in opened:
        one.close()
    for process in running:
        process.join()
    codes = [process.exitcode for process in running]
    if any(codes):
        raise RuntimeError(f"expected exit codes 0, got {codes}")
