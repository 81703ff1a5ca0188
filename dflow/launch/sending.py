"""Messages from outside: what `Run.send` does, in whatever thread it is called.

An edge leads to each input that something was sent to; it is opened at the first message, and
follows the same policies as any other. User threads never touch a socket: they let messages wait
on the edge, under the lock of the data plane, and wake the thread that owns the sockets.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from itertools import count
from threading import Condition, Lock
from typing import Any

from dflow.errors import NodeEnded, OptionError, PortError
from dflow.flow.queue_edge import Place, QueueEdge
from dflow.graph.plan import Plan
from dflow.wire.codec import Codec
from dflow.wire.restoring import Restore
from dflow.worker.outbound import Merge
from dflow.worker.plane import DataPlane

__all__ = ["GraphCode", "Sending"]

LOOK_S = 0.05
"""How long a message that would be lost waits for the sockets to be looked at."""

Key = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class GraphCode:
    """What of the graph's code runs in the launching process.

    ``key(node, port)``, ``merge(edge id)`` and ``restore(results port)`` return functions, or None.
    ``lock``: a codec serves one thread at a time.
    """

    codec: Codec
    key: Callable[[str, str], Key | None]
    merge: Callable[[str], Merge | None]
    restore: Callable[[str], Restore | None] = lambda port: None
    lock: Lock = field(default_factory=Lock)


class Sending:
    """The edges from outside. ``changed`` is notified of everything that happens.

    ``locate(node, port)`` returns rows of [channel, endpoint]; ``closed(node)`` says whether no
    more may be sent there. ``looks``: how often the sockets were looked at; ``waiting``: the edges
    on which somebody waits for room.
    """

    def __init__(
        self,
        plan: Plan,
        plane: DataPlane,
        changed: Condition,
        code: GraphCode,
        *,
        locate: Callable[[str, str], list[Any]],
        closed: Callable[[str], bool],
        on_merge_error: Callable[[BaseException, str], None],
    ) -> None:
        self._plan = plan
        self._plane = plane
        self._changed = changed
        self._code = code
        self._locate = locate
        self._closed = closed
        self._on_merge_error = on_merge_error
        self._numbers = count(1)
        self.looks = 0
        self.waiting: list[QueueEdge] = []
        self.edges: dict[tuple[str, str], QueueEdge] = {}
        self.opening: deque[tuple[QueueEdge, Any]] = deque()

    def send(
        self, node: str, port: str, value: Any, timeout_s: float | None, id: str | None = None
    ) -> str:
        """Send one message to ``node.port`` and return its id; with policy block, wait for room.

        Raises `NodeEnded`, `EncodeError`, `EdgeFull`, what a key function does, or `TimeoutError`
        when no credit came in time.
        """
        if id is not None and not isinstance(id, str):
            raise OptionError(f"send(id=...): expected an id that is a text, got {id!r}")
        edge = self.edges.get((node, port)) or self._open(node, port)
        id = f"sent-{next(self._numbers)}" if id is None else id
        with self._code.lock:
            payload = self._code.codec.encode(value)
            place = edge.place(value)
        with self._changed:
            self._wait(node, port, edge, place, timeout_s)
            self._look(node, edge, place, len(payload))
            refused = edge.refusal(place, len(payload))
            if refused is not None:
                raise refused
            with self._code.lock:
                edge.offer(payload, place, self._plane.clock.monotonic_ns(), id=id)
        self._plane.wakeup.set()
        return id

    def _wait(
        self, node: str, port: str, edge: QueueEdge, place: Place, timeout_s: float | None
    ) -> None:
        def over() -> bool:
            return edge.closed or self._closed(node)

        ready = not edge.held(place)
        if not ready:
            self.waiting.append(edge)
            try:
                ready = self._changed.wait_for(lambda: not edge.held(place) or over(), timeout_s)
            finally:
                self.waiting.remove(edge)
        if over():
            raise NodeEnded(f"{node}.{port}: the node has ended or the run is draining")
        if not ready:
            raise TimeoutError(
                f"{node}.{port}: no credit for {timeout_s:g} s; the node is not keeping up"
            )

    def _look(self, node: str, edge: QueueEdge, place: Place, size_bytes: int) -> None:
        """Before a message is lost, see whether credit has come back."""
        if edge.crowded(place, size_bytes):
            looks = self.looks
            self._plane.wakeup.set()
            self._changed.wait_for(lambda: self.looks != looks or self._closed(node), LOOK_S)

    def _open(self, node: str, port: str) -> QueueEdge:
        try:
            planned = self._plan.external_edge(node, port)
        except KeyError:
            raise PortError(
                f"send: expected an input of a node of graph {self._plan.name!r}, got {node}.{port}"
            ) from None
        rows = self._locate(node, port)
        with self._changed:
            known = self.edges.get((node, port))
            if known is not None:
                return known
            if not rows:
                raise NodeEnded(f"{node}.{port}: the node has ended")
            edge = self._plane.outbound.make(
                planned,
                [number for number, _ in rows],
                self._code.key(node, port),
                self._code.merge(planned.id),
            )
            assert isinstance(edge, QueueEdge)  # what comes from outside can be cancelled
            edge.on_merge_error = self._on_merge_error
            self.edges[node, port] = edge
            self.opening.append((edge, rows))
        return edge

    def looked(self) -> None:
        """The sockets were looked at."""
        self.looks += 1

    def settled(self, nodes: Collection[str] | None = None) -> bool:
        """Whether everything sent (to ``nodes``) is done, or never will be."""
        if nodes is None and self.opening:
            return False
        return all(
            edge.settled or edge.closed
            for (name, _), edge in self.edges.items()
            if nodes is None or name in nodes
        )
