"""Runs begun in every way a Python program can be: scripts, ``-c``, ``-m``, notebooks, spawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dflow import Graph, node, sink, source
from tests.integration.flows import collect, count, keep, python, run_checked, swallow

pytestmark = pytest.mark.timeout(40)

DEFINITIONS = """
import dataclasses, json, sys
from dflow import Graph, Input, Node, Output, node, sink, source

FACTOR = 3

@dataclasses.dataclass
class Item:
    value: int

@source
def numbers(n: int):
    for value in range(n):
        yield Item(value)

def helper(x):
    return x * FACTOR

@node
def scale(item: Item) -> Item:
    return Item(helper(item.value))

class Add(Node):
    items = Input(Item)
    out = Output(int)

    def __init__(self, amount):
        self.amount = amount

    @items.handler
    def add(self, item: Item):
        self.out.emit(item.value + self.amount)

def build():
    add = Add(1)
    return Graph("launched", numbers(5) >> scale() >> add.items), add

def main():
    graph, add = build()
    with graph.start(results=add, log_level="WARNING") as run:
        values = list(run.results())
        report = run.wait(20)
    print(json.dumps([values, report.balances, report.outcome]))
"""
GUARDED = DEFINITIONS + '\nif __name__ == "__main__":\n    main()\n'
EXPECTED = [[1, 4, 7, 10, 13], True, "finished"]


def outcome(*arguments: object, **options: Any) -> tuple[Any, str]:
    """Run Python; return what it printed (JSON) and its stderr."""
    with python(*arguments, **options) as process:
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    lines = out.splitlines()
    assert len(lines) == 1, out
    return json.loads(lines[0]), err


# --- how a program may be started ---------------------------------------------------------


def test_script_with_a_main_guard(tmp_path: Path) -> None:
    path = tmp_path / "guarded.py"
    path.write_text(GUARDED)
    values, err = outcome(path)
    assert values == EXPECTED
    assert err == ""


def test_script_without_a_main_guard_runs_and_is_told_about_it_once(tmp_path: Path) -> None:
    path = tmp_path / "unguarded.py"
    path.write_text(DEFINITIONS + "\nmain()\n")
    values, err = outcome(path)
    assert values == EXPECTED
    assert err.count('if __name__ == "__main__":') == 1
    assert "unguarded.py" in err


def test_script_whose_graph_is_a_global(tmp_path: Path) -> None:
    path = tmp_path / "hello.py"
    path.write_text(
        DEFINITIONS
        + """
@sink
def show(x: int) -> None:
    print(x, flush=True)

add = Add(1)
graph = Graph("global", numbers(5) >> scale() >> add.items, add >> show())

if __name__ == "__main__":
    report = graph.run()
    assert report.balances
"""
    )
    with python(path) as process:
        out, err = process.communicate(timeout=30)
    assert out.split() == ["1", "4", "7", "10", "13"]
    assert process.returncode == 0, err


def test_relative_script_in_another_directory(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "neighbour.py").write_text("FACTOR = 3\n")
    text = GUARDED.replace("FACTOR = 3", "from neighbour import FACTOR")
    (tmp_path / "sub" / "guarded.py").write_text(text)
    assert outcome("sub/guarded.py", cwd=tmp_path)[0] == EXPECTED


def test_python_c_ships_functions_by_value(tmp_path: Path) -> None:
    assert outcome("-c", GUARDED, cwd=tmp_path) == (EXPECTED, "")


def test_module_of_a_package_with_relative_imports(tmp_path: Path) -> None:
    package = tmp_path / "pkg"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "parts.py").write_text(DEFINITIONS)
    (package / "tool.py").write_text(
        'from .parts import main\n\nif __name__ == "__main__":\n    main()\n'
    )
    (package / "whole.py").write_text(GUARDED.replace("FACTOR = 3", "from .parts import FACTOR"))
    (package / "__main__.py").write_text("from .parts import main\n\nmain()\n")
    assert outcome("-m", "pkg.tool", cwd=tmp_path)[0] == EXPECTED
    assert outcome("-m", "pkg.whole", cwd=tmp_path)[0] == EXPECTED
    assert outcome("-m", "pkg", cwd=tmp_path)[0] == EXPECTED


def test_notebook_where_everything_is_defined_on_the_spot(tmp_path: Path) -> None:
    path = tmp_path / "notebook.py"
    cells = [DEFINITIONS, "main()"]
    path.write_text(
        "import sys, types\n"
        "cells = types.ModuleType('__main__')\n"
        "sys.modules['__main__'] = cells\n"
        f"for cell in {cells!r}:\n"
        "    exec(compile(cell, '<cell>', 'exec'), cells.__dict__)\n"
    )
    assert outcome(path) == (EXPECTED, "")


def test_interactive_session(tmp_path: Path) -> None:
    text = DEFINITIONS.replace("\n\n", "\n").replace("\n    def", "\n    def")
    program = f"import code\nconsole = code.InteractiveConsole()\nexec({text!r}, console.locals)\n"
    path = tmp_path / "console.py"
    path.write_text(
        program.replace("console.locals)", "globals())") + 'console.push("main()")\nmain()\n'
    )
    values, _ = outcome(path)
    assert values == EXPECTED


def test_spawned_processes_from_a_script(tmp_path: Path) -> None:
    path = tmp_path / "spawned.py"
    path.write_text(GUARDED.replace("results=add", 'results=add, start_method="spawn"'))
    assert outcome(path)[0] == EXPECTED


def test_print_and_logging_of_workers_reach_the_users_terminal(tmp_path: Path) -> None:
    path = tmp_path / "prints.py"
    path.write_text(
        DEFINITIONS
        + """
