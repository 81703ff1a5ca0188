"""What a bundle means: what failed first, what was full, who waited for whom, what to do.

Pure: a `Bundle` that was read goes in, a `Diagnosis` comes out. The bundle may come from anybody
and may be half there, so each part is looked at for itself; one that does not parse is told of
among what is missing and hides nothing else.

"First" goes by time, over the stories of all state machines and the logs of all processes. Clocks
of several hosts differ; if there were several, the diagnosis says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from dflow.bundle.advice import advice
from dflow.bundle.folder import INDEX, Bundle
from dflow.bundle.places import place_of
from dflow.bundle.words import moment, plain
from dflow.report import RunStatus
from dflow.why import Chain, explain, is_full

__all__ = ["Diagnosis", "FullEdge", "Process", "Trouble", "diagnose"]

MOST_TROUBLES = 8
_MOST_PROCESSES = 1000
_ROW = 4000


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that went wrong. ``at_s``: Unix time; ``before_s``: that long before the end."""

    at_s: float
    before_s: float
    who: str
    what: str


@dataclass(frozen=True, slots=True)
class FullEdge:
    """An edge that had no room, in messages; ``oldest_s``: how long its oldest has waited."""

    id: str
    depth: int
    capacity: int
    oldest_s: float


@dataclass(frozen=True, slots=True)
class Process:
    """One process. ``state``: in words; ``at``: where its main thread was; ``last``: what it said.

    ``bad``: it died, or did not answer.
    """

    name: str
    state: str
    at: str
    last: str
    bad: bool


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What `diagnose` found; every text is safe to print.

    ``busy``: who was not done in time. ``known``: the bundle tells what ended the run, if anything.
    """

    path: str
    run: str
    made: str
    ended_by: str
    kind: str
    busy: list[str] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    more_troubles: int = 0
    waits: list[str] = field(default_factory=list)
    full: list[FullEdge] = field(default_factory=list)
    processes: list[Process] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    known: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def diagnose(bundle: Bundle) -> Diagnosis:
    """Return what the bundle tells; never raises, whatever is in it."""
    index = bundle.data(INDEX)
    seats = _seats(index)
    status = _status(bundle)
    cause = index.get("cause")
    cause = cause if isinstance(cause, dict) else {}
    processes = [_process(bundle, seat) for seat in seats]
    kind, text = _text(cause.get("kind")), _text(cause.get("text"))
    troubles, more = _troubles(bundle, index, seats, text)
    full = _full(status)
    waits = _waits(status)
    missing = [*bundle.problems, *_missing(bundle, index, seats)]
    return Diagnosis(
        plain(bundle.path),
        f"{_text(index.get('run_id')) or '(no id)'} of {_text(index.get('graph')) or '(no name)'}",
        _made(index),
        text,
        kind,
        _busy(cause),
        troubles,
        more,
        waits,
        full,
        processes,
        advice(bundle, cause, seats, processes, full, waits),
        missing,
        bool(index),
    )


def _text(value: Any) -> str:
    return plain(value, _ROW) if isinstance(value, str) else ""


def _number(value: Any) -> float:
    good = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if good and abs(value) < 1e15 else 0.0


def _busy(cause: Mapping[str, Any]) -> list[str]:
    """Return who was not done when a deadline passed."""
    listed = cause.get("busy")
    return [_text(name) for name in listed] if isinstance(listed, list) else []


def _made(index: Mapping[str, Any]) -> str:
    made = _text(index.get("made"))[:19].replace("T", " ")
    lasted_s, phase = _number(index.get("lasted_s")), _text(index.get("phase"))
    if not made:
        return "nobody knows when"
    return f"{made} UTC, {lasted_s:.1f} s after it began, while it was {phase or '(unknown)'}"


def _seats(index: Mapping[str, Any]) -> list[dict[str, Any]]:
    listed = index.get("processes")
    rows = listed if isinstance(listed, list) else []
    seats = [row for row in rows if isinstance(row, dict) and isinstance(row.get("name"), str)]
    return seats[:_MOST_PROCESSES]


def _status(bundle: Bundle) -> RunStatus | None:
    data = bundle.data("status.json")
    try:
        return RunStatus.from_dict(data) if data else None
    except (TypeError, ValueError, AttributeError):
        bundle.problems.append("status.json is damaged: it is no status of a run")
        return None


# --- what failed first --------------------------------------------------------------------

_LOG_WORDS = re.compile(r"(?P<level>[A-Z]+) +(?P<place>\S+) (?P<text>.*)")
_BAD_EXIT = re.compile(r" exited: (?!exit code 0 )")
_BAD_STORY = (" raised", ": refused while", "cannot be reached", "no control message")


def _troubles(
    bundle: Bundle, index: Mapping[str, Any], seats: list[dict[str, Any]], ended_by: str
) -> tuple[list[Trouble], int]:
    """Return what went wrong, by time, and how many more there are."""
    found: list[tuple[float, str, str]] = []
    coordinator = _text(index.get("coordinator")) or "coordinator"
    names = {coordinator: "coordinator"} | {_folder(seat): plain(seat["name"]) for seat in seats}
    cause = ended_by.partition("\n")[0]
    spared = tuple(f"{seat['name']} exited" for seat in seats if seat.get("killed_by_run"))
    for folder, name in names.items():
        for at_s, words in _dated(bundle, f"processes/{folder}/story.txt"):
            if spared and words.startswith(spared):
                continue
            if _BAD_EXIT.search(words) or any(sign in words for sign in _BAD_STORY):
                found.append((at_s, name, words))
        for at_s, words in _dated(bundle, f"processes/{folder}/log.txt"):
            log = _LOG_WORDS.match(words)
            if log is None or log["level"] not in ("ERROR", "CRITICAL"):
                continue
            ends = folder == coordinator and plain(log["text"], _ROW) == cause
            what = "ended the run, as said above" if ends else f"logged: {log['text']}"
            found.append((at_s, name, what))
    found.sort(key=lambda trouble: trouble[0])
    end_s = _end_s(bundle, coordinator) or (found[-1][0] if found else 0.0)
    troubles = [
        Trouble(at_s, round(end_s - at_s, 6), who, plain(what, 300)) for at_s, who, what in found
    ]
    return troubles[:MOST_TROUBLES], max(0, len(troubles) - MOST_TROUBLES)


def _dated(bundle: Bundle, name: str) -> Iterator[tuple[float, str]]:
    """Yield (Unix time, words) of the lines of a file that begin with a time."""
    for line in bundle.text(name).split("\n"):  # and not where text of strangers breaks a line
        at_s = moment(line)
        if at_s is not None:
            yield at_s, line[28:]


def _end_s(bundle: Bundle, coordinator: str) -> float | None:
    """Return when the run began to end, by the coordinator's story."""
    for at_s, words in _dated(bundle, f"processes/{coordinator}/story.txt"):
        if words.startswith(("run is aborting", "run is leaving")):
            return at_s
    return None


