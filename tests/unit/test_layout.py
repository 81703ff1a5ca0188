"""The floors of the design, checked on the source: imports point down, pure stays pure.

Nothing is imported here; every fact comes from the syntax tree, so a module that cannot even be
imported is judged too.
"""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "dflow"

# The longest matching prefix decides. Floors 0 to 2 are pure.
FLOORS = {
    "dflow.errors": 0,
    "dflow.message": 0,
    "dflow.clock": 0,
    "dflow.options": 0,
    "dflow.policy": 0,
    "dflow.plain": 0,
    "dflow.stats": 0,
    "dflow.story": 0,
    "dflow.version": 0,
    "dflow.graph": 1,
    "dflow.wire": 1,
    "dflow.flow": 1,
    "dflow.report": 1,
    "dflow.why": 1,
    "dflow.broker": 2,
    "dflow.worker.state": 2,
    "dflow.worker.turn": 2,
    "dflow.transport": 3,
    "dflow.bundle": 3,
    "dflow.store": 3,
    "dflow.telemetry": 3,
    "dflow.broker.main": 4,
    "dflow.broker.loop": 4,
    "dflow.broker.signals": 4,
    "dflow.worker": 4,
    "dflow.launch": 4,
    "dflow": 5,
}

# Imports up that the public surface needs. Each is lazy or for type checkers only: nothing on
# the lower floor works by means of it.
DOORS = {
    ("dflow.graph", "dflow.runtime"): "graph.run() and graph.start() are the documented front door",
    ("dflow.graph", "dflow.launch.ship"): "validation asks whether local code can be shipped",
}

IMPURE = {
    "asyncio", "loguru", "logging", "multiprocessing", "random", "secrets", "select", "selectors",
    "signal", "socket", "subprocess", "threading", "time", "zmq",
}  # fmt: skip
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
CLOCK = "dflow.clock"  # the one pure module that names `time`, so that nobody else has to


@dataclass(frozen=True)
class Import:
    """One import: what, where, and whether it happens when the module is imported."""

    target: str
    line: int
    eager: bool


@dataclass
class Module:
    """One source file of the package."""

    name: str
    path: Path
    tree: ast.Module
    lines: int
    imports: list[Import] = field(default_factory=list)

    @property
    def floor(self) -> int:
        return floor_of(self.name)


