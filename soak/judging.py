"""The verdict: what grew, what drifted, what was left behind, whether the books are exact.

Three values. *Passed* and *failed* need evidence: the whole confidence interval of a slope lies on
one side of the limit. Between them is *not enough evidence*, and then the finding says how long a
soak would have to be. The width of an interval shrinks with the time to the power of 3/2 (there are
more samples, and they are further apart), so that follows from this soak's own noise.

What is counted and not estimated (books, streams, what is left in the end) passes or fails.
"""

from __future__ import annotations

import math
import operator
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from soak.history import Part, Series
from soak.trend import CONFIDENCE, MIN_SAMPLES, Trend, pooled, trend

__all__ = [
    "CONFIDENCE",
    "FAILED",
    "PASSED",
    "UNDECIDED",
    "Finding",
    "Limits",
    "Verdict",
    "as_dict",
    "duration",
    "judge",
    "overall",
]

PASSED, FAILED, UNDECIDED = "passed", "failed", "not enough evidence"
Verdict = str
_BUSY_OTHERS = 0.1
_MANY_H = 1000.0
YOUNG_S = 300.0
"""Growth before this age is no leak: caches fill, and allocators find out what they need."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What is allowed: growth of memory in % an hour, drift of the rate in % over the soak."""

    memory_percent_h: float = 1.0
    drift_percent: float = 5.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence of the verdict. ``low`` to ``high`` is the interval of ``value``, in ``unit``.

    ``needs_s`` is how long the judged time would have to be; None where that is not the question.
    """

    name: str
    group: str
    verdict: Verdict
    text: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    limit: float | None = None
    unit: str = ""
    needs_s: float | None = None


def overall(findings: Iterable[Finding]) -> Verdict:
    """Return the worst: failed, else not enough evidence, else passed."""
    found = {finding.verdict for finding in findings}
    return next((v for v in (FAILED, UNDECIDED) if v in found), PASSED)


def judge(parts: Sequence[Part], limits: Limits | None = None) -> list[Finding]:
    """Return what is to be said of a soak, the most general first; never empty."""
    limits = limits or Limits()
    found = list(_how_it_ended(parts))
    found += _books(parts)
    found += _left_behind(parts)
    found += _memory(parts, limits)
    found += _counts(parts)
    found += _rates(parts, limits)
    return found


# --- what is counted ---


def _how_it_ended(parts: Sequence[Part]) -> Iterator[Finding]:
    if not parts:
        yield Finding("samples", "soak", FAILED, "there are no samples")
        return
    reasons = [part.end["reason"] for part in parts if part.end and part.end["reason"]]
    killed = [part.number for part in parts[:-1] if part.end is None]
    judged = sum(max(0.0, part.length_s - part.warm_up_s) for part in parts)
    text = f"{duration(sum(part.length_s for part in parts))} in {_counted(len(parts), 'part')}"
    text += f", of which {duration(judged)} after warm-up are judged"
    if killed:
        text += f"; part {', '.join(map(str, killed))} ended without a last word (killed)"
    lost = sum(part.lost for part in parts)
    if lost:
        text += f"; {lost:,} samples were lost because they could not be written"
    if reasons:
        yield Finding("the soak", "soak", FAILED, f"{text}; it ended early: {reasons[0]}")
    else:
        yield Finding("the soak", "soak", PASSED, text)


def _books(parts: Sequence[Part]) -> Iterator[Finding]:
    books = [line for part in parts for line in part.books]
    wrong = [text for line in books for text in line["imbalances"]]
    sent = sum(line["totals"]["sent"] for line in books)
    if not books:
        text = "no run has ended yet, so there is no report to look at"
        yield Finding("books", "exact", UNDECIDED, text)
        return
    if wrong:
        text = f"{len(wrong)} contradictions, the first: {wrong[0]}"
        yield Finding("books", "exact", FAILED, text)
    else:
        runs = _counted(len(books), "run")
        text = f"the books of {runs} balance: {sent:,} messages, every one accounted for"
        yield Finding("books", "exact", PASSED, text)
    streams = [row for line in books for row in line["streams"]]
    errors = [row[3] for row in streams if row[3]]
    names = sorted({row[0] for row in streams})
    if errors:
        yield Finding("end to end", "exact", FAILED, f"{len(errors)} wrong; {errors[0]}")
    elif any(row[2] for row in streams):
        text = (
            f"every message of {_counted(len(names), 'stream')} ({', '.join(names)}) arrived once:"
            f" {sum(row[2] for row in streams):,} numbers seen are the ones sent"
        )
        yield Finding("end to end", "exact", PASSED, text)
    else:
        text = "no run was drained to its end with messages, so there is nothing to compare"
        yield Finding("end to end", "exact", UNDECIDED, text)


def _left_behind(parts: Sequence[Part]) -> Iterator[Finding]:
    ends = [part.end for part in parts if part.end is not None]
    if not ends:
        text = "the soak has not come to an end, so nothing can be said of what it leaves behind"
        yield Finding("left behind", "leaks", UNDECIDED, text)
        return
    left = [
        f"{after - end['before'][what]:+d} {what}"
        for end in ends
        for what, after in end["after"].items()
        if after > end["before"][what]
    ]
    left += [f"process {command!r}" for end in ends for command in end["left"]]
    if left:
        yield Finding("left behind", "leaks", FAILED, f"at the end there were {', '.join(left)}")
    else:
        text = f"at the end there were no more {', '.join(ends[-1]['after'])} than before"
        yield Finding("left behind", "leaks", PASSED, text)


# --- what is estimated ---


def _trend(
    parts: Sequence[Part], series: Iterable[Series | None], half: int | None = None
) -> Trend | None:
    """Return the slope that the steady times of all parts share; or one ``half`` of each."""
    found = []
    for part, one in zip(parts, series, strict=True):
        if one is None:
            continue
        times, values = part.steady(one).columns()
        if half is not None:
            middle = len(times) // 2
            piece = slice(middle, None) if half else slice(middle)
            times, values = times[piece], values[piece]
        line = trend(times, values)
        if line is not None:
            found.append(line)
    return pooled(found) if found else None


def _too_short(name: str, group: str, parts: Sequence[Part]) -> Finding:
    longest = max((part.length_s - part.warm_up_s for part in parts), default=0.0)
    text = (
        f"no part has the {MIN_SAMPLES} samples after warm-up that a slope takes"
        f" (the longest has {duration(longest)}); soak longer"
    )
    return Finding(name, group, UNDECIDED, text)


def _roles(parts: Sequence[Part]) -> list[str]:
    return list(dict.fromkeys(role for part in parts for role in part.processes if ":" not in role))


def _memory(parts: Sequence[Part], limits: Limits) -> Iterator[Finding]:
    whole = _growth("memory of all", parts, [part.whole.get("anon") for part in parts], limits)
    if whole is None:
        yield _too_short("memory of all", "memory", parts)
        return
    yield whole
    for role in _roles(parts):
        mine = [part.processes.get(role, {}) for part in parts]
        size = _trend(parts, [found.get("pss") for found in mine])
        name = f"memory of {role}"
        anon = [found.get("anon") for found in mine]
        found = _growth(name, parts, anon, limits, size.level if size is not None else None)
        if found is not None:
            yield found
    shared = _growth("shared memory", parts, [part.whole.get("shm") for part in parts], limits)
    if shared is not None:
        yield shared


def _growth(
    name: str,
    parts: Sequence[Part],
    series: Sequence[Series | None],
    limits: Limits,
    level: float | None = None,
) -> Finding | None:
    """Judge a growth in % of ``level`` an hour; shrinking is no fault. None if there is too little.

    A leak goes on. What allocators and caches take until they have enough is less and less, and for
    how long differs; a straight line through it has a huge error. So where the whole time says
    nothing good, its second half is judged on its own.
    """
    line, late = _trend(parts, series), _trend(parts, series, half=1)
    if line is None or line.level <= 0:
        return None
    percent = 100 / (level or line.level)
    limit = limits.memory_percent_h
    shown, verdict, note = line, _above(line, percent, limit), ""
    if verdict != PASSED and late is not None:
        lately = _above(late, percent, limit)
        narrower = late.half_width() < line.half_width()
        if lately != UNDECIDED or narrower or verdict == FAILED:
            shown, verdict = late, lately
            note = f" in the second half, {line.per_hour * percent:+.2f} over all of it"
    value, half = shown.per_hour * percent, shown.half_width() * percent
    needs_s = _needed_s(line.span_s, half, abs(limit - value), 1.5)
    text = (
        f"{(level or line.level) / 1e6:,.1f} MB, {value:+.2f} % an hour"
        f" ({value - half:+.2f} to {value + half:+.2f}){note}; limit {limit:g}"
    )
    waited = 0.5 if shown is late else 0.0  # of the judged time
    ages_s = (p.warm_up_s + waited * (p.length_s - p.warm_up_s) for p in parts)
    if verdict == FAILED and any(age_s < YOUNG_S for age_s in ages_s):
        verdict = UNDECIDED
        text += f"; judged from less than {duration(YOUNG_S)} on, when every process still grows"
    elif verdict == UNDECIDED:
        text += f"; {_advice(needs_s)}"
    ends = value - half, value + half
    return Finding(name, "memory", verdict, text, value, *ends, limit, "%/h", needs_s)


def _above(line: Trend, percent: float, limit: float) -> Verdict:
    low, high = (end * percent for end in line.interval())
    return PASSED if high < limit else FAILED if low > limit else UNDECIDED


def _counts(parts: Sequence[Part]) -> Iterator[Finding]:
    """Judge what is counted in whole things: one more in the judged time is one too many."""
    for quantity, what in (
        ("fds", "file descriptors"),
        ("sockets", "sockets"),
        ("threads", "threads"),
    ):
        lines = {
            role: _trend(parts, [_count(part, role, quantity) for part in parts])
            for role in _roles(parts)
        }
        known = {role: line for role, line in lines.items() if line is not None}
        if not known:
            yield _too_short(what, "leaks", parts)
            return
        findings = [_leak(f"{what} of {role}", role, line) for role, line in known.items()]
        worst = [f for f in findings if f.verdict != PASSED]
        if worst:
            yield from worst
        else:
            text = f"{_counted(len(known), 'process', 'processes')}, none has more and more"
            yield Finding(what, "leaks", PASSED, text)
    for quantity, what in (
        ("processes", "processes"),
        ("zombies", "zombies"),
        ("memfds", "memory files"),
        ("temp", "temporary files"),
    ):
        line = _trend(parts, (part.whole.get(quantity) for part in parts))
        if line is not None:
            yield _leak(what, "all together", line)


def _count(part: Part, role: str, quantity: str) -> Series | None:
    """Return a count of one process; memory files are not among its files, they are a pool's."""
    found = part.processes.get(role, {})
    series, memfds = found.get(quantity), found.get("memfds")
    if quantity != "fds" or series is None or memfds is None:
        return series
    return Series(series.times, array("d", map(operator.sub, series.values, memfds.values)))


