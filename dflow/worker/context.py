"""What user code sees of dflow, and the first step of a message's way: emit.

Emit encodes at once, so the value is frozen and a value that cannot travel raises at the
line that emitted it. It never blocks: it appends to a lane and, when a batch is full or
credit has run out, lets the data plane look at the wire.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, SupportsIndex

from dflow.errors import PortError
from dflow.flow.batch import Lane
from dflow.flow.local_edge import LocalEdge, refuse_generator
from dflow.flow.out_edge import OutEdge
from dflow.graph.checking import checker
from dflow.message import Headers
from dflow.wire.arrays import new_array
from dflow.worker.handling import Handling, current_task
from dflow.worker.offering import Offering, refuse_id
from dflow.worker.ordered import InOrder, Order

if TYPE_CHECKING:
    from loguru import Logger

    from dflow.graph.node import Node
    from dflow.wire.buffers import Memory
    from dflow.wire.codec import Codec
    from dflow.worker.plane import DataPlane

__all__ = [
    "Context",
    "Direct",
    "Discard",
    "Emitters",
    "Metrics",
    "Watch",
    "current_headers",
    "make_emitters",
    "refuse_results",
    "refusing_emitters",
]

Emit = Callable[..., None]
"""Of one output: ``emit(value, id=None)``."""

Watch = Callable[[str, Any, "tuple[int, int] | None"], None]
"""Is told the port, the value and the place in the order (`Origin.tag`) of what was emitted."""

current_headers: ContextVar[Headers | None] = ContextVar("current_headers", default=None)
"""Of the batch at hand; a context variable, so that each asyncio task keeps its own."""


class Metrics:
    """A node's own numbers; they appear in the report (`NodeReport.metrics`).

    ``count`` adds up over replicas, and so does ``gauge`` (last value of each replica).
    """

    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def count(self, name: str, amount: float = 1) -> None:
        """Add ``amount`` to the counter ``name``."""
        self.values[name] = self.values.get(name, 0) + amount

    def gauge(self, name: str, value: float) -> None:
        """Set ``name`` to ``value``."""
        self.values[name] = value


class Context:
    """Given to hooks, and to functions with a parameter annotated ``Context``.

    ``node``, ``replica``, ``run_id`` name the place; ``log`` is a loguru logger with the
    three bound; ``metrics`` are the node's own numbers; ``headers`` describe the batch the
    message at hand came in (None in a source or a hook); ``allocate`` makes arrays that are emitted
    without a copy; ``stopping`` turns true when the
    run was asked to drain, so that a long-running source can end by itself; ``cancelled`` turns
    true when the message at hand is no longer wanted.
    """

    __dflow_context__: ClassVar[bool] = True
    __slots__ = (
        "_emitters",
        "_handling",
        "_memory",
        "_stopping",
        "log",
        "metrics",
        "node",
        "passed",
        "replica",
        "run_id",
        "watched",
    )  # fmt: skip

    def __init__(self, node: str, replica: int, run_id: str, log: Logger) -> None:
        self.node = node
        self.replica = replica
        self.run_id = run_id
        self.log = log
        self.metrics = Metrics()
        self.watched = False
        self.passed: Headers | None = None  # of a message that another node called this one with
        self._stopping = False
        self._emitters: dict[str, Emit] = {}
        self._handling: Callable[[], Handling | None] = lambda: None
        self._memory: Memory | None = None

    @property
    def headers(self) -> Headers | None:
        """Where the message at hand came from; None in a source or a hook."""
        return self.passed or current_headers.get()

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked to cancel the message at hand (`Run.cancel`).

        It may have come too late to keep the message from its handler, but a long-running handler
        that looks at this can end early. False in a source or a hook.
        """
        handling = current_task.get() or self._handling()
        return handling is not None and handling.is_cancelled

    def follow(self, handling: Callable[[], Handling | None]) -> None:
        """Learn what is being handled from ``handling``; dflow calls this once."""
        self._handling = handling

    @property
    def stopping(self) -> bool:
        """Whether the run was asked to drain.

        A source that has looked at this ends by itself, until the drain deadline; any other is
        closed at its next ``yield``, or interrupted if it blocks.
        """
        self.watched = True
        return self._stopping

    def stop(self) -> None:
        """Make `stopping` true; dflow calls this, from any thread."""
        self._stopping = True

    def attach(self, emitters: dict[str, Emit]) -> None:
        """Connect `emit` to the outputs; dflow calls this once, before `on_start`."""
        self._emitters = emitters

    def share(self, memory: Memory | None) -> None:
        """Learn where `allocate` gets its memory; dflow calls this once."""
        self._memory = memory

    def allocate(self, shape: SupportsIndex | Iterable[SupportsIndex], dtype: Any = "u1") -> Any:
        """Return a new numpy array that is emitted without being copied; never blocks.

        Its contents are arbitrary: write all of it, then emit it or a contiguous part of it. From
        64 KiB up that makes it read-only: allocate a new one for each message. (A fused node is
        handed the array itself.) It lies in shared memory, unless it is small, or there is no more
        room (`RunOptions.shm_bytes`), or no shared memory at all: then it is an ordinary array, and
        is copied when it is emitted. Raises `EncodeError` for a dtype with Python objects, and for
        a shape that numpy would not take.
        """
        return new_array(self._memory, shape, dtype)

    def emit(self, value: Any, port: str = "out", *, id: str | None = None) -> None:
        """Emit ``value`` on the output ``port``; never blocks.

        By its ``id`` it can be cancelled (`Run.cancel`), where every edge of the output lets
        messages wait one by one: ``cancellable=True``, a policy, an order. Raises `EncodeError` if
        the value cannot travel, `PortError` for an unknown port or an id where there can be none,
        `EdgeFull` with policy "reject", and, with ``run(check_types=True)``, TypeError if it does
        not fit the port's annotation.
        """
        try:
            emit = self._emitters[port]
        except KeyError:
            known = ", ".join(repr(name) for name in self._emitters) or "none"
            raise PortError(
                f"node {self.node}: expected an output port ({known}), got {port!r}"
            ) from None
        if id is None:
            emit(value)
        else:
            emit(value, id=id)