def floor_of(name: str) -> int:
    """Return the floor of a module; its longest prefix in `FLOORS` decides."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        prefix = ".".join(parts[:length])
        if prefix in FLOORS:
            return FLOORS[prefix]
    raise AssertionError(f"{name} is not a module of dflow")


def is_type_checking(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def imports_in(
    module: str, is_package: bool, body: list[ast.stmt], eager: bool
) -> Iterator[Import]:
    """Yield the imports of ``body``; those in functions and for type checkers are not eager."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, eager) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".") if is_package else module.split(".")[:-1]
                kept = package[: len(package) - node.level + 1]
                base = ".".join([*kept, *filter(None, [node.module])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield Import(inner if inner in names() else base, node.lineno, eager)
        lazy = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or is_type_checking(node)
        for block in ("body", "orelse", "finalbody"):
            yield from imports_in(module, is_package, getattr(node, block, []), eager and not lazy)
        for handler in getattr(node, "handlers", []):
            yield from imports_in(module, is_package, handler.body, eager)


@cache
def names() -> dict[str, Path]:
    """Return every module's dotted name and file."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def modules() -> dict[str, Module]:
    found = {}
    for name, path in names().items():
        text = path.read_text()
        module = Module(name, path, ast.parse(text), len(text.splitlines()))
        is_package = path.name == "__init__.py"
        module.imports = list(imports_in(name, is_package, module.tree.body, eager=True))
        found[name] = module
    return found


def is_door(module: str, imported: Import) -> bool:
    return not imported.eager and any(
        module.startswith(here) and imported.target.startswith(there) for here, there in DOORS
    )


def functions(module: Module) -> Iterator[tuple[str, int]]:
    """Yield each function's name and how many lines of code it has, docstring not counted."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = node.body[0] if ast.get_docstring(node) is not None else None
            spared = docstring.end_lineno - docstring.lineno + 1 if docstring else 0  # type: ignore[operator]  # parsed from text: always there
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1 - spared


def percentile(values: list[int], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def test_imports_point_only_downwards() -> None:
    upward = [
        f"{module.name}:{found.line} (floor {module.floor}) imports {found.target} "
        f"(floor {floor_of(found.target)})"
        for module in modules().values()
        for found in module.imports
        if found.target.split(".")[0] == "dflow"
        and floor_of(found.target) > module.floor
        and not is_door(module.name, found)
    ]
    assert upward == []


def test_no_module_needs_itself_to_be_imported() -> None:
    eager = {
        name: {found.target for found in module.imports if found.eager and found.target in names()}
        for name, module in modules().items()
    }
    state: dict[str, str] = {}
    cycles: list[str] = []

    def visit(name: str, trail: tuple[str, ...]) -> None:
        if state.get(name) == "open":
            cycles.append(" -> ".join([*trail[trail.index(name) :], name]))
        if name in state:
            return
        state[name] = "open"
        for target in sorted(eager[name]):
            visit(target, (*trail, name))
        state[name] = "done"

    for name in eager:
        visit(name, ())
    assert cycles == []


def test_only_transport_imports_zmq() -> None:
    others = [
        f"{module.name}:{found.line}"
        for module in modules().values()
        for found in module.imports
        if found.target.split(".")[0] == "zmq" and not module.name.startswith("dflow.transport")
    ]
    assert others == []


def test_runs_use_no_inproc_sockets() -> None:
    users = [m.name for m in modules().values() if "inproc" in m.path.read_text()]
    assert users == []  # see tests.support.unheard: their pending connections crash libzmq


def test_pure_modules_touch_no_clock_thread_socket_log_or_chance() -> None:
    impure = [
        f"{module.name}:{found.line} imports {found.target}"
        for module in modules().values()
        if module.floor <= 2 and module.name != CLOCK
        for found in module.imports
        if found.target.split(".")[0] in IMPURE
    ]
    assert impure == []


def test_pure_modules_read_no_clock_through_the_clock_module() -> None:
    readers = [
        f"{module.name}:{found.line}"
        for module in modules().values()
        if module.floor <= 2
        for found in module.imports
        if found.target == CLOCK
    ]
    assert readers == []


def test_every_door_upwards_is_still_used() -> None:
    used = {
        (here, there)
        for module in modules().values()
        for found in module.imports
        for here, there in DOORS
        if module.name.startswith(here) and found.target.startswith(there)
    }
    assert used == set(DOORS)


def test_files_keep_to_the_yardstick() -> None:
    sizes = {module.name: module.lines for module in modules().values() if module.lines}
    assert {name: size for name, size in sizes.items() if size > 500} == {}
    assert statistics.median(sizes.values()) <= 180
    assert percentile(list(sizes.values()), 90) <= 350


def test_functions_keep_to_the_yardstick() -> None:
    sizes = {
        f"{module.name}.{name}": size
        for module in modules().values()
        for name, size in functions(module)
    }
    assert {name: size for name, size in sizes.items() if size > 60} == {}
    assert percentile(list(sizes.values()), 90) <= 35
    assert percentile(list(sizes.values()), 99) <= 50


@pytest.mark.parametrize("name", sorted(names()))
def test_public_names_have_docstrings(name: str) -> None:
    tree = modules()[name].tree
    bare = [] if not tree.body or ast.get_docstring(tree) else [name]
    bare += [f"{item.name} line {item.lineno}" for item in public(tree) if not documented(item)]
    assert bare == []


def documented(item: Definition) -> bool:
    return ast.get_docstring(item) is not None


def public(tree: ast.Module) -> Iterator[Definition]:
    """Yield each public function and class of a module, and the public methods of the classes."""
    for node in tree.body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield node
            for item in node.body if isinstance(node, ast.ClassDef) else []:
                if isinstance(item, Definition) and not item.name.startswith("_"):
                    yield item
