"""The plots of `benchmarks.growth`: throughput on the left, CPU time on the right.

Drawn with matplotlib, which only this module needs (benchmarks/requirements.txt). SVG files are
the same for the same figures, so that a change of one is a change of a measurement.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

__all__ = ["PLOTS", "draw"]

logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # the viewer has the fonts

OTHERS_LIMIT = 0.05
"""From here on other programs are part of the picture, and it says so."""

INK, GREY, GRID = "#1a202c", "#555f6d", "#e2e6eb"
COLOURS = ("#2b6cb0", "#c05621")
MARKS = ("o", "s")

STYLE = {
    "font.family": ["Helvetica", "Arial", "DejaVu Sans", "sans-serif"],
    "font.size": 11,
    "text.color": INK,
    "axes.labelcolor": GREY,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "svg.fonttype": "none",
    "svg.hashsalt": "dflow",
}

Value = Callable[[dict[str, float]], float]


@dataclass(frozen=True, slots=True)
class Panel:
    """One pair of axes: what it shows of a point, and its title."""

    title: str
    value: Value
    log: bool = True


@dataclass(frozen=True, slots=True)
class Plot:
    """One image: two panels over the same x."""

    name: str
    x_label: str
    left: Panel
    right: Panel
    x_bytes: bool = False


def rate(point: dict[str, float]) -> float:
    """Messages a second."""
    return point["rate"]


def cpu(point: dict[str, float]) -> float:
    """CPU microseconds a message, of all processes."""
    return point["cpu_us"]


RATE = Panel("messages a second", rate)

PLOTS = (
    Plot(
        "chain",
        "nodes between source and sink",
        RATE,
        Panel("CPU µs a hop", lambda p: p["cpu_us"] / (p["x"] + 1), log=False),
    ),
    Plot(
        "fan_out",
        "sinks, each gets every message",
        Panel("deliveries a second", lambda p: p["rate"] * p["x"]),
        Panel("CPU µs a delivery", lambda p: p["cpu_us"] / p["x"], log=False),
    ),
    Plot(
        "size",
        "bytes in a message",
        Panel("bytes a second", lambda p: p["rate"] * p["x"]),
        Panel("CPU µs a message", cpu),
        x_bytes=True,
    ),
    Plot("capacity", "capacity of both edges, messages", RATE, Panel("CPU µs a message", cpu)),
    Plot("replicas", "replicas of the node in the middle", RATE, Panel("CPU µs a message", cpu)),
)


def draw(result: dict[str, Any], folder: Path, png: Path | None = None) -> None:
    """Write ``growth-<plot>.svg`` for each plot with curves; PNG images into ``png``, too."""
    for plot in PLOTS:
        curves = {
            name.partition(".")[2]: points
            for name, points in result["curves"].items()
            if name.partition(".")[0] == plot.name
        }
        if not curves:
            continue
        with mpl.rc_context(STYLE):
            figure = draw_one(plot, curves, result)
            figure.savefig(folder / f"growth-{plot.name}.svg", metadata={"Date": None})
            if png is not None:
                png.mkdir(parents=True, exist_ok=True)
                figure.savefig(png / f"growth-{plot.name}.png", dpi=110)


def draw_one(plot: Plot, curves: dict[str, Any], result: dict[str, Any]) -> Figure:
    """Return the figure of one plot."""
    figure = Figure(figsize=(9.2, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, panel in ((left, plot.left), (right, plot.right)):
        draw_panel(axes, panel, plot, curves)
    if len(curves) > 1:
        left.legend(frameon=False, labelcolor=GREY, fontsize=10)
    note = f"{result['date']}, Python {result['python']}, {result['cores']} cores"
    if result["others"] > OTHERS_LIMIT:
        note += f", of which others used {result['others']:.0%}"
    figure.supxlabel(note, x=0.995, ha="right", fontsize=7.5, color=GREY)
    return figure


def draw_panel(axes: Axes, panel: Panel, plot: Plot, curves: dict[str, Any]) -> None:
    """Draw one panel: every curve, log x with a tick at each measured value."""
    every_x: set[int] = set()
    for (name, points), colour, mark in zip(curves.items(), COLOURS, MARKS, strict=False):
        xs = [point["x"] for point in points]
        every_x |= set(xs)
        ys = [panel.value(point) for point in points]
        axes.plot(xs, ys, color=colour, marker=mark, markersize=5, linewidth=1.8, label=name)
    axes.set_xscale("log", base=2)
    ticks = sorted(every_x)
    axes.set_xticks(ticks, [in_bytes(x) if plot.x_bytes else str(x) for x in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.tick_params(axis="x", labelsize=8.5 if len(ticks) > 9 else 10)
    if panel.log:
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: compact(y)))
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_title(panel.title, loc="left", fontsize=12, color=INK)
    axes.set_xlabel(plot.x_label)


def compact(value: float) -> str:
    """Return a number as short as it gets: 0.5, 16, 4k, 1M."""
    for unit in ("", "k", "M"):
        if abs(value) < 1000:
            return f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g}G"


def in_bytes(value: int) -> str:
    """Return a number of bytes in powers of 1024: 16, 64k, 1M."""
    power = max(0, (value.bit_length() - 1) // 10)
    return f"{value >> 10 * power}{'BkMG'[power] if power else ''}"
