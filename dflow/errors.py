"""Every error dflow raises, rooted in :class:`DflowError`.

An error message says what was expected, what was got, where, and the next step. Classes
are coarse on purpose: one for each thing a caller would do differently.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = [
    "AgentDied",
    "BufferLost",
    "BundleError",
    "CoordinatorDied",
    "DecodeError",
    "DflowError",
    "DrainTimeout",
    "EdgeFull",
    "EncodeError",
    "GraphError",
    "HookFailed",
    "NodeEnded",
    "OptionError",
    "PortError",
    "ProtocolError",
    "RunError",
    "StartError",
    "WorkerDied",
    "did_you_mean",
]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for a near miss among ``known``, else ``""``."""
    from difflib import get_close_matches  # only on the way to an error message

    near = get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


class DflowError(Exception):
    """Root of every error dflow raises on purpose."""


class OptionError(DflowError, ValueError):
    """An option is out of its range or of the wrong type."""


class GraphError(DflowError):
    """The graph cannot run; ``problems`` holds every reason found, not just the first."""

    def __init__(self, message: str, problems: tuple[object, ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems


class PortError(DflowError):
    """A port that does not exist, is used from the wrong side, or outside a run."""


class EncodeError(DflowError, TypeError):
    """A value cannot travel; ``path`` leads from the payload to the offending part."""

    def __init__(self, message: str, path: str = "payload") -> None:
        super().__init__(message)
        self.path = path


class DecodeError(DflowError, ValueError):
    """Bytes from a peer are not a valid message, or exceed a limit."""


class BufferLost(DecodeError):
    """The shared memory a message refers to does not hold it any more."""


class ProtocolError(DflowError):
    """A peer sent a frame that is malformed or not allowed in the current state."""


class RunError(DflowError):
    """A run ended without finishing; ``report`` is what was counted until then, if known."""

    def __init__(self, message: str, report: object | None = None) -> None:
        super().__init__(message)
        self.report = report


class StartError(RunError):
    """The run never started: the agent, a worker or the user's module failed before it."""


class HookFailed(RunError):
    """User code raised where an error ends the run; the message shows its traceback."""


class WorkerDied(RunError):
    """A worker process died; the message names it, its exit, and what was in flight."""


class CoordinatorDied(RunError):
    """The coordinator process died; its workers were ended with it."""


class AgentDied(RunError):
    """The agent process died; every process of the run was ended with it."""


class DrainTimeout(RunError):
    """The drain deadline passed; the report counts by edge what was abandoned."""


class BundleError(DflowError):
    """A failure bundle cannot be written (no room, no rights), or a directory is none."""


class EdgeFull(DflowError):
    """An edge with policy "reject" has no room; ``edge`` is its id, ``capacity`` and ``depth``
    are messages. Nothing was sent, on this edge or on any other of the same output.
    """

    def __init__(self, edge: str, capacity: int, depth: int) -> None:
        super().__init__(
            f"edge {edge}: expected room for a message, got {depth} waiting of {capacity}; try"
            " again later, or give the edge another policy or capacity"
        )
        self.edge = edge
        self.capacity = capacity
        self.depth = depth


class NodeEnded(DflowError):
    """A message was sent from outside to a node that has already ended."""
