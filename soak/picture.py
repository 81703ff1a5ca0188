"""Line charts over time as SVG text: axes, units, a legend, shaded times, and nothing else needed.

A report has to open on a machine without a network in five years, so it is one file; and a day has
86,400 samples, more than a screen has points. So each curve is cut into a few hundred bins, of
which the median is drawn, with the range from least to most behind it: a peak of one second is
still there to be seen.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from statistics import median

__all__ = ["COLOURS", "Chart", "Curve", "Shade", "Straight", "draw", "small"]

COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#7A5195", "#B8860B", "#56B4E9", "#555555",
)  # fmt: skip
"""Okabe and Ito's, told apart by everybody; the yellow darkened for lines on white."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 14, 40, 40
_BINS = 320
_CHAR = 6.4
_GRID = "#e3e6ea"
_INK = "#38414a"
_PALE = "#6b7680"


@dataclass(frozen=True, slots=True)
class Shade:
    """A time that means something: shaded, and named where there is room."""

    begin_s: float
    end_s: float
    label: str = ""


@dataclass(frozen=True, slots=True)
class Curve:
    """One line: points ``(seconds, value)`` by part, so that no line leads across a restart."""

    label: str
    parts: Sequence[Sequence[tuple[float, float]]]
    colour: str = COLOURS[0]

    def values(self, shades: Sequence[Shade] = ()) -> Iterator[float]:
        """Yield every value that does not lie in one of ``shades``."""
        for points in self.parts:
            for at_s, value in points:
                if not any(shade.begin_s <= at_s < shade.end_s for shade in shades):
                    yield value


@dataclass(frozen=True, slots=True)
class Straight:
    """A fitted line from ``(x0, y0)`` to ``(x1, y1)``."""

    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True, slots=True)
class Chart:
    """Everything one chart shows. ``logarithmic`` needs values above 0; others are left out.

    ``from_zero`` begins the axis at 0; else it shows the range there is, and not less than
    ``least_range`` of the level: noise of a thousandth shall not look like a mountain.
    """

    title: str
    unit: str
    curves: Sequence[Curve]
    end_s: float
    shades: Sequence[Shade] = ()
    restarts: Sequence[float] = ()
    straights: Sequence[Straight] = ()
    logarithmic: bool = False
    from_zero: bool = False
    least_range: float = 0.1
    width: int = 900
    height: int = 260


class _Scale:
    """From values to points on the picture, with the ticks of the axis."""

    def __init__(self, low: float, high: float, begin: float, end: float, log: bool) -> None:
        self.log = log
        self.low, self.high = low, high
        self._begin, self._end = begin, end
        self.ticks = _powers(low, high) if log else _steps(low, high)

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            value, low, high = (math.log10(max(v, 1e-12)) for v in (value, low, high))
        return self._begin + (value - low) / (high - low) * (self._end - self._begin)


def draw(chart: Chart) -> str:
    """Return the chart as an ``<svg>`` element."""
    y = _value_scale(chart)
    x = _Scale(0.0, max(chart.end_s, 1.0), _LEFT, chart.width - _RIGHT, log=False)
    legend = _legend(chart)
    parts = [
        f'{_opening(chart.width, chart.height)} font-size="11">',
        (
            f'<clipPath id="{_clip(chart)}"><rect x="{_LEFT}" y="{_TOP}" '
            f'width="{chart.width - _LEFT - _RIGHT}" height="{chart.height - _TOP - _BOTTOM}"/>'
            "</clipPath>"
        ),
        f"<title>{escape(chart.title)}</title>",
        f'<rect width="{chart.width}" height="{chart.height}" fill="#fff"/>',
        *_shades(chart, x),
        *_axes(chart, x, y),
        (
            f'<text x="{_LEFT}" y="17" font-size="13" font-weight="600" fill="{_INK}">'
            f'{escape(chart.title)} <tspan font-weight="400" fill="{_PALE}">in {escape(chart.unit)}'
            "</tspan></text>"
        ),
        *legend,
    ]
    parts.append(f'<g clip-path="url(#{_clip(chart)})">')
    for curve in chart.curves:
        for points in curve.parts:
            parts += _line(points, curve.colour, x, y)
    for line in chart.straights:
        parts.append(
            f'<line x1="{x(line.x0):.1f}" y1="{y(line.y0):.1f}" x2="{x(line.x1):.1f}" '
            f'y2="{y(line.y1):.1f}" stroke="#111" stroke-width="1.4" stroke-dasharray="6 3"/>'
        )
    return "\n".join([*parts, "</g>", "</svg>"])


