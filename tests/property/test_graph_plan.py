"""Any acyclic graph: its plan keeps the order, is deterministic, and survives the trip."""

from __future__ import annotations

import pickle
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dflow.graph import Graph, Input, Node, Output, edge
from dflow.graph.layout import layered
from dflow.graph.plan import Plan
from dflow.graph.render import svg
from dflow.graph.types import compatible


class Step(Node):
    """Anything in, anything out."""

    values = Input(Any, required=False)
    results = Output(Any)

    @values.handler
    def take(self, value: Any) -> None:
        """Pass on."""


@st.composite
def shapes(draw: st.DrawFn) -> tuple[int, list[tuple[int, int]]]:
    """Return a number of nodes and distinct edges that all go to a later node."""
    count = draw(st.integers(1, 12))
    pairs = [(a, b) for b in range(count) for a in range(b)]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    return count, chosen


def build(count: int, edges: list[tuple[int, int]]) -> Graph:
    nodes = [Step() for _ in range(count)]
    graph = Graph("any", *nodes)
    for sender, receiver in edges:
        graph.add(nodes[sender] >> edge(capacity=sender + 1) >> nodes[receiver])
    return graph


def check_plan(plan: Plan, edges: list[tuple[int, int]]) -> None:
    level = {node.name: node.level for node in plan.nodes}
    assert [node.level for node in plan.nodes] == sorted(level.values())
    assert len(plan.edges) == len(edges)
    for index, planned in enumerate(plan.edges):
        assert planned.index == index
        assert level[planned.sender] < level[planned.receiver]
    for node in plan.nodes:
        before = [level[planned.sender] for planned in plan.in_edges(node.name)]
        assert node.level == max(before, default=-1) + 1


@given(shapes())
def test_plans_are_topological_deterministic_and_travel(
    shape: tuple[int, list[tuple[int, int]]],
) -> None:
    graph = build(*shape)
    assert graph.problems() == ()
    plan = graph.plan()
    check_plan(plan, shape[1])
    travelled = pickle.loads(pickle.dumps(graph))
    assert plan == build(*shape).plan() == travelled.plan()
    assert plan.fingerprint == travelled.plan().fingerprint


@given(shapes(), st.data())
def test_closing_any_path_is_reported_as_a_cycle(
    shape: tuple[int, list[tuple[int, int]]], data: st.DataObject
) -> None:
    count, edges = shape
    if not edges:
        return
    sender, receiver = data.draw(st.sampled_from(edges))
    problems = build(count, [*edges, (receiver, sender)]).problems()
    assert any("cycle" in problem.what for problem in problems)


@given(shapes())
def test_pictures_never_overlap_boxes(shape: tuple[int, list[tuple[int, int]]]) -> None:
    plan = build(*shape).plan()
    assert svg(plan).endswith("</svg>\n")
    position = {node.name: index for index, node in enumerate(plan.nodes)}
    layout = layered(
        [node.level for node in plan.nodes],
        [(80.0, 40.0)] * len(plan.nodes),
        [(position[planned.sender], position[planned.receiver]) for planned in plan.edges],
        [0.0] * len(plan.edges),
    )
    for level in {node.level for node in plan.nodes}:
        column = sorted((box for box in layout.boxes if box.column == level), key=lambda b: b.y)
        for above, below in pairwise(column):
            assert below.y - above.y >= (above.height + below.height) / 2 - 1e-6


_HINTS = st.recursive(
    st.sampled_from([int, str, bytes, float, bool, Any, None, list, dict]),
    lambda inner: st.one_of(
        inner.map(list.__class_getitem__),
        st.tuples(inner, inner).map(dict.__class_getitem__),
        st.tuples(inner, inner).map(tuple.__class_getitem__),
        inner.map(lambda hint: hint | None if hint is not None else None),
    ),
    max_leaves=5,
)


@given(_HINTS)
def test_every_type_fits_itself_anything_and_its_optional(hint: Any) -> None:
    assert compatible(hint, hint)
    assert compatible(hint, Any)
    assert compatible(Any, hint)
    assert compatible(hint, hint | None if hint is not None else None)


@given(shapes())
def test_what_is_upstream_is_what_leads_there_and_origins_are_its_unfed_part(
    shape: tuple[int, list[tuple[int, int]]],
) -> None:
    plan = build(*shape).plan()
    for node in plan.nodes:
        above = plan.upstream(node.name)
        senders = {edge.sender for edge in plan.in_edges(node.name)}
        assert above == {node.name}.union(*(plan.upstream(sender) for sender in senders))
        origins = plan.origins(node.name)
        assert set(origins) == {name for name in above if not plan.in_edges(name)} != set()
