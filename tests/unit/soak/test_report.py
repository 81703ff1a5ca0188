"""The report: one page that needs nothing else, with the verdict on top, and the same as JSON."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from soak.charts import charts
from soak.history import history
from soak.judging import judge
from soak.page import as_html, write_report
from soak.picture import Chart, Curve, Shade, draw
from tests.unit.soak.parts import part


def look(number: int, t: float, **more: object) -> dict[str, object]:
    """Return a line as `Conduct` writes it."""
    row = [100, 30e6, 12e6, 11e6, 0, 20, 4, 0, 4, t * 0.1]
    return {
        "k": "look",
        "part": number,
        "t": t,
        "at": 1.8e9 + t,
        "p": {"soak": row, "work[0]": [101, *row[1:]], "other:python": row, "short:x[0]": row},
        "all": {"processes": 3, "shm": 0, "busy_s": t, "memfds": 0, "zombies": 0, "temp": 1},
        "phase": "running",
        "e": {"a.out->b.in": [5, 0, 5, 100 * t, 100 * t, 0]},
        "n": {},
        "l": {"s": [100, 2e6, 9e6, 3e7]},
    } | more


def lines(*parts: int) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for number in parts:
        found.append({"k": "part", "part": number, "t": 0.0, "profile": "mixed", "cores": 2})
        found += [look(number, float(t)) for t in range(1, 300)]
    return found


def test_lines_become_series_by_process_without_strangers() -> None:
    (found,) = history(lines(1), warm_up_s=10)
    assert set(found.processes) == {"soak", "work[0]", "short:x[0]"}
    assert found.whole["anon"].values[0] == 22e6  # of the soak and the long run
    assert found.whole["rate"].values[0] == 100
    assert found.whole["cost_us"].values[5] == pytest.approx(1000)  # 0.1 s for 100 messages
    assert len(found.steady(found.whole["rate"])) == 290


def test_worker_that_was_replaced_has_a_series_of_its_own() -> None:
    other = [[999, *[0] * 9] if n > 150 else [101, *[0] * 9] for n in range(300)]
    told = lines(1)[:1] + [look(1, float(t), p={"work[0]": other[t]}) for t in range(300)]
    (found,) = history(told)
    assert set(found.processes) == {"work[0]", "work[0] (999)"}


def test_what_was_seen_while_draining_is_not_judged() -> None:
    unknown = look(1, 301.0, unheard=True)
    (found,) = history([*lines(1), look(1, 300.0, phase="draining"), unknown])
    assert found.looks == 299


def test_line_before_any_part_is_an_error() -> None:
    with pytest.raises(ValueError, match="a part that has begun"):
        history([look(3, 1.0)])


def test_restart_is_marked_and_no_line_leads_across_it() -> None:
    parts = history(lines(1, 2))
    drawn = charts(parts)
    assert all(svg.count(">restart<") == 1 for svg in drawn)
    memory = next(svg for svg in drawn if "Memory of all" in svg)
    assert memory.count("<polyline") == 2


def test_page_has_the_verdict_on_top_and_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    parts = [part(600), part(600, number=2)]
    findings = judge(parts)
    write_report(tmp_path, parts, findings)
    page = (tmp_path / "report.html").read_text()
    assert page.index("verdict") < page.index("Over time")
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    report = json.loads((tmp_path / "report.json").read_text())
    assert [f["name"] for f in report["findings"]] == [f.name for f in findings]


def test_page_of_nothing_is_a_page() -> None:
    assert "there are no samples" in as_html([], judge([]))


def test_every_chart_is_well_formed_and_says_title_unit_legend_and_warm_up() -> None:
    parts = history(lines(1), warm_up_s=100)
    for svg in charts(parts):
        root = ET.fromstring(svg)
        text = " ".join(root.itertext())
        assert "time since the soak began" in text
        assert "warm-up: not judged" in text
        assert " in " in text


def test_names_are_escaped_and_infinite_ranges_avoided() -> None:
    chart = Chart("<a> & b", "MB", [Curve("x<y", [[(0.0, 0.0), (1.0, 0.0)]])], 1.0)
    root = ET.fromstring(draw(chart))
    assert "x<y" in " ".join(root.itertext())


@pytest.mark.parametrize("logarithmic", [False, True])
def test_day_of_samples_becomes_a_small_picture_with_its_peaks(logarithmic: bool) -> None:
    points = [(float(t), 1.0 + (t == 40_000) * 99) for t in range(86_400)]
    shade = Shade(0.0, 600.0, "warm-up")
    svg = draw(Chart("t", "u", [Curve("", [points])], 86_400.0, [shade], logarithmic=logarithmic))
    assert len(svg) < 60_000
    assert svg.count("<polygon") == 1  # the range, in which the peak is
