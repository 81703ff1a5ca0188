"""Describing a graph: nodes, ports, edges, validation, plan.

Layout, in the order a graph is made: `function` and `node` (what the user writes), `ports`,
`chain` (``a >> b``), `composition` / `builder` / `subgraph` (putting together), `validate`
with `handlers`, `shipping` and `types` (what is wrong), `planning` and `plan` (what every
process of a run agrees on), `render` (pictures). `calls` is how workers call user code.

Nothing here opens a socket, starts a process or imports more than the standard library.
"""

from __future__ import annotations

from dflow.graph.builder import Graph
from dflow.graph.calls import Handler
from dflow.graph.chain import Chain, Connection, EdgeSpec, edge
from dflow.graph.function import FunctionNode, NodeFactory, node, sink, source
from dflow.graph.node import Node
from dflow.graph.plan import ChannelPlan, EdgePlan, NodePlan, Plan, WorkerId, external_edge_id
from dflow.graph.ports import BoundInput, BoundOutput, BoundPort, Input, Output, UnknownPort
from dflow.graph.problem import Problem
from dflow.graph.subgraph import Subgraph

__all__ = [
    "BoundInput",
    "BoundOutput",
    "BoundPort",
    "Chain",
    "ChannelPlan",
    "Connection",
    "EdgePlan",
    "EdgeSpec",
    "FunctionNode",
    "Graph",
    "Handler",
    "Input",
    "Node",
    "NodeFactory",
    "NodePlan",
    "Output",
    "Plan",
    "Problem",
    "Subgraph",
    "UnknownPort",
    "WorkerId",
    "edge",
    "external_edge_id",
    "node",
    "sink",
    "source",
]
