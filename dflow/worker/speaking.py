"""Whose code logs a record, in a worker with several nodes.

``ctx.log`` is a node's own, but a plain ``logger.info`` or ``logging.info`` does not say whose it
is. So it is looked up when a record is made, which is rare beside handling a message: a coroutine
carries the name in its context, the main thread is in the code of one node, a thread that user
code has started belongs to the node that started it, and so does what a pool of threads is given.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dflow.worker.outbound import Outputs
    from dflow.worker.plane import DataPlane

__all__ = ["Speaking", "speaker"]

speaker: ContextVar[str] = ContextVar("dflow_speaker", default="")
"""The node whose coroutine runs; "" outside of one."""

_OWNER = "_dflow_node"


class Speaking:
    """Tells the node whose code runs in the thread that asks; made by the main thread."""

    def __init__(self, plane: DataPlane, nodes: Mapping[str, Outputs]) -> None:
        self._plane = plane
        self._by_outputs = {id(outputs): name for name, outputs in nodes.items()}
        self._main = threading.get_ident()

    def __call__(self) -> str:
        """Return the name of the node; "" if nobody knows."""
        name = speaker.get()
        if name:
            return name
        if threading.get_ident() != self._main:
            owner = getattr(threading.current_thread(), _OWNER, "")
            return owner if isinstance(owner, str) else ""
        running = self._plane.running
        if running.way is not None:
            return running.way.node(running.way.position(sys._getframe()))
        return self._by_outputs.get(id(running), "")

    def follow_threads(self) -> None:
        """From now on remember of every new thread, and of what a pool is given, whose it is."""
        start: Callable[[threading.Thread], None] = threading.Thread.start

        def start_owned(thread: threading.Thread) -> None:
            setattr(thread, _OWNER, self())
            start(thread)

        submit = ThreadPoolExecutor.submit

        def submit_owned(
            pool: ThreadPoolExecutor, call: Callable[..., Any], /, *args: Any, **named: Any
        ) -> Future[Any]:
            name = self()
            return (
                submit(pool, _as, name, call, *args, **named)
                if name
                else submit(pool, call, *args, **named)
            )

        threading.Thread.start = start_owned  # type: ignore[method-assign,assignment]  # the only way in
        ThreadPoolExecutor.submit = submit_owned  # type: ignore[method-assign,assignment]  # likewise


def _as(node: str, call: Callable[..., Any], /, *args: Any, **named: Any) -> Any:
    """Call something for ``node``, in a thread that works for several."""
    token = speaker.set(node)
    try:
        return call(*args, **named)
    finally:
        speaker.reset(token)
