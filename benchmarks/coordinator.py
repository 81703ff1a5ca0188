"""What the coordinator costs when it has a thousand workers, and how soon it answers.

    python -m benchmarks.coordinator [--workers N ...] [--seconds N] [--interval S]

A real coordinator in a process of its own; workers that one or two other processes play
(`benchmarks.fleet`); and, here, the launching process and an observer. Loopback TCP. Each worker
sends its statistics and a heartbeat each interval; the launching process asks for the status as
often as it does in every run.

First the run stands for ``seconds``, and the CPU time of the coordinator, of all its threads, is
taken from the outside (psutil). Then requests are sent, one at a time at random moments, and the
time until each is answered is taken: ``locate`` (what `run.send` asks first, next to nothing to
do), ``status`` (of all nodes and edges), ``pause`` and ``resume`` of one node (the answer to a
pause needs a word from the simulated worker).
"""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized

import psutil
import zmq

from benchmarks.fleet import TOKEN, build_graph, run_fleet
from benchmarks.registry import Benchmark, Effort, Figure
from benchmarks.rounds import Comparison, print_table
from dflow.broker.main import CoordinatorConfig, run_coordinator
from dflow.broker.pace import report_interval_s
from dflow.message import EXTERNAL
from dflow.options import RunOptions
from dflow.wire import control as c

__all__ = ["BENCHMARK", "Scale", "measure", "rows"]

HEAD = (
    "workers", "heard/s", "CPU", "of it main", "locate p50", "p99", "status p50", "p99",
    "pause p50", "p99", "up s", "end s", "RSS MB",
)  # fmt: skip
KINDS = ("locate", "status", "pause")
EACH_FLEET = 2000
"""Simulated workers a process: two descriptors each."""

SEED = 7
PATIENCE_S = 120.0
WARM_UP_S = 3.0
LOOK_S = 0.25
"""How often a launching process asks for the status of its own accord, in a small run."""


@dataclass(frozen=True, slots=True)
class Scale:
    """One size.

    ``rate``: messages a second that the workers sent. ``cpu``: parts of a core that the
    coordinator used meanwhile, ``main`` of them in its main thread, the rest in ZeroMQ's. ``up_s``:
    from when all have joined until the nodes run; ``end_s``: from the request to drain until the
    report. ``answers_ms``: by kind of request, sorted.
    """

    workers: int
    rate: float
    cpu: float
    main: float
    up_s: float
    end_s: float
    answers_ms: dict[str, list[float]]
    rss_mb: float

    def answer_ms(self, kind: str, part: float) -> float:
        """Return a quantile of the times until an answer."""
        times = self.answers_ms[kind]
        return times[min(len(times) - 1, int(len(times) * part))]

    @property
    def worst_p99_ms(self) -> float:
        """The p99 of the kind of request that is answered latest."""
        return max(self.answer_ms(kind, 0.99) for kind in KINDS)


def serve(workers: int, profile: str, ready: Connection) -> None:
    """Be the coordinator, in a process of its own."""
    plan = build_graph(workers).plan()
    config = CoordinatorConfig(
        plan,
        RunOptions(start_timeout_s=PATIENCE_S, log_level="WARNING"),
        "bench",
        TOKEN,
        "tcp://127.0.0.1:0",
        with_handle=True,
        on_ready=ready.send,
    )
    if not profile:
        run_coordinator(config)
        return
    import cProfile

    profiler = cProfile.Profile()
    profiler.runcall(run_coordinator, config)
    profiler.dump_stats(profile)


