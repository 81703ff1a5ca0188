"""The coordinator's decisions: events in, instructions out; no sockets, no clock, no log.

One run, from the first Hello to the report. The tables in `lifecycle` say what may follow
what; this file says what is sent when. The way through a run:

* everybody joins, binds, is told the others' endpoints and links (WAITING to LINKING);
* `Start` goes out level by level, sources first, each level after the one before it has
  started; then `Run` goes to all, so no source runs before every ``on_start`` returned;
* when all are drained, `Stop` goes out level by level, sinks first; then `Exit`, and the
  report to the handle;
* a failure before that sends `Abort` to all. Whoever does not answer within ``GRACE_S`` is
  killed, so a run always ends.

Invariants (`validate_state`): no participant is behind the phase of the run; a routing id
speaks for one participant only; a finished run has a report. What peers send can be late,
repeated, out of order or wrong: it is then counted, said once and ignored.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, replace
from typing import Any

from dflow.broker import books, lifelog, orders
from dflow.broker.complaints import Complaints
from dflow.broker.door import Door
from dflow.broker.events import (
    AbortRequested,
    DrainRequested,
    Event,
    Finish,
    Garbled,
    Instruction,
    Kept,
    Received,
    Relay,
    Say,
    Send,
    Tick,
    Unreachable,
    WorkerExited,
)
from dflow.broker.gathering import About, Gathering
from dflow.broker.lifecycle import RUN, Move, Phase, Role, RunEvent, Step, advance
from dflow.broker.observers import Observers
from dflow.broker.outcome import USER_CODE, Cause, close_books, exit_text
from dflow.broker.pace import ping_interval_s, report_interval_s
from dflow.broker.participants import Participant, Participants, are_endpoints
from dflow.broker.requests import Requests
from dflow.broker.telling import event_words, todo_words
from dflow.broker.timers import GRACE_S, PING_S, STARTUP, Timers, late, silent
from dflow.broker.turns import Use, turns_of
from dflow.errors import ProtocolError
from dflow.graph.plan import Plan, WorkerId
from dflow.options import RunOptions
from dflow.report import RunReport, RunStatus
from dflow.story import Story
from dflow.wire import control as c

__all__ = ["CoordinatorState"]

_OVER = frozenset({Phase.LEAVING, Phase.FINISHED})


class CoordinatorState:
    """One run as a pure machine.

    ``with_handle``: the launching process takes part. ``managed``: an agent owns the workers,
    reports their exits and kills on request; otherwise workers join by hand, may take any
    time to, and are taken for dead when they fall silent. ``now`` (seconds, any origin) and
    ``wall_s`` (Unix seconds) are the same moment on two clocks. ``cores``: how many workers may
    compute at once unless the options say.
    """

    def __init__(
        self,
        plan: Plan,
        options: RunOptions,
        run_id: str,
        token: str,
        epoch: int = 1,
        graph_ref: str = "",
        *,
        with_handle: bool = True,
        managed: bool = True,
        cores: int = 0,
        now: float = 0.0,
        wall_s: float = 0.0,
    ) -> None:
        self.plan = plan
        self.options = options
        self.run_id = run_id
        self.phase = Phase.WAITING
        self.report: RunReport | None = None
        self.story = Story()
        self._managed = managed
        self._roll = Participants(plan, token, with_handle=with_handle, managed=managed)
        self._observers = Observers(self.status)
        self._requests = Requests(plan, self._roll, self.status)
        self._turns = turns_of(plan, options, cores if managed else 0)
        about = About(plan, run_id, epoch, options, now, wall_s, managed=managed)
        self._gathering = Gathering(about, self._roll, self._requests, self._turns, self.story)
        self._began_s, self._wall_s = now, wall_s
        self._timers = Timers(
            now,
            now + options.start_timeout_s if managed else None,
            ping_interval_s(PING_S, len(plan.workers)),
        )
        pace_s = report_interval_s(options.stats_interval_s, len(plan.workers))
        told_options = asdict(options) | {"stats_interval_s": pace_s}
        self._complete = False
        self._drain_asked = False
        self._drain_s = options.drain_timeout_s
        self._cause: Cause | None = None
        self._complaints = Complaints()
        assign = c.Assign("", 0, run_id, epoch, graph_ref, plan.fingerprint, told_options)
        self._door = Door(self._roll, self._observers, self._complaints, assign, managed=managed)
        self._todo: list[Instruction] = [lifelog.starting(plan)]

    # --- the interface ------------------------------------------------------------------

    def handle(self, event: Event, now: float) -> list[Instruction]:
        """Return what to do about ``event``, in order; never raises for what a peer did."""
        if self.phase is Phase.FINISHED:
            return []
        self._notice_time(now)
        self._note(event_words(event, self._name))
        match event:
            case Received(key, message):
                self._received(key, message)
            case Garbled(key, reason):
                self._complain("malformed", key, f"{self._name(key)}: {reason}")
            case Unreachable(key):
                self._unreachable(key)
            case WorkerExited():
                self._exited(event)
            case DrainRequested(timeout_s):
                self._drain(timeout_s)
            case AbortRequested(reason):
                self._abort(reason)
            case Kept(path, error):
                self._gathering.was_kept(path, error)
            case Tick():
                pass
        self._check_timers()
        self._settle()
        self._note(todo_words(self._todo, self._name))
        self._todo += orders.turns(self._roll, self._turns.take(self._timers.now))
        todo, self._todo = self._todo, []
        return todo

    def _note(self, words: str) -> None:
        if words:
            self.story.note(self._timers.now, words)

    @property
    def ignored(self) -> Counter[str]:
        """How often something a peer said was ignored, by kind."""
        return self._complaints.counts

    def knows(self, key: bytes) -> bool:
        """Whether the peer ``key`` has been let in."""
        return self._roll.by_key(key) is not None or key in self._observers

    def next_timer(self) -> float | None:
        """Return when `Tick` is due, on the clock of ``now``; None once the run is over."""
        if self.phase is Phase.FINISHED:
            return None
        parts = (self._requests, self._turns, self._gathering)
        dues = (self._timers.next(), *(part.next_timer() for part in parts))
        return min(due for due in dues if due is not None)

    def status(self) -> RunStatus:
        """Return the run as it is known now."""
        now = self._timers.now
        return self._requests.standing(self.run_id, self.phase, now - self._began_s, now)

    def validate_state(self) -> None:
        """Raise RuntimeError if an invariant is broken; for the ends of tests."""
        problems = list(self._roll.problems(self.phase))
        if (self.report is not None) != (self.phase in _OVER):
            problems.append(f"report is {self.report} while {self.phase.value}")
        if self._todo:
            problems.append("instructions were left behind")
        if problems:
            raise RuntimeError("; ".join(problems))

    # --- what peers say -----------------------------------------------------------------

    def _received(self, key: bytes, message: c.Control) -> None:
        p = self._roll.by_key(key)
        if isinstance(message, c.Hello):
            now = self._timers.now
            self._todo += self._door.hello(key, message, p, self.phase, self.report, now)
        elif key in self._observers:
            self._observed(key, message)
        elif p is None:
            self._complain("stranger", key, f"{self._name(key)}: expected Hello first")
        else:
            p.last_seen_s, p.unreachable = self._timers.now, False
            try:
                self._said(p, key, message)
            except ProtocolError as error:
                self._complain("unexpected", key, str(error))

    def _observed(self, key: bytes, message: c.Control) -> None:
        if isinstance(message, c.DumpRequest):
            self._gather(key, message.request)
            return
        try:
            self._todo += self._observers.said(key, message)
        except ProtocolError as error:
            self._complain("unexpected", key, str(error))

    def _said(self, p: Participant, key: bytes, message: c.Control) -> None:
        if isinstance(message, c.Log):
            self._do(Relay(self._speaker(p, str(message.extra.get("node", ""))), message))
        elif isinstance(message, c.Dumped):
            self._gathering.heard(p, message)
        elif p.step is Step.GONE:
            self._last_words(p, message)
        elif isinstance(message, c.Stats):
            if not p.final:
                p.stats = books.parse_stats(message.stats, p.worker)
                use = Use(p.stats.cpu_ns, p.stats.delayed_ns)
                self._turns.measured(p.worker, use, self._timers.now)
        elif isinstance(message, c.TurnOver):
            self._turns.over(p.worker, bool(message.wanting), self._timers.now)
        elif isinstance(message, c.Failed):
            self._failed(p, message)
        elif type(message) in orders.SAID:
            self._moved(p, message)
        elif isinstance(message, (c.Found, c.Outcome, c.Held)):
            self._todo += self._requests.answered(p, message)
        elif isinstance(message, c.Heartbeat):
            pass
        elif p.role is Role.HANDLE:
            self._asked(p, key, message)
        else:
            raise ProtocolError(f"{p.worker}: a worker may not send {type(message).__name__}")

    def _last_words(self, p: Participant, message: c.Control) -> None:
        """Take the counters of one whose end was heard of first; the rest is too late."""
        if isinstance(message, (c.Stats, c.Stopped)) and message.stats and not p.final:
            p.stats = books.parse_stats(message.stats, p.worker)
            p.final = isinstance(message, c.Stopped)

    def _moved(self, p: Participant, message: c.Control) -> None:
        stats = p.stats
        if isinstance(message, c.Stopped) and message.stats:
            stats = books.parse_stats(message.stats, p.worker)
        if isinstance(message, c.Bound) and not are_endpoints(message.endpoints):
            raise ProtocolError(f"{p.worker}: expected endpoints by band, got something else")
        p.move(orders.SAID[type(message)])
        p.stats = stats
        p.final = p.final or isinstance(message, c.Stopped)
        if p.drained:
            self._turns.ended(p.worker)
        if isinstance(message, c.Bound):
            p.endpoints = dict(message.endpoints)

    def _asked(self, p: Participant, key: bytes, message: c.Control) -> None:
        match message:
            case c.DrainRequest(timeout_s):
                self._drain(timeout_s)
            case c.AbortRequest(reason):
                self._abort(reason)
            case c.DumpRequest(request):
                self._gather(key, request)
            case _:
                now = self._timers.now
                self._todo += self._requests.asked(p, key, message, self.phase, now)

    # --- failures and requests ----------------------------------------------------------

    def _speaker(self, p: Participant, node: str) -> WorkerId:
        """Return the replica of ``node`` that runs in this worker; else the worker's own name."""
        inside = WorkerId(node, p.worker.replica)
        return inside if inside in self.plan.members(p.worker) else p.worker

    def _failed(self, p: Participant, failed: c.Failed) -> None:
        who = self._speaker(p, failed.node)
        if p.ended or p.step is Step.ABORTING:
            self._do(Say("WARNING", f"{who}: {failed.where} failed, too: {failed.error}"))
            return
        text = f"{who}: {failed.where} failed: {failed.error}"
        if failed.where == "joining" and self.phase is Phase.WAITING and not self._managed:
            self._do(Say("WARNING", f"{text}; waiting for another in its place"))
            self._roll.vacate(p)
            return
        starting = self.phase in STARTUP and failed.where not in USER_CODE
        kind = "start_failed" if starting else "hook_failed"
        text += f"\n{failed.traceback.rstrip()}" if failed.traceback else ""
        self._fail(Cause("failed", kind, text))
        if self.phase is Phase.STOPPING:
            self._todo += orders.abort(p, "its on_stop failed", managed=self._managed)

    def _exited(self, event: WorkerExited) -> None:
        p = self._roll.get(event.worker)
        if p is None or p.exited:
            return
        p.exited = True
        how = f"{exit_text(event.code, event.signal)} (pid {event.pid})"
        p.ended_how = how
        step, ended = p.step, p.ended
        p.move(Move.LOSE)
        if p.killed and step is not Step.GONE:
            text = f"{p.worker}: killed, as it was {step.value} for too long"
            self._do(lifelog.worker_exited(p.worker, text))
        elif not ended:
            self._died(p, f"{how} while {step.value}")
        elif step is not Step.GONE and (event.code, event.signal) != (0, None):
            text = f"{p.worker}: {how} after its work was done"
            self._do(lifelog.worker_exited(p.worker, text))

    def _died(self, p: Participant, how: str) -> None:
        text = f"{p.title}: worker died: {how}"
        self._fail(Cause("failed", "worker_died", text, worker=p.worker))

    def _unreachable(self, key: bytes) -> None:
        p = self._roll.by_key(key)
        if p is not None:
            p.unreachable = True
        self._observers.forget(key)

    def _fail(self, cause: Cause, event: RunEvent = RunEvent.FAIL) -> None:
        """End the run for ``cause``, unless something else has ended it already."""
        if self._cause is None and self.phase not in _OVER:
            self._cause = cause
            self._do(lifelog.failed(cause))
            if self.options.bundle is not None and cause.kind != "aborted":
                self._gather()  # before anybody is told to end
        else:
            self._do(Say("WARNING", f"after the run was ended: {cause.text}"))
        self._go(event)

    def _abort(self, reason: str) -> None:
        if self._cause is None or self.phase is Phase.STOPPING:
            self._fail(Cause("aborted", "aborted", reason or "aborted"), RunEvent.ABORT)

    def _drain(self, timeout_s: float | None) -> None:
        wanted = self.options.drain_timeout_s if timeout_s is None else max(0.0, timeout_s)
        self._drain_s = min(self._drain_s, wanted) if self._drain_asked else wanted
        self._drain_asked = True
        before = self.phase
        self._go(RunEvent.DRAIN)
        if before is self.phase and before in (Phase.DRAINING, Phase.STOPPING):
            self._timers.shorten(self._drain_s)

    # --- the phases ---------------------------------------------------------------------

    def _settle(self) -> None:
        """Say the next word to whoever waits for it, and pass every barrier so completed."""
        while True:
            self._todo += orders.next_level(self.phase, self._roll)
            event = orders.barrier(self.phase, self._roll, managed=self._managed)
            if event is None or (event is RunEvent.ALL_STOPPED and not self._may_leave()):
                return
            self._go(event)

    def _may_leave(self) -> bool:
        """Whether nothing is left to be kept of a run that failed: it needs its workers."""
        if self.options.bundle is None:
            return True
        if self._cause is None and not self._gathering.begun and not self._report().balances:
            self._gather()
        if not self._gathering.begun:
            return True
        self._todo += self._gathering.check(self._timers.now)
        self._todo += self._gathering.keep(self._timers.now, self._report())
        return self._gathering.settled

    def _gather(self, *asker: Any) -> None:
        """Ask everybody what they know: for the run itself, or for the peer (key, request)."""
        self._todo += self._gathering.ask(self._timers.now, self.phase, self._cause, asker)

    def _go(self, event: RunEvent) -> None:
        before = self.phase
        self.phase = advance(RUN, before, event, "run")
        if self.phase is before:
            return
        self._note(f"run is {self.phase.value}: {event.value}")
        self._do(Say("DEBUG", f"run is {self.phase.value}"))
        lasted_s = self._timers.now - self._began_s
        self._todo += lifelog.entered(self.phase, self.plan, lasted_s, self._drain_s)
        self._enter()
        handle = self._roll.handle
        if handle is not None and handle.key is not None and self.phase not in _OVER:
            self._do(Send(handle.key, c.Process(self.phase.value)))

    def _enter(self) -> None:
        if self.phase not in STARTUP and self.phase is not Phase.RUNNING:
            self._turns.release(self._timers.now)
        match self.phase:
            case Phase.BINDING if self._timers.deadline is None:
                self._timers.within(self.options.start_timeout_s)
            case Phase.LINKING:
                self._link()
            case Phase.RUNNING:
                self._timers.deadline = None
                self._todo += orders.run(self._roll)
            case Phase.DRAINING:
                self._timers.within(self._drain_s)
                self._todo += self._requests.pausing.resume_all()
                self._todo += orders.drain(self._roll)
            case Phase.STOPPING:
                self._complete = True
                self._timers.lengthen(GRACE_S)
                self._todo += orders.stop_handle(self._roll)
            case Phase.ABORTING:
                self._timers.within(GRACE_S)
                reason = self._cause.text.partition("\n")[0] if self._cause else "asked to end"
                for p in self._roll:
                    self._todo += orders.abort(p, reason, managed=self._managed)
            case Phase.LEAVING:
                self._timers.within(GRACE_S)
                kept, why_not = self._gathering.kept, self._gathering.why_not
                self.report = replace(self._report(), bundle=kept or None)
                if why_not:
                    self._do(Say("ERROR", f"no failure bundle: {why_not}"))
                self._todo += orders.leave(self._roll, self.report)
                self._todo += self._observers.finished(self.report)
            case Phase.FINISHED if self.report is not None:
                self._do(lifelog.ended(self.report))
                self._do(Finish(self.report))

    def _report(self) -> RunReport:
        lasted_s = self._timers.now - self._began_s
        return close_books(
            self.plan, self.run_id, self._roll, self._cause, self._wall_s, lasted_s,
            drained=self._drain_asked, complete=self._complete,
        )  # fmt: skip

    def _link(self) -> None:
        try:
            self._todo += orders.link(self.plan, self._roll)
        except ProtocolError as error:
            self._fail(Cause("failed", "start_failed", str(error)))

    # --- time ---------------------------------------------------------------------------

    def _notice_time(self, now: float) -> None:
        if self._timers.notice(now):
            for p in self._roll:
                p.last_seen_s = now

    def _check_timers(self) -> None:
        if self._timers.ping_due():
            self._todo += orders.ping(self._roll)
            if not self._managed:
                for p, text in silent(self._roll, self._timers.now):
                    self._fell_silent(p, text)
        self._todo += self._requests.check(self._timers.now)
        self._todo += self._gathering.check(self._timers.now)
        if self._timers.overdue:
            self._overdue()

    def _fell_silent(self, p: Participant, text: str) -> None:
        if self.phase is Phase.WAITING and p.key is not None:
            self._do(Send(p.key, c.Refused("taken for dead after a silence; start it again")))
            self._do(Say("WARNING", f"{p.worker}: {text}; waiting for another in its place"))
            self._roll.vacate(p)
            return
        step = p.step
        p.move(Move.LOSE)
        self._died(p, f"{text} while {step.value}")

    def _overdue(self) -> None:
        """The deadline of the phase has passed."""
        cause = late(self.phase, self._roll, self.options, self._drain_s, self.status)
        if cause is not None:
            self._fail(cause, RunEvent.ABORT)
            return
        self._timers.within(GRACE_S)
        self._roll.forget_late_handle()
        for p in self._roll:
            self._todo += orders.end(p, managed=self._managed, leaving=self.phase in _OVER)

    # --- small change -------------------------------------------------------------------

    def _do(self, instruction: Instruction) -> None:
        self._todo.append(instruction)

    def _name(self, key: bytes) -> str:
        p = self._roll.by_key(key)
        return str(p.worker) if p is not None else f"unknown peer {key.hex()[:16]}"

    def _complain(self, kind: str, key: bytes, text: str) -> None:
        self._todo += self._complaints.about(key, kind, text)
