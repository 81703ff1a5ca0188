"""The launching process's end of a run: one thread that owns its sockets.

The handle takes part in the run like a worker that runs no user code: it binds where results
arrive, opens channels for what is sent from outside, and reports its counters, so the books
include the messages that cross this process. User threads never touch a socket: they let messages
wait on edges (`dflow.launch.sending`) and take them out of inboxes under ``plane.lock``, and wake
the thread.
"""

from __future__ import annotations

import math
import os
import socket
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from dflow.broker.pace import report_interval_s
from dflow.errors import NodeEnded, ProtocolError
from dflow.graph.plan import Plan, WorkerId
from dflow.launch.questions import Questions
from dflow.launch.results import Piece, next_piece
from dflow.launch.sending import GraphCode, Sending
from dflow.launch.watching import LauncherWatch
from dflow.message import EXTERNAL, Cancelled, strongest
from dflow.options import RunOptions
from dflow.report import RunReport, RunStatus
from dflow.stats import NodeStats
from dflow.transport.endpoint import fresh_endpoint
from dflow.transport.shm import SharedMemory
from dflow.transport.system import SYSTEM, System
from dflow.wire import control as c
from dflow.worker.answering import withdraw
from dflow.worker.dump import dump
from dflow.worker.faults import ErrorLog
from dflow.worker.plane import DataPlane

__all__ = ["Handle"]

STATS_S = 0.25
_NOBODY_WAITS = 0
IDLE_REPORT_S = 0.002
LAST_WORDS_S = 0.1
REPORT_S = 5.0


def _never_warns(text: str) -> None:
    """Memory that is only read is never short."""


