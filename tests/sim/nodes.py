"""The nodes of random graphs: what they do with a message follows from its ids alone.

So the oracle can say what each must have emitted, whatever came when. There is one class for each
style and set of ports, made once when this module is imported and found by name, as graphs of
importable classes need not be pickled.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, ClassVar

from dflow import Context, Input, Node, Output, Priority
from dflow.graph.ports import BoundOutput
from tests.sim.log import Entry, Message, the_log
from tests.sim.spec import NodeSpec

__all__ = ["KEYS", "STYLES", "class_of", "merge", "mix", "results_of", "tick_id"]

STYLES = {
    "source": ("yield", "emit", "async"),
    "node": ("return", "yield", "emit", "async", "async_yield"),
    "sink": ("return", "async"),
}
"""How the code of each kind of node may be written."""

_MASK = (1 << 50) - 1


def mix(*numbers: int) -> int:
    """Return a number made of some others: the same everywhere, different for different ones."""
    mixed = 0x9E3779B97F4A7C15
    for number in numbers:
        mixed = ((mixed ^ number) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        mixed ^= mixed >> 29
    return mixed & _MASK


def name_number(name: str) -> int:
    """Return a number for a node's name."""
    return int.from_bytes(name.encode(), "little")


def tick_id(name: str, replica: int, count: int, what: int) -> int:
    """Return the id that a source (``what`` 0), a tick (1), an end (2) or the outside (3) gives."""
    return mix(name_number(name), replica, count, what)


def results_of(spec: NodeSpec, ids: tuple[int, ...]) -> tuple[list[tuple[str, int]], bool]:
    """Return the (output, id) of each result of a message, and whether it raises."""
    base = mix(name_number(spec.name), *ids)
    raises = spec.raise_every > 0 and base % spec.raise_every == 0
    if spec.kind == "sink" or (raises and not spec.late):
        return [], raises
    if spec.filter_every and (base >> 8) % spec.filter_every == 0:
        return [], raises
    count = 1 if spec.fan <= 1 else (base >> 16) % (spec.fan + 1)
    made = [mix(base, place) for place in range(count)]
    return [("other" if spec.second and id % 3 == 0 else "out", id) for id in made], raises


Wire = tuple[Any, ...]
"""A `Message` as it travels: the plain tuple."""


def by_2(value: Wire) -> int:
    """Return one of two keys."""
    return int(value[0][0]) % 2


def by_3(value: Wire) -> int:
    """Return one of three keys."""
    return int(value[0][0]) % 3


def by_7(value: Wire) -> int:
    """Return one of seven keys."""
    return int(value[0][0]) % 7


KEYS = {2: by_2, 3: by_3, 7: by_7}


def merge(waiting: Wire, new: Wire) -> Wire:
    """Coalesce two messages: the ids of both, at the place in an order of the one that waited."""
    _, replica, number, _, pad = new
    return (*waiting[0], *new[0]), replica, number, waiting[3], pad


class Raised(Exception):
    """What nodes of a random graph raise."""


