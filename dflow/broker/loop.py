"""The coordinator's IO: its socket, the agent's pipe, signals and the clock, and nothing else.

Everything that is decided is decided in `CoordinatorState`; this turns what arrives into
events and carries instructions out, in order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING

from loguru import logger

from dflow.broker.backlog import Arrived, newest
from dflow.broker.case import Case
from dflow.broker.events import (
    AbortRequested,
    DrainRequested,
    Event,
    Finish,
    Garbled,
    Hand,
    Instruction,
    Keep,
    Kept,
    KillWorker,
    Probe,
    Received,
    Relay,
    Say,
    Send,
    Tick,
    Unreachable,
    WorkerExited,
)
from dflow.broker.lifecycle import Phase
from dflow.broker.pace import report_interval_s
from dflow.broker.signals import SignalWatch, signal_name
from dflow.broker.state import CoordinatorState
from dflow.errors import AgentDied, ProtocolError
from dflow.launch.pipe import Pipe
from dflow.launch.protocol import Exited, parse_event
from dflow.report import RunReport, RunStatus
from dflow.telemetry import logs
from dflow.transport.control import ControlRouter
from dflow.transport.system import SYSTEM, System
from dflow.wire import control

if TYPE_CHECKING:
    from dflow.bundle.keeper import Keeper

__all__ = ["STATUS_S", "Loop"]

STATUS_S = 0.25
"""Between two calls of ``on_status``; longer in large runs (`dflow.broker.pace`)."""

MOST_AT_ONCE = 1000
"""Messages read before the clock and the agent get their turn."""

LAST_WORDS_S = 0.01
"""How long the messages of a dead worker may lag behind the news of its death."""


def _say(level: str, text: str, labels: Mapping[str, object]) -> None:
    logger.bind(**labels).log(level, "{}", text)


class Loop:
    """One run's IO. ``agent`` and ``signals`` are None where there are none.

    ``first_signal`` is the signal that first asked for an end, if one did. ``relay`` gets the log
    records of workers, ``say`` the coordinator's own (level, text, labels).
    ``keeper`` makes, once it is needed, what writes bundles; None: nobody does.
    """

    def __init__(
        self,
        state: CoordinatorState,
        router: ControlRouter,
        agent: Pipe | None = None,
        signals: SignalWatch | None = None,
        on_status: Callable[[RunStatus], None] | None = None,
        system: System = SYSTEM,
        relay: Callable[[control.Log, str], None] | None = None,
        say: Callable[[str, str, Mapping[str, object]], None] = _say,
        keeper: Callable[[], Keeper] | None = None,
    ) -> None:
        self._keeper = None if keeper is None else cache(keeper)
        self._relay = relay or logs.emit_remote
        self._say = say
        self._now_s = system.clock.monotonic_s
        self._poller = system.poller()
        self._state = state
        self._router = router
        self._agent = agent
        self._signals = signals
        self._on_status = on_status
        self._status_at = 0.0
        self._status_s = report_interval_s(STATUS_S, len(state.plan.workers))
        self._events: deque[Event] = deque()
        self._report: RunReport | None = None
        self._said: control.Control | None = None
        self._frame = b""
        self.first_signal: int | None = None

    def run(self) -> RunReport:
        """Return the report, when the run is over; raises `AgentDied` if the agent is gone."""
        poller = self._poller
        poller.add(self._router.socket)
        for source in (self._agent, self._signals):
            if source is not None:
                poller.add(source.fileno())
        self.feed(Tick())
        while self._report is None:
            ready = poller.wait(self._patience_s())
            self._read_router()
            if self._agent is not None and self._agent.fileno() in ready:
                self._read_agent(self._agent)
            if self._signals is not None and self._signals.fileno() in ready:
                self._read_signals(self._signals)
            self.feed(Tick())
            self._tell_status()
        return self._report

    def _patience_s(self) -> float | None:
        due = self._state.next_timer()
        if due is None:
            return 0.0
        if self._on_status is not None:
            due = min(due, self._status_at)
        return max(0.0, due - self._now_s())

    # --- in -----------------------------------------------------------------------------

    def _read_router(self) -> None:
        waiting: list[Arrived] = []
        while len(waiting) < MOST_AT_ONCE and (arrived := self._router.receive()) is not None:
            waiting.append(arrived)
        for key, frames in newest(waiting):
            try:
                if len(frames) != 1:
                    raise ProtocolError(f"control message: expected 1 frame, got {len(frames)}")
                known = self._state.knows(key)
                most = control.MAX_CONTROL_BYTES if known else control.MAX_STRANGER_BYTES
                event: Event = Received(key, control.decode(frames[0], most))
            except ProtocolError as error:
                event = Garbled(key, str(error))
            self.feed(event)

    def _read_agent(self, agent: Pipe) -> None:
        messages = agent.available()
        if messages and self._state.phase is not Phase.LEAVING:
            self._router.wait(LAST_WORDS_S)
            self._read_router()
        for message in messages:
            match parse_event(message):
                case Exited(worker, pid, code, signal):
                    name = None if signal is None else signal_name(signal)
                    self.feed(WorkerExited(worker, pid, code, name))
        if agent.closed_by_peer and self._report is None:
            raise AgentDied("the agent died; the coordinator ends with it")

    def _read_signals(self, signals: SignalWatch) -> None:
        for number in signals.read():
            if self.first_signal is None:
                self.first_signal = number
                logger.info("draining; interrupt again to end now")
                self.feed(DrainRequested())
            else:
                self.feed(AbortRequested("interrupted twice"))

    # --- out ----------------------------------------------------------------------------

    def feed(self, event: Event) -> None:
        """Decide what an event means, and carry it out."""
        self._events.append(event)
        while self._events:
            for instruction in self._state.handle(self._events.popleft(), self._now_s()):
                self._carry_out(instruction)

    def _carry_out(self, instruction: Instruction) -> None:
        match instruction:
            case Send(key, message):
                if message is not self._said:  # the same word often goes to everybody
                    self._said, self._frame = message, control.encode(message)
                if not self._router.send(key, self._frame):
                    self._events.append(Unreachable(key))
            case KillWorker(worker):
                if self._agent is not None:
                    self._agent.send_message({"kill": [worker.node, worker.replica]})
            case Relay(worker, record):
                self._relay(record, str(worker))
            case Say(level, text, labels):
                self._say(level, text, labels)
            case Finish(report):
                self._report = report
            case Probe(silent) if self._keeper is not None:
                self._keeper().probe(silent)
            case Keep(case):
                kept = ("", "") if self._keeper is None else self._keeper().keep(case)
                self._events.append(Kept(*kept))
            case Hand(case, key, request):
                self._hand(case, key, request)

    def _hand(self, case: Case, key: bytes, request: int) -> None:
        """Send the files of a bundle one by one; the last word is an empty name."""
        files = {} if self._keeper is None else self._keeper().files(case)
        for name, text in (*files.items(), ("", "")):
            word = control.Bundled(request, name, text)
            if not self._router.send(key, control.encode(word)):
                self._events.append(Unreachable(key))
                return

    def _tell_status(self) -> None:
        if self._on_status is None:
            return
        now = self._now_s()
        if now >= self._status_at or self._report is not None:
            self._status_at = now + self._status_s
            self._on_status(self._state.status())
