"""The files of a bundle: what was gathered (`Case`), in the form in which it is read.

A person reads text, `dflow doctor` reads JSON and the same text: every line of a story or log
begins with its time as it sorts, so "what came first" is a matter of sorting lines. Every process
has a directory of its own. Nothing here touches the disk, and nothing is trusted: a participant's
own words are somebody's text until they parse.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from dflow.broker.case import Case
from dflow.bundle.words import safe_name, when
from dflow.graph.plan import Plan
from dflow.graph.render import mermaid
from dflow.telemetry.recent import Remembered
from dflow.version import __version__

__all__ = ["COORDINATOR", "FORMAT", "Found", "files_of", "names_of", "story_text"]

FORMAT = 1
"""Of the bundle: raised when an older doctor would misread it."""

COORDINATOR = "coordinator"
_MOST_TEXT = 2 * 1024 * 1024
_REDACTED = "(the run's token)"


@dataclass(frozen=True, slots=True)
class Found:
    """What the process that writes the bundle adds.

    ``logs``: by process, what it logged last, the oldest first; ``lost``: how many earlier ones
    are not there. ``outside``: stacks seen from outside, and those a process that crashed left, by
    process. ``me``: the writer's own dump, as a participant's. ``notes``: what else is to be known.
    """

    logs: Mapping[str, Sequence[Remembered]] = field(default_factory=dict)
    lost: Mapping[str, int] = field(default_factory=dict)
    outside: Mapping[str, str] = field(default_factory=dict)
    me: str = ""
    environment: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def files_of(case: Case, found: Found, secret: str = "") -> dict[str, str]:
    """Return the files of a bundle, by relative path; ``secret`` is in none of them."""
    places = names_of([seat["name"] for seat in case.seats] + [COORDINATOR])
    files = {
        "bundle.json": _json(_index(case, found, places)),
        "plan.json": _json(plan_row(case.plan)),
        "graph.mmd": mermaid(case.plan),
        "status.json": _json(case.status.to_dict()),
        "counters.json": _json(case.counters),
        "run_queue.json": _json(case.turns),
        "environment.json": _json({"options": case.options, **found.environment}),
    }
    if case.report is not None:
        files["report.json"] = case.report.to_json(indent=1)
        files["report.txt"] = f"{case.report}\n"
    for name, place in places.items():
        words = _parsed(found.me if name == COORDINATOR else case.words.get(name, ""))
        story = case.story if name == COORDINATOR else None
        for file, text in _of_process(name, words, found, story, case.clock_s).items():
            files[f"processes/{place}/{file}"] = text
    files["README.md"] = _readme(case, files)
    return {name: _clean(text, secret) for name, text in files.items()}


def _clean(text: str, secret: str) -> str:
    cut = text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}\n… cut off\n"
    return cut.replace(secret, _REDACTED) if secret else cut


def names_of(processes: Iterable[str]) -> dict[str, str]:
    """Return the directory of each process: its name as far as a file may have it, no two alike."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for process in processes:
        name = base = safe_name(process)
        number = 1
        while name.lower() in taken:
            number += 1
            name = f"{base}-{number}"
        taken.add(name.lower())
        found[process] = name
    return found


def _index(case: Case, found: Found, places: Mapping[str, str]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "dflow": __version__,
        "graph": case.plan.name,
        "run_id": case.run_id,
        "epoch": case.epoch,
        "made": when(case.at_s),
        "began": when(case.began_s),
        "lasted_s": round(case.at_s - case.began_s, 3),
        "phase": case.phase,
        "cause": dict(case.cause),
        "processes": [dict(seat) | {"directory": places[seat["name"]]} for seat in case.seats],
        "coordinator": places[COORDINATOR],
        "notes": list(found.notes),
    }


def plan_row(plan: Plan) -> dict[str, Any]:
    """Return a plan as plain data."""
    return {
        "name": plan.name,
        "fingerprint": plan.fingerprint,
        "nodes": [asdict(node) for node in plan.nodes],
        "edges": [asdict(edge) | {"band": edge.priority.name} for edge in plan.edges],
        "external_edges": [asdict(edge) for edge in plan.external_edges],
        "fused": [list(group) for group in plan.fused],
    }


