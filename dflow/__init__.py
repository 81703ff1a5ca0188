"""dflow: graphs of Python functions on many processes, with backpressure and exact books.

The way of a message, in six files:

1. `dflow/worker/context.py`   emit: encode at once, append to a lane
2. `dflow/flow/out_edge.py`    policy, credit, batch
3. `dflow/wire/codec.py`       bytes that decode to the same value and type
4. `dflow/transport/link.py`   one ZeroMQ frame
5. `dflow/flow/in_edge.py`     sequence check, inbox, grant
6. `dflow/worker/dispatch.py`  the handler

Beside them, what they are made of: `dflow/flow/batch.py` (the lane that emit appends to and
2 cuts), `dflow/worker/emitting.py` (1 inlined, for what is returned or yielded),
`dflow/worker/outbound.py` (from 2 to 4) and `dflow/worker/inbound.py` (from 4 to 5).

Names are imported on first use, so ``import dflow`` stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dflow.version import __version__

if TYPE_CHECKING:
    from dflow.errors import (
        AgentDied,
        BufferLost,
        BundleError,
        CoordinatorDied,
        DecodeError,
        DflowError,
        DrainTimeout,
        EdgeFull,
        EncodeError,
        GraphError,
        HookFailed,
        NodeEnded,
        OptionError,
        PortError,
        ProtocolError,
        RunError,
        StartError,
        WorkerDied,
    )
    from dflow.graph.builder import Graph
    from dflow.graph.chain import edge
    from dflow.graph.function import node, sink, source
    from dflow.graph.node import Node
    from dflow.graph.ports import Input, Output
    from dflow.graph.subgraph import Subgraph
    from dflow.message import Cancelled, Headers, Priority
    from dflow.policy import block, coalesce, drop, drop_oldest, latest, reject
    from dflow.report import EdgeReport, NodeReport, RunReport, RunStatus
    from dflow.runtime import Run
    from dflow.wire.types import register_type
    from dflow.worker.context import Context

_HOME = {
    "Cancelled": "dflow.message",
    "Context": "dflow.worker.context",
    "EdgeReport": "dflow.report",
    "Graph": "dflow.graph.builder",
    "Headers": "dflow.message",
    "Input": "dflow.graph.ports",
    "Node": "dflow.graph.node",
    "NodeReport": "dflow.report",
    "Output": "dflow.graph.ports",
    "Priority": "dflow.message",
    "Run": "dflow.runtime",
    "RunReport": "dflow.report",
    "RunStatus": "dflow.report",
    "Subgraph": "dflow.graph.subgraph",
    "block": "dflow.policy",
    "coalesce": "dflow.policy",
    "drop": "dflow.policy",
    "drop_oldest": "dflow.policy",
    "edge": "dflow.graph.chain",
    "latest": "dflow.policy",
    "node": "dflow.graph.function",
    "register_type": "dflow.wire.types",
    "reject": "dflow.policy",
    "sink": "dflow.graph.function",
    "source": "dflow.graph.function",
}
_ERRORS = (
    "AgentDied", "BufferLost", "BundleError", "CoordinatorDied", "DecodeError", "DflowError",
    "DrainTimeout", "EdgeFull", "EncodeError", "GraphError", "HookFailed", "NodeEnded",
    "OptionError", "PortError", "ProtocolError", "RunError", "StartError", "WorkerDied",
)  # fmt: skip
_HOME |= dict.fromkeys(_ERRORS, "dflow.errors")

__all__ = [
    "AgentDied",
    "BufferLost",
    "BundleError",
    "Cancelled",
    "Context",
    "CoordinatorDied",
    "DecodeError",
    "DflowError",
    "DrainTimeout",
    "EdgeFull",
    "EdgeReport",
    "EncodeError",
    "Graph",
    "GraphError",
    "Headers",
    "HookFailed",
    "Input",
    "Node",
    "NodeEnded",
    "NodeReport",
    "OptionError",
    "Output",
    "PortError",
    "Priority",
    "ProtocolError",
    "Run",
    "RunError",
    "RunReport",
    "RunStatus",
    "StartError",
    "Subgraph",
    "WorkerDied",
    "__version__",
    "block",
    "coalesce",
    "drop",
    "drop_oldest",
    "edge",
    "latest",
    "node",
    "register_type",
    "reject",
    "sink",
    "source",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'dflow' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
