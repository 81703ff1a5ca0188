"""What can happen to a coordinator, and what it may tell its loop to do.

`CoordinatorState.handle` takes one event and returns instructions; the loop carries them out
in order. Peers are named by the routing id (``key``) the ROUTER socket gave them: it is the
only name a peer has before it joined.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from dflow.broker.case import Case
from dflow.graph.plan import WorkerId
from dflow.report import RunReport
from dflow.wire.control import Control, Log

__all__ = [
    "AbortRequested",
    "DrainRequested",
    "Event",
    "Finish",
    "Garbled",
    "Hand",
    "Instruction",
    "Keep",
    "Kept",
    "KillWorker",
    "Probe",
    "Received",
    "Relay",
    "Say",
    "Send",
    "Tick",
    "Unreachable",
    "WorkerExited",
]


# --- events -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Received:
    """A control message arrived from the peer ``key``."""

    key: bytes
    message: Control


@dataclass(frozen=True, slots=True)
class Garbled:
    """Something that is not a control message arrived from the peer ``key``."""

    key: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Unreachable:
    """A message to the peer ``key`` could not be routed: its connection is gone."""

    key: bytes


@dataclass(frozen=True, slots=True)
class WorkerExited:
    """The agent reaped a worker: exit ``code``, or the name of the ``signal`` that killed it."""

    worker: WorkerId
    pid: int
    code: int | None
    signal: str | None


@dataclass(frozen=True, slots=True)
class DrainRequested:
    """Somebody at this process asks for a drain; ``None``: the run's own deadline."""

    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class AbortRequested:
    """Somebody at this process asks to end now."""

    reason: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed; due whenever `CoordinatorState.next_timer` is reached."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A bundle was written to ``path``, or ``error`` says why not."""

    path: str
    error: str = ""


Event: TypeAlias = (
    Received | Garbled | Unreachable | WorkerExited | DrainRequested | AbortRequested | Tick | Kept
)


# --- instructions -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message to a peer; one that cannot be routed comes back as `Unreachable`."""

    key: bytes
    message: Control


@dataclass(frozen=True, slots=True)
class KillWorker:
    """Have the agent kill a worker (SIGKILL); only told when an agent owns the workers."""

    worker: WorkerId


@dataclass(frozen=True, slots=True)
class Relay:
    """Write a participant's log record to the run's log."""

    worker: WorkerId
    record: Log


@dataclass(frozen=True, slots=True)
class Say:
    """Write a line of the coordinator's own to the run's log; ``level`` as in loguru.

    ``labels`` tell machines what the text tells people: an ``event``, and plain values.
    """

    level: str
    text: str
    labels: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finish:
    """The run is over; nothing follows this instruction."""

    report: RunReport


@dataclass(frozen=True, slots=True)
class Probe:
    """Look from outside at processes that do not answer: id and pid; for the next bundle."""

    silent: tuple[tuple[WorkerId, int], ...]


@dataclass(frozen=True, slots=True)
class Keep:
    """Write a bundle of the run that failed; answered by `Kept`."""

    case: Case


@dataclass(frozen=True, slots=True)
class Hand:
    """Send a bundle to the peer ``key`` that asked for it, by `Bundled` messages."""

    case: Case
    key: bytes
    request: int


Instruction: TypeAlias = Send | KillWorker | Relay | Say | Finish | Probe | Keep | Hand
