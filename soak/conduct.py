"""Conducting one part of a soak: a profile drives runs, a thread looks, lines go into the file.

The profile has the main thread, because that is where users start their runs and where signals
come; looking has a thread of its own, so a look comes each second whatever the profile waits
for. Nothing is kept in memory but the last look: the soak's own process is among those that are
judged. Looks stand on a grid; one that comes late does not make the others late.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dflow import Graph, Node, Run, RunReport
from dflow.errors import BundleError, DflowError, NodeEnded, RunError
from soak.looking import look
from soak.samples import SampleFile
from soak.streams import Sent, streams
from stress.histogram import Histogram

__all__ = ["Conduct", "Ended", "Watched"]

DRAIN_S = 300.0
"""A busy machine may take minutes for what a quiet one does in a second; that is no fault."""
ENDING_S = 2.0
Line = dict[str, Any]


class Ended(Exception):
    """The soak is over because a run did not start; `Conduct.failure` says why."""


@dataclass
class Watched:
    """A run the soak looks at. ``main``: its nodes and edges are sampled, too."""

    label: str
    run: Run
    main: bool
    latency: dict[str, Histogram] = field(default_factory=dict)
    roles: dict[int, str] = field(default_factory=dict)

    def all_roles(self) -> dict[int, str]:
        """Return pid -> role of its processes; those that have ended keep theirs for a look."""
        prefix = "" if self.main else f"{self.label}:"
        now = {pid: prefix + name for name, pid in self.run.pids.items()}
        found = self.roles | now
        self.roles = now
        return found


class Conduct:
    """What a profile has to do with: `run` a graph, `wait`, note an `event`.

    ``show`` is given the numbers of each look for the terminal. ``bundles`` is where a run that
    fails, or goes on when the soak fails, leaves its failure bundle.
    """

    def __init__(
        self,
        file: SampleFile,
        *,
        part: int,
        seed: int,
        load: float,
        temp: Path,
        left_s: float,
        sample_s: float,
        show: Callable[[Line], None],
        bundles: Path,
    ) -> None:
        self.part = part
        self.seed = seed
        self.load = load
        self.failure = ""
        self.stopped = False
        self._file = file
        self._temp = temp
        self._bundles = str(bundles)
        self._left_s = left_s
        self._sample_s = sample_s
        self._show = show
        self._watched: dict[str, Watched] = {}
        self._over = threading.Event()
        self._end_looking = threading.Event()
        self._lock = threading.Lock()
        self._begin_s = time.monotonic()
        self._looker: threading.Thread | None = None

    # --- for profiles ---------------------------------------------------------------------------

    @contextmanager
    def run(
        self,
        graph: Graph,
        collect: Node | None = None,
        *,
        label: str = "main",
        outside: Sequence[Sent] = (),
        expected: type[DflowError] | None = None,
        **options: Any,
    ) -> Iterator[Run]:
        """Run ``graph`` in a ``with`` block, watched; drain it at the end and check its books.

        ``outside`` are the streams that the block sends itself, ``expected`` is an error that
        the run has to end with. What goes wrong with the run
        fails the soak; `Ended` is raised only if it does not even start.
        """
        asked_s = self.now_s
        if expected is None:
            options.setdefault("bundle", self._bundles)
        try:
            started = graph.start(results=[collect] if collect is not None else [], **options)
        except DflowError as error:
            self.fail(f"run {label} did not start: {error}")
            raise Ended from error
        watched = Watched(label, started, main=label == "main")
        if watched.main:
            self._left_s += self.now_s - asked_s  # what the start takes is not soaked
        reader = threading.Thread(target=self._read, args=(watched, collect), name="soak results")
        with self._lock:
            self._watched[label] = watched
        reader.start()
        try:
            yield started
            started.stop()
            started.wait(timeout_s=2 * DRAIN_S)
            if expected is not None:
                self.fail(f"run {label}: expected {expected.__name__}, and it ended well")
        except (DflowError, TimeoutError) as error:
            if expected is None or not isinstance(error, expected):
                self.fail(f"run {label} failed: {_what_ended(started) or error}")
        finally:
            if started.report is None:
                if self.failure:
                    with suppress(BundleError):
                        self.event(f"failure bundle: {started.bundle(self._bundles)}")
                started.abort("the soak ends")
            with suppress(RunError):
                started.wait(timeout_s=2 * DRAIN_S)
            reader.join(timeout=2 * DRAIN_S)
            with self._lock:
                del self._watched[label]
        report = started.report
        if report is not None:
            self.close_books(label, report, outside)

    def close_books(self, label: str, report: RunReport, outside: Sequence[Sent] = ()) -> None:
        """Note how a run ended, whether its books balance, and what became of its streams."""
        found = streams(report, outside) if report.outcome in ("finished", "drained") else []
        self._write(
            "books",
            label=label,
            outcome=report.outcome,
            error=report.error or "",
            imbalances=report.imbalances,
            totals=report.totals,
            wall_s=round(report.wall_s, 3),
            errors=sum(node.errors for node in report.nodes),
            streams=[[s.name, s.sent, s.seen, s.error] for s in found],
        )

    def wait(self, seconds: float) -> bool:
        """Wait; return whether the soak goes on. False at once when it is over or a run died."""
        until = min(self.now_s + seconds, self._left_s)
        while not self._over.is_set() and (left := until - self.now_s) > 0:
            ended = next((w for w in self._watching() if w.main and w.run.report), None)
            if ended is not None:
                self.fail(f"run {ended.label} ended by itself: {_what_ended(ended.run)}")
                break
            self._over.wait(min(left, 1.0))
        return not self.over

    def event(self, text: str, **more: Any) -> None:
        """Note something that happened, for the report."""
        self._write("event", text=text, **more)

    def fail(self, reason: str) -> None:
        """End the soak; it has failed for ``reason``. The first reason stays."""
        if not self.failure:
            self.failure = reason
            self.event(reason, failed=True)
        self._over.set()

    @property
    def over(self) -> bool:
        """Whether the time is up, or somebody ended the soak."""
        return self._over.is_set() or self.now_s >= self._left_s

    @property
    def now_s(self) -> float:
        """Seconds since this part began."""
        return time.monotonic() - self._begin_s

    # --- for who conducts -----------------------------------------------------------------------

    def begin(self) -> None:
        """Start the clock and the thread that looks."""
        self._begin_s = time.monotonic()
        self._looker = threading.Thread(target=self._look_on, name="soak look")
        self._looker.start()

    def stop(self) -> None:
        """Ask the profile to end; safe in a signal handler."""
        self.stopped = True
        self._over.set()

    def end(self) -> None:
        """End the thread that looks."""
        self._end_looking.set()
        if self._looker is not None:
            self._looker.join()

    def write(self, kind: str, **values: Any) -> None:
        """Append a line of ``kind`` to the samples."""
        self._write(kind, **values)

    def _watching(self) -> list[Watched]:
        with self._lock:
            return list(self._watched.values())

    def _write(self, kind: str, **values: Any) -> None:
        line = {"k": kind, "part": self.part, "t": round(self.now_s, 3), "at": time.time()}
        with self._lock:
            self._file.append(line | values)

    def _look_on(self) -> None:
        number = 0
        try:
            while not self._end_looking.is_set():
                self._look_once()
                number = max(number + 1, math.ceil(self.now_s / self._sample_s))
                self._end_looking.wait(max(0.0, number * self._sample_s - self.now_s))
        except Exception as error:  # noqa: BLE001  # whatever it is, a soak must not go on blind
            self.fail(f"looking at the processes failed: {type(error).__name__}: {error}")

    def _look_once(self) -> None:
        watching = self._watching()
        roles: dict[int, str] = {}
        for watched in watching:
            roles |= watched.all_roles()
        at_s = self.now_s
        found = look(roles)
        line: Line = {
            "p": {role: reading.row() for role, reading in found.processes.items()},
            "all": found.totals(self._temp),
            "runs": len(watching),
        }
        for watched in watching:
            if watched.main:
                line |= self._numbers(watched)
        line["look_ms"] = round((self.now_s - at_s) * 1000, 1)
        self._write("look", **line)
        self._show(line | {"t": at_s, "trouble": self._file.trouble, "lost": self._file.lost})

    def _numbers(self, watched: Watched) -> Line:
        """Return what the run counts, and how late messages were since the last look."""
        with self._lock:
            latency, watched.latency = watched.latency, {}
        found: Line = {
            "l": {
                stream: [h.count, h.percentile_ns(50), h.percentile_ns(99), h.most_ns]
                for stream, h in latency.items()
            }
        }
        try:
            status = watched.run.status()
        except (NodeEnded, TimeoutError):
            return found | {"unheard": True}
        found["phase"] = status.phase
        found["n"] = {n.name: [n.handled, n.emitted, n.errors] for n in status.nodes}
        found["e"] = {
            e.id: [
                e.depth, e.waiting, e.in_flight, e.sent, e.delivered,
                e.dropped + e.coalesced + e.expired + e.cancelled + e.rejected,
            ]
            for e in status.edges
        }  # fmt: skip
        return found

    def _read(self, watched: Watched, collect: Node | None) -> None:
        """Take in what the sinks tell, until the run has ended."""
        if collect is None:
            return
        for told in watched.run.results():
            self._take(watched, told)

    def _take(self, watched: Watched, told: Mapping[str, Any]) -> None:
        latency = Histogram.from_dict(told["latency"])
        with self._lock:
            stream = told["stream"]
            watched.latency[stream] = watched.latency.get(stream, Histogram()).merge(latency)


def _what_ended(run: Run) -> str:
    """Return why a run is over, which may take a moment to be known; empty if it goes on."""
    with suppress(TimeoutError):
        try:
            return run.wait(timeout_s=ENDING_S).outcome
        except RunError as error:
            return str(error)
    return ""
