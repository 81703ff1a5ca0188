"""Stand-in coordinator and worker for the tests of launch: no sockets, no graph.

What a test ships as "the graph" is a callable; every worker calls it with its seed and
exits with what it returns.
"""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dflow.graph.plan import NodePlan, Plan, WorkerId
from dflow.launch.job import Seed
from dflow.launch.local import Launched, launch
from dflow.launch.pipe import Pipe
from dflow.launch.preload import check_not_preloading
from dflow.launch.protocol import Event, Exited, parse_event
from dflow.options import RunOptions

PRELUDE = "from tests.integration.launch_entries import finish, start, wait_for_ever\n"
ROOT = Path(__file__).parents[2]
HERE = "tests.integration.launch_entries"


def plan_of(workers: int) -> Plan:
    """Return a plan with one node of ``workers`` replicas."""
    return Plan("test", (NodePlan("n", "node", workers, 0, (), ()),), ())


def start(
    body: Callable[[Seed], Any],
    workers: int = 1,
    on_event: Callable[[Event], None] | None = None,
    **options: Any,
) -> Launched:
    """Launch ``body`` in ``workers`` processes, as ``graph.start()`` would."""
    check_not_preloading()
    return launch(
        body,
        plan_of(workers),
        RunOptions(**options),
        run_id="test-run",
        token="secret",
        on_event=on_event,
        coordinator_entry=f"{HERE}:wait_for_workers",
        worker_entry=f"{HERE}:call_the_graph",
    )


def finish(body: Callable[[Seed], Any], workers: int = 1, **options: Any) -> None:
    """Launch ``body`` and wait until nothing is left of it."""
    gone = start(body, workers, **options).wait(20)
    assert gone.orderly, gone


def call_the_graph(seed: Seed) -> int:
    """Be a worker: call what was shipped."""
    return seed.graph(seed) or 0


def wait_for_workers(seed: Seed) -> int:
    """Be a coordinator: end when all workers ended; write down what the agent said."""
    assert seed.agent_fd is not None
    assert seed.graph is None
    pipe = Pipe.from_fd(seed.agent_fd)
    left = len(seed.plan.workers)
    heard = []
    while left and (message := pipe.receive()) is not None:
        event = parse_event(message)
        heard.append(message)
        left -= 1
        assert event is not None
    where = os.environ.get("DFLOW_TEST_HEARD")
    if where:
        Path(where).write_text(json.dumps(heard))
    return 0


def wait_for_ever(seed: Seed) -> int:
    """Be a worker that is busy in user code until it is killed."""
    import signal

    signal.pause()
    return 0


def alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except OSError:
        return False
    return state not in (b"Z", b"X")


def exits(events: list[Event]) -> dict[WorkerId, Exited]:
    """Return how each process ended."""
    return {event.worker: event for event in events if isinstance(event, Exited)}


def run_until_gone(body: Callable[[Seed], Any], workers: int = 1, **options: Any) -> list[Event]:
    """Launch ``body``, wait until nothing is left, and return the events."""
    events: list[Event] = []
    launched = start(body, workers, events.append, **options)
    gone = launched.wait(20)
    assert gone.orderly
    assert not Path(launched.run_dir).exists()
    return events


def undent(script: str) -> str:
    """Return ``script`` with what the scripts of these tests import."""
    return PRELUDE + textwrap.dedent(script)