class Handle:
    """What `dflow.runtime.Run` stands on. ``changed`` is notified of everything that happens."""

    def __init__(
        self,
        plan: Plan,
        options: RunOptions,
        *,
        token: str,
        epoch: int,
        endpoint: str,
        run_dir: str,
        code: GraphCode,
        system: System = SYSTEM,
    ) -> None:
        self.phase = "waiting"
        self.report: RunReport | None = None
        self.last_status: RunStatus | None = None  # from one report ago; for last words
        self.ended = False
        self._over = False
        self._parted = False  # the last word was said: what is sent now is in no book
        self._plan = plan
        self._options = options
        self._code, self._run_dir = code, run_dir
        self.plane = DataPlane(
            plan,
            WorkerId(EXTERNAL),
            token=token,
            epoch=epoch,
            edge_key=lambda index: None,  # this process is at the end of every planned edge
            on_violation=self._on_violation,
            codec=code.codec,
            system=system,
            memory=SharedMemory(0, _never_warns) if options.transport == "ipc" else None,
        )
        self._clock = self.plane.clock
        self.changed = system.condition(self.plane.lock)
        self._errors = ErrorLog()
        self._outbox: deque[c.Control] = deque()
        self._questions = Questions(self._post, system)
        self._ending: set[str] = set()  # nodes whose inputs were asked to end
        self._sending = Sending(
            plan,
            self.plane,
            self.changed,
            code,
            locate=lambda node, port: self._ask(lambda n: c.Locate(n, node, port), 10.0),
            closed=self._closed,
            on_merge_error=self._merge_failed,
        )
        self._watch = LauncherWatch(self.plane, self._sending)
        self._drain_by_ns: int | None = None
        self._drain_sent = self._drained = self._discard = False
        self._kept: defaultdict[str, deque[Piece]] = defaultdict(deque)
        self._values: defaultdict[str, deque[Any]] = defaultdict(deque)  # shared by all readers
        self._bundles: defaultdict[int, dict[str, str]] = defaultdict(dict)
        self._last_words_s = LAST_WORDS_S
        self.ran = False
        self._dealer = system.control_link(endpoint, b"handle")
        self.plane.poller.add(self._dealer)
        self._post(c.Hello("handle", token, os.getpid(), socket.gethostname(), EXTERNAL, 0))
        self._thread = system.thread(self._run, "dflow-run")
        self._thread.start()

    # --- from user threads -----------------------------------------------------------------------

    def _post(self, message: c.Control) -> None:
        self._outbox.append(message)
        self.plane.wakeup.set()

    def request_drain(self, timeout_s: float) -> None:
        """Ask for a drain once everything sent from here is handled, or the time is over."""
        by_ns = self._clock.monotonic_ns() + int(timeout_s * 1e9)
        self._drain_by_ns = by_ns if self._drain_by_ns is None else min(by_ns, self._drain_by_ns)
        self._post(c.PauseRequest(_NOBODY_WAITS, "", 0))  # or what was sent might never be handled

    def request_abort(self, reason: str) -> None:
        """Ask for an end now."""
        self._post(c.AbortRequest(reason))

    def status(self, timeout_s: float = 5.0) -> RunStatus:
        """Return the coordinator's view; raises `TimeoutError` if it does not answer.

        It includes everything that was sent from here before.
        """
        with self.plane.lock:
            self._post(c.Stats(self._stats()))
        reply = self._ask(lambda number: c.StatusRequest(number), timeout_s)
        return RunStatus.from_dict(reply)

    def _ask(self, make: Callable[[int], c.Control], timeout_s: float) -> Any:
        return self._questions.ask(make, timeout_s)

    def pause(self, node: str, *, paused: bool, timeout_s: float = 5.0) -> None:
        """Let ``node`` take no more data, or go on; raises `NodeEnded` if it is too late."""
        with self.plane.lock:
            late = self._drain_by_ns is not None
        if late and paused:
            raise NodeEnded(f"{node}: the run is draining")
        self._obeyed(lambda number: c.PauseRequest(number, node, int(paused)), timeout_s)
        if paused and self._drain_by_ns is not None:  # meanwhile: all went on, maybe before this
            self._post(c.PauseRequest(_NOBODY_WAITS, "", 0))

    def drain_node(self, node: str, timeout_s: float) -> None:
        """End ``node`` by ending all that feeds it, once what was sent to that is handled.

        Nothing more can be sent there meanwhile. Raises `NodeEnded` if it is too late.
        """
        origins = self._plan.origins(node)
        with self.changed:
            self._ending.update(origins)
            for name in self._plan.upstream(node):  # whoever is paused there would hold it up
                self._outbox.append(c.PauseRequest(_NOBODY_WAITS, name, 0))
            self.plane.wakeup.set()
            self.changed.wait_for(lambda: self._over or self._sending.settled(origins), timeout_s)
        self._obeyed(lambda number: c.DrainNodeRequest(number, node), 5.0)

    def cancel(self, id: str, timeout_s: float) -> Cancelled:
        """Cancel what was sent from here or emitted anywhere with ``id``.

        Raises `NodeEnded` once the run is over, `TimeoutError` without an answer in time.
        """
        with self.changed:
            here, sent = withdraw(self._sending.edges.values(), id)
            self.changed.notify_all()  # there may be room for who waits to send
        rows = [list(row) for row in sent]
        if rows:
            here = strongest((here, self._ask_to_cancel(id, rows, timeout_s)))
        if here in (Cancelled.UNKNOWN, Cancelled.DONE):  # whoever got it may have passed it on
            here = strongest((here, self._ask_to_cancel(id, [], timeout_s)))
        return here

    def _ask_to_cancel(self, id: str, rows: list[list[int]], timeout_s: float) -> Cancelled:
        return Cancelled(self._ask(lambda number: c.CancelRequest(number, id, rows), timeout_s))

    def bundle(self, timeout_s: float = 10.0) -> dict[str, str]:
        """Return the files of a failure bundle of the run as it is.

        Raises `NodeEnded` once the run is over, `TimeoutError` without an answer in time.
        """
        files: dict[str, str] = self._ask(lambda number: c.DumpRequest(number), timeout_s)
        return files

    def _obeyed(self, make: Callable[[int], c.Control], timeout_s: float) -> None:
        error = self._ask(make, timeout_s)
        if error:
            raise NodeEnded(error)

    def send(
        self, node: str, port: str, value: Any, timeout_s: float | None, id: str | None = None
    ) -> str:
        """Send one message to ``node.port``, as `Sending.send` does; return its id."""
        return self._sending.send(node, port, value, timeout_s, id)

    def _closed(self, node: str) -> bool:
        ending = self._over or self._parted or self._drain_by_ns is not None
        return ending or node in self._ending

    def _merge_failed(self, error: BaseException, where: str) -> None:
        line = self._errors.line(error, where, self._clock.monotonic_ns())
        if line is not None:
            self._outbox.append(
                c.Log("ERROR", self._clock.wall_s(), line, __name__, 0, {"node": EXTERNAL})
            )

    def results(self, input_name: str) -> Iterator[Any]:
        """Yield what arrives for one results port until its node has ended."""
        values = self._values[input_name]
        while True:
            with suppress(IndexError):
                while True:
                    yield values.popleft()
            if not self._refill(input_name, values):
                return

    def _refill(self, port: str, values: deque[Any]) -> bool:
        """Wait for more results of ``port`` and decode them; False when there are no more."""
        channels = [ch for ch in self.plane.inbound.channels.values() if ch.port == port]
        kept = self._kept[port]
        with self.changed:
            piece: Piece | None = None
            while piece is None:
                self.changed.wait_for(
                    lambda: (
                        bool(values or kept)
                        or any(ch.deliverable for ch in channels)
                        or all(ch.exhausted for ch in channels)
                        or self._over
                    )
                )
                if values:  # another reader was faster
                    return True
                piece = kept.popleft() if kept else next_piece(channels, self._clock.wall_ns())
                if piece is None and (self._over or all(ch.exhausted for ch in channels)):
                    return False
            self.plane.wakeup.set()  # to report what was taken
            with self._code.lock:
                values.extend(piece.values(self._code.codec, self._code.restore(port)))
        return True

    def _keep_the_last(self) -> None:
        """Keep what is left of outputs at their end: the run may end before they are read."""
        for channel in self.plane.inbound.channels.values():
            ended = all(each.end_at is not None for each in channel.siblings)
            if not ended and not self._discard:
                continue
            while (piece := next_piece(channel.siblings, self._clock.wall_ns())) is not None:
                self._kept[channel.port].append(piece)
        if self._discard:
            self._kept.clear()

    def discard_results(self) -> None:
        """Read and drop what nobody will read, so that the run can end."""
        self._discard = True
        self.plane.wakeup.set()

    def over(self) -> None:
        """Let go whoever waits here: no process of the run is left to answer."""
        with self.changed:
            self._over = True
            self.changed.notify_all()
        self._questions.over()

    def close(self, *, report_expected: bool = False) -> None:
        """End the thread; called when no process of the run is left.

        The report may still be on its way through this process's own sockets: it is waited
        for longer if the coordinator has ended in order.
        """
        self._last_words_s = REPORT_S if report_expected else LAST_WORDS_S
        self.over()
        self.ended = True
        self.plane.wakeup.set()
        self._thread.join()

    # --- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        plane = self.plane
        pace_ns = int(report_interval_s(STATS_S, len(self._plan.workers)) * 1e9)
        next_stats = self._clock.monotonic_ns()
        owing = False
        try:
            while not self.ended:
                ready = plane.poller.wait(IDLE_REPORT_S if owing else STATS_S)
                plane.wakeup.clear(ready)
                with self.changed:
                    owing = self._step(ready)
                    self.changed.notify_all()
                if self._clock.monotonic_ns() >= next_stats:
                    next_stats = self._clock.monotonic_ns() + pace_ns
                    with self.changed:
                        said = c.Stats(self._stats())
                    plane.sweep(self._clock.monotonic_ns())
                    plane.look_for_doubt(self._clock.monotonic_ns())
                    self._outbox += (said, c.StatusRequest(_NOBODY_WAITS))
                while self._outbox:
                    self._dealer.send(c.encode(self._outbox.popleft()))
            self._hear_the_rest()
        finally:
            self._dealer.close(linger=0)
            plane.close()

    def _hear_the_rest(self) -> None:
        by_ns = self._clock.monotonic_ns() + int(self._last_words_s * 1e9)
        while self.report is None and (left_ns := by_ns - self._clock.monotonic_ns()) > 0:
            if self._dealer.poll(left_ns // 1_000_000 + 1):
                self._obey(self._dealer.recv())

    def _step(self, ready: list[Any]) -> bool:
        """Do what there is to do; return whether any sender is owed a credit report."""
        plane = self.plane
        if self._dealer in ready:
            while self._dealer.poll(0):
                self._obey(self._dealer.recv())
        while self._sending.opening:
            plane.outbound.add(*self._sending.opening.popleft())
        plane.receive(ready)
        if not self._parted:
            plane.flush()
            plane.outbound.ask()
        self._sending.looked()
        self._keep_the_last()
        owing = plane.inbound.grant(idle=not ready)
        results = plane.inbound.inputs[EXTERNAL]
        if self.ran and not self._drained and results.fed and results.exhausted:
            self._drained = True
            self._outbox.append(c.Drained())
        if self._drain_by_ns is not None and not self._drain_sent:
            left_s = math.ceil(max(0, self._drain_by_ns - self._clock.monotonic_ns()) / 1e8) / 10
            if self._sending.settled() or not left_s:
                self._outbox.append(c.DrainRequest(left_s))
                self._drain_sent = True
        return owing

    def _obey(self, data: bytes) -> None:
        try:
            message = c.decode(data)
        except ProtocolError:
            return
        match message:
            case c.Assign():
                host = "127.0.0.1" if self._options.transport == "tcp" else None
                endpoints = self.plane.inbound.bind(lambda: fresh_endpoint(self._run_dir, host))
                self._outbox.append(c.Bound(endpoints))
            case c.Link():
                self._outbox.append(c.Linked())
            case c.Run():
                self.ran = True
            case c.Process(phase):
                self.phase = phase
            case c.Stop() | c.Abort():
                self.phase = "stopping" if isinstance(message, c.Stop) else "aborting"
                self._outbox.append(c.Stopped(self._stats()))
                self._parted = True
            case c.StatusReply(request, status) if request == _NOBODY_WAITS:
                self.last_status = RunStatus.from_dict(status)
            case c.StatusReply(request, status):
                self._questions.answered(request, status)
            case c.Located(request, channels):
                self._questions.answered(request, channels)
            case c.Dump(request):
                self._outbox.append(c.Dumped(request, dump(self._standing, self._clock)))
            case c.Bundled(request, name, text) if name:
                self._bundles[request][name] = text
            case c.Bundled(request):
                self._questions.answered(request, self._bundles.pop(request, {}))
            case c.CancelReply(request, outcome):
                self._questions.answered(request, outcome)
            case c.Cancel(request):  # what has come this far is a result, and no handler's
                self._outbox.append(c.Outcome(request, Cancelled.DONE.value))
            case c.Answer(request, error):
                self._questions.answered(request, error)
            case c.Finished(report):
                self.report = RunReport.from_dict(report)
                self.phase = "finished"

    def _standing(self) -> dict[str, Any]:
        """Return where this process stands in the run, as plain data."""
        return {
            "phase": self.phase,
            "draining": self._drain_by_ns is not None,
            "results_waiting": {port: len(values) for port, values in self._values.items()},
            "something_unsent": self.plane.outbound.unsent,
            "nodes_told_to_end": sorted(self._ending),
        }

    def _stats(self) -> list[Any]:
        """Return the counters; the plane's lock is held."""
        return self.plane.stats(NodeStats(doing=self._watch.look())).to_wire()

    def _on_violation(self, text: str) -> None:
        self._outbox.append(c.Failed("protocol", text, ""))
