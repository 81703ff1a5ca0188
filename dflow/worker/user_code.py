"""The door to a node's own code: calls it, and keeps what it raises from ending the worker.

Whoever enters gives up the data plane's lock, so the pulse thread can work meanwhile, and
takes it again on the way out. An error is counted and logged, or kept in ``raised`` if it must
end the run.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from dflow.telemetry.logs import say
from dflow.worker.faults import ErrorLog, Interrupted, describe, place_of, user_traceback
from dflow.worker.state import HookRaised

if TYPE_CHECKING:
    from dflow.graph.node import Node
    from dflow.worker.context import Context
    from dflow.worker.outbound import Outputs
    from dflow.worker.plane import DataPlane
    from dflow.worker.pulse import Pulse

__all__ = ["UserCode", "at_the_door"]


class UserCode:
    """The code of one node: ``with code:`` surrounds every call into it.

    ``raised`` is set once an error must end the run. ``emitter`` is the function or generator
    whose values are emitted, for the report of a value that cannot travel. ``errors`` and
    ``busy_ns`` count hooks only. ``hook_name`` is the hook at hand, since ``began_ns``.
    """

    __slots__ = (
        "_ctx",
        "_hooks",
        "_log",
        "_node",
        "_now",
        "_outputs",
        "_plane",
        "_pulse",
        "_stop",
        "began_ns",
        "busy_ns",
        "emitter",
        "errors",
        "hook_name",
        "raised",
    )  # fmt: skip

    def __init__(
        self, node: Node, ctx: Context, plane: DataPlane, pulse: Pulse, outputs: Outputs
    ) -> None:
        self._node = node
        self._ctx = ctx
        self._plane = plane
        self._pulse = pulse
        self._outputs = outputs
        self._stop = node.node_options.on_error == "stop"
        self._log = ErrorLog()
        self._hooks: dict[str, Callable[[], Any] | None] = {}
        self._now = plane.clock.monotonic_ns
        self.raised: HookRaised | None = None
        self.emitter: object = None
        self.errors = 0
        self.busy_ns = 0
        self.hook_name = ""
        self.began_ns = 0

    def __enter__(self) -> None:
        self._plane.running = self._outputs
        self._plane.gate.open()
        self._plane.lock.release()
        self._pulse.user_code_begins()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> bool:
        self._pulse.user_code_ended()
        self._plane.lock.acquire()
        return kind is Interrupted

    def hook(self, name: str, consume: Callable[[Any], None]) -> HookRaised | None:
        """Call a lifecycle hook and ``consume`` its result; return what must end the run."""
        if (
            name not in self._hooks
        ):  # to ask for its signature at each tick costs more than the tick
            self._hooks[name] = self._node.hook(name, self._ctx)
        hook = self._hooks[name]
        if hook is None:
            return None
        self.began_ns = began = self._now()
        self.hook_name = name
        try:
            with self:
                consume(hook())
        except Exception as error:  # noqa: BLE001  # user code may raise anything
            self.errors += 1
            if name == "on_start" or (self._stop and name != "on_stop"):
                return HookRaised(name, describe(error), user_traceback(error), self._ctx.node)
            self.say(error, name)
        finally:
            self.hook_name = ""
            self.busy_ns += self._now() - began
        return None if name == "on_stop" else self.raised

    def failed(self, error: BaseException, where: str) -> None:
        """Deal with what a handler or source raised: log it, or end the run."""
        if not self._stop:
            self.say(error, where)
            return
        if self.raised is None:
            text = describe(error, self._emitted_by(where))
            self.raised = HookRaised(where, text, user_traceback(error), self._ctx.node)
        self._plane.gate.close()

    def conclude(self) -> None:
        """Say what was left unsaid, after the last message."""
        line = self._log.last_word()
        if line is not None:
            say(self._ctx.log, "ERROR", line)

    def say(self, error: BaseException, where: str) -> None:
        """Log an error; the same one often is logged less often."""
        line = self._log.line(error, where, self._now(), self._emitted_by(where))
        if line is not None:
            say(self._ctx.log, "ERROR", line)

    def _emitted_by(self, where: str) -> str:
        """Return which of this node's functions emitted a bad value; "" if another node did."""
        return "" if where.startswith(("decoding ", "coalesce ")) else place_of(self.emitter)


_DOOR = (UserCode.__enter__.__code__, UserCode.__exit__.__code__)


def at_the_door(at: FrameType | None) -> bool:
    """Whether a frame is on its way into user code or out of it, where nothing may be raised.

    What is raised there is raised without the data plane's lock, and past whoever would take it.
    """
    while at is not None and at.f_code not in _DOOR:
        at = at.f_back
    return at is not None