class Acting(Node):
    """What all of them share: hooks, and how a message becomes results."""

    def __init__(self, plain: dict[str, Any], keys: int) -> None:
        self.spec = NodeSpec(**plain)
        self.keys = keys
        self.counts = {"out": 0, "other": 0}
        self.begun = 0
        self.replica = 0

    def on_start(self, ctx: Context) -> None:
        """Remember where this is."""
        self.ctx = ctx
        self.replica = ctx.replica
        self._hook("on_start")

    def on_end(self) -> None:
        """Emit some last messages."""
        self._hook("on_end")
        for count in range(self.spec.at_end):
            self._emit("out", tick_id(self.spec.name, self.replica, count, 2), (), note=True)

    def on_stop(self) -> None:
        """Note that it was called."""
        self._hook("on_stop")

    def _hook(self, name: str) -> None:
        log = the_log()
        log.hook(self.spec.name, self.replica, name, "begin")
        if self.spec.cost_us:
            time.sleep(self.spec.cost_us / 1e6)
        log.hook(self.spec.name, self.replica, name, "end")
        if self.spec.raises == name:
            raise Raised(name)

    def ticked(self) -> None:
        """Emit a message, if there is an output."""
        log = the_log()
        if self.spec.raises == "on_tick":
            log.raised[self.spec.name] += 1
            raise Raised("on_tick")
        self.begun += 1
        if self.spec.kind != "sink":
            self._emit("out", tick_id(self.spec.name, self.replica, self.begun, 1), (), note=True)

    def made(self, port: str, id: int, order: tuple[int, ...], *, note: bool = False) -> Wire:
        """Return a message that is about to be emitted, as it travels, and note it."""
        number = self.counts[port]
        self.counts[port] = number + 1
        message = Message((id,), self.replica, number, order, b"x" * self.spec.pad)
        log = the_log()
        log.emitted[f"{self.spec.name}.{port}"].append(message)
        if note:
            log.extra[self.spec.name].append(id)
        return tuple(message)

    def _emit(self, port: str, id: int, order: tuple[int, ...], *, note: bool = False) -> None:
        message = self.made(port, id, order, note=note)
        output: BoundOutput = getattr(self, port)
        if self.spec.ids:
            output.emit(message, id=str(id))
        else:
            output.emit(message)

    # --- messages -----------------------------------------------------------------------------

    def _begin(self, message: Any, port: str) -> Entry:
        spec = self.spec
        headers = self.ctx.headers
        edge = headers.edge if headers is not None else ""
        message = Message(tuple(message[0]), *message[1:])
        entry = Entry(edge, port, self.replica, message)
        the_log().begin(
            spec.name, self.replica, entry, most=spec.concurrency, keys=self.keys, limit=spec.limit
        )
        return entry

    def _end(self, entry: Entry) -> None:
        spec = self.spec
        the_log().end(spec.name, self.replica, entry, keys=self.keys, limit=spec.limit)

    def _plan(self, entry: Entry) -> tuple[list[tuple[str, int, tuple[int, ...]]], bool, float]:
        """Return what comes of a message, whether it raises, and what it takes, in seconds."""
        spec = self.spec
        message = entry.message
        made, raises = results_of(spec, message.ids)
        order: tuple[int, ...] = ()
        if spec.ordered and entry.port == "into":
            self.begun += 1
            order = message.order if spec.replicas > 1 else (self.begun,)
        placed = [
            (port, id, (*order, place) if order else ()) for place, (port, id) in enumerate(made)
        ]
        return placed, raises, spec.cost_us * (message.key % 5) / 1e6

    def _raise(self, raises: bool) -> None:
        if raises:
            the_log().raised[self.spec.name] += 1
            raise Raised(self.spec.name)

    def results(
        self, message: Any, port: str = "into"
    ) -> Iterator[tuple[str, int, tuple[int, ...]]]:
        """Yield (port, id, order) of each result, when its time has come."""
        entry = self._begin(message, port)
        try:
            placed, raises, cost_s = self._plan(entry)
            if cost_s:
                time.sleep(cost_s)
            yield from placed
            self._raise(raises)
        finally:
            self._end(entry)

    def take_return(self, message: Any) -> Wire | None:
        """Handle a message: return its result."""
        value = None
        for output, id, order in self.results(message):
            if output == "out":
                value = self.made("out", id, order)
            else:
                self._emit(output, id, order)
        return value

    def take_yield(self, message: Any) -> Iterator[Any]:
        """Handle a message: yield its results."""
        for output, id, order in self.results(message):
            if output == "out":
                yield self.made("out", id, order)
            else:
                self._emit(output, id, order)

    def take_emit(self, message: Any, port: str = "into") -> None:
        """Handle a message: emit its results."""
        for output, id, order in self.results(message, port):
            self._emit(output, id, order)

    async def take_async(self, message: Any) -> Any:
        """Handle a message: return its result, after a while."""
        entry = self._begin(message, "into")
        try:
            placed, raises, cost_s = self._plan(entry)
            if cost_s:
                await asyncio.sleep(cost_s)
            value = None
            for output, id, order in placed:
                if output == "out":
                    value = self.made("out", id, order)
                else:
                    self._emit(output, id, order)
            self._raise(raises)
        finally:
            self._end(entry)
        return value

    async def take_async_yield(self, message: Any) -> AsyncIterator[Any]:
        """Handle a message: yield its results, with a while between them."""
        entry = self._begin(message, "into")
        try:
            placed, raises, cost_s = self._plan(entry)
            for output, id, order in placed:
                if cost_s:
                    await asyncio.sleep(cost_s)
                if output == "out":
                    yield self.made("out", id, order)
                else:
                    self._emit(output, id, order)
            self._raise(raises)
        finally:
            self._end(entry)

    # --- sources ------------------------------------------------------------------------------

    def feed(self) -> Iterator[tuple[str, int, tuple[int, ...]]]:
        """Yield (port, id, order) of what a source is to emit."""
        spec = self.spec
        for count in range(spec.count):
            if spec.watched and self.ctx.stopping:
                return
            id = tick_id(spec.name, self.replica, count, 0)
            if spec.raise_every and id % spec.raise_every == 0:
                self._raise(True)
            yield "other" if spec.second and id % 3 == 0 else "out", id, (count,)

    def pause_s(self, id: int) -> float:
        """Return how long a source waits before a message."""
        return self.spec.cost_us * (id % 5) / 1e6

    def produce_yield(self) -> Iterator[Any]:
        """Yield messages."""
        for output, id, order in self.feed():
            if pause_s := self.pause_s(id):
                time.sleep(pause_s)
            if output == "out":
                yield self.made("out", id, order)
            else:
                self._emit(output, id, order)

    def produce_emit(self) -> Iterator[Any]:
        """Emit messages by calls, and some of them by yields."""
        for output, id, order in self.feed():
            if pause_s := self.pause_s(id):
                time.sleep(pause_s)
            if output == "out" and id % 4 == 0:
                yield self.made("out", id, order)
            else:
                self._emit(output, id, order)

    async def produce_async(self) -> AsyncIterator[Any]:
        """Yield messages, with awaits between them."""
        for output, id, order in self.feed():
            if pause_s := self.pause_s(id):
                await asyncio.sleep(pause_s)
            if output == "out":
                yield self.made("out", id, order)
            else:
                self._emit(output, id, order)


