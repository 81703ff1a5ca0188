"""What the samples of a soak say, as series: by part, by process, by quantity.

A part is what one process of the soak has seen, from its start to its end or death. Series never
cross a restart: the processes after it are others. Numbers are kept as arrays, so a day of samples
takes some ten megabytes.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from soak.looking import COLUMNS

__all__ = ["LAUNCHER", "Part", "Series", "history"]

LAUNCHER = "soak"
_WARM_UP_SHARE = 0.2
_WARM_UP_MOST_S = 600.0
_FIELDS = [name for name in COLUMNS if name not in ("pid", "rss")]


@dataclass(slots=True)
class Series:
    """Values over time; ``times`` in seconds since the part began."""

    times: array[float] = field(default_factory=lambda: array("d"))
    values: array[float] = field(default_factory=lambda: array("d"))

    def add(self, at_s: float, value: float) -> None:
        """Append one value."""
        self.times.append(at_s)
        self.values.append(value)

    def after(self, begin_s: float) -> Series:
        """Return what came at ``begin_s`` or later."""
        first = next((i for i, at_s in enumerate(self.times) if at_s >= begin_s), len(self.times))
        return Series(self.times[first:], self.values[first:])

    def columns(self) -> tuple[Sequence[float], Sequence[float]]:
        """Return times and values."""
        return self.times, self.values

    def __len__(self) -> int:
        return len(self.times)


@dataclass(slots=True)
class Part:
    """One part: ``processes[role][quantity]``, and what belongs to nobody alone in ``whole``.

    ``edges`` and ``latency`` are those of the main run. ``books`` and ``events`` are lines as they
    were written, ``end`` the last one, None if the soak was killed. ``warm_up_s`` is not judged.
    """

    number: int
    about: Mapping[str, Any]
    processes: dict[str, dict[str, Series]] = field(default_factory=dict)
    whole: dict[str, Series] = field(default_factory=dict)
    depth: dict[str, Series] = field(default_factory=dict)
    latency: dict[str, dict[str, Series]] = field(default_factory=dict)
    books: list[Mapping[str, Any]] = field(default_factory=list)
    events: list[Mapping[str, Any]] = field(default_factory=list)
    end: Mapping[str, Any] | None = None
    length_s: float = 0.0
    warm_up_s: float = 0.0
    looks: int = 0
    lost: int = 0
    _before: tuple[float, float, float] | None = None
    _pids: dict[str, int] = field(default_factory=dict)

    def take(self, line: Mapping[str, Any]) -> None:
        """Take in one line of this part."""
        self.length_s = max(self.length_s, float(line["t"]))
        self.lost += line.get("lost", 0)
        match line["k"]:
            case "look":
                self._look(line)
            case "books":
                self.books.append(line)
            case "event":
                self.events.append(line)
            case "end":
                self.end = line

    def steady(self, series: Series) -> Series:
        """Return what is judged of a series: what comes after the warm-up."""
        return series.after(self.warm_up_s)

    def _look(self, line: Mapping[str, Any]) -> None:
        at_s = float(line["t"])
        if line.get("unheard") or line.get("phase", "running") != "running":
            return  # who drains, or may do so, does other work than before
        self.looks += 1
        cpu_s = 0.0
        anon = 0.0
        for name, row in line["p"].items():
            if name.startswith("other:"):
                continue
            reading = dict(zip(COLUMNS, row, strict=True))
            if ":" not in name:
                anon += reading["anon"]
            role = self._role(name, int(reading["pid"]))
            series = self.processes.setdefault(role, {})
            for quantity in (*_FIELDS, "rss"):
                series.setdefault(quantity, Series()).add(at_s, reading[quantity])
            cpu_s += reading["cpu_s"] if ":" not in name and name != LAUNCHER else 0.0
        self._whole("anon", at_s, anon)
        for name, value in line["all"].items():
            self._whole(name, at_s, value)
        for edge, row in line.get("e", {}).items():
            self.depth.setdefault(edge, Series()).add(at_s, row[0])
        if "e" in line:
            self._rates(at_s, line, cpu_s)
        for stream, (count, p50_ns, p99_ns, most_ns) in line.get("l", {}).items():
            if count:
                found = self.latency.setdefault(stream, {})
                for name, value in (("p50", p50_ns), ("p99", p99_ns), ("most", most_ns)):
                    found.setdefault(name, Series()).add(at_s, value)

    def _role(self, name: str, pid: int) -> str:
        """Return the name of the series: another process of the same role has one of its own."""
        if ":" in name:  # a short run: one series for all processes of the role
            return name
        if self._pids.setdefault(name, pid) != pid:
            return f"{name} ({pid})"
        return name

    def _rates(self, at_s: float, line: Mapping[str, Any], cpu_s: float) -> None:
        """Add what was delivered a second and what it cost since the look before."""
        delivered = float(sum(row[4] for row in line["e"].values()))
        if self._before is not None:
            last_s, last, last_cpu_s = self._before
            count, passed_s = delivered - last, at_s - last_s
            if passed_s > 0 and count >= 0:
                self._whole("rate", at_s, count / passed_s)
            if count > 0 and cpu_s >= last_cpu_s:
                self._whole("cost_us", at_s, (cpu_s - last_cpu_s) / count * 1e6)
                self._whole("cores", at_s, (cpu_s - last_cpu_s) / passed_s)
        self._before = at_s, delivered, cpu_s

    def _whole(self, name: str, at_s: float, value: float) -> None:
        self.whole.setdefault(name, Series()).add(at_s, value)


def history(lines: Iterable[Mapping[str, Any]], warm_up_s: float | None = None) -> list[Part]:
    """Return the parts in ``lines``; raises ValueError if a line is of no part.

    The warm-up of a part is ``warm_up_s``, or what was asked for when it ran, or else a fifth of
    it, ten minutes at the most.
    """
    parts: dict[int, Part] = {}
    for line in lines:
        number = line.get("part")
        if line.get("k") == "part":
            parts[int(line["part"])] = Part(int(line["part"]), line)
        elif number not in parts:
            raise ValueError(f"samples: expected a line of a part that has begun, got {number!r}")
        else:
            parts[number].take(line)
    for part in parts.values():
        asked = part.about.get("warm_up_s") if warm_up_s is None else warm_up_s
        share_s = min(_WARM_UP_MOST_S, part.length_s * _WARM_UP_SHARE)
        part.warm_up_s = share_s if asked is None else float(asked)
    return list(parts.values())