def small(
    parts: Sequence[Sequence[tuple[float, float]]],
    *,
    end_s: float,
    shades: Sequence[Shade],
    colour: str,
    least_range: float,
    width: int = 210,
    height: int = 64,
) -> str:
    """Return a chart without axes, for a grid of many; the lowest and highest value are written."""
    values = [value for points in parts for _, value in points]
    if not values:
        return ""
    low, high = _range(min(values), max(values), least_range)
    y = _Scale(low, high, height - 6, 6, log=False)
    x = _Scale(0.0, max(end_s, 1.0), 0, width - 38, log=False)
    drawn = [
        f'{_opening(width, height)} font-size="9">',
    ]
    drawn += [
        f'<rect x="{x(s.begin_s):.1f}" y="0" width="{x(s.end_s) - x(s.begin_s):.1f}" '
        f'height="{height}" fill="#f0ede4"/>'
        for s in shades
    ]
    for points in parts:
        drawn += _line(points, colour, x, y, bins=120)
    for value in (high, low):
        drawn.append(
            f'<text x="{width - 34}" y="{y(value) + 3:.1f}" fill="{_PALE}">{_number(value)}</text>'
        )
    return "".join([*drawn, "</svg>"])


def _opening(width: int, height: int) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" font-family="system-ui, DejaVu Sans, sans-serif"'
    )


def _clip(chart: Chart) -> str:
    """Return a name for the frame of a chart that no other on its page has."""
    return "frame-" + "".join(c if c.isalnum() else "-" for c in chart.title.lower())


def _value_scale(chart: Chart) -> _Scale:
    """Return the scale of the values. What only the shaded times have may lie outside of it."""
    shown = [v for curve in chart.curves for v in curve.values(chart.shades)]
    shown = shown or [v for curve in chart.curves for v in curve.values()]
    values = [v for v in shown if not chart.logarithmic or v > 0]
    values += [y for line in chart.straights for y in (line.y0, line.y1)]
    bottom, top = chart.height - _BOTTOM, _TOP
    if chart.logarithmic:
        low, high = min(values, default=1.0), max(values, default=10.0)
        low, high = 10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high))
        return _Scale(low, high if high > low else low * 10, bottom, top, log=True)
    low, high = _range(min(values, default=0.0), max(values, default=1.0), chart.least_range)
    return _Scale(0.0 if chart.from_zero else low, high, bottom, top, log=False)


def _range(low: float, high: float, least: float) -> tuple[float, float]:
    """Return what an axis shows of values from ``low`` to ``high``, with some air."""
    middle, half = (low + high) / 2, (high - low) / 2
    half = max(half * 1.1, abs(middle) * least / 2) or 0.5
    return max(0.0, middle - half) if low >= 0 else middle - half, middle + half


def _line(
    points: Sequence[tuple[float, float]], colour: str, x: _Scale, y: _Scale, bins: int = _BINS
) -> list[str]:
    if y.log:
        points = [(at, value) for at, value in points if value > 0]
    if not points:
        return []
    drawn = []
    if len(points) > 2 * bins:
        binned = _binned(points, bins)
        there = " ".join(f"{x(at):.1f},{y(low):.1f}" for at, _, low, _ in binned)
        back = " ".join(f"{x(at):.1f},{y(high):.1f}" for at, _, _, high in reversed(binned))
        drawn.append(f'<polygon points="{there} {back}" fill="{colour}" fill-opacity="0.16"/>')
        points = [(at, middle) for at, middle, _, _ in binned]
    path = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in points)
    drawn.append(
        f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5" '
        f'stroke-linejoin="round"/>'
    )
    return drawn


