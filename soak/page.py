"""The report of a soak: one HTML file with everything in it, and the same as JSON.

The verdict stands at the top, then every finding with its interval against the limit, then the
charts. Both files are replaced as a whole.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from soak.charts import charts, gallery
from soak.history import Part
from soak.judging import (
    CONFIDENCE,
    FAILED,
    PASSED,
    UNDECIDED,
    Finding,
    as_dict,
    duration,
    overall,
)

__all__ = ["as_html", "as_json", "write_report"]

HTML, JSON = "report.html", "report.json"
_GROUPS = {
    "soak": "The soak",
    "exact": "Exact",
    "leaks": "Leaks",
    "memory": "Memory, growth in % an hour",
    "rate": "Throughput",
}
_CLASS = {PASSED: "passed", FAILED: "failed", UNDECIDED: "open"}
_WORD = {PASSED: "passed", FAILED: "failed", UNDECIDED: "open"}
_STYLE = """
body { font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; color: #22282e; background: #f6f7f9;
  margin: 0 auto; max-width: 960px; padding: 24px 16px 60px; }
h1 { font-size: 22px; margin: 0; } h2 { font-size: 16px; margin: 32px 0 8px; }
.verdict { border-radius: 8px; padding: 16px 20px; color: #fff; }
.verdict p { margin: 4px 0 0; } .verdict ul { margin: 8px 0 0; padding-left: 20px; }
.verdict.passed { background: #1b7f4b; } .verdict.failed { background: #b3261e; }
.verdict.open { background: #8a6100; }
table { border-collapse: collapse; width: 100%; background: #fff; border-radius: 8px; }
td, th { text-align: left; vertical-align: top; padding: 6px 10px;
  border-bottom: 1px solid #eceff2; font-size: 13px; }
td:first-child { font-weight: 600; }
table.findings { table-layout: fixed; } table.findings td:nth-child(1) { width: 150px; }
table.findings td:nth-child(2) { width: 60px; } table.findings td:nth-child(3) { width: 124px; }
table.findings svg { max-width: none; }
.chip { display: inline-block; min-width: 52px; text-align: center; border-radius: 10px;
  padding: 0 8px; color: #fff; font-size: 12px; font-weight: 600; }
.chip.passed { background: #1b7f4b; } .chip.failed { background: #b3261e; }
.chip.open { background: #8a6100; }
svg { max-width: 100%; height: auto; } figure { margin: 12px 0; background: #fff;
  border-radius: 8px; padding: 8px; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(215px, 1fr)); gap: 8px; }
.grid figure { margin: 0; padding: 6px 8px; } .grid figcaption { font-size: 12px; }
.note { color: #5a6670; font-size: 13px; }
"""


def write_report(folder: Path, parts: Sequence[Part], findings: Sequence[Finding]) -> list[Path]:
    """Write both files into ``folder`` and return where they are."""
    written = []
    for name, text in (
        (HTML, as_html(parts, findings)),
        (JSON, json.dumps(as_json(parts, findings), indent=1)),
    ):
        fresh = folder / f"{name}.new"
        fresh.write_text(text, encoding="utf-8")
        os.replace(fresh, folder / name)
        written.append(folder / name)
    return written


def as_json(parts: Sequence[Part], findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the verdict, its findings and the parts as plain data."""
    return {
        "verdict": overall(findings),
        "confidence": CONFIDENCE,
        "findings": [as_dict(finding) for finding in findings],
        "parts": [
            {
                "number": part.number,
                "about": dict(part.about),
                "length_s": part.length_s,
                "warm_up_s": part.warm_up_s,
                "looks": part.looks,
                "lost": part.lost,
                "end": dict(part.end) if part.end is not None else None,
                "books": [dict(line) for line in part.books],
                "events": [dict(line) for line in part.events],
            }
            for part in parts
        ],
    }


def as_html(parts: Sequence[Part], findings: Sequence[Finding]) -> str:
    """Return the page."""
    about = parts[0].about if parts else {}
    title = f"Soak: {about.get('profile', '?')}, {duration(sum(p.length_s for p in parts))}"
    drawn = "\n".join(f"<figure>{svg}</figure>" for svg in charts(parts)) if parts else ""
    small = "\n".join(
        f"<figure><figcaption>{escape(role)}</figcaption>{svg}</figure>"
        for role, svg in (gallery(parts) if parts else [])
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>
<meta name="viewport" content="width=device-width">
<style>{_STYLE}</style></head><body>
{_banner(title, about, parts, findings)}
{_tables(findings)}
<h2>Over time</h2>
<p class="note">Medians of equal times, with the range from the least to the most behind them.
Dashed: the line that is judged.</p>
{drawn}
<h2>Memory by process, MB of heap and stack</h2>
<p class="note">Each with a scale of its own, of at least 5 % of its level.</p>
<div class="grid">{small}</div>
{_part_table(parts)}
{_event_table(parts)}
</body></html>
"""


def _banner(
    title: str, about: Mapping[str, Any], parts: Sequence[Part], findings: Sequence[Finding]
) -> str:
    verdict = overall(findings)
    reasons = [f for f in findings if f.verdict == verdict and verdict != PASSED]
    listed = "".join(f"<li>{escape(f.name)}: {escape(f.text)}</li>" for f in reasons[:6]) + (
        f"<li>and {len(reasons) - 6} more, below</li>" if len(reasons) > 6 else ""
    )
    began = time.strftime("%Y-%m-%d %H:%M", time.localtime(about.get("at", 0)))
    words = [
        f"began {began}", f"{about.get('cores', '?')} cores",
        f"{about.get('memory', 0) / 1e9:.0f} GB", str(about.get("system", "")),
        f"Python {about.get('python', '?')}", f"load {about.get('load', 1):g}",
        f"seed {about.get('seed', '?')}", f"intervals of {CONFIDENCE:.0%}",
    ]  # fmt: skip
    return (
        f'<div class="verdict {_CLASS[verdict]}"><h1>{escape(title)}: {escape(verdict)}</h1>'
        f"<p>{escape(', '.join(words))}</p>{f'<ul>{listed}</ul>' if listed else ''}</div>"
    )


def _tables(findings: Sequence[Finding]) -> str:
    found = []
    for group, title in _GROUPS.items():
        rows = "".join(
            f'<tr><td>{escape(f.name)}</td><td><span class="chip {_CLASS[f.verdict]}">'
            f"{_WORD[f.verdict]}</span></td><td>{_interval(f)}</td><td>{escape(f.text)}</td></tr>"
            for f in findings
            if f.group == group
        )
        if rows:
            found.append(f'<h2>{title}</h2><table class="findings">{rows}</table>')
    return "\n".join(found)


def _interval(finding: Finding) -> str:
    """Draw the interval of a finding against its limit, a hand wide."""
    value, low, high, limit = finding.value, finding.low, finding.high, finding.limit
    if value is None or low is None or high is None or not limit:
        return ""
    width, height, reach = 120, 18, 2.5 * limit

    def x(at: float) -> float:
        return width / 2 + max(-reach, min(reach, at)) / reach * width / 2

    limits = (limit,) if finding.group != "rate" else (-limit, limit)
    bars = "".join(
        f'<line x1="{x(at):.1f}" y1="1" x2="{x(at):.1f}" y2="17" stroke="#b3261e"/>'
        for at in limits
    )
    return (
        f'<svg width="{width}" height="{height}" role="img"><title>{low:+.2f} to {high:+.2f}'
        f'{escape(finding.unit)}</title><line x1="60" y1="1" x2="60" y2="17" stroke="#c9d0d6"/>'
        f'{bars}<line x1="{x(low):.1f}" y1="9" x2="{x(high):.1f}" y2="9" stroke="#0072B2" '
        f'stroke-width="3"/><circle cx="{x(value):.1f}" cy="9" r="3.5" fill="#0072B2"/></svg>'
    )


def _part_table(parts: Sequence[Part]) -> str:
    rows = "".join(
        f"<tr><td>{part.number}</td><td>{duration(part.length_s)}</td>"
        f"<td>{duration(part.warm_up_s)}</td><td>{part.looks:,}</td><td>{part.lost:,}</td>"
        f"<td>{len(part.books):,}</td>"
        f"<td>{escape(part.end['how'] if part.end else 'killed, or still under way')}</td></tr>"
        for part in parts
    )
    head = "".join(
        f"<th>{name}</th>"
        for name in ("part", "length", "warm-up", "looks", "lost", "runs ended", "how it ended")
    )
    return f"<h2>Parts</h2><table><tr>{head}</tr>{rows}</table>"


def _event_table(parts: Sequence[Part], most: int = 40) -> str:
    events = [(part.number, line) for part in parts for line in part.events]
    rows = "".join(
        f"<tr><td>part {number}, {duration(line['t'])}</td><td>{escape(line['text'])}</td></tr>"
        for number, line in events[:most]
    )
    more = f'<p class="note">and {len(events) - most:,} more</p>' if len(events) > most else ""
    return f"<h2>Events</h2><table>{rows}</table>{more}" if rows else ""
