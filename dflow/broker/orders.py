"""What is said to whom in each phase, and when a phase is over.

Functions from the participants to instructions: each makes its move in the table first, so
nothing is sent to anybody for whom it would be illegal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dflow.broker.events import Instruction, KillWorker, Send
from dflow.broker.lifecycle import ENDED, Move, Phase, Role, RunEvent, Step
from dflow.broker.participants import Participant, Participants
from dflow.errors import ProtocolError
from dflow.graph.plan import Plan, WorkerId
from dflow.report import RunReport
from dflow.wire import control as c

__all__ = [
    "BEHIND",
    "SAID",
    "abort",
    "barrier",
    "drain",
    "end",
    "leave",
    "link",
    "locate",
    "next_level",
    "ping",
    "run",
    "stop_handle",
    "turns",
]

BEHIND: Mapping[Phase, frozenset[Step]] = {
    Phase.WAITING: frozenset({Step.ABSENT}),
    Phase.BINDING: frozenset({Step.JOINED}),
    Phase.LINKING: frozenset({Step.LINKING}),
    Phase.STARTING: frozenset({Step.STARTING}),
}
"""Whom each phase of the start waits for."""


SAID: Mapping[type[c.Control], Move] = {
    c.Bound: Move.BOUND,
    c.Linked: Move.LINKED,
    c.Started: Move.STARTED,
    c.Drained: Move.DRAINED,
    c.Stopped: Move.STOPPED,
}
"""What a participant says when it has taken a step."""


def _tell(p: Participant, move: Move, message: c.Control) -> list[Instruction]:
    p.move(move)
    return [] if p.key is None else [Send(p.key, message)]


# --- barriers -----------------------------------------------------------------------------

_ANY = frozenset(Step)
_BARRIERS: Mapping[Phase, tuple[RunEvent, frozenset[Step], frozenset[Step]]] = {
    Phase.WAITING: (RunEvent.ALL_JOINED, _ANY - {Step.ABSENT}, _ANY - {Step.ABSENT}),
    Phase.BINDING: (RunEvent.ALL_BOUND, frozenset({Step.BOUND}), frozenset({Step.BOUND})),
    Phase.LINKING: (RunEvent.ALL_LINKED, frozenset({Step.LINKED}), frozenset({Step.LINKED})),
    Phase.STARTING: (RunEvent.ALL_STARTED, frozenset({Step.STARTED}), _ANY),
    Phase.RUNNING: (RunEvent.ALL_DRAINED, frozenset({Step.DRAINED}), frozenset({Step.DRAINED})),
    Phase.DRAINING: (RunEvent.ALL_DRAINED, frozenset({Step.DRAINED}), frozenset({Step.DRAINED})),
    Phase.STOPPING: (RunEvent.ALL_STOPPED, ENDED, ENDED),
    Phase.ABORTING: (RunEvent.ALL_STOPPED, ENDED, ENDED),
}
"""What ends each phase: every worker at one of these steps, and the handle at one of those."""


def barrier(phase: Phase, roll: Participants, *, managed: bool) -> RunEvent | None:
    """Return the event that ends ``phase``, or None while somebody is awaited.

    Only an agent tells of exits, so only ``managed`` workers are waited for at the end.
    """
    if phase is Phase.LEAVING:
        awaited = managed and not roll.tally.all_at((Step.GONE,))
        awaited = awaited or roll.handle_is_late
        return None if awaited else RunEvent.ALL_GONE
    if phase not in _BARRIERS:
        return None
    event, of_workers, of_handle = _BARRIERS[phase]
    if not roll.tally.all_at(of_workers):
        return None
    handle = roll.handle
    if handle is None or handle.step in of_handle:
        return event
    drains = event is RunEvent.ALL_DRAINED
    return event if drains and not handle.must_drain else None


# --- the start ----------------------------------------------------------------------------


def link(plan: Plan, roll: Participants) -> list[Instruction]:
    """Tell everybody where the receivers of its channels are.

    Raises ProtocolError, with nobody told, if a receiver bound no socket for an edge's band.
    """
    rows: dict[WorkerId, list[list[object]]] = {p.worker: [] for p in roll}
    ends = {p.worker: p.endpoints for p in roll}
    for channel in plan.channels:
        edge = plan.edges[channel.edge]
        if edge.local:
            continue
        endpoint = ends.get(plan.host(channel.receiver), {}).get(int(edge.priority))
        if endpoint is None:
            raise ProtocolError(
                f"edge {edge.id}: expected {channel.receiver} to receive on band "
                f"{edge.priority.name}, but it bound no socket for it"
            )
        rows[plan.host(channel.sender)].append([channel.number, endpoint])
    return [todo for p in roll for todo in _tell(p, Move.LINK, c.Link(rows[p.worker]))]


def next_level(phase: Phase, roll: Participants) -> list[Instruction]:
    """Start or stop the next topological level, once the one before it has done so."""
    if phase is Phase.STARTING:
        return _next(roll, Step.LINKED, frozenset({Step.STARTED}), Move.START, c.Start())
    if phase is Phase.STOPPING:
        return _next(roll, Step.DRAINED, ENDED, Move.STOP, c.Stop())
    return []


def _next(
    roll: Participants, ready: Step, done: frozenset[Step], move: Move, word: c.Control
) -> list[Instruction]:
    levels = roll.levels[move]
    while not (told := roll.told[move]) or roll.tally.level_at(levels[told - 1][0].level, done):
        if told == len(levels):
            return []
        roll.told[move] += 1
        todo = [todo for p in levels[told] if p.step is ready for todo in _tell(p, move, word)]
        if todo:
            return todo
    return []


def run(roll: Participants) -> list[Instruction]:
    """Tell everybody that all nodes are ready."""
    for p in roll:
        p.ran = True
    word = c.Run()
    return [todo for p in roll for todo in _tell(p, Move.RUN, word)]


def turns(roll: Participants, given: Iterable[tuple[WorkerId, float]]) -> list[Instruction]:
    """Tell workers of their turns (`dflow.broker.turns`)."""
    told = ((roll.get(worker), seconds) for worker, seconds in given)
    return [
        Send(p.key, c.Turn(seconds)) for p, seconds in told if p is not None and p.key is not None
    ]


def locate(plan: Plan, roll: Participants, node: str, port: str) -> list[list[object]]:
    """Return [channel, endpoint] of every replica of ``node`` that may still take messages."""
    known = plan.by_name.get(node)
    if known is None or port not in known.inputs:
        return []
    rows: list[list[object]] = []
    for replica, host in enumerate(plan.hosts(node)):
        p = roll.get(host)
        if p is None or p.drained or p.ended:
            continue
        endpoint = p.endpoints.get(int(plan.external_band(node, port)))
        if endpoint is not None:
            rows.append([plan.external_channel(node, port, replica), endpoint])
    return rows


# --- the end ------------------------------------------------------------------------------


def drain(roll: Participants) -> list[Instruction]:
    """Tell those to end that no edge will end: sources, and nodes fed from outside only."""
    return [
        Send(p.key, c.Drain())
        for p in roll.workers
        if not p.fed and p.step is Step.RUNNING and p.key is not None
    ]


def stop_handle(roll: Participants) -> list[Instruction]:
    """Ask the handle for its last word; it has no user code, so it need not wait its turn."""
    handle = roll.handle
    return _tell(handle, Move.STOP, c.Stop()) if handle is not None else []


def abort(p: Participant, reason: str, *, managed: bool) -> list[Instruction]:
    """Have one participant end now; one that never joined is killed."""
    if p.ended or p.step is Step.ABORTING:
        return []
    joined = p.key is not None
    told = _tell(p, Move.ABORT, c.Abort(reason))
    return told if joined else _kill(p, managed=managed)


def _kill(p: Participant, *, managed: bool) -> list[Instruction]:
    if not managed or p.role is Role.HANDLE or p.killed or p.exited:
        return []
    p.killed = True
    return [KillWorker(p.worker)]


def end(p: Participant, *, managed: bool, leaving: bool) -> list[Instruction]:
    """Wait no longer for one participant: have it killed, or else forget it."""
    if p.step is Step.GONE or (p.ended and not leaving):
        return []
    killed = _kill(p, managed=managed)
    if not killed:
        p.move(Move.LOSE)
    return killed


def leave(roll: Participants, report: RunReport) -> list[Instruction]:
    """Let everybody go, the handle with the report; also those one had given up on."""
    todo: list[Instruction] = []
    for p in roll:
        if p.step is Step.STOPPED:
            p.move(Move.LEAVE)
        if p.key is not None and not p.exited:
            word = c.Finished(report.to_dict()) if p.role is Role.HANDLE else c.Exit()
            todo.append(Send(p.key, word))
    return todo


def ping(roll: Participants) -> list[Instruction]:
    """Show everybody who has not left that the coordinator is alive."""
    quiet, word = (Step.ABSENT, Step.LEAVING, Step.GONE), c.Ping()
    return [Send(p.key, word) for p in roll if p.key is not None and p.step not in quiet]
