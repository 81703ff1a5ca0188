"""Whose code logs a record, in a worker with several nodes.

``ctx.log`` is a node's own, but a plain ``logger.info`` or ``logging.info`` does not say whose it
is. So it is looked up when a record is made, which is rare beside handling a message: a coroutine
carries the name in its context, the main thread is in the code of one node, and a thread that
user code has started belongs to the node that started it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING

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
        """From now on remember of every new thread of this process who started it."""
        start: Callable[[threading.Thread], None] = threading.Thread.start

        def start_owned(thread: threading.Thread) -> None:
            setattr(thread, _OWNER, self())
            start(thread)

        threading.Thread.start = start_owned  # type: ignore[method-assign,assignment]  # the only way in
