"""The worker's main loop: carries out what `WorkerState` decides, and little else.

One round: look at the sockets (waiting only when there is nothing to do), obey commands, run
one turn of user code, flush. The data plane's lock is held all the time except in user code.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dflow.errors import ProtocolError
from dflow.telemetry.logs import say
from dflow.wire import control as c
from dflow.worker import state as s
from dflow.worker.answering import Question, answer
from dflow.worker.spin import Spin
from dflow.worker.turn import OwnTurn

if TYPE_CHECKING:
    from dflow.worker.context import Context
    from dflow.worker.crew import Crew
    from dflow.worker.plane import DataPlane
    from dflow.worker.pulse import Pulse
    from dflow.worker.work import Work

__all__ = ["WorkerLoop"]

IDLE_REPORT_S = 0.002
"""An idle worker reports the credit it owes after this long, off the path of paced streams."""

BUSY_REPORT_NS = 20_000_000
"""One that is never idle does so that often: who sends it little still hears that it was done."""

let_others: Callable[[], object] = getattr(os, "sched_yield", lambda: None)
"""Lets whoever waits for this core go first; does nothing where no one does."""


class WorkerLoop:
    """One replica; `run` returns when the coordinator has let it go.

    ``endpoint`` returns a fresh endpoint to bind; ``spin_s`` is `NodeOptions.spin_s`. ``left``
    says why the loop ended; empty is the ordinary way.
    """

    def __init__(
        self,
        work: Work | Crew,
        plane: DataPlane,
        pulse: Pulse,
        ctx: Context,
        endpoint: Callable[[], str],
        spin_s: float = 0.0,
    ) -> None:
        self.state = s.WorkerState()
        self.left: str | None = None
        self._work = work
        self._plane = plane
        self._pulse = pulse
        self._ctx = ctx
        self._endpoint = endpoint
        self._now = plane.clock.monotonic_ns
        self._violation: str | None = None
        self._turn = OwnTurn()
        self._report_all_at = 0
        self.spin = Spin(spin_s) if spin_s > 0 else None

    def run(self) -> None:
        """Live: from the assignment to being let go by the coordinator."""
        plane = self._plane
        plane.lock.acquire()
        try:
            while self.left is None:
                if self._turn.rationed:
                    self._mind_turn()
                self._look()
                while self._pulse.commands:
                    self._obey(self._pulse.commands.popleft())
                if self._turn.rationed:
                    self._mind_turn()
                self._advance()
        finally:
            plane.lock.release()

    def _obey(self, command: c.Control) -> None:
        if isinstance(command, c.Turn):
            self._turn.given(command.seconds, self._now())
            self._work.hold("turn", self._turn.held)
        elif isinstance(command, Question):
            said = answer(self._plane, command, between_turns=True)
            if said is not None:  # it always is between turns
                self._pulse.post(said)
        else:
            self._pulse.obeyed()
            self._handle(command)

    def _mind_turn(self) -> None:
        """Say so when the turn is over, or when there is nothing or something to do again."""
        ready = self.state.phase is s.Phase.RUNNING and (self._work.active or self._work.ready())
        over = self._turn.mind(ready, self._now())
        if over is not None:
            self._work.hold("turn", self._turn.held)
            self._pulse.post(c.TurnOver(over))

    def violated(self, text: str) -> None:
        """A peer broke the protocol: data may be missing, so the run must end."""
        self._violation = self._violation or text

    def leave(self, reason: str) -> None:
        """End the loop from another thread (the coordinator is lost)."""
        self.left = reason
        self._plane.gate.close()
        self._plane.wakeup.set()

    def _look(self) -> None:
        """Wait until there is something to do, then take in what has arrived."""
        plane = self._plane
        # before waiting: a sender that is out of credit may be waiting for this
        owing = plane.inbound.grant(idle=self._late_with_reports())
        timeout = self._timeout_s(owing)
        if self.spin is not None:
            ready = self._spin_for(self.spin, timeout)
        else:
            ready = plane.poller.wait(0 if self._work.active else timeout)
        if not ready and self._work.active:
            self._work.wait(timeout)
            ready = plane.poller.wait(0)
        if ready:
            plane.wakeup.clear(ready)
            plane.receive(ready)
        elif owing and timeout != 0:
            plane.inbound.grant(idle=True)

    def _spin_for(self, spin: Spin, timeout_s: float | None) -> list[Any]:
        """Do as the poller's `wait`, but keep looking before it sleeps, where that is fair.

        A node that is held waits for a command, coroutines wait in their own loop, and a worker
        that takes turns has said that it has nothing to do: others compute meanwhile.
        """
        wait = self._plane.poller.wait
        if timeout_s == 0 or self._work.active:
            spin.busy()
            return wait(0)
        running = self.state.phase is s.Phase.RUNNING
        if not running or self._work.held or self._turn.rationed:
            return wait(timeout_s)
        return spin.wait(wait, timeout_s, self._now, let_others)

    def _late_with_reports(self) -> bool:
        """Whether it is time to report all credit that is owed, although there is work to do."""
        now = self._now()
        self._pulse.renew(now)
        late = now >= self._report_all_at
        if late:
            self._report_all_at = now + BUSY_REPORT_NS
            self._plane.outbound.ask()
        return late

    def _timeout_s(self, owing: bool) -> float | None:
        """Return how long there is nothing to do: 0 when there is work, None for ever."""
        phase = self.state.phase
        if self._pulse.commands or self._violation:
            return 0
        if phase is s.Phase.RUNNING:
            if self._work.ready():
                return 0
            tick = self._work.until_tick_s()
            if tick is not None:
                return min(tick, IDLE_REPORT_S) if owing else tick
        elif phase is s.Phase.FLUSHING and (self._flushed() or self._work.drivable()):
            return 0  # an `on_end` whose turn was over goes on, though it may wait for nobody
        return IDLE_REPORT_S if owing else None

    def _flushed(self) -> bool:
        return not self._plane.outbound.unsent and not self._work.paused

    def _advance(self) -> None:
        """Do what the phase asks for."""
        plane, work = self._plane, self._work
        phase = self.state.phase
        if self._violation is not None:
            violation, self._violation = self._violation, None
            if phase not in (s.Phase.STOPPING, s.Phase.STOPPED, s.Phase.GONE):
                self._handle(s.HookRaised("protocol", violation, ""))
        elif phase is s.Phase.RUNNING:
            work.step()
            plane.flush()
            if work.raised is not None:
                self._handle(work.raised)
            elif work.at_end():
                self._handle(s.Simple.EXHAUSTED)
        elif phase is s.Phase.LINKING and plane.outbound.welcomed:
            self._handle(s.Simple.WELCOMED)
        elif phase is s.Phase.FLUSHING:
            work.resume()
            plane.flush()
            if work.raised is not None:
                self._handle(work.raised)
            elif self._flushed():
                self._handle(s.Simple.FLUSHED)

    def _handle(self, event: s.Event) -> None:
        try:
            instructions = self.state.handle(event, self._now() / 1e9)
        except ProtocolError as error:
            say(self._ctx.log, "ERROR", str(error))
            return
        for instruction in instructions:
            self._carry_out(instruction)

    def _carry_out(self, instruction: s.Instruction) -> None:
        match instruction:
            case s.Bind():
                self._pulse.post(c.Bound(self._plane.inbound.bind(self._endpoint)))
            case s.OpenChannels(rows):
                self._plane.outbound.open(rows)
            case s.CallHook(name):
                self._call_hook(name)
            case s.BeginRun():
                self._work.begin()
            case s.CloseInputs(node):
                self._work.close_inputs(node)
            case s.Hold(node, on):
                self._work.hold("paused", on, node)
            case s.StopWork():
                self._work.stop()
            case s.EndChannels():
                self._work.end()
            case s.Say(message):
                if isinstance(message, c.Stopped):
                    self._conclude()
                    message = c.Stopped(self._work.stats().to_wire())
                self._pulse.post(message)
            case s.Leave(reason):
                self.left = reason

    def _conclude(self) -> None:
        self._work.conclude()
        strangers = self._plane.inbound.strangers
        if strangers:
            text = f"{strangers} frames of peers that do not belong to this run were refused"
            say(self._ctx.log, "WARNING", text)

    def _call_hook(self, name: str) -> None:
        raised = self._work.hook(name)
        self._plane.flush()
        self._handle(s.HookReturned(name) if raised is None else raised)
