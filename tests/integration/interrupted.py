"""A program that runs a graph and sends itself signals at chosen instants of its main thread.

    python -m tests.integration.interrupted '{"number": 2, "at": [["runtime.py", 87], 0.01]}'

An instant is a line (the first time it is reached), or seconds: since the graph was asked to run,
or since the signal before. Signals go to the whole process group, as those of a terminal do. With
``"tell": true`` nothing is sent, and the lines that were reached are the last line of output.

Lines rather than moments, because what has to be found is a place where a signal is not expected,
and most of the time passes in a few of them.
"""

from __future__ import annotations

import faulthandler
import inspect
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import psutil

from dflow import Graph, edge, sink, source
from tests.integration.flows import ROOT, keep

HANGS_S = 25
GONE_S = 3.0
WATCHED = tuple(str(ROOT / part) for part in ("dflow", "tests/integration/interrupted.py"))
ALSO = ("/subprocess.py", "/socket.py")
"""Of the standard library: where a process is started."""

Place = tuple[str, int]


@source
def paced(number: int) -> Iterator[int]:
    """Yield so many, some each millisecond."""
    for value in range(number):
        if value % 10 == 0:
            time.sleep(0.001)
        yield value


@sink
def slow(value: int) -> None:
    """Take a little longer than the source, so that there is something to drain."""
    if value % 8 == 0:
        time.sleep(0.001)


class Instants:
    """Sends the signals, and notes the lines that the main thread reaches."""

    def __init__(self, number: int, at: list[Any], *, tell: bool) -> None:
        self.number = number
        self.reached: dict[Place, None] = {}
        self._tell = tell
        self._later: list[float] = at[1:]
        self._first: Any = tuple(at[0]) if at and isinstance(at[0], list) else None
        self._seconds: float | None = at[0] if at and not isinstance(at[0], list) else None

    def begin(self) -> None:
        """Watch the main thread from now on."""
        if self._seconds is not None:
            self._send_after(self._seconds)
        if self._tell or self._first is not None:
            sys.settrace(self._trace)

    def _trace(self, frame: FrameType, event: str, arg: Any) -> Any:
        name = frame.f_code.co_filename
        if not name.startswith(WATCHED) and not name.endswith(ALSO):
            return None
        if not frame.f_code.co_flags & inspect.CO_OPTIMIZED:
            return None  # the body of a module or a class, while it is imported
        if event != "line":
            return self._trace
        place = (os.path.basename(name), frame.f_lineno)
        if self._tell:
            self.reached.setdefault(place)
        elif place == self._first:
            self._first = None
            sys.settrace(None)
            self._send()
        return self._trace

    def _send(self) -> None:
        if self._later:
            self._send_after(self._later.pop(0))
        os.killpg(os.getpgrp(), self.number)

    def _send_after(self, seconds: float) -> None:
        timer = threading.Timer(seconds, self._send)
        timer.daemon = True
        timer.start()


def left() -> list[str]:
    """Return what a program that goes on after Ctrl-C, like a notebook, would keep of the run."""
    by_s = time.monotonic() + GONE_S
    while True:
        threads = [each.name for each in threading.enumerate() if each.name.startswith("dflow")]
        children = [f"{child.pid} {child.status()}" for child in psutil.Process().children()]
        if (not threads and not children) or time.monotonic() > by_s:
            return threads + children
        time.sleep(0.01)


def main(number: int, at: list[Any], *, tell: bool = False) -> None:
    """Run the graph, and say how that went."""
    faulthandler.dump_traceback_later(HANGS_S, exit=True)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's & ignores it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    graph = Graph("interrupted", paced(400) >> edge(capacity=32) >> keep() >> slow())
    instants = Instants(number, at, tell=tell)
    instants.begin()
    try:
        report = graph.run(log_level="CRITICAL")
    except (KeyboardInterrupt, SystemExit):
        sys.settrace(None)
        print("left", json.dumps(left()), flush=True)
        raise
    print("reported", report.outcome, report.balances, flush=True)
    after = [report.totals[name] for name in sorted(report.totals)]
    sys.settrace(None)
    assert after
    print("over", flush=True)
    if tell:
        print(json.dumps(list(instants.reached)))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
