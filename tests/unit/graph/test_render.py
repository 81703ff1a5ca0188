"""Pictures: the text formats exactly, the SVG by what must not happen in a picture."""

from __future__ import annotations

import re
from itertools import combinations
from xml.etree import ElementTree as ET

from dflow.graph import Graph, Subgraph, edge
from dflow.graph.layout import layered
from dflow.graph.render import dot, mermaid, svg
from tests.unit.graph_nodes import Camera, Detector, check, keep, numbers, show, square, squares

_SVG = "{http://www.w3.org/2000/svg}"


def picture() -> Graph:
    camera, detector = Camera(), Detector(0.5).options(replicas=4)
    first = check()
    clean = Subgraph("clean", first, inputs={"x": first}, outputs={"y": first})
    return Graph(
        "picture",
        camera >> edge(capacity=2) >> detector.frames,
        camera >> keep(),
        detector.boxes >> edge(key="id") >> keep(),
        numbers() >> clean >> show(),
    )


def test_mermaid_shows_kinds_replicas_groups_and_what_is_not_the_default() -> None:
    assert mermaid(squares()) == (
        "flowchart LR\n"
        '  n0(["numbers"]):::source\n'
        '  n1["square<br/><small>2 replicas</small>"]:::node\n'
        '  n2[["show"]]:::sink\n'
        "  n0 --> n1\n"
        "  n1 --> n2\n"
        "  classDef source fill:#e3f4e8,stroke:#2f855a,color:#1a202c\n"
        "  classDef node fill:#e6effb,stroke:#2b6cb0,color:#1a202c\n"
        "  classDef sink fill:#fdeedd,stroke:#b7641c,color:#1a202c\n"
    )
    text = mermaid(picture())
    assert '-->|"frames → frames, ≤ 2"|' in text
    assert '-->|"boxes, by key"|' in text
    assert re.search(r'subgraph g_clean\["clean"\]\n    n\d\["check"\]:::node\n  end', text)


def test_dot_quotes_names_and_groups_subgraphs() -> None:
    text = dot(picture())
    assert text.startswith('digraph "picture" {')
    assert 'subgraph "cluster_clean" { label="clean";' in text
    assert '"numbers" -> "clean/check";' in text
    assert '"detector" [label="detector\\n4 replicas"' in text
    assert text.count("{") == text.count("}")


def test_equal_graphs_give_equal_pictures() -> None:
    for render in (mermaid, dot, svg):
        assert render(picture()) == render(picture()) == render(picture().plan())


def test_results_are_shown_as_edges_to_the_launching_process() -> None:
    plan = squares().plan(results=["square"])
    assert ":::external" in mermaid(plan)
    assert "results" in svg(plan)


def test_svg_draws_every_node_and_edge_inside_the_canvas() -> None:
    root = ET.fromstring(svg(picture()))
    texts = [text.text for text in root.iter(f"{_SVG}text")]
    assert {"camera", "detector", "clean/check", "4 replicas", "boxes, by key"} <= set(texts)
    assert len([p for p in root.iter(f"{_SVG}path") if p.get("class") == "edge"]) == 5
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    for rect in root.iter(f"{_SVG}rect"):
        x, y = float(rect.get("x", 0)), float(rect.get("y", 0))
        assert 0 <= x <= x + float(rect.get("width", 0)) <= width
        assert 0 <= y <= y + float(rect.get("height", 0)) <= height


def test_boxes_do_not_overlap_and_lines_run_from_left_to_right() -> None:
    edges = [(0, 2), (0, 3), (1, 3), (2, 4), (0, 4), (1, 4), (1, 5), (3, 5)]
    layout = layered([0, 0, 1, 1, 2, 2], [(90.0, 40.0)] * 6, edges, [0.0] * len(edges))
    for one, other in combinations(layout.boxes, 2):
        if one.column == other.column:
            assert abs(one.y - other.y) >= (one.height + other.height) / 2
    for line in layout.lines:
        columns = [box.x for box in line.boxes]
        assert columns == sorted(columns)


def test_a_straight_chain_is_drawn_straight() -> None:
    graph = Graph("g", numbers() >> square() >> square() >> square() >> show())
    plan = graph.plan()
    layout = layered(
        [node.level for node in plan.nodes],
        [(90.0, 40.0)] * len(plan.nodes),
        [(i, i + 1) for i in range(4)],
        [0.0] * 4,
    )
    assert len({box.y for box in layout.boxes}) == 1
    assert all(line.start_y == line.end_y for line in layout.lines)
