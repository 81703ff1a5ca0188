"""What the nodes of a simulated graph emitted, and what its sinks were given."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dflow.errors import DflowError
from dflow.wire.codec import Codec
from dflow.wire.restoring import restored, restorer

if TYPE_CHECKING:
    from dflow.graph.builder import Graph
    from dflow.graph.calls import Handler
    from dflow.graph.node import Node
    from dflow.worker.context import Context, Watch

__all__ = ["Taps"]

Tag = tuple[int, int] | None


class _Kept:
    """A value as it was at that moment: encoded, or itself where it never travels."""

    __slots__ = ("payload", "tag", "value")

    def __init__(self, codec: Codec, value: Any, tag: Tag) -> None:
        self.tag = tag
        self.value = None
        self.payload: bytes | None = None
        try:
            self.payload = codec.encode(value)
        except (DflowError, RecursionError):  # handed from node to node of one worker as it is
            self.value = value


class Taps:
    """Keeps values in the order of virtual time; those of ordered nodes in the nodes' order."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._codec = Codec(graph.types())
        self._emitted: defaultdict[tuple[str, str], list[_Kept]] = defaultdict(list)
        self._given: defaultdict[str, list[_Kept]] = defaultdict(list)

    def watch(self, ctx: Context) -> Watch:
        """Return what sees everything that one replica emits."""

        def seen(port: str, value: Any, tag: Tag) -> None:
            self._emitted[ctx.node, port].append(_Kept(self._codec, value, tag))

        return seen

    def follow(self, node: Node) -> None:
        """See what a sink is given."""
        if not node.outputs:
            bind = node.bind
            node.__dict__["bind"] = lambda port, ctx: self._seeing(node.name, bind(port, ctx))

    def _seeing(self, name: str, handler: Handler) -> Handler:
        from dataclasses import replace

        call: Callable[[Any], Any] = handler.call

        def seen(value: Any) -> Any:
            self._given[name].append(_Kept(self._codec, value, None))
            return call(value)

        return replace(handler, call=seen)

    def emitted(self, node: str, output: str) -> int:
        """Return how many values all replicas of a node emitted on an output."""
        return len(self._emitted[node, output])

    def given(self, sink: str) -> int:
        """Return how many values all replicas of a sink were given."""
        return len(self._given[sink])

    def results(self, target: Any) -> list[Any]:
        """Return what an output emitted, or what a sink was given."""
        node = self._graph.find(target)
        if not node.outputs:
            return [self._value(kept) for kept in self._given[node.name]]
        output = self._graph.find_output(target)
        kept = self._emitted[node.name, output.name]
        tagged = sorted((each for each in kept if each.tag is not None), key=lambda k: k.tag or ())
        if tagged:
            places = iter(tagged)
            kept = [each if each.tag is None else next(places) for each in kept]
        values = [self._value(each) for each in kept]
        restore = restorer(output.type)
        return values if restore is None else restored(restore, values)

    def _value(self, kept: _Kept) -> Any:
        return kept.value if kept.payload is None else self._codec.decode(kept.payload)