class _Made:
    """Makes classes, as their ports must be there when a class is made."""

    known: ClassVar[dict[str, type[Acting]]] = {}

    @classmethod
    def name(cls, kind: str, style: str, *, second: bool, control: bool, ticks: bool) -> str:
        words = [kind.title(), *(word.title() for word in style.split("_"))]
        return "".join(words) + "Second" * second + "Control" * control + "Ticks" * ticks

    @classmethod
    def make(cls, kind: str, style: str, **ports: bool) -> None:
        name = cls.name(kind, style, **ports)
        parts: dict[str, Any] = {"__module__": __name__, "__doc__": f"A {kind}: {style}."}
        if kind != "sink":
            parts["out"] = Output(Any)
            if ports["second"]:
                parts["other"] = Output(Any)
        if kind == "source":
            parts["produce"] = _own(getattr(Acting, f"produce_{style}"))
        else:
            into = parts["into"] = Input(Any, required=False)
            parts["take"] = into.handler(_own(getattr(Acting, f"take_{style}")))
        if ports["control"]:
            command = parts["command"] = Input(Any, priority=Priority.CONTROL)

            def obey(self: Acting, message: Any) -> None:
                self.take_emit(message, "command")

            parts["obey"] = command.handler(obey)
        if ports["ticks"]:
            parts["on_tick"] = _own(Acting.ticked)
        made = type(name, (Acting,), parts)
        cls.known[name] = made
        globals()[name] = made


def _own(function: Any) -> Any:
    """Return a copy of a function: a port's mark must not appear on that of other classes."""
    import types

    copy = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__,
        function.__closure__,
    )  # fmt: skip
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def _make_all() -> None:
    some = (False, True)
    for kind, styles in STYLES.items():
        for style in styles:
            for second in some if kind != "sink" else (False,):
                for control in some if kind != "source" else (False,):
                    for ticks in some:
                        _Made.make(kind, style, second=second, control=control, ticks=ticks)


_make_all()


def class_of(spec: NodeSpec) -> type[Acting]:
    """Return the class that is written as ``spec`` says."""
    return _Made.known[
        _Made.name(
            spec.kind, spec.style, second=spec.second, control=spec.control,
            ticks=spec.tick_us > 0,
        )
    ]  # fmt: skip
