"""The tables of README.md and docs/peers.md, made from the JSON of `python -m benchmarks.peers`.

    python -m benchmarks.peers.table [FILE]

Rewrites what stands between ``<!-- peers: … -->`` and ``<!-- /peers -->`` in both pages.
"""

from __future__ import annotations

import json
import re
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from benchmarks.peers.environment import ROOT
from benchmarks.peers.work import FRAME_BYTES
from benchmarks.rounds import print_table

__all__ = ["figures", "losses", "print_rows", "replaced", "settings", "source_line"]

Document = dict[str, Any]
HEAD = (
    "",
    "small messages, two hops, msg/s",
    "paced, two hops, p50 µs",
    "p99 µs",
    "6 MB frames, GB/s",
    "one to four, msg/s",
)
COLUMNS = (
    ("small", "rate"),
    ("paced", "p50_us"),
    ("paced", "p99_us"),
    ("frames", "rate"),
    ("fanout", "rate"),
)


def figures(document: Document) -> list[list[str]]:
    """Return a row for each peer: its name and its figures, losses marked."""
    return [
        [_name(peer), *(_cell(peer, work, figure) for work, figure in COLUMNS)]
        for peer in document["peers"]
    ]


def _name(peer: dict[str, Any]) -> str:
    return f"{peer['title']} (one process)" if peer["way"] == "one process" else str(peer["title"])


def _cell(peer: dict[str, Any], work: str, figure: str) -> str:
    measured = peer["works"].get(work)
    if measured is None:
        return ""
    if "failed" in measured:
        return "failed"
    value = measured[figure]
    if figure != "rate":
        text = f"{value:,.0f}"
    elif work == "frames":
        text = _three(value * FRAME_BYTES / 1e9)
    else:
        text = f"{round(value, -2):,.0f}" if value >= 1000 else f"{value:,.0f}"
    return f"{text} ({_share(measured)} lost)" if measured["lost"] else text


def _three(value: float) -> str:
    """Return a number with about three digits."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _share(measured: dict[str, Any]) -> str:
    share = 100 * measured["lost"] / measured["sent"]
    return f"{share:.0f} %" if share >= 1 else f"{share:.1g} %"


def losses(document: Document) -> list[str]:
    """Return a sentence for whatever did not go as it should."""
    found = []
    for peer in document["peers"]:
        for work, measured in peer["works"].items():
            if "failed" in measured:
                found.append(f"{peer['title']}, {work}: {measured['failed']}")
                continue
            wrong = {name: measured[name] for name in ("lost", "repeated", "damaged")}
            if any(wrong.values()):
                counts = ", ".join(f"{count:,} {name}" for name, count in wrong.items() if count)
                found.append(f"{peer['title']}, {work}: {counts} of {measured['sent']:,} sent")
    return found


def settings(document: Document) -> list[list[str]]:
    """Return a row for each peer: version, who makes batches, what to know."""
    return [
        [peer["title"], peer["version"], peer["batches"], peer["note"]]
        for peer in document["peers"]
    ]


def source_line(document: Document) -> str:
    """Return one sentence that says where the figures are from."""
    where = document["machine"]
    rounds = document["rounds"]
    each = f"median of {rounds} rounds" if rounds > 1 else "one round"
    quick = ", a quick run: not to be quoted" if document["quick"] else ""
    return (
        f"Measured on {where['cores']} cores ({where['cpu']}, {where['memory_gb']} GB,"
        f" {where['system']} {where['kernel']}), Python {where['python']},"
        f" {document['when'][:10]}, commit {document['commit']}, {each}{quick},"
        " by `python -m benchmarks.peers`."
        f" Before a measurement other programs used {document['others']['median']:.0%} of the"
        f" machine (median; {document['others']['max']:.0%} at most)."
    )


def markdown(head: tuple[str, ...], rows: list[list[str]]) -> str:
    """Return a table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def replaced(text: str, name: str, content: str) -> str:
    """Return a page with what stands between the marks of ``name`` replaced."""
    begin, end = f"<!-- peers: {name} -->", "<!-- /peers -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"expected {begin} … {end}, found none")
    return pattern.sub(lambda _: f"{begin}\n{content}\n{end}", text, count=1)


def print_rows(document: Document) -> None:
    """Print the figures for people."""
    print_table(figures(document), HEAD)
    for sentence in losses(document):
        print(sentence)
    print(source_line(document))


def main(arguments: list[str] | None = None) -> None:
    """Rewrite both pages."""
    parser = ArgumentParser(
        prog="python -m benchmarks.peers.table", description=(__doc__ or "").partition("\n")[0]
    )
    results = Path(__file__).with_name("results.json")
    parser.add_argument(
        "file", nargs="?", type=Path, default=results, help="the JSON to read (results.json)"
    )
    document = json.loads(parser.parse_args(arguments).file.read_text(encoding="utf-8"))
    short = f"{markdown(HEAD, figures(document))}\n\n{source_line(document)}"
    wrong = "\n".join(f"* {sentence}" for sentence in losses(document)) or "Nothing went wrong."
    head = ("", "version", "who makes batches", "settings and what to know")
    pages = {
        "README.md": {"figures": short},
        "docs/peers.md": {
            "figures": short,
            "losses": wrong,
            "settings": markdown(head, settings(document)),
        },
    }
    for name, parts in pages.items():
        page = ROOT / name
        text = page.read_text(encoding="utf-8")
        for part, content in parts.items():
            text = replaced(text, part, content)
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
