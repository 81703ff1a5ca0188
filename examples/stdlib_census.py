"""A census of the Python standard library, parsed on every core.

    python examples/stdlib_census.py [--replicas N] [--root DIR] [--limit N] [--quick]

Reads every ``.py`` file of the running interpreter's standard library, takes each apart
with `tokenize` and `ast` in as many processes as there are cores, adds everything up in one
place, and prints which identifiers are used most, which modules the others lean on most
(PageRank over the import graph), and the totals:

    files ──capacity 8──> examine x N ──> census ──> publish

Then it does the same in a plain loop in one process, checks that both agree to the last
token, and prints the speed-up. ``--quick`` leaves the plain loop out.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import keyword
import os
import sys
import sysconfig
import tempfile
import time
import tokenize
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from dflow import Context, Graph, Input, Node, Output, edge, node, sink, source

DAMPING = 0.85  # of PageRank, as in Brin and Page, 1998
ROUNDS = 50


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file; ``module`` is its dotted import name."""

    module: str
    is_package: bool
    text: bytes


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What one file says. ``imports`` are dotted names as written, made absolute."""

    module: str
    size_bytes: int
    lines: int = 0
    tokens: int = 0
    comments: int = 0
    functions: int = 0
    classes: int = 0
    parsed: bool = True
    names: dict[str, int] = field(default_factory=dict)
    imports: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Summary:
    """The census: totals and two rankings, best first."""

    totals: dict[str, int]
    top_names: list[tuple[str, int]]
    top_modules: list[tuple[str, float]]


# --- the work itself: plain Python, the same for both sides -------------------------------


def read_library(root: Path, limit: int | None = None) -> Iterator[SourceFile]:
    """Yield every ``.py`` file under ``root`` but third-party ones, in a fixed order."""
    outside = {"site-packages", "dist-packages", "__pycache__"}
    paths = (path for path in sorted(root.rglob("*.py")) if outside.isdisjoint(path.parts))
    for path in islice(paths, limit):
        parts = path.relative_to(root).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        module = ".".join(parts[:-1] if is_package else parts)
        yield SourceFile(module, is_package, path.read_bytes())


def examine_file(file: SourceFile) -> FileFacts:
    """Return the facts of one file; one that is no valid Python is counted, not an error."""
    facts: dict[str, Any] = {
        "module": file.module,
        "size_bytes": len(file.text),
        "lines": file.text.count(b"\n"),
    }
    try:
        counted = _count_tokens(file.text)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the library's tests contain doubtful literals
            tree = ast.parse(file.text)
    except (SyntaxError, ValueError, tokenize.TokenError, RecursionError):
        return FileFacts(**facts, parsed=False)
    return FileFacts(**facts, **counted, **_read_tree(tree, file))


def _count_tokens(text: bytes) -> dict[str, Any]:
    names: Counter[str] = Counter()
    tokens = comments = 0
    for token in tokenize.tokenize(io.BytesIO(text).readline):
        tokens += 1
        if token.type == tokenize.NAME:
            names[token.string] += 1
        elif token.type == tokenize.COMMENT:
            comments += 1
    for word in keyword.kwlist:
        del names[word]
    return {"tokens": tokens, "comments": comments, "names": dict(names)}


def _read_tree(tree: ast.AST, file: SourceFile) -> dict[str, Any]:
    functions = classes = 0
    imports: set[str] = set()
    package = file.module.split(".") if file.is_package else file.module.split(".")[:-1]
    for item in ast.walk(tree):
        if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef)):
            functions += 1
        elif isinstance(item, ast.ClassDef):
            classes += 1
        elif isinstance(item, ast.Import):
            imports.update(alias.name for alias in item.names)
        elif isinstance(item, ast.ImportFrom):
            above = package[: len(package) - item.level + 1] if item.level else []
            base = ".".join([*above, *filter(None, [item.module])])
            imports.add(base)
            imports.update(f"{base}.{alias.name}" for alias in item.names)
    return {"functions": functions, "classes": classes, "imports": tuple(sorted(imports))}


class Tally:
    """Adds facts up; the result does not depend on the order they come in."""

    def __init__(self) -> None:
        self.totals: Counter[str] = Counter()
        self.names: Counter[str] = Counter()
        self.imports: dict[str, tuple[str, ...]] = {}

    def add(self, facts: FileFacts) -> None:
        """Count one file."""
        self.totals["files"] += 1
        self.totals["not parsed"] += not facts.parsed
        self.totals["bytes"] += facts.size_bytes
        for what in ("lines", "tokens", "comments", "functions", "classes"):
            self.totals[what] += getattr(facts, what)
        self.names.update(facts.names)
        self.imports[facts.module] = facts.imports

    def summary(self, top: int = 12) -> Summary:
        """Return the census so far; equal counts are ranked by name."""
        links = {
            module: sorted({name for name in imports if name in self.imports} - {module})
            for module, imports in sorted(self.imports.items())
        }
        totals = dict(self.totals) | {"imports": sum(map(len, links.values()))}
        names = sorted(self.names.items(), key=lambda item: (-item[1], item[0]))
        return Summary(totals, names[:top], page_rank(links)[:top])


def page_rank(links: dict[str, list[str]]) -> list[tuple[str, float]]:
    """Return every module with its share of a random reader's time, the largest first."""
    count = len(links)
    rank = dict.fromkeys(links, 1 / count) if count else {}
    for _ in range(ROUNDS):
        idle = sum(rank[module] for module, targets in links.items() if not targets)
        following = dict.fromkeys(links, (1 - DAMPING + DAMPING * idle) / count)
        for module, targets in links.items():
            for target in targets:
                following[target] += DAMPING * rank[module] / len(targets)
        rank = following
    return sorted(rank.items(), key=lambda item: (-item[1], item[0]))


