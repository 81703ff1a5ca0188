"""The pulse thread: coordinator link, statistics, and a metronome for the main thread.

User code can block the main thread for as long as it likes. The pulse keeps the worker's
promises meanwhile: it answers the coordinator, reports counters, and when user code has run for
longer than a turn it beats about once a millisecond (`dflow.transport.metronome`): it shuts the
gate, so that the turn ends soon, and flushes what was emitted, so that nothing waits longer than
2 ms. As long as turns are short it sleeps.
"""

from __future__ import annotations

import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any

from dflow.errors import ProtocolError
from dflow.transport.poller import ConnectionWatch
from dflow.transport.system import SYSTEM, System
from dflow.wire import control as c
from dflow.worker.answering import Question, answer

if TYPE_CHECKING:
    from dflow.stats import WorkerStats
    from dflow.worker.plane import DataPlane

__all__ = ["Pulse"]

COORDINATOR_SILENCE_S = 10.0
RECONNECT_S = 0.5
"""How long the connection of a worker that joined by hand may be broken."""

LEAVE_S = 0.5
EXIT_LOST = 3

MAX_QUEUED_LOGS = 10_000
EXIT_BROKEN = 70
"""Exit code of a worker whose own machinery failed (EX_SOFTWARE of sysexits.h)."""

INTERRUPT_AFTER_S = 0.5
"""How long user code may go on after the run asked it to end, before it is interrupted."""

INTERRUPT_AGAIN_NS = 100_000_000
INTERRUPT_SIGNAL: int = getattr(signal, "SIGRTMIN", signal.SIGUSR1 - 5) + 5
"""A real-time signal where there are any: nobody else uses them. SIGUSR1 elsewhere."""