def _folder(seat: Mapping[str, Any]) -> str:
    return _text(seat.get("directory"))


# --- who waited, what was full ------------------------------------------------------------


def _waits(status: RunStatus | None) -> list[str]:
    """Return what kept the run, and a line for each link of the chains that led there."""
    if status is None:
        return []
    try:
        why = explain(status)
        lines = [why.summary] if why.chains or not why.summary.endswith(":") else []
        for chain in why.chains:
            first, *rest = [link.text for link in chain.links]
            lines += [first, *(f"  → {text}" for text in rest), *_asides(chain)]
    except Exception:  # noqa: BLE001  # a status of another version, or made up
        return []
    return [plain(line, 500) for line in lines if line]


def _asides(chain: Chain) -> Iterator[str]:
    if chain.alike:
        yield f"  (the same holds for {', '.join(chain.alike[:MOST_TROUBLES])})"
    if chain.also:
        yield f"  (for that waited, too: {', '.join(chain.also[:MOST_TROUBLES])})"


def _full(status: RunStatus | None) -> list[FullEdge]:
    """Return the edges with next to no room, what is furthest down first."""
    full = [
        FullEdge(
            plain(edge.id, 200),
            int(_number(edge.depth)),
            int(_number(edge.capacity)),
            _number(edge.oldest_s),
        )
        for edge in (status.edges if status is not None else ())
        if is_full(edge)
    ]
    return full[::-1]  # edges are in the order in which they were connected


# --- processes ----------------------------------------------------------------------------


def _process(bundle: Bundle, seat: Mapping[str, Any]) -> Process:
    folder = f"processes/{_folder(seat)}"
    exit_text, step = _text(seat.get("exit")), _text(seat.get("step"))
    orderly = bool(seat.get("killed_by_run")) or exit_text.startswith("exit code 0")
    died = bool(exit_text) and not orderly
    silent = bool(seat.get("joined")) and not seat.get("answered") and not died
    lost = step == "gone" and bool(seat.get("joined")) and not exit_text
    if died:
        state = f"died: {exit_text}"
    elif lost:
        state = "died, or cannot be reached"
    elif silent:
        state = "did not answer" + (f"; then {exit_text}" if exit_text else "")
    elif not seat.get("joined"):
        state = "never joined" if step == "absent" else f"not asked; it was {step}"
    else:
        state = "answered"
    log = [_LOG_WORDS.match(words) for _, words in _dated(bundle, f"{folder}/log.txt")]
    last = next(filter(None, reversed(log)), None)
    return Process(
        plain(seat["name"], 100),
        state,
        place_of(bundle.text(f"{folder}/stacks.txt")),
        plain(f"{last['level']} {last['text']}", 300) if last is not None else "",
        died or silent or lost,
    )


# --- what is missing ----------------------------------------------------------------------

_EXPECTED = ("plan.json", "counters.json", "run_queue.json", "environment.json")


def _missing(
    bundle: Bundle, index: Mapping[str, Any], seats: list[dict[str, Any]]
) -> Iterator[str]:
    for name in _EXPECTED:
        if name not in bundle.files:
            yield f"{name} is missing"
    coordinator = _text(index.get("coordinator")) or "coordinator"
    if f"processes/{coordinator}/story.txt" not in bundle.files:
        yield "the coordinator's story is missing"
    for seat in seats:
        if seat.get("answered") and f"processes/{_folder(seat)}/stacks.txt" not in bundle.files:
            yield f"the stacks of {plain(seat['name'], 100)} are missing"
    hosts = {_text(seat.get("host")) for seat in seats} - {""}
    if len(hosts) > 1:
        yield f"the clocks of {len(hosts)} hosts are compared; they may differ by what NTP leaves"
    notes = index.get("notes")
    yield from (_text(note) for note in notes if _text(note)) if isinstance(notes, list) else ()