def _leak(name: str, who: str, line: Trend) -> Finding:
    hours = line.span_s / 3600
    value, half = line.per_hour * hours, line.half_width() * hours
    verdict = (
        PASSED if value + half < 1 else FAILED if value - half > 0 and value >= 1 else UNDECIDED
    )
    needs_s = _needed_s(line.span_s, half, abs(1 - value), 0.5)
    text = (
        f"{who}: about {line.level:g}, {value:+.2f} in the judged time"
        f" ({value - half:+.2f} to {value + half:+.2f}); one more is one too many"
    )
    if verdict == UNDECIDED:
        text += "; it goes up and down too much to tell"
    return Finding(
        name, "leaks", verdict, text, value, value - half, value + half, 1.0, "", needs_s
    )


def _rates(parts: Sequence[Part], limits: Limits) -> Iterator[Finding]:
    others = _others(parts)
    for name, quantity, worse, unit in (
        ("throughput", "rate", -1, "messages/s"),
        ("cost of a message", "cost_us", 1, "us of processor time"),
    ):
        line = _trend(parts, (part.whole.get(quantity) for part in parts))
        if line is None or line.level <= 0:
            if quantity == "rate":
                yield _too_short(name, "rate", parts)
            continue
        hours = line.span_s / 3600
        percent = 100 / line.level * hours
        value, half = line.per_hour * percent, line.half_width() * percent
        limit = limits.drift_percent
        inside = max(abs(value - half), abs(value + half)) < limit
        outside = min(abs(value - half), abs(value + half)) > limit and abs(value) > half
        verdict = PASSED if inside else FAILED if outside and value * worse > 0 else UNDECIDED
        needs_s = _needed_s(line.span_s, half, abs(limit - abs(value)), 0.5)
        text = (
            f"about {line.level:,.4g} {unit}, {value:+.2f} % over the judged time"
            f" ({value - half:+.2f} to {value + half:+.2f}); limit {limit:g} either way"
        )
        if verdict == FAILED and others > _BUSY_OTHERS:
            verdict = UNDECIDED
        if verdict == UNDECIDED and others > _BUSY_OTHERS:
            text += f"; others used {100 * others:.0f} % of the machine, so it may be theirs"
        elif verdict == UNDECIDED and outside:
            text += "; that is for the better, but not steady"
        elif verdict == UNDECIDED:
            text += f"; {_advice(needs_s)}"
        yield Finding(
            name, "rate", verdict, text, value, value - half, value + half, limit, "%", needs_s
        )


