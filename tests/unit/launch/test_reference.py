"""References: the graph one means is found, and a near miss is told what it missed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dflow.errors import DflowError, GraphError, StartError
from dflow.launch import preload
from dflow.launch.reference import Reference, load_graph

NODES = """
from dflow.graph.builder import Graph
from dflow.graph.function import sink, source

@source
def numbers():
    yield 1

@sink
def show(x: int) -> None:
    print(x)
"""
PIPELINE = NODES + 'graph = Graph("squares", numbers() >> show())\n'

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write files below the working directory, and forget what was imported from there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(preload._Preloading, "loaded", None)
    before = dict(sys.modules)

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    yield write
    for name in set(sys.modules) - set(before):
        if not name.startswith("dflow."):
            del sys.modules[name]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("app.flows:graph", Reference("", "app.flows", "graph")),
        ("app.flows", Reference("", "app.flows", "")),
        ("app.py:graph", Reference("app.py", "", "graph")),
        ("./app.py", Reference("./app.py", "", "")),
        ("/a b/app.py:flows.main", Reference("/a b/app.py", "", "flows.main")),
        ("dir/app:graph", Reference("dir/app", "", "graph")),
    ],
)
def test_a_reference_is_a_file_or_a_module(text: str, expected: Reference) -> None:
    assert Reference.parse(text) == expected


@pytest.mark.parametrize("text", ["", ":graph", "app:", "app:not a name", "my app:graph", "a..b:g"])
def test_what_cannot_be_a_reference_is_refused(text: str) -> None:
    with pytest.raises(GraphError, match="expected"):
        Reference.parse(text)


def test_a_file_is_loaded_without_its_main_part(write: Write) -> None:
    write("flow-1.py", PIPELINE + 'if __name__ == "__main__": raise SystemExit(9)')
    assert load_graph("flow-1.py:graph").name == "squares"


def test_a_script_without_a_guard_is_loaded_up_to_its_run(write: Write) -> None:
    stop = "from dflow.launch.preload import check_not_preloading as run\nrun()\nraise ValueError"
    write("flow.py", PIPELINE + stop)
    assert load_graph("flow.py:graph").name == "squares"


def test_a_file_finds_its_neighbours(write: Write) -> None:
    write("deep/near.py", PIPELINE)
    write("deep/flow.py", "from near import graph")
    assert load_graph("deep/flow.py:graph").name == "squares"


def test_a_file_in_a_package_may_import_relatively(write: Write) -> None:
    write("pack/__init__.py", "")
    write("pack/nodes.py", PIPELINE)
    write("pack/flow.py", "from .nodes import graph")
    assert load_graph("pack/flow.py:graph").name == "squares"
    assert "pack.flow" in sys.modules


def test_a_module_is_found_in_the_working_directory(write: Write) -> None:
    write("flows.py", PIPELINE)
    assert load_graph("flows:graph").name == "squares"


def test_the_only_graph_needs_no_name(write: Write) -> None:
    write("flow.py", PIPELINE + "same = graph\n")
    assert load_graph("flow.py").name == "squares"


def test_a_function_may_make_the_graph(write: Write) -> None:
    write("flow.py", NODES + 'def make():\n    return Graph("made", numbers() >> show())\n')
    assert load_graph("flow.py:make").name == "made"


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("flw.py:graph", "flw.py: no such file; did you mean 'flow.py'?"),
        ("gone/flow.py:graph", "gone/flow.py: no such file (and no directory 'gone')"),
        (".:graph", "'.:graph': expected module:graph or file.py:graph"),
        ("flow.py:grap", "flow.py has no 'grap'; did you mean 'graph'? (its graphs are graph)"),
        ("flow.py:numbers", "flow.py:numbers: expected a Graph or a function that returns one"),
        ("flow.py:needs", "flow.py:needs: expected a function without arguments; missing"),
        ("flow.py:wrong", "flow.py:wrong(): expected it to return a Graph, got int"),
        ("flowz:graph", "no module 'flowz'; did you mean 'flow'?"),
        ("empty.py", "empty.py has no graph"),
        ("empty.py:graph", "empty.py has no 'graph' (it has no graph)"),
        ("two.py", "two.py has several graphs (graph, other): say which, like two.py:graph"),
    ],
)
def test_a_near_miss_is_told_what_it_missed(write: Write, ref: str, message: str) -> None:
    functions = "def needs(x): ...\ndef wrong(): return 1\n"
    write("flow.py", PIPELINE + functions)
    write("two.py", PIPELINE + 'other = Graph("other")\n')
    write("empty.py", "")
    with pytest.raises(GraphError) as caught:
        load_graph(ref)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("ref", ["broken.py:graph", "broken:graph"])
def test_code_that_raises_shows_its_own_traceback(write: Write, ref: str) -> None:
    write("broken.py", "import json\n\nvalue = 1 / 0\n")
    with pytest.raises(StartError) as caught:
        load_graph(ref)
    text = str(caught.value)
    assert "ZeroDivisionError" in text
    assert "broken.py" in text
    assert "line 3" in text
    assert "importlib" not in text
    assert "dflow/launch" not in text


@pytest.mark.parametrize("ref", ["needs.py:graph", "needs:graph"])
def test_a_module_the_users_code_lacks_is_the_users_error(write: Write, ref: str) -> None:
    write("needs.py", "import no_such_package\n")
    with pytest.raises(StartError, match="no_such_package"):
        load_graph(ref)


def test_a_module_that_runs_when_imported_is_refused(write: Write) -> None:
    write("flows.py", "from dflow.launch.preload import check_not_preloading as run\nrun()\n")
    with pytest.raises(GraphError, match="starts a run when it is imported"):
        load_graph("flows:graph")
    preload.check_not_preloading()


def test_a_syntax_error_names_its_line(write: Write) -> None:
    write("flow.py", "graph = = 1\n")
    with pytest.raises(DflowError, match="line 1"):
        load_graph("flow.py:graph")