# --- the graph ----------------------------------------------------------------------------


@source
def files(root: str, limit: int | None = None) -> Iterator[SourceFile]:
    """Read the library."""
    yield from read_library(Path(root), limit)


@node
def examine(file: SourceFile) -> FileFacts:
    """Take one file apart: the stage worth spreading over the cores."""
    return examine_file(file)


class Census(Node):
    """Adds up; knows the result only when its input has ended."""

    facts = Input(FileFacts)
    summary = Output(Summary, required=True)

    def __init__(self) -> None:
        self.tally = Tally()

    @facts.handler
    def count(self, facts: FileFacts) -> None:
        """Add one file."""
        self.tally.add(facts)

    def on_end(self, ctx: Context) -> None:
        """Emit the one result."""
        ctx.log.info("{} files counted", self.tally.totals["files"])
        self.summary.emit(self.tally.summary())


@sink
def publish(summary: Summary, result: str | None = None) -> None:
    """Print the census, and keep it as JSON in the file ``result``."""
    print(render(summary), flush=True)
    if result is not None:
        Path(result).write_text(json.dumps(asdict(summary)), encoding="utf-8")


def census_graph(
    root: str, replicas: int, limit: int | None = None, result: str | None = None
) -> Graph:
    """Return the graph. The small capacity keeps one replica from hoarding files."""
    return Graph(
        "stdlib-census",
        files(root, limit)
        >> edge(capacity=8)
        >> examine().options(replicas=replicas)
        >> Census()
        >> publish(result),
    )


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


STDLIB = sysconfig.get_path("stdlib")
graph = census_graph(STDLIB, cores())  # for `dflow run examples/stdlib_census.py:graph`


# --- the program --------------------------------------------------------------------------


def render(summary: Summary) -> str:
    """Return the census as text in two columns."""
    lines = [f"{'identifier':<28}{'uses':>10}    {'module others lean on':<28}{'PageRank':>9}"]
    for (name, uses), (module, rank) in zip(summary.top_names, summary.top_modules, strict=False):
        lines.append(f"{name:<28}{uses:>10,}    {module:<28}{rank:>9.4f}")
    totals = ", ".join(f"{count:,} {what}" for what, count in summary.totals.items())
    return "\n".join([*lines, f"totals: {totals}"])


def plain_loop(root: str, limit: int | None = None) -> Summary:
    """Return the same census, made by one process without dflow."""
    tally = Tally()
    for file in read_library(Path(root), limit):
        tally.add(examine_file(file))
    return tally.summary()


def main(arguments: list[str] | None = None) -> int:
    """Run the graph, then the plain loop, and compare; 1 if they disagree."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--replicas", type=int, default=cores(), help="parsing processes")
    parser.add_argument("--root", default=STDLIB, help="directory to read (standard library)")
    parser.add_argument("--limit", type=int, help="read only the first N files")
    parser.add_argument("--quick", action="store_true", help="no plain loop to compare with")
    asked = parser.parse_args(arguments)

    size = sum(len(file.text) for file in read_library(Path(asked.root), asked.limit))  # warms up
    print(f"{asked.root}: {size / 1e6:.1f} MB of Python; {asked.replicas} parsing processes")
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "summary.json")
        began = time.perf_counter()
        census = census_graph(asked.root, asked.replicas, asked.limit, str(result))
        report = census.run(progress=True)
        graph_s = time.perf_counter() - began
        found = json.loads(result.read_text(encoding="utf-8"))
    print(f"\n{report}\n")
    if asked.quick:
        return 0
    print("the same in a plain loop, to compare ...", flush=True)
    began = time.perf_counter()
    expected = json.loads(json.dumps(asdict(plain_loop(asked.root, asked.limit))))
    plain_s = time.perf_counter() - began
    if found != expected:
        print(f"the two DISAGREE: expected {expected}, got {found}", file=sys.stderr)
        return 1
    print(f"both agree on every number: {found['totals']['tokens']:,} tokens")
    speed_up = plain_s / graph_s
    print(f"graph {graph_s:.1f} s, plain loop {plain_s:.1f} s: {speed_up:.2f} times as fast")
    return 0


if __name__ == "__main__":
    sys.exit(main())
