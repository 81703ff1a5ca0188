"""The tables of the peers say what the JSON says: failures and losses stand where figures would."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.peers import registry, table
from benchmarks.peers.work import WORKS


def works(rate: float, lost: int = 0) -> dict[str, Any]:
    one = {"rate": rate, "p50_us": 81.4, "p99_us": 150.6, "sent": 1000, "lost": lost}
    return {work: {**one, "repeated": 0, "damaged": 0} for work in WORKS}


def peer(title: str, works: dict[str, Any], way: str = "processes") -> dict[str, Any]:
    return {
        "title": title,
        "way": way,
        "works": works,
        "version": "1.2",
        "batches": "nobody",
        "note": "fast",
    }


def document(*peers: dict[str, Any]) -> dict[str, Any]:
    where = {"cpu": "Chip", "cores": 2, "memory_gb": 8, "kernel": "6.1", "system": "Linux"}
    return {
        "when": "2026-11-21T12:00:00+00:00",
        "commit": "abc1234",
        "machine": {**where, "python": "3.11.7"},
        "rounds": 3,
        "quick": False,
        "others": {"median": 0.01, "max": 0.2},
        "peers": list(peers),
    }


def test_a_row_has_rates_latencies_and_gigabytes() -> None:
    assert table.figures(document(peer("a", works(1_234_567)))) == [
        ["a", "1,234,600", "81", "151", "7407", "1,234,600"]
    ]


def test_a_loss_stands_beside_its_figure_and_in_the_list() -> None:
    shown = document(peer("a", works(500, lost=120)))
    assert table.figures(shown)[0][1] == "500 (12 % lost)"
    assert "a, small: 120 lost of 1,000 sent" in table.losses(shown)


def test_a_small_loss_is_not_rounded_away() -> None:
    assert table.figures(document(peer("a", works(500, lost=1))))[0][1] == "500 (0.1 % lost)"


def test_a_failure_is_a_cell_with_its_reason_below() -> None:
    shown = document(peer("a", {**works(500), "frames": {"failed": "took longer than 45 s"}}))
    assert table.figures(shown)[0][4] == "failed"
    assert table.losses(shown) == ["a, frames: took longer than 45 s"]


def test_a_work_that_is_not_done_is_blank() -> None:
    done = works(500)
    del done["frames"]
    assert table.figures(document(peer("a", done)))[0][4] == ""


def test_who_runs_in_one_process_is_named_so() -> None:
    assert table.figures(document(peer("a", works(1), way="one process")))[0][0].endswith(
        "(one process)"
    )


def test_the_source_of_the_figures_is_one_sentence() -> None:
    line = table.source_line(document())
    for part in ("2 cores", "Chip", "Python 3.11.7", "2026-11-21", "abc1234", "median of 3 rounds"):
        assert part in line


def test_a_quick_run_is_marked() -> None:
    assert "not to be quoted" in table.source_line({**document(), "quick": True, "rounds": 1})


def test_only_what_stands_between_the_marks_is_replaced() -> None:
    page = "a\n<!-- peers: figures -->\nold\n<!-- /peers -->\nb <!-- /peers -->\n"
    new = table.replaced(page, "figures", "new")
    assert new == "a\n<!-- peers: figures -->\nnew\n<!-- /peers -->\nb <!-- /peers -->\n"
    assert table.replaced(new, "figures", "new") == new


def test_a_page_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="expected <!-- peers: figures -->"):
        table.replaced("a", "figures", "new")


def test_every_peer_is_listed_once_and_has_something_to_do() -> None:
    names = [one.adapter for one in registry.PEERS]
    assert len(names) == len(set(names))
    assert all(set(one.counts) and set(one.counts) <= set(WORKS) for one in registry.PEERS)


def test_its_help_names_the_file_it_reads(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        table.main(["--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert "python -m benchmarks.peers.table" in shown
    assert "results.json" in shown
    with pytest.raises(SystemExit):
        table.main(["--quick"])
