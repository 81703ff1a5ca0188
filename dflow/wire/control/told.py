"""What the coordinator tells participants, and answers to who asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from dflow.wire.control.base import Control

__all__ = [
    "Abort",
    "Answer",
    "Assign",
    "Bundled",
    "Cancel",
    "CancelReply",
    "Drain",
    "DrainNode",
    "Dump",
    "Exit",
    "Find",
    "Finished",
    "Link",
    "Located",
    "Pause",
    "Ping",
    "Process",
    "Refused",
    "Run",
    "Start",
    "StatusReply",
    "Stop",
    "Turn",
]


# --- coordinator -> participant ----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Assign(Control):
    """You are this replica. ``graph``: import reference for a worker that joined by hand."""

    code: ClassVar[int] = 40
    node: str
    replica: int
    run_id: str
    epoch: int
    graph: str = ""
    fingerprint: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Link(Control):
    """Open your outgoing channels: rows of [channel number, endpoint]."""

    code: ClassVar[int] = 41
    channels: list[Any]


@dataclass(frozen=True, slots=True)
class Start(Control):
    """Call ``on_start``."""

    code: ClassVar[int] = 42


@dataclass(frozen=True, slots=True)
class Run(Control):
    """All nodes are ready: handle messages; sources may emit."""

    code: ClassVar[int] = 43


@dataclass(frozen=True, slots=True)
class Drain(Control):
    """End your source, or your unconnected inputs, and drain."""

    code: ClassVar[int] = 44


@dataclass(frozen=True, slots=True)
class Stop(Control):
    """Everything is drained: call ``on_stop`` and report."""

    code: ClassVar[int] = 45


@dataclass(frozen=True, slots=True)
class Abort(Control):
    """Stop taking messages now, call ``on_stop``, report."""

    code: ClassVar[int] = 46
    reason: str


@dataclass(frozen=True, slots=True)
class Exit(Control):
    """Your report is in the books: close sockets and leave."""

    code: ClassVar[int] = 47


@dataclass(frozen=True, slots=True)
class Ping(Control):
    """The coordinator is alive."""

    code: ClassVar[int] = 48


@dataclass(frozen=True, slots=True)
class Refused(Control):
    """You may not take part; leave. ``reason`` says why and what to do."""

    code: ClassVar[int] = 49
    reason: str


@dataclass(frozen=True, slots=True)
class Pause(Control):
    """Take no more data for ``node`` (``paused`` 1), or go on (0). Control messages go on.

    Answered by `Held`, unless ``request`` is 0.
    """

    code: ClassVar[int] = 50
    node: str
    paused: int
    request: int = 0


@dataclass(frozen=True, slots=True)
class DrainNode(Control):
    """End the source ``node``, or its inputs if only the outside feeds them."""

    code: ClassVar[int] = 51
    node: str


@dataclass(frozen=True, slots=True)
class Turn(Control):
    """Whether you may compute: ``seconds`` > 0 for that long, 0 until further notice, < 0 not
    before the next `Turn`.
    """

    code: ClassVar[int] = 52
    seconds: float


@dataclass(frozen=True, slots=True)
class Find(Control):
    """Withdraw the message you emitted with ``id``, or say where you sent it: see `Found`."""

    code: ClassVar[int] = 53
    request: int
    id: str


@dataclass(frozen=True, slots=True)
class Cancel(Control):
    """Do not handle message ``sequence`` of ``channel``; answered by `Outcome`."""

    code: ClassVar[int] = 54
    request: int
    channel: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Dump(Control):
    """Say at once what you know of yourself, whatever you are doing; answered by `Dumped`."""

    code: ClassVar[int] = 55
    request: int


# --- coordinator -> launching process ----------------------------------------------------


@dataclass(frozen=True, slots=True)
class Process(Control):
    """The run entered a new phase."""

    code: ClassVar[int] = 60
    phase: str


@dataclass(frozen=True, slots=True)
class StatusReply(Control):
    """Answer to `StatusRequest`: ``status`` is `RunStatus.to_dict()`."""

    code: ClassVar[int] = 61
    request: int
    status: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Located(Control):
    """Answer to `Locate`: rows of [channel number, endpoint]; empty if the node ended."""

    code: ClassVar[int] = 62
    request: int
    channels: list[Any]


@dataclass(frozen=True, slots=True)
class Finished(Control):
    """Last word: the report, and how the run failed, if it did."""

    code: ClassVar[int] = 63
    report: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Answer(Control):
    """A request was obeyed; ``error`` says why not, if it was not."""

    code: ClassVar[int] = 64
    request: int
    error: str


@dataclass(frozen=True, slots=True)
class CancelReply(Control):
    """Answer to `CancelRequest`: ``outcome`` is a `dflow.Cancelled` value."""

    code: ClassVar[int] = 65
    request: int
    outcome: str


@dataclass(frozen=True, slots=True)
class Bundled(Control):
    """A part of the answer to `DumpRequest`: one file of the bundle; ``name`` "" is the last."""

    code: ClassVar[int] = 66
    request: int
    name: str
    text: str
