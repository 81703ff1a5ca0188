"""The lives of a run and of its participants, as two literal tables.

Theory of operation. A *participant* (worker, or the launching process as "handle") joins,
binds its data sockets, opens its channels, starts, runs, drains, stops and leaves. The *run*
waits at a barrier before each of those steps: it moves on when every participant that has to
take the step took it. A participant that fails moves the run to ABORTING; once nothing is
left to drain (STOPPING and later) a failure is remembered but the order of stopping is kept.

Why tables: each (state, event) pair is a decision somebody made and a test asserts. A pair
that is not in its table is illegal: `advance` raises and nothing has changed.

Rejected: one product machine of run and participants (the table would have hundreds of rows
that differ only in names), and callbacks on transitions (they hide what is sent when).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TypeVar

from dflow.errors import ProtocolError

__all__ = [
    "ENDED",
    "HELD",
    "PARTICIPANT",
    "RUN",
    "Move",
    "Phase",
    "Role",
    "RunEvent",
    "Step",
    "advance",
]


class Role(Enum):
    """Who takes part: worker processes, and the process that launched the run."""

    WORKER = "worker"
    HANDLE = "handle"


class Step(Enum):
    """How far one participant has come."""

    ABSENT = "absent"
    JOINED = "joined"
    BOUND = "bound"
    LINKING = "linking"
    LINKED = "linked"
    STARTING = "starting"
    STARTED = "started"
    RUNNING = "running"
    DRAINED = "drained"
    STOPPING = "stopping"
    ABORTING = "aborting"
    STOPPED = "stopped"
    LEAVING = "leaving"
    GONE = "gone"


class Move(Enum):
    """What happens to a participant: past tense is said by it, the rest is done to it."""

    JOINED = "joined"
    BOUND = "bound"
    LINK = "link"
    LINKED = "linked"
    START = "start"
    STARTED = "started"
    RUN = "run"
    DRAINED = "drained"
    STOP = "stop"
    ABORT = "abort"
    STOPPED = "stopped"
    LEAVE = "leave"
    LOSE = "lose"
    VACATE = "vacate"


class Phase(Enum):
    """How far the run has come; the values are what `Process` messages carry."""

    WAITING = "waiting"
    BINDING = "binding"
    LINKING = "linking"
    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"
    STOPPING = "stopping"
    ABORTING = "aborting"
    LEAVING = "leaving"
    FINISHED = "finished"


class RunEvent(Enum):
    """What moves the run: barriers that are complete, requests, and failures."""

    ALL_JOINED = "all joined"
    ALL_BOUND = "all bound"
    ALL_LINKED = "all linked"
    ALL_STARTED = "all started"
    ALL_DRAINED = "all drained"
    ALL_STOPPED = "all stopped"
    ALL_GONE = "all gone"
    DRAIN = "drain asked for"
    FAIL = "a participant failed"
    ABORT = "abort asked for, or a deadline passed"


ENDED = frozenset({Step.STOPPED, Step.LEAVING, Step.GONE})
"""Steps after which a participant owes the run nothing but to leave."""

_S, _M, _P, _E = Step, Move, Phase, RunEvent

# Messages a participant sent before it read our Abort: heard, and of no consequence.
_CROSSING = {
    _M.BOUND: _S.ABORTING,
    _M.LINKED: _S.ABORTING,
    _M.STARTED: _S.ABORTING,
    _M.DRAINED: _S.ABORTING,
    _M.ABORT: _S.ABORTING,
}

PARTICIPANT: Mapping[Role, Mapping[Step, Mapping[Move, Step]]] = {
    Role.WORKER: {
        # One that is aborted before it joined has nothing to report: it is refused or killed.
        _S.ABSENT: {_M.JOINED: _S.JOINED, _M.ABORT: _S.GONE, _M.LOSE: _S.GONE},
        # While others are still awaited, somebody else may take the place of one that left.
        _S.JOINED: {
            _M.BOUND: _S.BOUND,
            _M.ABORT: _S.ABORTING,
            _M.LOSE: _S.GONE,
            _M.VACATE: _S.ABSENT,
        },
        _S.BOUND: {
            _M.LINK: _S.LINKING,
            _M.ABORT: _S.ABORTING,
            _M.LOSE: _S.GONE,
            _M.VACATE: _S.ABSENT,
        },
        _S.LINKING: {_M.LINKED: _S.LINKED, _M.ABORT: _S.ABORTING, _M.LOSE: _S.GONE},
        _S.LINKED: {_M.START: _S.STARTING, _M.ABORT: _S.ABORTING, _M.LOSE: _S.GONE},
        _S.STARTING: {_M.STARTED: _S.STARTED, _M.ABORT: _S.ABORTING, _M.LOSE: _S.GONE},
        _S.STARTED: {_M.RUN: _S.RUNNING, _M.ABORT: _S.ABORTING, _M.LOSE: _S.GONE},
        _S.RUNNING: {_M.DRAINED: _S.DRAINED, _M.ABORT: _S.ABORTING, _M.LOSE: _S.GONE},
        _S.DRAINED: {_M.STOP: _S.STOPPING, _M.ABORT: _S.ABORTING, _M.LOSE: _S.GONE},
        _S.STOPPING: {_M.STOPPED: _S.STOPPED, _M.ABORT: _S.ABORTING, _M.LOSE: _S.GONE},
        _S.ABORTING: {**_CROSSING, _M.STOPPED: _S.STOPPED, _M.LOSE: _S.GONE},
        _S.STOPPED: {_M.LEAVE: _S.LEAVING, _M.ABORT: _S.STOPPED, _M.LOSE: _S.GONE},
        _S.LEAVING: {_M.ABORT: _S.LEAVING, _M.LOSE: _S.GONE},
        _S.GONE: {_M.ABORT: _S.GONE, _M.LOSE: _S.GONE},
    },
    # The handle has no user code to start, and drains only if results flow to it.
    Role.HANDLE: {
        _S.ABSENT: {_M.JOINED: _S.JOINED, _M.ABORT: _S.GONE, _M.LOSE: _S.GONE},
        _S.JOINED: {_M.BOUND: _S.BOUND, _M.ABORT: _S.ABORTING, _M.LOSE: _S.GONE},
        _S.BOUND: {_M.LINK: _S.LINKING, _M.ABORT: _S.ABORTING, _M.LOSE: _S.GONE},
        _S.LINKING: {_M.LINKED: _S.LINKED, _M.ABORT: _S.ABORTING, _M.LOSE: _S.GONE},
        _S.LINKED: {_M.RUN: _S.RUNNING, _M.ABORT: _S.ABORTING, _M.LOSE: _S.GONE},
        _S.STARTING: {},
        _S.STARTED: {},
        _S.RUNNING: {
            _M.DRAINED: _S.DRAINED,
            _M.STOP: _S.STOPPING,
            _M.ABORT: _S.ABORTING,
            _M.LOSE: _S.GONE,
        },
        _S.DRAINED: {_M.STOP: _S.STOPPING, _M.ABORT: _S.ABORTING, _M.LOSE: _S.GONE},
        _S.STOPPING: {
            _M.DRAINED: _S.STOPPING,
            _M.STOPPED: _S.STOPPED,
            _M.ABORT: _S.ABORTING,
            _M.LOSE: _S.GONE,
        },
        _S.ABORTING: {**_CROSSING, _M.STOPPED: _S.STOPPED, _M.LOSE: _S.GONE},
        _S.STOPPED: {_M.LEAVE: _S.LEAVING, _M.ABORT: _S.STOPPED, _M.LOSE: _S.GONE},
        _S.LEAVING: {_M.ABORT: _S.LEAVING, _M.LOSE: _S.GONE},
        _S.GONE: {_M.ABORT: _S.GONE, _M.LOSE: _S.GONE},
    },
}

# Before RUNNING nothing was emitted, so a drain has nothing to wait for.
_STARTUP = {_E.DRAIN: _P.ABORTING, _E.FAIL: _P.ABORTING, _E.ABORT: _P.ABORTING}
_OVER = {_E.DRAIN: _P.LEAVING, _E.FAIL: _P.LEAVING, _E.ABORT: _P.LEAVING}

RUN: Mapping[Phase, Mapping[RunEvent, Phase]] = {
    _P.WAITING: {**_STARTUP, _E.ALL_JOINED: _P.BINDING},
    _P.BINDING: {**_STARTUP, _E.ALL_BOUND: _P.LINKING},
    _P.LINKING: {**_STARTUP, _E.ALL_LINKED: _P.STARTING},
    _P.STARTING: {**_STARTUP, _E.ALL_STARTED: _P.RUNNING},
    _P.RUNNING: {
        _E.DRAIN: _P.DRAINING,
        _E.ALL_DRAINED: _P.STOPPING,
        _E.FAIL: _P.ABORTING,
        _E.ABORT: _P.ABORTING,
    },
    _P.DRAINING: {
        _E.DRAIN: _P.DRAINING,
        _E.ALL_DRAINED: _P.STOPPING,
        _E.FAIL: _P.ABORTING,
        _E.ABORT: _P.ABORTING,
    },
    # All is drained: a failure loses no message, so the others still stop in order.
    _P.STOPPING: {
        _E.DRAIN: _P.STOPPING,
        _E.ALL_STOPPED: _P.LEAVING,
        _E.FAIL: _P.STOPPING,
        _E.ABORT: _P.ABORTING,
    },
    _P.ABORTING: {
        _E.DRAIN: _P.ABORTING,
        _E.ALL_STOPPED: _P.LEAVING,
        _E.FAIL: _P.ABORTING,
        _E.ABORT: _P.ABORTING,
    },
    _P.LEAVING: {**_OVER, _E.ALL_GONE: _P.FINISHED},
    _P.FINISHED: {_E.DRAIN: _P.FINISHED, _E.FAIL: _P.FINISHED, _E.ABORT: _P.FINISHED},
}

# The handle is never told to start, and need not drain before it is told to stop.
HELD: Mapping[Phase, frozenset[Step]] = {
    _P.WAITING: frozenset({_S.ABSENT, _S.JOINED, _S.BOUND}),
    _P.BINDING: frozenset({_S.JOINED, _S.BOUND}),
    _P.LINKING: frozenset({_S.LINKING, _S.LINKED}),
    _P.STARTING: frozenset({_S.LINKED, _S.STARTING, _S.STARTED}),
    _P.RUNNING: frozenset({_S.RUNNING, _S.DRAINED}),
    _P.DRAINING: frozenset({_S.RUNNING, _S.DRAINED}),
    _P.STOPPING: frozenset({_S.DRAINED, _S.STOPPING, _S.STOPPED, _S.ABORTING, _S.GONE}),
    _P.ABORTING: frozenset({_S.ABORTING, _S.STOPPED, _S.GONE}),
    _P.LEAVING: frozenset({_S.LEAVING, _S.GONE}),
    _P.FINISHED: frozenset({_S.LEAVING, _S.GONE}),
}
"""Steps a participant may be at while the run is in a phase: an invariant, not a decision."""

_State = TypeVar("_State", Step, Phase)
_Event = TypeVar("_Event", Move, RunEvent)


def advance(
    table: Mapping[_State, Mapping[_Event, _State]], state: _State, event: _Event, who: str
) -> _State:
    """Return the next state; never changes anything.

    Raises ProtocolError, naming ``who`` and what would have been legal, for an illegal pair.
    """
    legal = table[state]
    if event not in legal:
        expected = ", ".join(repr(known.value) for known in legal) or "nothing"
        raise ProtocolError(
            f"{who}: expected {expected} while {state.value!r}, got {event.value!r}"
        )
    return legal[event]
