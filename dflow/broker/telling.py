"""The coordinator's events and instructions in short words, for its story.

Counters, heartbeats, log lines and turns come at a steady rate and are left out; so is whatever a
peer could fill with text: of a failure the story says where, and the log says what.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from dflow.broker.events import (
    AbortRequested,
    DrainRequested,
    Event,
    Garbled,
    Hand,
    Instruction,
    Keep,
    Kept,
    KillWorker,
    Probe,
    Received,
    Send,
    Unreachable,
    WorkerExited,
)
from dflow.broker.outcome import exit_text, some
from dflow.wire import control as c

__all__ = ["event_words", "todo_words"]

_STEADY = (
    c.Stats, c.Heartbeat, c.Log, c.TurnOver, c.StatusRequest, c.Ping, c.Turn, c.StatusReply,
    c.Process, c.Dump, c.Dumped,
)  # fmt: skip
_MOST_NAMED = 4

Name = Callable[[bytes], str]


def event_words(event: Event, name: Name) -> str:
    """Return what happened, or "" for what is not told; ``name`` says who a routing id is."""
    match event:
        case Received(_, c.Hello(role, _, pid, host, node, replica)):
            who = f"{node[:80]}[{replica}]" if node else "somebody"
            return f"Hello of {who} ({role[:20]}, pid {pid} on {host[:80]})"
        case Received(key, message):
            return "" if isinstance(message, _STEADY) else f"{name(key)} said {_word(message)}"
        case Garbled(key):
            return f"{name(key)} sent what is no control message"
        case Unreachable(key):
            return f"{name(key)} cannot be reached"
        case WorkerExited(worker, pid, code, signal):
            return f"{worker} exited: {exit_text(code, signal)} (pid {pid})"
        case DrainRequested():
            return "asked to drain"
        case AbortRequested():
            return "asked to abort"
        case Kept(path):
            return "the bundle was written" if path else "the bundle could not be written"
    return ""


def _word(message: c.Control) -> str:
    word = type(message).__name__
    match message:
        case c.Failed(where):
            return f"{word} ({where})"
        case c.PauseRequest(_, node) | c.DrainNodeRequest(_, node):
            return f"{word} ({node or 'all'})"
    return word


def todo_words(todo: Sequence[Instruction], name: Name) -> str:
    """Return what was done about it, or "" if that was nothing to tell."""
    if not todo:
        return ""
    told: defaultdict[str, list[str]] = defaultdict(list)
    words = []
    for instruction in todo:
        match instruction:
            case Send(key, message) if not isinstance(message, _STEADY):
                told[type(message).__name__].append(name(key))
            case Send(key, c.Dump()):
                told["Dump"].append(name(key))
            case KillWorker(worker):
                words.append(f"have {worker} killed")
            case Probe(silent):
                named = some([str(worker) for worker, _ in silent], _MOST_NAMED)
                words.append(f"look at {named} from outside")
            case Keep():
                words.append("write the bundle")
            case Hand(_, key):
                words.append(f"hand {name(key)} a bundle")
    words += [f"tell {some(who, _MOST_NAMED)}: {what}" for what, who in told.items()]
    return "; ".join(words)