def _binned(
    points: Sequence[tuple[float, float]], bins: int
) -> list[tuple[float, float, float, float]]:
    """Return ``(time, median, least, most)`` of equal numbers of points."""
    size = math.ceil(len(points) / bins)
    found = []
    for first in range(0, len(points), size):
        piece = points[first : first + size]
        values = [value for _, value in piece]
        found.append((piece[len(piece) // 2][0], median(values), min(values), max(values)))
    return found


def _shades(chart: Chart, x: _Scale) -> list[str]:
    drawn = []
    top, bottom = _TOP, chart.height - _BOTTOM
    for shade in chart.shades:
        left, right = x(shade.begin_s), x(shade.end_s)
        drawn.append(
            f'<rect x="{left:.1f}" y="{top}" width="{right - left:.1f}" height="{bottom - top}" '
            f'fill="#f0ede4"/>'
        )
        if len(shade.label) * _CHAR < right - left:
            drawn.append(
                f'<text x="{left + 5:.1f}" y="{top + 13}" fill="#8a7f5f">'
                f"{escape(shade.label)}</text>"
            )
    return drawn + [
        f'<line x1="{x(at_s):.1f}" y1="{top}" x2="{x(at_s):.1f}" y2="{bottom}" '
        f'stroke="#b00020" stroke-dasharray="3 3"/>'
        f'<text x="{x(at_s) + 4:.1f}" y="{top + 11}" fill="#b00020">restart</text>'
        for at_s in chart.restarts
    ]


def _axes(chart: Chart, x: _Scale, y: _Scale) -> list[str]:
    bottom, right = chart.height - _BOTTOM, chart.width - _RIGHT
    drawn = []
    for value in y.ticks:
        at = y(value)
        drawn.append(
            f'<line x1="{_LEFT}" y1="{at:.1f}" x2="{right}" y2="{at:.1f}" stroke="{_GRID}"/>'
            f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end" fill="{_PALE}">'
            f"{_number(value)}</text>"
        )
    size, unit = _time_unit(chart.end_s)
    for value in _steps(0.0, chart.end_s / size):
        at = x(value * size)
        drawn.append(
            f'<line x1="{at:.1f}" y1="{bottom}" x2="{at:.1f}" y2="{bottom + 4}" stroke="{_PALE}"/>'
            f'<text x="{at:.1f}" y="{bottom + 16}" text-anchor="middle" fill="{_PALE}">'
            f"{_number(value)}</text>"
        )
    drawn.append(
        f'<line x1="{_LEFT}" y1="{bottom}" x2="{right}" y2="{bottom}" stroke="{_PALE}"/>'
        f'<text x="{right}" y="{bottom + 31}" text-anchor="end" fill="{_PALE}">'
        f"time since the soak began, {unit}</text>"
    )
    return drawn


def _legend(chart: Chart) -> list[str]:
    """Return the names of the curves, from the right end of the title's line to the left."""
    drawn: list[str] = []
    named = [(curve.colour, curve.label) for curve in chart.curves if curve.label]
    if chart.straights:
        named.append(("#111", "fitted"))
    at, line = float(chart.width - _RIGHT), 13
    width = sum(len(label) * _CHAR + 24 for _, label in named)
    if width > at - _LEFT - _CHAR * (len(chart.title) + len(chart.unit) + 10):
        line += 16  # no room beside the title
    for colour, label in reversed(named):
        at -= len(label) * _CHAR + 24
        dash = ' stroke-dasharray="6 3"' if label == "fitted" else ""
        drawn.append(
            f'<line x1="{at:.1f}" y1="{line}" x2="{at + 16:.1f}" y2="{line}" stroke="{colour}" '
            f'stroke-width="2.2"{dash}/>'
            f'<text x="{at + 20:.1f}" y="{line + 4}" fill="{_INK}">{escape(label)}</text>'
        )
    return drawn


def _time_unit(span_s: float) -> tuple[float, str]:
    if span_s < 300:
        return 1.0, "seconds"
    return (60.0, "minutes") if span_s < 3 * 3600 else (3600.0, "hours")


def _steps(low: float, high: float, about: int = 5) -> list[float]:
    """Return round numbers from ``low`` to ``high``: steps of 1, 2 or 5 times a power of ten."""
    raw = (high - low) / about or 1.0
    power = 10 ** math.floor(math.log10(raw))
    step = next((s * power for s in (1, 2, 5, 10) if s * power >= raw), 10 * power)
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _powers(low: float, high: float) -> list[float]:
    first, last = round(math.log10(low)), round(math.log10(high))
    return [10.0**power for power in range(first, last + 1)]


def _number(value: float) -> str:
    if value and abs(value) < 0.01:
        return f"{value:.0e}".replace("e-0", "e-")
    if abs(value) >= 10_000:
        return f"{value:,.0f}"
    text = f"{value:,.2f}" if abs(value) < 1000 else f"{value:,.1f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
