"""What a process of a run says of itself when a bundle is made: where it stands, and its stacks.

Called by the pulse thread (or the launching process's own), whatever the main thread does at that
moment, and without the data plane's lock, which it would not get. So what is read may be a
message off; a part that cannot be read is left out, and says so.

No payload is in it: numbers, names of edges and nodes, lines of code.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from dflow.clock import Clock

if TYPE_CHECKING:
    from dflow.worker.crew import Crew
    from dflow.worker.loop import WorkerLoop
    from dflow.worker.plane import DataPlane
    from dflow.worker.pulse import Pulse
    from dflow.worker.work import Work

__all__ = ["dump", "standing"]


def dump(describe: Callable[[], Mapping[str, Any]], clock: Clock) -> str:
    """Return JSON text about this process; never raises.

    ``clock_s``: what to add to a time of ``describe()`` for Unix time.
    """
    from dflow.bundle.environment import process_facts
    from dflow.bundle.stacks import threads

    said: dict[str, Any] = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "at_s": clock.wall_s(),
        "clock_s": clock.wall_s() - clock.monotonic_s(),
    }
    parts: tuple[tuple[str, Callable[[], Any]], ...] = (
        ("standing", lambda: dict(describe())),
        ("stacks", threads),
        ("process", process_facts),
    )
    for name, part in parts:
        try:
            said[name] = part()
        except Exception as error:  # noqa: BLE001  # others work on what is read here
            said[name] = None
            said[f"no_{name}"] = f"{type(error).__name__}: {error}"
    return json.dumps(said, default=str)


def standing(
    loop: WorkerLoop,
    plane: DataPlane,
    work: Work | Crew,
    pulse: Pulse,
    tasks: Callable[[], Collection[Any]] = tuple,
) -> dict[str, Any]:
    """Return where a worker stands, as plain data; about, as it is read by another thread."""
    from dflow.bundle.stacks import coroutines

    gate = plane.gate
    return {
        "phase": loop.state.phase.value,
        "tasks": coroutines(tasks()),
        "story": loop.state.story.rows(),
        "in_user_code": pulse.in_user_code,
        "held": work.held,
        "tasks_under_way": work.active,
        "gate": "held" if gate.held else "shut" if gate.shut else "open",
        "commands_waiting": [type(command).__name__ for command in list(pulse.commands)],
        "something_unsent": plane.outbound.unsent,
        "inputs": [
            {
                "channel": channel.number,
                "edge": channel.edge_id,
                "received": channel.window.received,
                "taken": channel.window.taken,
                "done": channel.window.done,
                "ready": bool(channel.deliverable),
                "ended": channel.end_at is not None,
            }
            for channel in list(plane.inbound.channels.values())
        ],
    }