def _others(parts: Sequence[Part]) -> float:
    """Return the share of the machine that was used by somebody else."""
    shares = []
    for part in parts:
        cores, busy = part.about.get("cores") or 0, part.whole.get("busy_s")
        used = part.whole.get("cores")
        if not cores or busy is None or used is None or len(busy) < 2 or not len(used):
            continue
        span_s = busy.times[-1] - busy.times[0]
        all_cores = (busy.values[-1] - busy.values[0]) / span_s if span_s else 0.0
        shares.append(max(0.0, all_cores - sum(used.values) / len(used)) / cores)
    return sum(shares) / len(shares) if shares else 0.0


def _needed_s(span_s: float, half: float, margin: float, power: float) -> float:
    """Return how long the judged time must be for an interval that shrinks with that power."""
    if half <= 0:
        return span_s
    return span_s * (half / margin) ** (1 / power) if margin > 0 else math.inf


def _advice(needs_s: float) -> str:
    if needs_s > _MANY_H * 3600:
        return "it is so near the limit that no soak of sensible length decides"
    return f"about {duration(needs_s)} after warm-up would decide"


def duration(seconds: float) -> str:
    """Return a time for people: ``40 s``, ``31 min``, ``2.5 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _counted(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def as_dict(finding: Finding) -> dict[str, Any]:
    """Return a finding as JSON takes it."""
    return {
        name: (None if isinstance(value, float) and not math.isfinite(value) else value)
        for name in Finding.__slots__
        for value in [getattr(finding, name)]
    }