def _of_process(
    name: str,
    words: dict[str, Any],
    found: Found,
    story: list[list[Any]] | None,
    clock_s: float,
) -> dict[str, str]:
    """Return the files of one process."""
    files = {}
    standing = words.pop("standing", None)
    parts = standing if isinstance(standing, dict) else {}
    told, tasks = parts.pop("story", None), parts.pop("tasks", None)
    if story is None:
        story, clock_s = _rows(told), _number(words.get("clock_s"))
    if story:
        files["story.txt"] = story_text(story, clock_s)
    stacks = [str(words.pop("stacks", "") or ""), str(tasks or ""), found.outside.get(name, "")]
    if any(stacks):
        files["stacks.txt"] = "\n\n".join(part for part in stacks if part)
    if words:
        files["state.json"] = _json(words | {"standing": standing})
    if found.logs.get(name):
        files["log.txt"] = _log_text(found.logs[name], found.lost.get(name, 0))
    return files


def _parsed(text: str) -> dict[str, Any]:
    if not text:
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {"damaged": text[:1000]}
    return found if isinstance(found, dict) else {"damaged": text[:1000]}


def _rows(told: Any) -> list[list[Any]]:
    """Return the rows of a story that are rows."""
    rows = told if isinstance(told, list) else []
    return [row for row in rows if isinstance(row, list) and len(row) == 4]


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0


def story_text(rows: Iterable[Sequence[Any]], clock_s: float) -> str:
    """Return a story as lines; ``clock_s`` is added to its times for Unix time."""
    lines = []
    for at_s, what, times, until_s in rows:
        again = f" ({times} times, until {when(_number(until_s) + clock_s)})" if times != 1 else ""
        words = _one_line(str(what))
        lines.append(f"{when(_number(at_s) + clock_s)} {words}{again}")
    return "\n".join(lines) + "\n"


def _one_line(text: str) -> str:
    return " ".join(text.split("\n"))


def _log_text(records: Iterable[Remembered], lost: int) -> str:
    lines = [f"({lost:,} earlier records are not kept)"] if lost else []
    for record in records:
        text = record.text.replace("\n", "\n    ")
        head = _one_line(f"{record.level:<8} {record.place}")
        lines.append(f"{when(record.time_s)} {head} {text}")
    return "\n".join(lines) + "\n"


def _json(data: object) -> str:
    return json.dumps(data, indent=1, default=str) + "\n"


def _readme(case: Case, files: Mapping[str, str]) -> str:
    why = case.cause.get("text") or "somebody asked for it; nothing had failed"
    silent = [seat["name"] for seat in case.seats if seat["joined"] and not seat["answered"]]
    processes = sorted(name for name in files if name.startswith("processes/"))
    return "\n".join(
        [
            f"# Bundle of run {case.run_id} of {case.plan.name}",
            "",
            f"Made {when(case.at_s)}, while the run was {case.phase}, because:",
            "",
            *(f"    {line}" for line in str(why).splitlines()),
            "",
            "Begin with `dflow doctor` and this directory. What is here:",
            "",
            "| file | what |",
            "|---|---|",
            "| bundle.json | the index: run, cause, every process and whether it answered |",
            "| plan.json, graph.mmd | the graph, as data and as a Mermaid diagram |",
            "| status.json | every node and edge at that moment (`RunStatus`) |",
            "| counters.json | what every process had counted, raw |",
            "| run_queue.json | who might compute, and who waited for a turn |",
            "| report.json, report.txt | the report, if the run had ended |",
            "| environment.json | versions, machine, limits, options |",
            "| processes/NAME/story.txt | what its state machine went through, newest last |",
            "| processes/NAME/log.txt | its last log records |",
            "| processes/NAME/stacks.txt | where its threads were |",
            "| processes/NAME/state.json | where it stood: gate, queues, memory |",
            "",
            f"{len(processes)} files of {len(case.seats) + 1} processes."
            + (f" No answer came from {', '.join(silent)}." if silent else ""),
            "",
        ]
    )
