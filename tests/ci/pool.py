"""Runs shards side by side: each in a process group and with a log of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from tests.ci.stages import Shard

__all__ = ["Done", "Pool"]

NOTHING_SELECTED = 5
"""What pytest says when it selected no test, which a -k of the caller may well do."""

_RERUN = re.compile(r"^RERUN (\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Done:
    """How a shard ended; ``reruns`` names the tests that were tried twice."""

    shard: Shard
    status: int
    seconds: float
    output: str
    reruns: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """One word, or two."""
        return "ok" if self.status == 0 else f"FAILED ({self.status})"


class Pool:
    """Up to ``jobs`` shards at once; `stop` ends all of them from any thread, for good.

    ``logs``: where they write. ``lenient``: a shard may select no test. ``live``: shards write to
    the terminal instead, so that one can look on for hours.
    """

    def __init__(self, jobs: int, logs: Path, *, lenient: bool = False, live: bool = False) -> None:
        self._live = live
        self._jobs = jobs
        self._logs = logs
        self._lenient = lenient
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = Lock()
        self._stopped = False

    def run(
        self, shards: Sequence[Shard], tell: Callable[[Done], None], more: int = 0
    ) -> list[Done]:
        """Run ``shards``; ``tell`` is called for each, in order, as soon as it may be.

        ``more``: how many beyond ``jobs`` may run at once.
        """
        done = []
        with ThreadPoolExecutor(max(1, self._jobs + more)) as threads:
            for ended in threads.map(self._run, shards):
                tell(ended)
                done.append(ended)
        return done

    def _run(self, shard: Shard) -> Done:
        log = self._logs / f"{shard.name.replace('/', '-').replace(' ', '-')}.log"
        began, status = time.monotonic(), 0
        with log.open("wb") as out:
            for command in shard.commands:
                status = self._call(command, shard, out.fileno())
                if status:
                    break
        if status == NOTHING_SELECTED and self._lenient:
            status = 0
        text = log.read_text(encoding="utf-8", errors="replace")
        reruns = tuple(_RERUN.findall(text))
        return Done(shard, status, time.monotonic() - began, text, reruns)

    def _call(self, command: Sequence[str], shard: Shard, out: int) -> int:
        with self._lock:
            if self._stopped:
                return -signal.SIGTERM
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=None if self._live else out,
                stderr=None if self._live else out,
                env=os.environ | dict(shard.env),
                start_new_session=True,
            )
            self._running.add(child)
        try:
            return child.wait(shard.limit_s)
        except subprocess.TimeoutExpired:
            _end(child)
            os.write(out, f"\nended after {shard.limit_s:g} s: {shard.name} hangs\n".encode())
            return child.wait()
        finally:
            self._running.discard(child)

    def stop(self) -> None:
        """End what runs, and whatever it has started."""
        with self._lock:
            self._stopped = True
            for child in list(self._running):
                _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a shard with its descendants; runs of dflow end with the process that started them."""
    for signum in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signum)
        with suppress(subprocess.TimeoutExpired):
            child.wait(15)
            return
