"""Emit on an output some of whose edges let messages wait one by one.

All or nothing: the value is encoded once, its place on every edge is found, and every edge that
may refuse it is asked, before anything is pushed anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from dflow.errors import EdgeFull, PortError
from dflow.flow.batch import Lane
from dflow.flow.local_edge import LocalEdge, Ref, refuse_generator
from dflow.flow.out_edge import OutEdge
from dflow.flow.queue_edge import Place, QueueEdge

if TYPE_CHECKING:
    from dflow.worker.plane import DataPlane

__all__ = ["Offering", "Prepared", "refuse_id"]


def refuse_id(id: str, plain: Sequence[str]) -> None:
    """Raise `PortError` unless ``id`` is a text and there are no ``plain`` edges.

    These keep messages as bytes among others: none can be taken back by its id.
    """
    if not isinstance(id, str) or not id:
        raise PortError(f"emit: expected an id that is a text, got {id!r}")
    if plain:
        raise PortError(
            f"emit with an id: expected edges whose messages can be cancelled, got "
            f"{', '.join(plain)}; connect with cancellable=True"
        )


class Prepared(NamedTuple):
    """A value that may be emitted: its way on every edge found, and encoded if it must travel."""

    value: Any
    payload: bytes
    routes: list[tuple[Lane, bytes]]
    places: list[tuple[QueueEdge, Place]]


class Offering:
    """Emits on any mix of edges of one ``output``: plain, within the worker, and queued.

    Called by the thread that owns the codec. ``seen``, if given, is told each value and its tag.
    """

    __slots__ = ("_encode", "_local", "_plain", "_plane", "_queued", "_seen", "_travels", "output")

    def __init__(
        self,
        edges: Sequence[OutEdge | LocalEdge | QueueEdge],
        plane: DataPlane,
        encode: Callable[[Any], bytes],
        output: str = "out",
        seen: Callable[[Any, tuple[int, int] | None], None] | None = None,
    ) -> None:
        self.output = output
        self._seen = seen
        self._plain = tuple(edge for edge in edges if isinstance(edge, OutEdge))
        self._local = tuple(edge for edge in edges if isinstance(edge, LocalEdge))
        self._queued = tuple(edge for edge in edges if isinstance(edge, QueueEdge))
        self._travels = bool(self._plain) or any(not edge.plan.local for edge in self._queued)
        self._plane = plane
        self._encode = encode

    def __call__(self, value: Any, *, id: str | None = None) -> None:
        """Emit ``value``; raises `EncodeError`, what a key function does, and `EdgeFull`."""
        self.commit(self.prepare(value, id), id=id)

    def prepare(self, value: Any, id: str | None = None) -> Prepared:
        """Return ``value`` ready to be committed; raises `EncodeError`, what a key function does.

        What travels is frozen: a change of the value from now on is not seen by anybody. Raises
        `PortError` if there is an ``id``, and an edge that could not find it again.
        """
        if id is not None:
            refuse_id(id, [e.id for e in self._plain] + [e.id for e in self._local])
        payload = b""
        if self._travels:
            payload = self._encode(value)
        else:
            refuse_generator(value)
        routes = [edge.route(value, self._encode) for edge in self._plain]
        for edge in self._local:
            edge.check(value, self._encode)
        places = [(edge, edge.place(value)) for edge in self._queued]
        return Prepared(value, payload, routes, places)

    def commit(
        self,
        prepared: Prepared,
        *,
        id: str | None = None,
        tag: tuple[int, int] | None = None,
        cancelled: bool = False,
    ) -> None:
        """Emit what `prepare` returned; raises `EdgeFull`, and then it is on no edge.

        ``cancelled``: what has ``id`` was cancelled before, so it is withdrawn at once.
        """
        value, payload, routes, places = prepared
        size = len(payload)
        refused: EdgeFull | None = None
        with self._plane.lock:
            if any(edge.crowded(place, size) for edge, place in places):
                self._plane.pump()  # credit may have come back since
            for edge, place in places:
                refused = edge.refusal(place, size)
                if refused is not None:
                    raise refused
            now = self._plane.clock.monotonic_ns()
            wanted = False
            for lane, key in routes:
                wanted = lane.push(payload, key) or wanted
            for local in self._local:
                wanted = local.push(value) or wanted
            for edge, place in places:
                tagged = tag if edge.plan.tagged else None
                said: Any = Ref(value) if edge.plan.local else payload
                wanted = edge.offer(said, place, now, id=id, tag=tagged) or wanted
                if cancelled and id is not None:
                    edge.withdraw(id)
            if wanted:
                self._plane.pump()
        if self._seen is not None:
            self._seen(value, tag)
