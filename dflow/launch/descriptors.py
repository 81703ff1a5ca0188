"""Open files: how many the processes of a run may need, asked for before there are any.

A connection is a descriptor, and most systems allow a process 1,024 unless it asks for more. Beyond
that libzmq accepts no connection, and says nothing: a large run would wait at its start until the
deadline. So the agent raises the limit as far as it may; its children inherit it.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress

from dflow.graph.plan import Plan

__all__ = ["allow_descriptors", "descriptors_wanted"]

SPARE = 512
"""For everything else, user code included."""

EACH_CHANNEL = 2
"""At its sender: a socket has a descriptor to be woken by, and its connection."""

EACH_WORKER = 3
"""At the agent: what tells of its end, and its pipes. The coordinator has one connection each."""


def descriptors_wanted(plan: Plan) -> int:
    """Return how many open files the neediest process of a run may have."""
    channels: Counter[object] = Counter()
    for _, sender, receiver in plan.ways.values():
        channels[sender] += 1
        channels[receiver] += 1
    most = max(channels.values(), default=0)
    return SPARE + max(EACH_CHANNEL * most, EACH_WORKER * len(plan.workers))


def allow_descriptors(wanted: int) -> int:
    """Let this process, and those it will start, have ``wanted`` open files; return how many.

    Fewer if the system forbids it, more if that is allowed already. Off Unix the limit is not
    known, and ``wanted`` is returned.
    """
    try:
        import resource
    except ImportError:
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted if soft == resource.RLIM_INFINITY else soft
    most = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
