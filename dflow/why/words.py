"""The sentences: what a replica does, and how an edge stands, for somebody who is in a hurry."""

from __future__ import annotations

from collections.abc import Sequence

from dflow.report import EdgeStatus, ReplicaStatus

__all__ = [
    "LONG_S", "OWN_CODE", "SILENT_S", "duration", "edge_text", "is_full", "is_silent", "listed",
    "minutes_text", "names_of", "replica_text", "startup_text",
]  # fmt: skip

LONG_S = 1.0
"""From when on a wait is worth a word."""

SILENT_S = 3.0
"""From when on it is worth one that nothing was heard of a worker: it reports each 0.25 s, in the
largest runs each 2.5 s."""

HOOKS = frozenset({"on_start", "on_tick", "on_end", "on_stop"})
OWN_CODE = HOOKS | {"handler", "source", "tasks"}
"""What a replica does when it is its own code that takes the time."""

_MOST_NAMED = 3

_SHORT_S = 0.1

_FULL_PERCENT = 85
"""Of the capacity: credit returns in portions."""

_STARTUP = {
    "absent": "has not joined: its process is starting, or importing your module",
    "joined": "has joined, and has not said where it listens",
    "bound": "is ready to be linked",
    "linking": "waits for the answer of those it sends to",
    "linked": "waits for its turn to start",
    "starting": "was told to start",
    "started": "has started",
    "drained": "waits for its turn to stop",
    "stopping": "was told to stop",
    "aborting": "was told to end at once",
    "stopped": "has stopped",
    "leaving": "was told to leave",
    "gone": "is gone",
}


def duration(seconds: float) -> str:
    """Return "0.4 s", "12 s", "4 min 10 s" or "3 h 2 min"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return minutes_text(seconds)


def minutes_text(seconds: float) -> str:
    """Return "4 min 10 s" or "3 h 2 min"."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def is_silent(replica: ReplicaStatus) -> bool:
    """Whether nothing was heard of it for so long that what it said last may not hold."""
    return replica.heard_s >= SILENT_S


def replica_text(name: str, r: ReplicaStatus) -> str:
    """Return a sentence about what ``r`` does; ``name``: how to call it."""
    pid = f" (pid {r.pid})" if r.pid else ""
    at = f", at {r.place}" if r.place else ""
    time = duration(r.for_s)
    if is_silent(r):
        return (
            f"{name}{pid} was last heard of {duration(r.heard_s)} ago: its process is stopped, or"
            f" its code holds the interpreter"
        )
    if r.what == "handler":
        return _handling(f"{name}{pid}", r, at)
    if r.what == "source":
        return f"{name}{pid} has waited {time} for its next value{at}"
    if r.what in HOOKS:
        return f"{name}{pid} is in {r.what} for {time}{at}"
    if r.what == "tasks":
        oldest = "" if r.tasks == 1 else "the oldest "
        many = "a coroutine" if r.tasks == 1 else f"{r.tasks} coroutines"
        return f"{name}{pid} awaits in {many}, {oldest}for {time}"
    if r.what == "order":
        whose = f" from {listed(r.waits_for)}" if r.waits_for else ""
        return f"{name} has waited {time} for the result of input {r.number:,}{whose}: it is next"
    return name + {
        "idle": f" has waited {time} for a message",
        "credit": f" has waited {time} for credit" if r.for_s >= _SHORT_S else " waits for credit",
        "paused": f" is paused for {time}; run.resume({name!r}) lets it go on",
        "turn": f" has waited {time} for its turn: others compute on all the cores there are",
        "thread": f" has waited {time} for another node of its worker",
        "ended": " has ended",
        "send": f" has waited {time} in run.send for room",
        "results": f" has not read results for {time}: read run.results(), or leave the with block",
    }.get(r.what, f" {_STARTUP.get(r.step, f'is {r.step}')}")


def _handling(name: str, r: ReplicaStatus, at: str) -> str:
    where = f" of {r.edges[0]}" if r.edges else ""
    if r.for_s >= LONG_S:
        return f"{name} is handling one message{where} for {duration(r.for_s)}{at}"
    return f"{name} handles one message{where} after the other, {r.busy:.0%} of the time"


def startup_text(name: str, r: ReplicaStatus) -> str:
    """Return a sentence about one that has not said what everybody waits for."""
    if is_silent(r) or r.what in HOOKS:
        return replica_text(name, r)
    pid = f" (pid {r.pid})" if r.pid else ""
    return f"{name}{pid} {_STARTUP.get(r.step, f'is {r.step}')}"


def is_full(edge: EdgeStatus) -> bool:
    """Whether an edge has next to no room."""
    return edge.capacity > 0 and 100 * edge.depth >= _FULL_PERCENT * edge.capacity


def edge_text(edge: EdgeStatus) -> str:
    """Return how full an edge is."""
    full = is_full(edge)
    text = f"edge {edge.id} is {'full' if full else 'out of credit'}"
    text += f" ({edge.depth:,}/{edge.capacity:,}"
    if edge.bytes * 2 > edge.max_bytes:
        text += f"; {_bytes(edge.bytes)} of {_bytes(edge.max_bytes)}"
    if edge.keys and not full and edge.keys[0].waiting:
        key = edge.keys[0]
        text += f"; key {key.key}: {key.waiting:,} waiting, {key.in_flight:,} in flight"
    return f"{text})"


def _bytes(number: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number} bytes"


def listed(names: Sequence[str], most: int = _MOST_NAMED) -> str:
    """Return "a", "a and b", or "a, b, c and 4 more"."""
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most:,} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 2 else names)


def names_of(replicas: Sequence[ReplicaStatus]) -> dict[str, str]:
    """Return how to call each of a node's replicas: by the node's name if it has only one."""
    if len(replicas) == 1:
        name = replicas[0].name
        return {name: name.rpartition("[")[0] or name}
    return {replica.name: replica.name for replica in replicas}
