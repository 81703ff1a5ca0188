"""The launching process in a simulation: it sends from outside, and ends what only that feeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dflow.errors import DflowError, NodeEnded
from dflow.graph.plan import Plan
from dflow.launch.handle import Handle
from dflow.launch.sending import GraphCode
from dflow.options import RunOptions
from dflow.testing.kernel import Kernel, Process, Task
from dflow.testing.system import SimulatedSystem
from dflow.wire.codec import Codec

if TYPE_CHECKING:
    from dflow.graph.builder import Graph

__all__ = ["Launching"]

PAUSE_S = 0.001
"""The most that passes between two messages sent to one input."""

_LIVE = ("running", "draining")


class Launching:
    """What the launching process does while the graph runs.

    ``wanted`` are the values for each (node, port). Inputs are sent to at the same time, each in
    order; after that, nodes that nothing else feeds are drained. ``refused`` are the values that
    were not taken: (input, value, error).
    """

    def __init__(self, graph: Graph, plan: Plan, wanted: dict[tuple[str, str], list[Any]]) -> None:
        self._graph = graph
        self._plan = plan
        self._wanted = wanted
        self._fed_from_outside = [
            node.name
            for node in plan.nodes
            if node.kind not in ("source", "external") and not plan.in_edges(node.name)
        ]
        self.refused: list[tuple[str, Any, DflowError]] = []
        self.handle: Handle | None = None

    @classmethod
    def of(cls, graph: Graph, plan: Plan, send: Mapping[Any, Sequence[Any]]) -> Launching | None:
        """Return what has to be done from outside, None if nothing; raises `PortError`."""
        wanted: dict[tuple[str, str], list[Any]] = {}
        for target, values in send.items():
            into = graph.find_input(target)
            wanted.setdefault((into.node.name, into.name), []).extend(values)
        found = cls(graph, plan, wanted)
        return found if wanted or found._fed_from_outside else None

    def live(
        self,
        kernel: Kernel,
        system: SimulatedSystem,
        process: Process,
        options: RunOptions,
        endpoint: str,
        token: str,
        epoch: int,
    ) -> None:
        """Be the launching process from the start of the run to its report."""
        graph = self._graph
        handle = self.handle = Handle(
            self._plan,
            options,
            token=token,
            epoch=epoch,
            endpoint=endpoint,
            run_dir="simulated",
            code=GraphCode(Codec(graph.types()), graph.external_key, graph.merge),
            system=system,
        )
        with handle.changed:
            handle.changed.wait_for(lambda: handle.phase in (*_LIVE, "finished"))
        senders = [
            Task(kernel, process, self._sender(kernel, handle, *place, values), f"send {place}")
            for place, values in self._wanted.items()
        ]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        for node in self._fed_from_outside:
            try:
                handle.drain_node(node, options.drain_timeout_s)
            except (NodeEnded, TimeoutError):
                break  # the run is ending by itself
        with handle.changed:
            handle.changed.wait_for(lambda: handle.report is not None)
        handle.close()

    def over(self) -> None:
        """No process of the run is left: let go whoever waits."""
        if self.handle is not None:
            self.handle.over()

    def _sender(
        self, kernel: Kernel, handle: Handle, node: str, port: str, values: list[Any]
    ) -> Any:
        def send() -> None:
            for value in values:
                kernel.pause(0, int(PAUSE_S * 1e9))
                try:
                    handle.send(node, port, value, None)
                except DflowError as error:  # it is told in `Simulation.refused`
                    self.refused.append((f"{node}.{port}", value, error))

        return send
