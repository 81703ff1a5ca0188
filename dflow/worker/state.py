"""A worker's life as a pure machine: events in, instructions out, one literal table.

The phases follow DESIGN §7. A worker never decides alone when to go on: it reports, and the
coordinator says the next word once all others have reported too. User code that raises
where that ends the run puts the worker in FAILED, where it waits for the coordinator's
`Abort`, so that every worker stops in the same orderly way.

    joining → bound → linking → linked → starting → ready → running
            → ending → flushing → drained → stopping → stopped → gone
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from dflow.errors import ProtocolError
from dflow.story import Story
from dflow.wire import control as c

__all__ = [
    "TABLE", "BeginRun", "Bind", "CallHook", "CloseInputs", "EndChannels", "Event", "Hold",
    "HookRaised", "HookReturned", "Instruction", "Leave", "OpenChannels", "Phase", "Say",
    "Simple", "StopWork", "WorkerState",
]  # fmt: skip


class Phase(Enum):
    """Where a worker stands."""

    JOINING = "joining"
    BOUND = "bound"
    LINKING = "linking"
    LINKED = "linked"
    STARTING = "starting"
    READY = "ready"
    RUNNING = "running"
    ENDING = "ending"
    FLUSHING = "flushing"
    DRAINED = "drained"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"
    GONE = "gone"


class Simple(Enum):
    """Events without data, raised by the worker itself."""

    WELCOMED = "every receiver has welcomed its channel"
    EXHAUSTED = "no more input: the source ended, or every input is at its end"
    FLUSHED = "everything emitted is on the wire"


@dataclass(frozen=True, slots=True)
class HookReturned:
    """A lifecycle hook returned (or the node has none)."""

    name: str


@dataclass(frozen=True, slots=True)
class HookRaised:
    """User code raised where that ends the run, or a peer broke the protocol."""

    where: str
    error: str
    traceback: str
    node: str = ""


Event = c.Control | Simple | HookReturned | HookRaised


@dataclass(frozen=True, slots=True)
class Bind:
    """Bind the data sockets, then say `Bound`."""


@dataclass(frozen=True, slots=True)
class OpenChannels:
    """Connect to the receivers and say HELLO; rows of [channel number, endpoint]."""

    rows: list[Any]


@dataclass(frozen=True, slots=True)
class CallHook:
    """Call a lifecycle hook, then report `HookReturned` or `HookRaised`."""

    name: str


@dataclass(frozen=True, slots=True)
class BeginRun:
    """Handle messages; start the source."""


@dataclass(frozen=True, slots=True)
class CloseInputs:
    """End the source, or the inputs that only the outside feeds; ``node`` empty: of all nodes."""

    node: str = ""


@dataclass(frozen=True, slots=True)
class Hold:
    """Take no data for ``node`` while ``on``; control messages and ticks go on."""

    node: str
    on: bool


@dataclass(frozen=True, slots=True)
class StopWork:
    """Take nothing more, drop what is queued (it stays in the books)."""


@dataclass(frozen=True, slots=True)
class EndChannels:
    """Send END on every outgoing channel."""


@dataclass(frozen=True, slots=True)
class Say:
    """Send a control message; ``with_stats`` adds the final counters to `Stopped`."""

    message: c.Control


@dataclass(frozen=True, slots=True)
class Leave:
    """Close everything and end the process."""

    reason: str = ""


Instruction = (
    Bind
    | OpenChannels
    | CallHook
    | BeginRun
    | CloseInputs
    | Hold
    | StopWork
    | EndChannels
    | Say
    | Leave
)

P = Phase


def _too_late(phase: Phase) -> dict[Any, Phase]:
    """Return what was said before the coordinator heard how far this worker is: it is ignored."""
    return {c.Drain: phase, c.DrainNode: phase, c.Pause: phase}


TABLE: dict[Phase, dict[Any, Phase]] = {
    P.JOINING: {c.Assign: P.BOUND, c.Refused: P.GONE},
    P.BOUND: {c.Link: P.LINKING},
    P.LINKING: {Simple.WELCOMED: P.LINKED, HookRaised: P.FAILED},
    P.LINKED: {c.Start: P.STARTING, HookRaised: P.FAILED},
    P.STARTING: {"on_start": P.READY, HookRaised: P.FAILED},
    P.READY: {c.Run: P.RUNNING, HookRaised: P.FAILED},
    P.RUNNING: {
        c.Drain: P.RUNNING,
        c.DrainNode: P.RUNNING,
        c.Pause: P.RUNNING,
        Simple.EXHAUSTED: P.ENDING,
        HookRaised: P.FAILED,
    },
    P.ENDING: {"on_end": P.FLUSHING, HookRaised: P.FAILED, **_too_late(P.ENDING)},
    P.FLUSHING: {Simple.FLUSHED: P.DRAINED, HookRaised: P.FAILED, **_too_late(P.FLUSHING)},
    P.DRAINED: {c.Stop: P.STOPPING, HookRaised: P.FAILED, **_too_late(P.DRAINED)},
    P.STOPPING: {"on_stop": P.STOPPED, c.Abort: P.STOPPING},
    P.STOPPED: {c.Exit: P.GONE, c.Abort: P.STOPPED},
    P.FAILED: {HookRaised: P.FAILED, c.Stop: P.FAILED, **_too_late(P.FAILED)},
    P.GONE: {},
}
"""Legal (phase, event) pairs. A hook's return is named by the hook. Everywhere else: `Ping`
changes nothing, `Exit` and `Refused` mean GONE, and `Abort` means STOPPING once ``on_start``
has returned and STOPPED before. Any other pair is an error and changes nothing."""


class WorkerState:
    """The machine; see the module. ``started`` says whether ``on_stop`` is owed.

    ``story``: what it went through, on the clock of ``now``.
    """

    __slots__ = ("phase", "started", "story")

    def __init__(self) -> None:
        self.phase = Phase.JOINING
        self.started = False
        self.story = Story()

    def handle(self, event: Event, now: float = 0.0) -> list[Instruction]:
        """Return what to do about ``event``; raises `ProtocolError` for an illegal pair.

        ``now`` (seconds, any origin) is for the story alone: nothing here waits.
        """
        if isinstance(event, c.Ping):
            return []
        before = self.phase
        try:
            todo = self._handled(event)
        except ProtocolError:
            self.story.note(now, f"{_told(event)}: refused while {before.value}")
            raise
        moved = "" if self.phase is before else f": {before.value} -> {self.phase.value}"
        self.story.note(now, f"{_told(event)}{moved}")
        return todo

    def _handled(self, event: Event) -> list[Instruction]:
        if isinstance(event, (c.Exit, c.Refused)):
            self.phase = Phase.GONE
            return [Leave(event.reason if isinstance(event, c.Refused) else "")]
        if isinstance(event, c.Abort) and self.phase not in (P.STOPPING, P.STOPPED, P.GONE):
            return self._abort()
        before = self.phase
        after = TABLE[before].get(_key(event))
        if after is None:
            raise ProtocolError(
                f"worker in phase {before.value}: expected one of "
                f"{', '.join(sorted(_word(k) for k in TABLE[before]))}, got {_word(_key(event))}"
            )
        self.phase = after
        return self._act(before, event)

    def _abort(self) -> list[Instruction]:
        if self.started:
            self.phase = Phase.STOPPING
            return [StopWork(), CallHook("on_stop")]
        self.phase = Phase.STOPPED
        return [StopWork(), Say(c.Stopped([]))]

    def _act(self, before: Phase, event: Event) -> list[Instruction]:
        match event:
            case c.Assign():
                return [Bind()]
            case c.Link():
                return [OpenChannels(event.channels)]
            case Simple.WELCOMED:
                return [Say(c.Linked())]
            case c.Start():
                return [CallHook("on_start")]
            case c.Run():
                return [BeginRun()]
            case c.Drain() if before is Phase.RUNNING:
                return [CloseInputs()]
            case c.DrainNode(node) if before is Phase.RUNNING:
                return [CloseInputs(node)]
            case c.Pause():
                hold = Hold(event.node, bool(event.paused))
                held = [Say(c.Held(event.request))] if event.request else []
                return [hold, *held] if before is Phase.RUNNING else [*held]
            case Simple.EXHAUSTED:
                return [CallHook("on_end")]
            case Simple.FLUSHED:
                return [EndChannels(), Say(c.Drained())]
            case c.Stop() if before is Phase.DRAINED:
                return [CallHook("on_stop")]
            case HookReturned():
                return self._hook_returned(event.name)
            case HookRaised() if before is not Phase.FAILED:
                return [Say(c.Failed(event.where, event.error, event.traceback, event.node))]
        return []

    def _hook_returned(self, name: str) -> list[Instruction]:
        if name == "on_start":
            self.started = True
            return [Say(c.Started())]
        if name == "on_stop":
            return [Say(c.Stopped([]))]
        return []


def _key(event: Event) -> Any:
    if isinstance(event, Simple):
        return event
    if isinstance(event, HookReturned):
        return event.name
    return type(event)


def _told(event: Event) -> str:
    match event:
        case HookReturned(name):
            return f"{name} returned"
        case HookRaised(where):
            return f"{where} raised"
        case c.Pause(node, paused):
            return f"Pause {node}" if paused else f"go on with {node}"
    return _word(_key(event))


def _word(key: Any) -> str:
    if isinstance(key, Simple):
        return key.name
    return key if isinstance(key, str) else str(key.__name__)