import logging

@sink
def show(x: int) -> None:
    print("printed", x)
    print("to stderr", x, file=sys.stderr)
    logging.getLogger("mine").warning("logged %s", x)

if __name__ == "__main__":
    add = Add(0)
    Graph("prints", numbers(2) >> add.items, add >> show()).run()
    print("end")
"""
    )
    with python(path) as process:
        out, err = process.communicate(timeout=30)
    assert out.splitlines() == ["printed 0", "printed 1", "end"]
    assert "to stderr 0" in err
    assert [line for line in err.splitlines() if "logged 1" in line]
    assert "show[0]" in err


# --- what a graph may be made of ----------------------------------------------------------


def test_lambdas_closures_and_local_classes_are_shipped() -> None:
    offset = 10
    tagged = [1, 2]

    @node
    def local(x: int) -> list[int]:
        return [x + offset, *tagged]

    pure = node(lambda x: (x[0], len(x)))()
    values, _ = collect(Graph("local", count(3) >> local() >> pure), pure)
    assert values == [(10, 3), (11, 3), (12, 3)]


def test_functions_made_by_exec_are_shipped() -> None:
    space: dict[str, Any] = {"node": node}
    exec("@node\ndef made(x):\n    return x ** power\npower = 3\n", space)
    made = space["made"]()
    values, _ = collect(Graph("exec", count(4) >> made), made)
    assert values == [0, 1, 8, 27]


def test_builtin_and_library_functions_may_be_nodes() -> None:
    import math

    root = node(math.sqrt)()
    values, _ = collect(Graph("builtin", count(3) >> root), root)
    assert values == [0.0, 1.0, math.sqrt(2)]


def test_handler_may_start_processes_and_threads_of_its_own() -> None:
    @node
    def busy(x: int) -> int:
        import concurrent.futures
        import subprocess
        import sys

        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            doubled = sum(pool.map(int, [x, x]))
        code = f"print({doubled} + 1)"
        return int(subprocess.run([sys.executable, "-c", code], capture_output=True).stdout)

    last = busy()
    values, _ = collect(Graph("busy", count(3) >> last), last)
    assert values == [1, 3, 5]


def test_handler_may_use_multiprocessing() -> None:
    @node
    def forks(x: int) -> int:
        import multiprocessing

        with multiprocessing.get_context("fork").Pool(1) as pool:
            return int(pool.apply(abs, (-x,)))

    last = forks()
    values, _ = collect(Graph("forks", count(3) >> last), last)
    assert values == [0, 1, 2]


# --- how processes talk and start ---------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"transport": "tcp"},
        {"start_method": "spawn"},
        {"start_method": "fork"},
        {"start_method": "spawn", "transport": "tcp"},
    ],
    ids=lambda options: "-".join(options.values()),
)
def test_every_transport_and_start_method_carries_a_whole_run(options: dict[str, str]) -> None:
    middle, last = keep().options(replicas=2), keep()
    values, report = collect(Graph("ways", count(2000) >> middle >> last), last, **options)
    assert sorted(values) == list(range(2000))
    assert report.totals["delivered"] == 6000


def test_json_logs_are_one_object_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    @sink
    def fails(x: int) -> None:
        raise ValueError("boom")

    run_checked(Graph("json", count(1) >> fails()), log="json")
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    (line,) = [line for line in lines if line["level"] == "ERROR"]
    assert line["worker"] == "fails[0]"
    assert line["node"] == "fails"
    assert "ValueError: boom" in line["message"]


def test_emitted_types_are_checked_on_request() -> None:
    @source
    def wrong() -> Any:
        yield 1
        yield "two"

    @node
    def typed(x: Any) -> int:
        return x  # type: ignore[no-any-return]  # the mistake under test

    graph = Graph("types", wrong() >> typed() >> swallow())
    report = run_checked(graph, check_types=True)
    assert report.node("typed").errors == 1
    assert report.node("swallow").handled == 1
