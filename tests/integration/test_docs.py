"""The pages are true: their code runs, their output is what is shown, their tables match the code.

How a page is read. A python block whose first line is ``# name.py`` is a file of that page; any
other python block must at least compile. A console block is a session in the page's directory:
each ``$`` line is run by bash, and what follows it is what stdout and stderr must show. A block
after ``<!-- any order -->`` may show its lines in another order, as several processes print.

In what is shown, ``…`` stands for any text, and as a line of its own for any lines. What differs
from run to run needs no mark: times, run ids, pids, line numbers, and the peak column of a report.
What a run's log says of its life (three or four lines at INFO) is left out, except where a page
shows such a line.
"""

from __future__ import annotations

import ast
import dataclasses
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import dflow
from dflow.cli.app import cli
from dflow.options import (
    DEFAULT_CAPACITY,
    DEFAULT_MAX_BYTES,
    EdgeOptions,
    NodeOptions,
    RunOptions,
)

pytestmark = pytest.mark.timeout(180)

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
MARK = "=== the next command ==="
ANY_ORDER = "<!-- any order -->"
LIFE = re.compile(r"\d\d:\d\d:\d\d\.\d{3} INFO +coordinator dflow\.broker\.loop:\d+ .*\n?")


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    language: str
    text: str
    line: int
    any_order: bool

    @property
    def file(self) -> str | None:
        """The file that a python block is, by its first line."""
        named = re.match(r"# (\w+\.py)\n", self.text)
        return named[1] if named and self.language == "python" else None

    @property
    def commands(self) -> list[tuple[str, str]]:
        """(command, what it shows) of a console block."""
        parts = re.split(r"^\$ (.*)$", self.text, flags=re.MULTILINE)[1:]
        return [(parts[i], parts[i + 1].strip("\n")) for i in range(0, len(parts), 2)]


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page."""
    lines = page.read_text().splitlines()
    number = 0
    while number < len(lines):
        if lines[number].startswith("```"):
            end = next(i for i in range(number + 1, len(lines)) if lines[i].startswith("```"))
            before = next((s for s in reversed(lines[:number]) if s), "")
            body = "".join(f"{line}\n" for line in lines[number + 1 : end])
            yield Block(lines[number][3:].strip(), body, number + 1, before == ANY_ORDER)
            number = end
        number += 1


# --- code and output --------------------------------------------------------------------------


def without_chance(text: str) -> list[str]:
    """Return the lines of ``text`` with what differs from run to run replaced."""
    lines = []
    peak = False
    for raw in text.splitlines():
        line = " ".join(raw.split())
        line = re.sub(r"\b\d+\.\d\d s\b", "T s", line)
        line = re.sub(r"\((?:[0-9a-f]{8})\)", "(RUN)", line)
        line = re.sub(r"\bpid \d+", "pid N", line)
        line = re.sub(r"^\d\d:\d\d:\d\d\.\d{3}", "HH:MM:SS", line)
        line = re.sub(r"(\w+\.py):\d+", r"\1:LINE", line)
        line = re.sub(r"\bdflow(?:\.\w+)+:\d+", "dflow:LINE", line)
        if line and not line.strip("~^"):
            continue  # the marks under a line of a traceback
        if line.startswith("edge ") and line.endswith("peak bytes"):
            peak = True
        elif not line:
            peak = False
        elif peak and len(cells := line.rsplit(" ", 2)) == 3:
            line = f"{cells[0]} PEAK {cells[2]}"
        lines.append(line)
    return lines


def as_pattern(line: str) -> str:
    return ".*".join(re.escape(part) for part in line.split("…"))


def shows(expected: str, got: str, *, any_order: bool) -> bool:
    """Whether ``got`` is what the page shows as ``expected``."""
    got = got if LIFE.search(expected) else LIFE.sub("", got)
    wanted, found = without_chance(expected), without_chance(got.strip("\n"))
    if any_order:
        wanted = [line for line in wanted if line]
        found = [line for line in found if line]
        for line in [w for w in wanted if w != "…"]:
            hit = next((f for f in found if re.fullmatch(as_pattern(line), f)), None)
            if hit is None:
                return False
            found.remove(hit)
        return not found or "…" in wanted
    pattern = ""
    for line in wanted:
        pattern += r"(?:.*\n)*?" if line == "…" else as_pattern(line) + r"\n"
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in found)) is not None


def make_commands(directory: Path) -> None:
    """Make ``python`` and ``dflow`` in ``directory``: this interpreter, this checkout."""
    directory.mkdir()
    for name, start in (("python", ""), ("dflow", " -m dflow")):
        script = directory / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}"{start} "$@"\n')
        script.chmod(script.stat().st_mode | stat.S_IXUSR)


def run_session(block: Block, directory: Path, commands: Path) -> list[tuple[str, str, str]]:
    """Run a console block; return (command, shown, got) of each command."""
    script = "".join(
        f"{command}\n_code=$?; printf '\\n%s\\n' '{MARK}'; (exit $_code)\n"
        for command, _ in block.commands
    )
    environment = {
        **os.environ,
        "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])),
        "COLUMNS": "100",
    }
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
    )
    outputs = done.stdout.split(f"\n{MARK}\n")
    return [
        (command, shown, got)
        for (command, shown), got in zip(block.commands, outputs, strict=False)
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_on_the_page_runs_and_shows_what_the_page_says(page: Path, tmp_path: Path) -> None:
    make_commands(tmp_path / "bin")
    directory = tmp_path / "work"
    directory.mkdir()
    wrong = []
    for block in blocks(page):
        where = f"{page.name}:{block.line}"
        if block.language == "python":
            ast.parse(block.text)
            if block.file is not None:
                (directory / block.file).write_text(block.text)
        elif block.language == "console":
            assert block.commands, f"{where}: a console block without a $ line"
            session = run_session(block, directory, tmp_path / "bin")
            assert len(session) == len(block.commands), f"{where}: the session broke off"
            for command, shown, got in session:
                if not shows(shown, got, any_order=block.any_order):
                    wrong.append(f"{where}: $ {command}\n--- shown\n{shown}\n--- got\n{got}\n")
    assert not wrong, "\n".join(wrong)


def test_every_python_block_of_the_tutorial_is_run() -> None:
    page = list(blocks(DOCS / "tutorial.md"))
    ran = " ".join(command for b in page if b.language == "console" for command, _ in b.commands)
    unnamed = [b.line for b in page if b.language == "python" and b.file is None]
    unused = [b.file for b in page if b.file is not None and b.file not in ran]
    assert (unnamed, unused) == ([], [])


def test_the_readme_has_no_figure_left_to_fill_in() -> None:
    prose = re.sub(r"^```.*?^```$", "", (ROOT / "README.md").read_text(), flags=re.M | re.S)
    assert re.findall(r"\{\w+\}", prose) == []


# --- tables and links -------------------------------------------------------------------------


def table_rows(page: Path, heading: str) -> dict[str, list[str]]:
    """Return the rows of the first table below ``heading``, by their first cell."""
    text = page.read_text().split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    return {cells[0].strip(" `"): [cell.strip() for cell in cells[1:]] for cells in rows}


@pytest.mark.parametrize("options", [NodeOptions, EdgeOptions, RunOptions])
def test_option_tables_have_every_field_and_its_default(
    options: type[NodeOptions | EdgeOptions | RunOptions],
) -> None:
    defaults = {field.name: field.default for field in dataclasses.fields(options)}
    rows = table_rows(DOCS / "options.md", options.__name__)
    assert {name: cells[0].strip("`") for name, cells in rows.items()} == {
        name: repr(value) for name, value in defaults.items()
    }


def test_the_page_on_edges_names_the_defaults() -> None:
    page = (DOCS / "edges.md").read_text()
    assert f"(default {DEFAULT_CAPACITY})" in page
    assert f"(default {DEFAULT_MAX_BYTES // 2**20} MiB)" in page


def test_every_error_class_is_explained() -> None:
    page = (DOCS / "errors.md").read_text()
    names = [n for n in dflow.__all__ if isinstance(getattr(dflow, n), type)]
    errors = [n for n in names if issubclass(getattr(dflow, n), dflow.DflowError)]
    assert [n for n in errors if f"| `{n}` |" not in page] == []


def test_every_verb_and_each_of_its_options_is_in_the_reference() -> None:
    page = (DOCS / "cli.md").read_text()
    missing = [
        f"{verb} {flag}"
        for verb, command in cli.commands.items()
        for flag in [f"dflow {verb}", *(o for p in command.params for o in p.opts if o[:2] == "--")]
        if flag not in page
    ]
    assert missing == []


def test_every_public_name_is_mentioned() -> None:
    text = "".join(page.read_text() for page in PAGES)
    assert [n for n in dflow.__all__ if not re.search(rf"\b{n}\b", text)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_and_source_paths_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    links = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)]
    dead = [
        target
        for target in links
        if target and "://" not in target and not (page.parent / target).exists()
    ]
    paths = re.findall(r"`((?:dflow|tests|docs|examples|benchmarks|scripts)/[\w/.]+)`", text)
    dead += [path for path in paths if not (ROOT / path).exists()]
    assert dead == []