class Asker:
    """The launching process, and somebody who looks on: both ask and wait for the answer."""

    def __init__(self, endpoint: str, workers: int) -> None:
        self._look_s = report_interval_s(LOOK_S, workers)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._handle = self._connect(endpoint, b"handle")
        self._observer = self._connect(endpoint, b"observer")
        self._number = 0
        self._tell(self._handle, c.Hello("handle", TOKEN, os.getpid(), "bench", EXTERNAL, 0))
        self._tell(self._observer, c.Hello("observer", TOKEN, os.getpid(), "bench"))

    def _connect(self, endpoint: str, identity: bytes) -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.ROUTING_ID, identity)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVTIMEO, int(PATIENCE_S * 1000))
        socket.connect(endpoint)
        return socket

    def _tell(self, socket: zmq.Socket[bytes], message: c.Control) -> None:
        socket.send(c.encode(message))

    def until(self, phase: str) -> None:
        """Answer what the coordinator asks of a launching process, until ``phase``."""
        while True:
            match self._hear(self._handle):
                case c.Assign():
                    self._tell(self._handle, c.Bound({}))
                case c.Link():
                    self._tell(self._handle, c.Linked())
                case c.Stop() | c.Abort():
                    self._tell(self._handle, c.Stopped([]))
                case c.Process(entered) if entered == phase:
                    return
                case c.Finished(report):
                    if phase != "finished" or report["outcome"] != "drained":
                        raise RuntimeError(f"the run ended: {report['outcome']} {report['error']}")
                    return

    def _hear(self, socket: zmq.Socket[bytes]) -> c.Control:
        return c.decode(socket.recv())

    def _ask(self, socket: zmq.Socket[bytes], make: Callable[[int], c.Control]) -> float:
        """Return the milliseconds until the answer."""
        self._number += 1
        request = c.encode(make(self._number))
        began = time.perf_counter()
        socket.send(request)
        while True:
            raw = socket.recv()
            took_ms = (time.perf_counter() - began) * 1000
            answer = c.decode(raw)
            if getattr(answer, "request", None) == self._number:
                if isinstance(answer, c.Answer) and answer.error:
                    raise RuntimeError(answer.error)
                return took_ms

    def status(self) -> float:
        """Look on; return the milliseconds until the answer."""
        return self._ask(self._observer, c.StatusRequest)

    def stand(self, seconds: float) -> None:
        """Do for a while what a launching process does."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._ask(self._handle, c.StatusRequest)
            time.sleep(self._look_s)

    def probe(self, seconds: float) -> dict[str, list[float]]:
        """Ask one thing after the other at random moments; return sorted times by kind."""
        chance = random.Random(SEED)
        found: dict[str, list[float]] = {kind: [] for kind in KINDS}
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            found["locate"].append(self._ask(self._handle, lambda n: c.Locate(n, "step", "in")))
            time.sleep(chance.uniform(0, 0.02))
            found["pause"].append(self._ask(self._handle, lambda n: c.PauseRequest(n, "step", 1)))
            time.sleep(chance.uniform(0, 0.02))
            found["pause"].append(self._ask(self._handle, lambda n: c.PauseRequest(n, "step", 0)))
            time.sleep(chance.uniform(0, 0.02))
            if len(found["locate"]) % 5 == 1:
                found["status"].append(self.status())
        return {kind: sorted(times) for kind, times in found.items()}

    def drain(self) -> None:
        """Ask for the end, and wait for it."""
        self._tell(self._handle, c.DrainRequest(PATIENCE_S))
        self.until("finished")

    def close(self) -> None:
        """Leave."""
        self._context.destroy(linger=0)


@contextmanager
def _processes(workers: int, interval_s: float, profile: str) -> Iterator[_Run]:
    """Start the coordinator and the fleets; kill what is left of them at the end."""
    spawn = multiprocessing.get_context("spawn")
    hears, tells = spawn.Pipe(duplex=False)
    sent: Synchronized[int] = spawn.Value("q", 0)
    started = [spawn.Process(target=serve, args=(workers, profile, tells))]
    started[0].start()
    endpoint = hears.recv()
    asker = Asker(endpoint, workers)
    parts = -(-workers // EACH_FLEET)
    for part in range(parts):
        share = (part, parts)
        fleet = spawn.Process(target=run_fleet, args=(endpoint, workers, share, interval_s, sent))
        fleet.start()
        started.append(fleet)
    try:
        yield _Run(psutil.Process(started[0].pid), asker, sent)
        for process in started:
            process.join(PATIENCE_S)
    finally:
        for process in started:
            if process.is_alive():
                process.kill()
        asker.close()


@dataclass(frozen=True, slots=True)
class _Run:
    coordinator: psutil.Process
    asker: Asker
    sent: Synchronized[int]

    def threads(self) -> dict[int, float]:
        """Return the CPU seconds of each thread of the coordinator."""
        found = self.coordinator.threads()
        return {each.id: each.user_time + each.system_time for each in found}

    def stand(self, seconds: float) -> tuple[float, float, float]:
        """Let the run stand; return messages a second, and parts of a core: all, and main."""
        cpu, sent, began_s = self.threads(), self.sent.value, time.monotonic()
        self.asker.stand(seconds)
        lasted_s = time.monotonic() - began_s
        used = {tid: now - cpu.get(tid, 0.0) for tid, now in self.threads().items()}
        main = used[self.coordinator.pid]
        rate = (self.sent.value - sent) / lasted_s
        return rate, sum(used.values()) / lasted_s, main / lasted_s


def measure(workers: int, seconds: float, interval_s: float = 1.0, profile: str = "") -> Scale:
    """Measure one size; ``profile``: write a cProfile of the coordinator there."""
    with _processes(workers, interval_s, profile) as run:
        run.asker.until("binding")
        up_s = _lasts(lambda: run.asker.until("running"))
        run.stand(WARM_UP_S)
        rate, cpu, main = run.stand(seconds)
        answers = run.asker.probe(seconds)
        rss_mb = run.coordinator.memory_info().rss / 1e6
        end_s = _lasts(run.asker.drain)
    return Scale(workers, rate, cpu, main, up_s, end_s, answers, rss_mb)


def _lasts(what: Callable[[], object]) -> float:
    began_s = time.monotonic()
    what()
    return time.monotonic() - began_s


def rows(measured: list[Scale]) -> list[list[str]]:
    """Return the table's rows."""
    found = []
    for one in measured:
        counts = [f"{one.workers:,}", f"{one.rate:,.0f}"]
        shares = [f"{share:.1%}" for share in (one.cpu, one.main)]
        times = [f"{one.answer_ms(kind, part):.1f}" for kind in KINDS for part in (0.5, 0.99)]
        rest = [f"{one.up_s:.1f}", f"{one.end_s:.1f}", f"{one.rss_mb:.0f}"]
        found.append([*counts, *shares, *times, *rest])
    return found


def _at_scale(effort: Effort) -> Comparison[Scale]:
    return Comparison(dflow=[measure(1000, 30 / effort.share)])


BENCHMARK: Benchmark[Scale] = Benchmark(
    name="coordinator_1000",
    measure=_at_scale,
    figures=(
        Figure("cpu", "cores", "lower", lambda one: one.cpu, bar=0.25),
        Figure("answer_p99", "ms", "lower", lambda one: one.worst_p99_ms, bar=50.0),
    ),
    short=False,
    has_reference=False,
)


def main() -> None:
    """Measure and print."""
    import argparse

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1000], help="sizes to measure")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each of the two parts")
    parser.add_argument("--interval", type=float, default=1.0, help="s between reports; 0: as told")
    parser.add_argument("--profile", default="", help="write a cProfile of the coordinator here")
    asked = parser.parse_args()
    for workers in asked.workers:
        one = measure(workers, asked.seconds, asked.interval, asked.profile)
        print_table(rows([one]), HEAD)


if __name__ == "__main__":
    main()