class Pulse:
    """One thread a worker. ``commands`` is read by the main thread, ``post`` is called by it."""

    def __init__(
        self,
        endpoint: str,
        identity: bytes,
        *,
        stats_interval_s: float,
        remote: bool,
        system: System = SYSTEM,
    ) -> None:
        self._clock = system.clock
        self._exit = system.exit
        self.commands: deque[c.Control] = deque()
        self.in_user_code = False  # written by the main thread
        self.wake_after_flush = False  # an asyncio worker waits for sockets outside the lock
        self._plane: DataPlane | None = None
        self._socket = system.control_link(endpoint, identity)
        self._poller = system.poller()
        self._poller.add(self._socket)
        self._wakeup = system.wakeup()
        self._poller.add(self._wakeup.fd)
        self._metronome = system.metronome(self._wakeup.set)
        if self._metronome.fd >= 0:
            self._poller.add(self._metronome.fd)
        self._watch: ConnectionWatch | None = None
        if remote:  # elsewhere the agent sees to it that nobody outlives the coordinator
            self._watch = ConnectionWatch(self._socket)
            self._poller.add(self._watch.socket, self._watch)
        self._broken_ns: int | None = None
        self._gone_ns: int | None = None
        self._outbox: deque[c.Control] = deque()
        self._introduced = False
        self._logs = 0
        self._lost_logs = 0
        self._stats_interval_s = stats_interval_s
        self._report_at = 0
        self._collect: Callable[[], WorkerStats] | None = None
        self._describe: Callable[[], Mapping[str, Any]] = dict
        self._told_to_end: Callable[[str], bool] = lambda node: False
        self._interruptible: Callable[[], bool] = lambda: True
        self._now_or_never = False  # the run is over: whatever runs is to be interrupted
        self._interrupt: Callable[[], None] = lambda: None
        self._lost: Callable[[str], None] = lambda reason: None
        self._interrupt_at: int | None = None
        self._arrived = system.event()
        self._leaving = False
        self._thread = system.thread(self._run, "dflow-pulse")

    # --- called by the main thread -----------------------------------------------------------

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def attach(
        self,
        plane: DataPlane,
        collect: Callable[[], WorkerStats],
        interrupt: Callable[[], None],
        lost: Callable[[str], None],
        told_to_end: Callable[[str], bool] = lambda node: False,
        interruptible: Callable[[], bool] = lambda: True,
        describe: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        """Look after ``plane`` from now on.

        ``lost`` is called when the coordinator is; ``told_to_end`` at a drain of a node ("": of
        all), and returns whether user code that goes on for too long is to be interrupted for
        that; ``interruptible`` whether the code that runs right now is what was meant;
        ``describe`` where the worker stands (`dflow.worker.dump`).
        """
        self._describe = describe
        self._told_to_end = told_to_end
        self._interruptible = interruptible
        self._collect = collect
        self._interrupt = interrupt
        self._lost = lost
        self._plane = plane

    def post(self, message: c.Control) -> None:
        """Send ``message`` to the coordinator, soon and in order; never blocks."""
        self._outbox.append(message)
        self._wakeup.set()

    def post_log(self, record: c.Log) -> None:
        """Send a log record; beyond 10,000 waiting ones they are counted, not kept."""
        if self._logs >= MAX_QUEUED_LOGS:
            self._lost_logs += 1
            return
        self._logs += 1
        self.post(record)

    def user_code_begins(self) -> None:
        """The main thread is about to call user code."""
        self.in_user_code = True
        self._metronome.begin()

    def renew(self, now: int) -> None:
        """The main thread has sent what there was to send, and will call user code again."""
        self._metronome.renew(now)

    def user_code_ended(self) -> None:
        """The main thread is back."""
        self.in_user_code = False

    def take_interrupt(self) -> bool:
        """Return whether user code is to be interrupted here and now, once.

        Called in the signal handler. Not while the data plane is being worked on, or its shared
        memory: a batch cut and not sent would be lost.
        """
        due = self._interrupt_at is not None and self.in_user_code
        due = due and (self._now_or_never or self._interruptible())
        if not due or (self._plane is not None and self._plane.busy):
            return False
        self._interrupt_at = None
        return True

    def obeyed(self) -> None:
        """The main thread is about to obey a command: what runs from now on was not blocking."""
        self._interrupt_at = None

    def await_command(self) -> None:
        """Block until a command is there; used before the worker has a data plane."""
        while not self.commands:
            self._arrived.wait()
            self._arrived.clear()

    def leave(self) -> None:
        """Send what is queued, end the thread and close the link."""
        self._leaving = True
        self._wakeup.set()
        self._thread.join(timeout=5.0)
        self._socket.close(linger=1000)
        self._wakeup.close()
        self._metronome.close()

    # --- the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._beat_until_leaving()
        except (Exception, SystemExit):  # noqa: BLE001  # without a pulse it would hang unseen
            traceback.print_exc()
            self._exit(EXIT_BROKEN)

    def _beat_until_leaving(self) -> None:
        heard = self._clock.monotonic_ns()
        self._report_at = heard + int(self._stats_interval_s * 1e9)
        while not self._leaving:
            alone_s = self._metronome.timeout_s
            ready = self._poller.wait(self._rest_s() if alone_s is None else alone_s)
            now = self._clock.monotonic_ns()
            if self._socket in ready:
                heard = now
                self._receive(now)
            self._wakeup.clear(ready)  # a read gives up the interpreter, and so costs a switch
            if alone_s is not None or self._metronome.fd in ready:
                self._beat(now)
                self._metronome.beat(lambda: self.in_user_code)
            self._send()
            if now >= self._report_at and self._introduced:
                self._report_at = now + int(self._stats_interval_s * 1e9)
                self._report()
            if self._watch is not None:
                if self._watch in ready:
                    self._broken_ns = None if self._watch.connected() else now
                self._check_coordinator(now, heard)
        self._send()

    def _rest_s(self) -> float:
        """Return how long nobody needs us; a broken connection is looked after in between."""
        worried = self._broken_ns is not None or self._gone_ns is not None
        return min(self._stats_interval_s, RECONNECT_S) if worried else self._stats_interval_s

    def _check_coordinator(self, now: int, heard: int) -> None:
        """Leave when the coordinator is gone: by the main thread, or without it if it blocks."""
        if self._gone_ns is not None:
            if now - self._gone_ns > LEAVE_S * 1e9:
                self._exit(EXIT_LOST)
        elif self._broken_ns is not None and now - self._broken_ns > RECONNECT_S * 1e9:
            self._gone(now, f"the connection to the coordinator broke {RECONNECT_S:g} s ago")
        elif now - heard > COORDINATOR_SILENCE_S * 1e9:
            self._gone(now, f"no word from the coordinator for {COORDINATOR_SILENCE_S:g} s")

    def _gone(self, now: int, reason: str) -> None:
        self._gone_ns = self._interrupt_at = now
        self._now_or_never = True
        self._lost(reason)

    def _receive(self, now: int) -> None:
        while self._socket.poll(0):
            try:
                command = c.decode(self._socket.recv())
            except ProtocolError:
                continue  # the coordinator notices that it gets no answer
            if isinstance(command, c.Ping) or self._answered(command):
                continue
            if isinstance(command, c.Dump):
                self._dump(command.request)
                continue
            if isinstance(command, c.Assign):
                self._keep_pace(command, now)
            self._now_or_never |= isinstance(command, c.Abort)
            if isinstance(command, c.Abort) or self._ends_user_code(command):
                self._interrupt_at = now + int(INTERRUPT_AFTER_S * 1e9)
            self.commands.append(command)
            if isinstance(command, c.Pause) and command.request and self.in_user_code:
                # the handler at work may take its time; nothing is begun after it
                self._outbox.append(c.Held(command.request))
            self._arrived.set()
            if self._plane is not None:
                self._plane.gate.close()
                self._plane.wakeup.set()

    def _dump(self, request: int) -> None:
        """Say all that is known here, with counters of the same moment."""
        from dflow.worker.dump import dump  # few runs fail

        if self._collect is not None:
            self._outbox.append(c.Stats(self._collect().to_wire()))
        self._outbox.append(c.Dumped(request, dump(self._describe, self._clock)))

    def _keep_pace(self, assigned: c.Assign, now: int) -> None:
        """Report as often as the coordinator wants: it knows how many we are."""
        asked = assigned.options.get("stats_interval_s")
        if isinstance(asked, (int, float)) and asked > 0:
            self._stats_interval_s = float(asked)
            self._report_at = min(self._report_at, now + int(asked * 1e9))

    def _answered(self, command: c.Control) -> bool:
        """Answer for a main thread that is busy with user code; False if it must do so itself."""
        plane = self._plane
        if plane is None or not isinstance(command, Question):
            return False
        if not plane.lock.acquire(blocking=False):
            return False
        try:
            said = answer(plane, command, between_turns=False)
        finally:
            plane.lock.release()
        if said is not None:
            self._outbox.append(said)
        return said is not None

    def _ends_user_code(self, command: c.Control) -> bool:
        match command:
            case c.Drain():
                return self._told_to_end("")
            case c.DrainNode(node):
                return self._told_to_end(node)
        return False

    def _beat(self, now: int) -> None:
        plane = self._plane
        if plane is None or not self.in_user_code:
            return
        if self._interrupt_at is not None and now >= self._interrupt_at:
            self._interrupt_at = now + INTERRUPT_AGAIN_NS  # until the main thread takes it
            self._interrupt()
        plane.gate.close()
        if plane.lock.acquire(blocking=False):
            try:
                if plane.outbound.unsent and not plane.closed:
                    plane.outbound.ask()
                    plane.pump()
                    plane.gate.close()
                    if self.wake_after_flush:
                        plane.wakeup.set()
            finally:
                plane.lock.release()

    def _send(self) -> None:
        while self._outbox:
            message = self._outbox.popleft()
            if isinstance(message, c.Log):
                self._logs -= 1
            self._socket.send(c.encode(message))
            self._introduced = True  # the first word is Hello, however late it is posted
        if self._lost_logs:
            text = f"{self._lost_logs} log records were lost: too many at once"
            self._lost_logs = 0
            self._socket.send(
                c.encode(c.Log("WARNING", self._clock.wall_s(), text, __name__, 0, {}))
            )

    def _report(self) -> None:
        if self._plane is not None:
            self._plane.sweep(self._clock.monotonic_ns())
            self._plane.look_for_doubt(self._clock.monotonic_ns())
        if self._collect is not None:
            self._socket.send(c.encode(c.Stats(self._collect().to_wire())))
        else:
            self._socket.send(c.encode(c.Heartbeat()))


def install_interrupt(
    raise_in_user_code: Callable[[FrameType | None], None],
) -> Callable[[], None]:
    """Prepare a signal for interrupting the main thread; return the function that sends it.

    ``raise_in_user_code`` gets the frame in which the signal came. If user code has taken the
    signal for itself nothing is sent: its code then ends by itself, or by the drain deadline.
    """
    main = threading.main_thread().ident
    assert main is not None
    thread = main

    def interrupted(_: int, at: FrameType | None) -> None:
        raise_in_user_code(at)

    def send() -> None:
        if signal.getsignal(INTERRUPT_SIGNAL) is interrupted:
            signal.pthread_kill(thread, INTERRUPT_SIGNAL)

    signal.signal(INTERRUPT_SIGNAL, interrupted)
    return send