class Unconsumed:
    """Counts what is emitted on an output that nobody consumes."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, value: Any, *, id: str | None = None) -> None:
        self.count += 1


def refuse_results(node: str, outputs: list[str]) -> Emit:
    """Return what is done with returned and yielded values when none of ``outputs`` is theirs."""

    def emit(value: Any) -> None:
        if outputs:
            raise PortError(
                f"node {node}: a returned or yielded value needs exactly one output, got "
                f"{', '.join(outputs)}; say which, e.g. self.{outputs[0]}.emit(value)"
            )

    return emit


def refusing_emitters(node: Node) -> dict[str, Emit]:
    """Return emitters for when it is too late: END has gone out."""

    def refuse(value: Any, *, id: str | None = None) -> None:
        raise PortError(f"node {node.name}: on_stop may not emit; emit in on_end instead")

    return dict.fromkeys(node.outputs, refuse)


@dataclass(frozen=True, slots=True)
class Direct:
    """What the dispatcher's own loops need to emit on a lane without calling ``emit``.

    ``lock`` is the data plane's, for the bookkeeping of a chunk.
    """

    lane: Lane
    codec: Codec
    attend: Callable[[], None]
    lock: AbstractContextManager[Any]


@dataclass(frozen=True, slots=True)
class LocalDirect:
    """The same for an edge inside the worker."""

    edge: LocalEdge
    attend: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Discard:
    """Results of a node without outputs: nobody wants them."""


@dataclass(frozen=True, slots=True)
class Emitters:
    """How one replica emits: ``by_port``; ``direct`` where a port has one unkeyed edge."""

    by_port: dict[str, Emit]
    direct: dict[str, Direct | LocalDirect]
    unconsumed: list[Unconsumed]


def make_emitters(
    node: Node,
    plane: DataPlane,
    codec: Codec,
    *,
    check_types: bool = False,
    order: Order | None = None,
    watch: Watch | None = None,
) -> Emitters:
    """Return how ``node`` emits on each of its outputs, in ``order`` if there is one.

    With ``check_types`` each value is checked against its port's annotation first. ``watch`` sees
    what was emitted, at a price.
    """
    found = Emitters({}, {}, [])
    encode = codec.encode
    mine = plane.outputs(node.name).edges
    for port, output in node.outputs.items():
        check = checker(output.type, f"{node.name}.{port}") if check_types else None
        edges = [e for e in mine if plane.plan.edges[e.index].output == port]
        plain = [edge for edge in edges if isinstance(edge, OutEdge)]
        local = [edge for edge in edges if isinstance(edge, LocalEdge)]
        if not edges:
            found.unconsumed.append(Unconsumed())
            emit: Emit = found.unconsumed[-1]
        elif order is not None:
            seen = None if watch is None else partial(watch, port)
            emit = InOrder(order, Offering(edges, plane, encode, port, seen))
        elif len(edges) == len(plain) == 1 and plain[0].key is None:
            direct = Direct(plain[0].lanes[0], codec, plane.attend, plane.lock)
            emit = _emit_to_lane(direct, plain[0].id)
            if check is None:
                found.direct[port] = direct
        elif len(edges) == len(local) == 1 and local[0].key is None:
            inside = LocalDirect(local[0], plane.attend)
            emit = _emit_locally(inside, local[0].id)
            if check is None:
                found.direct[port] = inside
        elif len(plain) + len(local) == len(edges):
            emit = _emit_to_edges(plain, local, plane.attend, encode)
        else:
            emit = Offering(edges, plane, encode, port)
        if watch is not None and (order is None or not edges):
            found.direct.pop(port, None)
            emit = _watched(partial(watch, port), emit)
        found.by_port[port] = emit if check is None else _checked(check, emit)
    return found


def _watched(seen: Callable[[Any, None], None], emit: Emit) -> Emit:
    def watched(value: Any, *, id: str | None = None) -> None:
        if id is None:
            emit(value)
        else:
            emit(value, id=id)
        seen(value, None)

    return watched


def _checked(check: Callable[[Any], None], emit: Emit) -> Emit:
    def checked(value: Any, *, id: str | None = None) -> None:
        check(value)
        if id is None:
            emit(value)
        else:
            emit(value, id=id)

    return checked


def _emit_to_lane(direct: Direct, edge_id: str = "") -> Emit:
    push, encode, attend = direct.lane.push, direct.codec.encode, direct.attend

    def emit(value: Any, *, id: str | None = None) -> None:
        if id is not None:
            refuse_id(id, [edge_id])
        if push(encode(value)):
            attend()

    return emit


def _emit_locally(direct: LocalDirect, edge_id: str = "") -> Emit:
    edge, attend = direct.edge, direct.attend
    push = edge.push

    def emit(value: Any, *, id: str | None = None) -> None:
        if id is not None:
            refuse_id(id, [edge_id])
        refuse_generator(value)
        if push(value):
            attend()

    return emit


def _emit_to_edges(
    edges: list[OutEdge],
    local: list[LocalEdge],
    attend: Callable[[], None],
    encode: Callable[[Any], bytes],
) -> Emit:
    def emit(value: Any, *, id: str | None = None) -> None:
        if id is not None:
            refuse_id(id, [edge.id for edge in edges] + [edge.id for edge in local])
        payload = encode(value) if edges else b""
        if not edges:
            refuse_generator(value)
        routes = [edge.route(value, encode) for edge in edges]  # may raise: before any push
        for inside in local:
            inside.check(value, encode)
        wanted = False
        for lane, key in routes:
            wanted = lane.push(payload, key) or wanted
        for inside in local:
            wanted = inside.push(value) or wanted
        if wanted:
            attend()

    return emit
