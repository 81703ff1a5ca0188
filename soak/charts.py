"""Which charts a soak's report has: series of the samples, in units people read.

All parts of a soak stand one after the other on one axis of time, with a mark where it was
restarted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from soak.history import LAUNCHER, Part, Series
from soak.picture import COLOURS, Chart, Curve, Shade, Straight, draw, small
from soak.trend import trend

__all__ = ["Timeline", "charts", "gallery", "memory_chart"]

MB = 1e-6
MS = 1e-6  # of nanoseconds
_MOST_CURVES = 6
Points = list[tuple[float, float]]
Take = Callable[[Part], Series | None]


@dataclass(frozen=True, slots=True)
class Timeline:
    """Where each part begins on the common axis, and what is shaded there."""

    begins: Sequence[float]
    end_s: float
    shades: Sequence[Shade]

    @classmethod
    def of(cls, parts: Sequence[Part]) -> Timeline:
        """Return the time line of ``parts``, one after the other."""
        begins, at_s, shades = [], 0.0, []
        for part in parts:
            begins.append(at_s)
            warm_s = min(part.warm_up_s, part.length_s)
            shades.append(Shade(at_s, at_s + warm_s, "warm-up: not judged"))
            at_s += part.length_s
        return cls(begins, at_s, shades)

    def points(self, parts: Sequence[Part], take: Take, factor: float) -> list[Points]:
        """Return a series of each part as points of the common axis."""
        found = []
        for begin_s, part in zip(self.begins, parts, strict=True):
            series = take(part)
            if series is not None:
                pairs = zip(series.times, series.values, strict=True)
                found.append([(begin_s + at_s, value * factor) for at_s, value in pairs])
        return found

    def fitted(self, parts: Sequence[Part], take: Take, factor: float) -> list[Straight]:
        """Return the line of each part that is long enough."""
        found = []
        for begin_s, part in zip(self.begins, parts, strict=True):
            series = take(part)
            steady = part.steady(series) if series is not None else None
            line = trend(steady.times, steady.values) if steady is not None else None
            if steady is None or line is None:
                continue
            first, last = steady.times[0], steady.times[-1]
            middle = line.level * factor
            rise = line.per_hour / 3600 * (last - first) / 2 * factor
            found.append(Straight(begin_s + first, middle - rise, begin_s + last, middle + rise))
        return found


def charts(parts: Sequence[Part]) -> list[str]:
    """Return the charts of the report that have anything to show, as SVG."""
    line = Timeline.of(parts)
    found: list[Chart | None] = [
        memory_chart(parts, line),
        _whole(parts, line, "Throughput, all edges together", "messages a second", "rate", 1.0),
        _whole(parts, line, "Cost of a message", "us of processor time", "cost_us", 1.0),
        _latency(parts, line, "p50", "Latency of the median message"),
        _latency(parts, line, "p99", "Latency of the slowest in 100 messages"),
        _depths(parts, line),
        _counts(parts, line),
        _shared(parts, line),
        _machine(parts, line),
    ]
    return [draw(chart) for chart in found if chart is not None]


def memory_chart(parts: Sequence[Part], line: Timeline, width: int = 900) -> Chart | None:
    """Return the chart of all memory that is judged, with the fitted lines."""

    def take(part: Part) -> Series | None:
        return part.whole.get("anon")

    points = line.points(parts, take, MB)
    title = "Memory of all processes (heaps and stacks)"
    return Chart(
        title, "MB", [Curve("", points)], line.end_s, line.shades, line.begins[1:],
        line.fitted(parts, take, MB), width=width,
    ) if any(points) else None  # fmt: skip


def gallery(parts: Sequence[Part]) -> list[tuple[str, str]]:
    """Return ``(role, svg)`` of the memory of each process, for a grid."""
    line = Timeline.of(parts)
    roles = dict.fromkeys(r for part in parts for r in part.processes if ":" not in r)

    def one(role: str) -> str:
        def take(part: Part) -> Series | None:
            return part.processes.get(role, {}).get("anon")

        colour = COLOURS[1] if role == LAUNCHER else COLOURS[0]
        points = line.points(parts, take, MB)
        return small(points, end_s=line.end_s, shades=line.shades, colour=colour, least_range=0.05)

    return [(role, one(role)) for role in roles]


def _whole(
    parts: Sequence[Part], line: Timeline, title: str, unit: str, name: str, factor: float
) -> Chart | None:
    def take(part: Part) -> Series | None:
        return part.whole.get(name)

    points = line.points(parts, take, factor)
    fitted = line.fitted(parts, take, factor)
    return Chart(
        title, unit, [Curve("", points)], line.end_s, line.shades, line.begins[1:], fitted,
        from_zero=True,
    ) if any(points) else None  # fmt: skip


def _latency(parts: Sequence[Part], line: Timeline, which: str, title: str) -> Chart | None:
    names = sorted({name for part in parts for name in part.latency})
    curves = _curves(
        parts, line, names, lambda part, name: part.latency.get(name, {}).get(which), MS
    )
    return Chart(
        title, "ms (logarithmic)", curves, line.end_s, line.shades, line.begins[1:],
        logarithmic=True,
    ) if curves else None  # fmt: skip


def _depths(parts: Sequence[Part], line: Timeline) -> Chart | None:
    def fullness(name: str) -> float:
        return max(
            (max(part.depth[name].values) for part in parts if name in part.depth), default=0
        )

    names = sorted({name for part in parts for name in part.depth}, key=fullness, reverse=True)
    curves = _curves(
        parts, line, names[:_MOST_CURVES], lambda part, name: part.depth.get(name), 1.0
    )
    curves = [Curve(_short(c.label), c.parts, c.colour) for c in curves]
    return Chart(
        "Waiting in the fullest edges", "messages", curves, line.end_s, line.shades,
        line.begins[1:], from_zero=True,
    ) if curves else None  # fmt: skip


def _counts(parts: Sequence[Part], line: Timeline) -> Chart | None:
    curves = [
        Curve(label, points, COLOURS[number])
        for number, (label, take) in enumerate(
            (
                ("files, all", lambda part: _sum(part, "fds")),
                ("sockets, all", lambda part: _sum(part, "sockets")),
                ("threads, all", lambda part: _sum(part, "threads")),
                ("files of the soak", lambda part: part.processes.get(LAUNCHER, {}).get("fds")),
                ("processes", lambda part: part.whole.get("processes")),
            )
        )
        if any(points := line.points(parts, take, 1.0))
    ]
    return Chart(
        "Files, sockets, threads, processes", "things open", curves, line.end_s, line.shades,
        line.begins[1:], logarithmic=True,
    ) if curves else None  # fmt: skip


def _sum(part: Part, quantity: str) -> Series | None:
    """Return the sum over the processes of the long run, at the moments when all were seen."""
    series = [s[quantity] for role, s in part.processes.items() if ":" not in role]
    if not series:
        return None
    totals: dict[float, list[float]] = {}
    for one in series:
        for at_s, value in zip(one.times, one.values, strict=True):
            totals.setdefault(at_s, []).append(value)
    most = max(len(values) for values in totals.values())
    found = Series()
    for at_s in sorted(totals):
        if len(totals[at_s]) == most:
            found.add(at_s, sum(totals[at_s]))
    return found


def _shared(parts: Sequence[Part], line: Timeline) -> Chart | None:
    if not any(max(p.whole["shm"].values, default=0) for p in parts if "shm" in p.whole):
        return None
    return _whole(parts, line, "Shared memory", "MB", "shm", MB)


def _machine(parts: Sequence[Part], line: Timeline) -> Chart | None:
    busy = [
        [(begin_s + at_s, cores) for at_s, cores in _busy(part)]
        for begin_s, part in zip(line.begins, parts, strict=True)
    ]
    ours = line.points(parts, lambda part: part.whole.get("cores"), 1.0)
    curves = [
        Curve("the whole machine", busy, COLOURS[7]),
        Curve("workers and coordinator", ours, COLOURS[0]),
    ]
    return Chart(
        "Processors in use", "cores", curves, line.end_s, line.shades, line.begins[1:],
        from_zero=True,
    ) if any(busy) else None  # fmt: skip


def _busy(part: Part) -> Points:
    series = part.whole.get("busy_s")
    if series is None:
        return []
    return [
        (later_s, (more - less) / (later_s - at_s))
        for at_s, later_s, less, more in zip(
            series.times, series.times[1:], series.values, series.values[1:], strict=False
        )
        if later_s > at_s
    ]


def _curves(
    parts: Sequence[Part],
    line: Timeline,
    names: Iterable[str],
    take: Callable[[Part, str], Series | None],
    factor: float,
) -> list[Curve]:
    found = []
    for number, name in enumerate(names):
        points = line.points(parts, lambda part, name=name: take(part, name), factor)  # type: ignore[misc]  # bound by default
        if any(points):
            found.append(Curve(name, points, COLOURS[number % len(COLOURS)]))
    return found


def _short(edge: str) -> str:
    """Return ``a -> b`` of ``a.out->b.in``."""
    return " → ".join(end.partition(".")[0] for end in edge.split("->"))
