"""No machine without a proof: the package is walked, and each must be in the registry."""

from __future__ import annotations

import ast
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dflow.launch.protocol import LENGTH, Frames, pack
from dflow.story import Story
from tests.property.machines import IMPURE, NOT, PAIRS, PROVED, PURE

ROOT = Path(__file__).parents[2]
_CHANGES = frozenset({
    "append", "appendleft", "add", "pop", "popleft", "clear", "remove", "discard", "extend",
    "update", "insert", "setdefault", "popitem", "move_to_end", "difference_update",
})  # fmt: skip


def _is_of_self(node: ast.expr) -> bool:
    """Whether an expression leads to an attribute of ``self``."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            return node.value.id == "self"
        node = node.value
    return False


def _targets(node: ast.AST) -> list[ast.expr]:
    """Return what a statement changes."""
    match node:
        case ast.Assign(targets=targets) | ast.Delete(targets=targets):
            return [e for t in targets for e in (t.elts if isinstance(t, ast.Tuple) else [t])]
        case ast.AugAssign(target=target) | ast.AnnAssign(target=target):
            return [target]
        case ast.Call(func=ast.Attribute(value=value, attr=attr)) if attr in _CHANGES:
            return [value]
    return []


def _changes_itself(cls: ast.ClassDef) -> bool:
    methods = [f for f in cls.body if isinstance(f, ast.FunctionDef) and f.name != "__init__"]
    nodes = (node for method in methods for node in ast.walk(method))
    return any(_is_of_self(target) for node in nodes for target in _targets(node))


def classes() -> Iterator[tuple[str, ast.ClassDef]]:
    """Yield every class of a pure module."""
    for path in sorted((ROOT / "dflow").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if module in IMPURE or not any((module + ".").startswith(f"{pure}.") for pure in PURE):
            continue
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                yield f"{module}.{node.name}", node


def test_every_machine_is_proved_or_says_why_not() -> None:
    there = dict(classes())
    found, known = {name for name, cls in there.items() if _changes_itself(cls)}, {*PROVED, *NOT}
    assert len(found) > 30
    assert found - known == set(), "machines without a proof: add one to tests/property/machines.py"
    assert known - there.keys() == set(), "no such machine any more"
    assert not PROVED.keys() & NOT.keys()
    assert all(NOT.values())


@pytest.mark.parametrize("machine", sorted(PROVED))
def test_a_proof_drives_its_machine_with_any_events(machine: str) -> None:
    text = (ROOT / "tests" / "property" / f"{PROVED[machine]}.py").read_text()
    assert "@given(" in text or "RuleBasedStateMachine" in text
    assert machine.rpartition(".")[2] in text


@pytest.mark.parametrize("machine", sorted(PAIRS))
def test_pairs_are_listed_where_it_is_said(machine: str) -> None:
    """Each is a case of its own, so that a wrong one has a name."""
    path, *tests = PAIRS[machine]
    tree = ast.parse((ROOT / "tests" / path).read_text())
    listing = {
        test.name
        for test in tree.body
        if isinstance(test, ast.FunctionDef)
        for mark in test.decorator_list
        if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.parametrize"
    }
    assert tests
    assert set(tests) - listing == set()


def test_the_walk_sees_what_changes_and_what_does_not() -> None:
    code = """
class Still:
    def __init__(self): self.x = 1
    def look(self): y = self.x; return [y]
class Assigns:
    def go(self): self.x, y = 1, 2
class Grows:
    def go(self): self._items.append(1)
class Counts:
    def go(self): self.by[3] += 1
"""
    made = [node for node in ast.parse(code).body if isinstance(node, ast.ClassDef)]
    found = [cls.name for cls in made if _changes_itself(cls)]
    assert found == ["Assigns", "Grows", "Counts"]


# --- two that stand alone ----------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 300), max_size=8), st.lists(st.integers(1, 50), max_size=40))
def test_a_stream_is_cut_into_the_same_messages_however_it_arrives(
    sizes: list[int], pieces: list[int]
) -> None:
    sent = [{"verb": "x" * size} for size in sizes]
    stream = b"".join(map(pack, sent))
    frames, got, at = Frames(), [], 0
    for piece in [*pieces, len(stream) + LENGTH.size]:
        got += frames.feed(stream[at : at + piece])
        at += piece
    assert got == sent
    assert frames.feed(b"") == []


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from("abc"), max_size=40), st.integers(2, 6))
def test_a_story_is_the_last_lines_with_what_repeats_counted(told: list[str], most: int) -> None:
    story, model = Story(most), deque[list[object]](maxlen=most)
    for at, what in enumerate(told):
        story.note(float(at), what)
        if model and model[-1][0] == what:
            model[-1] = [what, int(str(model[-1][1])) + 1, model[-1][2], float(at)]
        else:
            model.append([what, 1, float(at), float(at)])
    assert [[line.what, line.times, line.at_s, line.until_s] for line in story.lines()] == [*model]
    assert story.told == len(told)
